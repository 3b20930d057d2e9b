"""Real tokens per second to the run's site, in both number formats, on its own prompts."""

from benchmarks.timing import timed
from jaxprobe import base, datasets, models, tokens
from jaxprobe.stages import run

NUM_PROMPTS = 2000


def suite(config: run.RunConfig, workdir) -> None:
    """Padding is not counted as tokens."""
    del workdir
    site = base.Site.parse(config.site)
    texts = sorted({t for name in config.encode.datasets[:4] for t in datasets.load(name).texts})
    for dtype in ("bfloat16", "float32"):
        model = models.load_model(config.extract.model, dtype)
        ids = tokens.token_ids(model.tokenizer, texts[:NUM_PROMPTS], config.extract.max_length)
        plan = list(tokens.batches(ids, pad_id=model.tokenizer.pad_id))
        forward = models.make_forward(model, [site])
        _, seconds = timed(
            lambda forward=forward, plan=plan: [
                forward(batch.tokens_BT, batch.length_B) for batch in plan
            ],
            repeats=1,
        )
        real = sum(int(batch.length_B.sum()) for batch in plan)
        padded = sum(batch.tokens_BT.size for batch in plan)
        print(
            f"  {dtype}: {real / seconds.wall:,.0f} tokens/s, {2 * real / seconds.cpu:,.0f} by CPU time"
            f" of two cores ({real:,} tokens, {padded / real - 1:.0%} padding,"
            f" {forward.num_compiled()} programs)"
        )

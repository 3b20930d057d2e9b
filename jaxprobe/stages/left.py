"""What a start of a job has left to do, in every stage."""

from jaxprobe.experiments.config import saes_to_train, sites_of
from jaxprobe.runs import estimate, shards
from jaxprobe.stages import encode, fit, train_sae
from jaxprobe.stages.start import Start
from jaxprobe.store import is_store


def left(start: Start) -> estimate.Estimate:
    """What is left to do, and about how long it takes.

    Args:
        start: Prepared.
    """
    config, own = start.config, shards.activations(start.shard, start.work)
    width = start.identify(config.model, config.dtype).d_model
    texts = start.request.outstanding(own, start.work.activations)
    have = is_store(own) and not texts
    waiting = saes_to_train(config)
    if have and waiting:
        waiting = train_sae.missing(config, start.work, start.token_store())
    settled = have and not waiting
    probes = fit.left(start.workspace, start.outline) if settled else _probes(start)
    return estimate.estimate(
        {
            "extract": estimate.extracting(
                width,
                _num_blocks(start),
                config.extract.max_length,
                texts,
                num_prompts=len(start.request.texts),
            ),
            "train_sae": estimate.training(
                config.train_sae.num_tokens, width, [one.d_sae for one in waiting]
            ),
            "encode": estimate.encoding(width, _files(start, settled)),
            "fit": estimate.fitting(sum(probes.values()), len(probes)),
        }
    )


def _num_blocks(start: Start) -> int:
    """Blocks of the model up to the last site."""
    trained = (one.site for one in saes_to_train(start.config))
    return max(1, *(site.block + 1 for site in (*sites_of(start.config), *trained)))


def _files(start: Start, settled: bool) -> list[tuple[int, int]]:
    """Rows and d_sae of each file of latents that is still to be made."""
    trained = saes_to_train(start.config)
    d_sae = {one.id: one.d_sae for one in trained}
    if settled or not trained:
        d_sae |= {name: sae.d_sae for name, sae in start.workspace.saes.items()}
    widest = max(d_sae.values(), default=0)  # of random SAEs, which are as wide as another
    found = []
    for name in start.names:
        files = encode.left(start.experiment, start.config, start.workspace, name, settled)
        found += [(rows, d_sae.get(sae, widest)) for rows, sae in files]
    return found


def _probes(start: Start) -> dict[str, int]:
    """Probes per dataset, where it is not yet known which results are there."""
    return {
        name: sum(
            len(job.splits) * len(job.arrows)
            for job in start.experiment.jobs(start.config, start.workspace, name)
        )
        for name in start.names
    }

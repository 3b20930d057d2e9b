"""The two programs that extraction is compared with: TransformerLens and transformers, on the same file.

Both get the weights as transformers reads and dequantises them, and ids instead of texts.
"""

import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxprobe import assets

BATCH = 32  # prompts, the published package's default


class Peer(NamedTuple):
    """One program in one number format.

    Attributes:
        name: Name in the table.
        run: Maps ids of N prompts to [N, D], the activations at each prompt's last token.
    """

    name: str
    run: Callable[[Sequence[np.ndarray]], np.ndarray]


def load(source: str, block: int) -> tuple[list[Peer], list[str]]:
    """The peers, set up to read the residual stream after a block.

    Args:
        source: A GGUF asset.
        block: The block; later ones are not run.

    Returns:
        The peers, transformers in float32 first, and a line for each missing one.
    """
    try:
        torch, transformers = map(importlib.import_module, ("torch", "transformers"))
        importlib.import_module("accelerate")  # transformers needs it to read GGUF files
    except ImportError as error:
        return [], [f"not installed: {error.name}, for transformers and TransformerLens"]
    path = _gguf(source)
    if path is None:
        return [], [f"not compared: the peers read GGUF files, and {source} is not one"]
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    ).eval()
    missing, lens = [], None
    try:
        lens = _transformer_lens(model, block)
    except ImportError as error:
        missing = [f"not installed: {error.name}, for TransformerLens"]
    except ValueError as error:
        missing = [f"not compared: {error}"]
    stack = model.model  # without the unembedding and later blocks
    stack.layers = stack.layers[: block + 1]
    stack.norm = torch.nn.Identity()
    stack.config.num_hidden_layers = block + 1
    peers = [Peer("transformers float32", _transformers(stack))]
    peers += [Peer("TransformerLens float32", lens)] if lens else []
    half = importlib.import_module("copy").deepcopy(stack).to(torch.bfloat16)
    return [*peers, Peer("transformers bfloat16", _transformers(half))], missing


def threads() -> int:
    """Threads of torch's products."""
    return importlib.import_module("torch").get_num_threads()


def _gguf(source: str) -> Path | None:
    path = Path(assets.fetch(source))
    found = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    return found[0] if len(found) == 1 and found[0].suffix == ".gguf" else None


def _transformers(stack) -> Callable:
    """Prompts sorted by length, so that little is padded; the mask hides the rest."""
    torch = importlib.import_module("torch")

    def run(ids: Sequence[np.ndarray]) -> np.ndarray:
        order = np.argsort([len(row) for row in ids], kind="stable")
        rows: list[Any] = [None] * len(ids)
        with torch.inference_mode():
            for start in range(0, len(ids), BATCH):
                chosen = order[start : start + BATCH]
                tokens_BT, length_B = _padded(torch, [ids[index] for index in chosen])
                mask_BT = torch.arange(tokens_BT.shape[1])[None] < length_B[:, None]
                x_BTD = stack(
                    input_ids=tokens_BT, attention_mask=mask_BT.long(), use_cache=False
                ).last_hidden_state
                for row, index in enumerate(chosen):
                    rows[index] = x_BTD[row, length_B[row] - 1].float()
        return torch.stack(rows).numpy()

    return run


def _transformer_lens(model, block: int) -> Callable:
    """As `sae_probes.generate_model_activations` calls it: 32 prompts in their order, no mask."""
    loading = importlib.import_module("transformer_lens.loading_from_pretrained")
    torch = importlib.import_module("torch")
    hooked = importlib.import_module("transformer_lens").HookedTransformer
    official = "google/gemma-3-270m"
    size = (type(model).__name__, model.config.num_hidden_layers, model.config.hidden_size)
    if size != ("Gemma3ForCausalLM", 18, 640):
        raise ValueError(f"TransformerLens is set up for {official} here, and this is {size}")
    config = loading.get_pretrained_model_config(official, device="cpu", dtype=torch.float32)
    config.tokenizer_name = None  # ids are given
    lens = hooked(config, move_to_device=False)
    state = loading.get_pretrained_state_dict(official, config, model, dtype=torch.float32)
    lens.load_and_process_state_dict(
        state,
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    hook = f"blocks.{block}.hook_resid_post"

    def run(ids: Sequence[np.ndarray]) -> np.ndarray:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(ids), BATCH):
                tokens_BT, length_B = _padded(torch, ids[start : start + BATCH])
                _, cache = lens.run_with_cache(
                    tokens_BT, names_filter=[hook], stop_at_layer=block + 1
                )
                rows += [cache[hook][row, last - 1] for row, last in enumerate(length_B)]
        return torch.stack(rows).numpy()

    return run


def _padded(torch, ids: Sequence[np.ndarray]):
    """Rows as long as the longest, padded on the right with 0, and their lengths."""
    rows = [torch.from_numpy(np.asarray(row, np.int64)) for row in ids]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return padded, torch.tensor([len(row) for row in rows])

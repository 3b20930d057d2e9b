"""SAE encoding of 5,000 activations of width 640 into 16,384 latents, against SAELens if installed."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import timed
from jaxprobe import saes

NUM_ROWS, D_MODEL, D_SAE, K = 5000, 640, 16384, 64
BLOCK = 4096


def suite(config, workdir) -> None:
    """Whole, by blocks (as in a job), the matrix product alone, and SAELens with the same weights."""
    del config, workdir
    rng = np.random.default_rng(0)
    x_ND = jax.device_put(rng.normal(size=(NUM_ROWS, D_MODEL)).astype(np.float32))
    W_enc_DS = rng.normal(size=(D_MODEL, D_SAE)).astype(np.float32) / np.sqrt(D_MODEL)
    weights: dict[str, Any] = {
        "W_enc_DS": jnp.asarray(W_enc_DS),
        "W_dec_SD": jnp.asarray(W_enc_DS.T),
    }
    weights |= {"b_enc_S": jnp.zeros(D_SAE), "b_dec_D": jnp.zeros(D_MODEL)}
    kinds = {
        "jumprelu": saes.JumpReluSae(**weights, threshold_S=jnp.full(D_SAE, 2.0)),
        "topk": saes.TopKSae(**weights, k=K),
    }
    encode, product = jax.jit(saes.encode), jax.jit(jnp.matmul)
    _, floor = timed(lambda: product(x_ND, weights["W_enc_DS"]))
    print(f"  product alone          {floor}")
    for name, sae in kinds.items():
        z_NS, whole = timed(lambda sae=sae: encode(sae, x_ND))
        _, blocks = timed(lambda sae=sae: _by_blocks(sae, x_ND))
        print(f"  {name:8} ours          {whole}")
        print(f"  {name:8} ours, blocks  {blocks}")
        theirs = _sae_lens(name, sae, np.asarray(x_ND))
        if theirs is None:
            print(f"  {name:8} SAELens       not installed (pip install 'jaxprobe[parity]')")
            continue
        other_NS, seconds = timed(theirs)
        ours_NS, other_NS = np.asarray(z_NS), other_NS.numpy()
        differ = (ours_NS > 0) != (other_NS > 0)  # within rounding of a threshold
        error = float(np.abs(np.where(differ, 0, ours_NS - other_NS)).max())
        print(f"  {name:8} SAELens       {seconds}")
        print(
            f"  {name:8} SAELens / ours {seconds.wall / whole.wall:.1f} wall,"
            f" {seconds.cpu / whole.cpu:.1f} CPU; blocks {seconds.cpu / blocks.cpu:.1f} CPU;"
            f" largest difference {error:.1e}, {differ.sum()} of {differ.size} latents flip"
        )


def _by_blocks(sae, x_ND):
    """Every latent once, a block at a time, as the encode stage reads them."""
    encoder = saes.prepare(sae, x_ND)
    return [(encoder(start, start + BLOCK) > 0).sum() for start in range(0, D_SAE, BLOCK)]


def _sae_lens(architecture: str, sae, x_ND: np.ndarray):
    """A call that encodes the rows with SAELens and the same weights; None where it is missing."""
    try:
        registry = importlib.import_module("sae_lens.registry")
    except ImportError:
        return None
    torch = importlib.import_module("torch")
    sae_class, config_class = registry.get_sae_class(architecture)
    extra = {"k": K} if architecture == "topk" else {}
    other = sae_class(config_class(d_in=D_MODEL, d_sae=D_SAE, apply_b_dec_to_input=False, **extra))
    fields = {"W_enc": "W_enc_DS", "W_dec": "W_dec_SD", "b_enc": "b_enc_S", "b_dec": "b_dec_D"}
    if architecture == "jumprelu":
        fields["threshold"] = "threshold_S"
    state = {name: torch.tensor(np.asarray(getattr(sae, field))) for name, field in fields.items()}
    other.load_state_dict(state)
    rows = torch.tensor(x_ND)

    def encode():
        with torch.no_grad():
            return other.encode(rows)

    return encode

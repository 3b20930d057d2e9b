"""A tiny deterministic model, tokenizer and datasets that need no network and no weights.

`FakeModel` has what `stages.extract` asks of a model; `make_forward` has the signature of the real one. A
prompt's activations depend on its own tokens and their order only, so they can be recomputed by hand:
`activations(ids, site)`.
"""

import dataclasses
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxprobe import models
from jaxprobe.base import Site, TextDataset
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.probes import Scores
from jaxprobe.saes.jump_relu import JumpReluSae


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeTokenizer:
    """Words to ids by their CRC."""

    bos_id: int | None = 1
    pad_id: int = 0
    fingerprint: str = "fake tokenizer"

    def encode(self, text: str) -> list[int]:
        return [2 + zlib.crc32(word.encode()) % 5000 for word in text.split()]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeModel:
    """Names and sizes of a model; `make_forward` below computes for it."""

    name: str = "fake"
    dtype: str = "float32"
    d_model: int = 32
    num_blocks: int = 4
    widths: dict[str, int] = dataclasses.field(default_factory=lambda: {"attn_z": 48})
    fingerprint: str = "fake weights"
    tokenizer: FakeTokenizer = dataclasses.field(default_factory=FakeTokenizer)
    post_norms: bool = False
    norm: str = "layer"

    def stored(self, site: Site) -> Site:
        """The site under whose name activations are kept."""
        return site.stored(self.post_norms)


def activations(ids: np.ndarray, site: Site, d_model: int = 32) -> np.ndarray:
    """float32 [T, d_model] of one prompt: the running sum of its tokens' vectors, turned by the site."""
    column_D = np.arange(1, d_model + 1, dtype=np.float64)
    x_TD = np.sin(np.asarray(ids, np.float64)[:, None] * column_D / 7.0 + site.block)
    return np.cumsum(x_TD, axis=0).astype(np.float32)


def make_forward(model: FakeModel, sites: Sequence[Site], pooling: str | Sequence[str] = "last"):
    """The fake's pass: the same contract as `models.make_forward`."""
    poolings = (pooling,) if isinstance(pooling, str) else tuple(pooling)

    def forward(tokens_BT, length_B) -> dict:
        row_B, last_B = np.arange(len(length_B)), np.maximum(length_B - 1, 0)
        values = {}
        for site in sites:
            width = model.widths.get(site.stream, model.d_model)
            x_BTD = np.stack([activations(row, site, width) for row in tokens_BT])
            for name in poolings:
                values[site, name] = _pooled(name, x_BTD, row_B, last_B)
        if isinstance(pooling, str):
            return {site: value for (site, _), value in values.items()}
        return values

    return forward


def _pooled(pooling: str, x_BTD, row_B, last_B):
    if pooling in ("tokens", "last"):
        return x_BTD if pooling == "tokens" else x_BTD[row_B, last_B]
    read = [x_TD[min(1, last) : last + 1] for x_TD, last in zip(x_BTD, last_B, strict=True)]
    return np.stack([getattr(np, pooling)(x_TD, axis=0) for x_TD in read])


def dataset(name: str, num_rows: int = 40, seed: int = 0, gap: float = 1.0) -> TextDataset:
    """A balanced dataset; prompts of class 1 hold the word `yes` with a chance that grows with `gap`."""
    key = int.from_bytes(hashlib.sha256(f"{name} {seed}".encode()).digest()[:4], "little")
    draw = np.random.default_rng(key)
    y_N = np.arange(num_rows, dtype=np.int32) % 2
    texts = []
    for label in y_N:
        words = [f"w{number}" for number in draw.integers(0, 300, int(draw.integers(1, 30)))]
        words += ["yes"] if label and draw.random() < gap else ["no"]
        texts.append(" ".join(words))
    return TextDataset(
        name=name, texts=tuple(texts), y_N=y_N, label_names=("no", "yes"), source="fake"
    )


def write_csv(folder: Path, data: TextDataset) -> str:
    """Writes a dataset as a user's CSV file (its prompts hold no commas or quotes); returns its path."""
    lines = ["prompt,target"]
    lines += [f"{text},{data.label_names[y]}" for text, y in zip(data.texts, data.y_N, strict=True)]
    path = folder / f"{data.name}.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def write_source(
    folder: Path, data: Sequence[TextDataset], shifted: Sequence[TextDataset] = ()
) -> str:
    """Writes datasets in the published layout, and the shifted sets of some; returns the folder."""
    lines = ["Dataset save name,Data type"]
    for part, parent, end in ((data, "cleaned_data", ""), (shifted, "OOD data", "_OOD")):
        (folder / parent).mkdir(parents=True, exist_ok=True)
        for one in part:
            written = Path(write_csv(folder / parent, one))
            written.rename(written.with_name(f"{one.name}{end}.csv"))
    lines += [f"cleaned_data/{one.name}.csv,Binary Classification" for one in data]
    (folder / "probing_datasets_MASTER.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


def loaded_sae(site: Site, d_sae: int = 96, seed: int = 0, name: str = "sae") -> LoadedSae:
    """An SAE with random directions for the fake's activations; about a third of latents active."""
    rng = np.random.default_rng(seed)
    W_enc_DS = rng.normal(size=(32, d_sae)).astype(np.float32)
    sae = JumpReluSae(
        W_enc_DS=jnp.asarray(W_enc_DS),
        b_enc_S=jnp.asarray(rng.normal(size=d_sae).astype(np.float32)),
        W_dec_SD=jnp.asarray(W_enc_DS.T),
        b_dec_D=jnp.zeros(32),
        threshold_S=jnp.asarray(rng.uniform(0.5, 15, d_sae).astype(np.float32)),
    )
    return LoadedSae(sae=sae, id=name, site=site, expected_l0=None, source=f"fake {seed}")


def stand_in(patch, model: FakeModel | None = None) -> list[tuple[str, str]]:
    """Puts the fake in the place of every model; returns the list of its loadings, which grows.

    Args:
        patch: pytest's `monkeypatch`.
        model: Which fake.
    """
    model, loadings = model or FakeModel(), []

    def load_model(source: str, dtype: str) -> FakeModel:
        loadings.append((source, dtype))
        return model

    patch.setattr(models, "load_model", load_model)
    patch.setattr(models, "identify", lambda source, dtype: model)
    patch.setattr(models, "make_forward", make_forward)
    return loadings


def job(paths: Sequence[str], **changes) -> dict:
    """A config file's content for the fakes: a baseline, a trained SAE, every control.

    Args:
        paths: Its datasets.
        **changes: Keys in place of these.
    """
    return {
        "model": "fake",
        "dtype": "float32",
        "site": "blocks.1.resid_post",
        "datasets": tuple(paths),
        "seed": 7,
        "extract": {"batch_tokens": 512},
        "train_sae": {"d_sae": 64, "target_l0": 6.0, "num_tokens": 2048, "batch_size": 128},
        "encode": {"protocols": ("paper",), "max_latents": 8, "random_latents": 8},
        "fit": {"num_latents": (2, 4), "regime_num_latents": (4,)},
        **changes,
    }


def scores(probe, x_ND, splits, *, num_latents=(), metrics=(), **_) -> Scores:
    """Numbers in place of `grid.fit_grid`'s: what is tried with them is what becomes of them.

    They depend on what the probe reads, so that two probes that read other features have other scores.
    """
    counts = max(1, len(num_latents))
    base_S = [float(np.abs(x_ND[split.train_N]).mean() % 0.4 + 0.5) for split in splits]
    value_SK = np.array(base_S)[:, None] + 0.001 * np.arange(counts)
    names = [tuple(test.name for test in split.tests) for split in splits]
    tests = max(map(len, names))
    return Scores(
        valid_auroc=value_SK,
        best_value=value_SK,
        converged=np.ones_like(value_SK, bool),
        residual=value_SK,
        metrics={name: np.repeat(value_SK[..., None], tests, axis=2) for name in metrics},
        test_sets=tuple(names),
        probes=((None,) * counts,) * len(splits),
    )

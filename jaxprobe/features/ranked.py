"""Activations and an SAE to the latents that probes read: ranked per split, kept columns only.

One pass over blocks of latents ranks all splits of a dataset; a second pass encodes the union of
the columns that any split kept. The dense [N, d_sae] array never exists.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from jaxprobe import base, selection
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.features.kept import Columns, DatasetLatents
from jaxprobe.features.measured_l0 import MeasuredL0
from jaxprobe.saes import BlockEncoder, prepare

VERSION = 3  # raised when a change to the code changes what is kept
ROW_STEP = 512  # rows are padded to a multiple of this: few sizes, few compiled programs
COLUMNS_AT_ONCE = 1024  # of the second pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """Which latents a dataset keeps.

    Attributes:
        max_latents: Latents kept per split: the largest k of a probe.
        ranking: `normalised` or `raw`, see `selection.score`.
        random_latents: Latents of the random-latents control; 0 leaves it out.
        seed: Seed of that control's draw.
    """

    max_latents: int = 512
    ranking: str = "normalised"
    random_latents: int = 128
    seed: int = 42


def rank(
    ranking: Ranking,
    sae: LoadedSae,
    name: str,
    x_ND: np.ndarray,
    splits: Sequence[base.Split],
) -> DatasetLatents:
    """Ranks an SAE's latents for every split of a dataset and encodes those that some split kept.

    Args:
        ranking: What to keep.
        sae: The SAE.
        name: The dataset's name; the control's draw depends on it.
        x_ND: float32 activations of all rows of the dataset, at the SAE's site.
        splits: P splits; rows of the result's arrays follow their order.

    Returns:
        The kept latents.
    """
    padded_ND = _padded(x_ND)
    encoder, d_sae = prepare(sae.sae, padded_ND), sae.sae.d_sae
    rows = [(split.train_N, split.y_train_N) for split in splits]
    weights = selection.class_weights(len(padded_ND), rows)
    measured = MeasuredL0(sae, name, len(x_ND))

    def encode_block(start: int, stop: int):
        z_NB = encoder(start, stop)
        measured.add(z_NB[: len(x_ND)])
        return z_NB

    width = min(ranking.max_latents, d_sae)
    top = selection.top_latents(encode_block, d_sae, weights, width, ranking.ranking)
    measured.report()
    random_PK = np.stack(
        [
            _random_latents(ranking, name, split, top.fires_TS[number])
            for split, number in zip(splits, weights.set_P, strict=True)
        ]
    )
    latent_U = np.union1d(top.index_PK, random_PK).astype(np.int32)
    return DatasetLatents(
        rows=Columns.of(kept_columns(encoder, len(x_ND), latent_U), len(x_ND)),
        top_PK=np.searchsorted(latent_U, top.index_PK).astype(np.int32),
        random_PK=np.searchsorted(latent_U, random_PK).astype(np.int32),
        latent_U=latent_U,
    )


def kept_columns(
    encoder: BlockEncoder, num_rows: int, latent_U: np.ndarray
) -> Iterator[np.ndarray]:
    """Latents of the first rows at these columns, a block of columns at a time."""
    for start in range(0, len(latent_U), COLUMNS_AT_ONCE):
        index_B = latent_U[start : start + COLUMNS_AT_ONCE]
        # Padded to a few sizes: otherwise almost every dataset would compile a program of its own.
        padded_B = np.pad(index_B, (0, -len(index_B) % 256), mode="edge")
        yield np.asarray(encoder.columns(padded_B))[:num_rows, : len(index_B)]


def _padded(x_ND: np.ndarray) -> np.ndarray:
    return np.pad(x_ND, ((0, -len(x_ND) % ROW_STEP), (0, 0)))


def _random_latents(
    ranking: Ranking, name: str, split: base.Split, alive_S: np.ndarray
) -> np.ndarray:
    """Latents for the control, drawn without regard to labels: active ones first, then silent ones."""
    address = f"{ranking.seed}/{name}/{split.regime}/{split.level}/{split.protocol}"
    entropy = int.from_bytes(hashlib.sha256(address.encode()).digest()[:8], "little")
    rng = np.random.default_rng(entropy)
    order = np.concatenate(
        [rng.permutation(np.flatnonzero(alive_S)), rng.permutation(np.flatnonzero(~alive_S))]
    )
    return order[: ranking.random_latents].astype(np.int32)

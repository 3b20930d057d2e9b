"""Activations and an SAE to the latents that probes read: ranked per split, kept columns only.

One pass over blocks of latents ranks all splits of a dataset; a second pass encodes the union of
the columns that any split kept. The dense [N, d_sae] array never exists.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from jaxprobe import base, datasets, regimes, selection, stopping
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.saes import BlockEncoder, prepare, random_like
from jaxprobe.stages import sparsity
from jaxprobe.stages.extract import CONTROL_ROWS
from jaxprobe.stages.latents import FOLDER as FOLDER
from jaxprobe.stages.latents import Columns, DatasetLatents, is_done, latents_path, write
from jaxprobe.stages.latents import read as read
from jaxprobe.store import ActivationStore

VERSION = 2  # raised when a change to the code changes what is kept
ROW_STEP = 512  # rows are padded to its multiples: few sizes, few compiled programs
COLUMNS_AT_ONCE = 1024  # of the second pass
RANDOM_SAE = "random_sae"  # the control's id, and its `features` in result rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Which splits to rank latents for, and how.

    Attributes:
        source: Where the published datasets come from.
        datasets: Names or paths of CSV files; none means all of the source.
        regimes: Some of `base.REGIMES`.
        protocols: Some of `base.PROTOCOLS`.
        dedup_by: What makes two prompts one under protocol dedup, see `regimes.splits`: `exact` or
            `normalised`.
        seed: Seed of the splits and the controls.
        max_latents: Latents kept per split: the largest k of a probe.
        ranking: `normalised` or `raw`, see `selection.score`.
        random_sae: Whether to encode the control too.
        control_datasets: Datasets on whose prompts that control's thresholds are matched; none
            means `datasets`.
        random_latents: Latents of the random-latents control; 0 leaves it out.
    """

    source: str = datasets.DEFAULT_SOURCE
    datasets: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ("standard",)
    protocols: tuple[str, ...] = base.PROTOCOLS
    dedup_by: str = "exact"
    seed: int = 42
    max_latents: int = 512
    ranking: str = "normalised"
    random_sae: bool = True
    control_datasets: tuple[str, ...] = ()
    random_latents: int = 128


def encode(
    config: EncodeConfig, store: ActivationStore, saes: Sequence[LoadedSae], workdir: Path | str
) -> dict[str, LoadedSae]:
    """Ranks and encodes every dataset with every SAE, skipping what is there.

    Args:
        config: What to do.
        store: Last-token activations at the SAEs' sites.
        saes: The SAEs; the first one's random twin is added as a control.
        workdir: Latents go to its folder `latents`.

    Returns:
        The SAEs by id, the control among them.
    """
    names = config.datasets or datasets.names(config.source)
    by_id = with_control(config, store, saes)
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    with tqdm(total=len(by_id) * len(names), desc="encode", unit="set") as bar:
        for name in names:
            dataset = datasets.load(name, config.source)
            splits = dataset_splits(config, dataset)
            found.update((split.regime, split.protocol) for split in splits)
            for sae in by_id.values():
                path = latents_path(workdir, sae.id, name)
                identity = latents_identity(config, store, sae, dataset)
                if splits and not is_done(path, identity):
                    latents = _encode_dataset(config, store, sae, dataset, splits)
                    with stopping.held():
                        write(path, identity, latents)
                bar.update()
    _tell_skipped(config, names, found)
    return by_id


def with_control(
    config: EncodeConfig, store: ActivationStore, saes: Sequence[LoadedSae]
) -> dict[str, LoadedSae]:
    """SAEs by id, and the first one's random twin where the config asks for it.

    Raises:
        ValueError: Two SAEs share an id or one has a reserved one, or the first does not say its site.
    """
    by_id: dict[str, LoadedSae] = {}
    for sae in saes:
        if sae.id in (RANDOM_SAE, base.ACTIVATIONS):
            raise ValueError(
                f"the SAE at {sae.source} must have an id of its own, got {sae.id!r}, which the"
                " results use themselves; load it under another"
            )
        if sae.id in by_id:
            raise ValueError(
                f"SAEs must differ in their ids, got {sae.id!r} from {by_id[sae.id].source} and"
                f" {sae.source}; name only one of them"
            )
        by_id[sae.id] = sae
    if config.random_sae and saes:
        names = config.control_datasets or config.datasets or datasets.names(config.source)
        by_id[RANDOM_SAE] = _random_twin(config, store, saes[0], names)
    return by_id


def dataset_splits(config: EncodeConfig, dataset: base.TextDataset) -> tuple[base.Split, ...]:
    """Every split that the config asks of a dataset, in a fixed order.

    Levels that the dataset is too small for have none, nor has covariate shift where the source
    has no shifted set.
    """
    found: list[base.Split] = []
    moved = shifted_set(config, dataset)
    for regime in config.regimes:
        shifted = moved if regime == "covariate_shift" else None
        if regime == "covariate_shift" and shifted is None:
            continue
        for protocol in config.protocols:
            found += regimes.splits(
                dataset,
                regime,
                protocol=protocol,
                seed=config.seed,
                shifted=shifted,
                dedup_by=config.dedup_by if protocol == "dedup" else "exact",
            )
    # All of a dataset's splits number one table, in which the shifted set's rows stand last.
    rows = len(dataset.texts) + (len(moved.texts) if moved else 0)
    return tuple(dataclasses.replace(split, num_rows=rows) for split in found)


def shifted_set(config: EncodeConfig, dataset: base.TextDataset) -> base.TextDataset | None:
    """The shifted test set that some split of the dataset tests on; None where there is none."""
    if "covariate_shift" not in config.regimes:
        return None
    return datasets.shifted_of(dataset, config.source)


def shifted_digest(config: EncodeConfig, dataset: base.TextDataset) -> str:
    """`dataset_digest` of the shifted set; empty where there is none."""
    shifted = shifted_set(config, dataset)
    return "" if shifted is None else dataset_digest(shifted)


def test_texts(
    config: EncodeConfig, dataset: base.TextDataset, split: base.Split
) -> tuple[str, ...]:
    """The prompts that the split's rows number: the dataset's, then its shifted set's."""
    shifted = shifted_set(config, dataset) if split.regime == "covariate_shift" else None
    return dataset.texts if shifted is None else base.joined(dataset, shifted).texts


def _tell_skipped(config: EncodeConfig, names: Sequence[str], found: collections.Counter) -> None:
    """Logs how many splits there are, and how many levels found their dataset too small."""
    for regime in config.regimes:
        for protocol in config.protocols:
            have, levels = found[regime, protocol], regimes.num_levels(regime)
            if regime == "covariate_shift":
                logging.info("%s, %s: %d datasets with a shifted set", regime, protocol, have)
            elif have < levels * len(names):
                logging.info(
                    "%s, %s: %d splits; %d levels skipped, their datasets are too small",
                    *(regime, protocol, have, levels * len(names) - have),
                )


def weights_digest(sae: LoadedSae) -> str:
    """Hex SHA-256 of an SAE's weights and settings."""
    arrays, structure = jax.tree.flatten(sae.sae)
    digest = hashlib.sha256(str(structure).encode())
    for array in arrays:
        rows = np.atleast_1d(array)
        for start in range(0, len(rows), 256):  # in parts: a large encoder is not copied whole
            digest.update(np.ascontiguousarray(rows[start : start + 256]).tobytes())
    return digest.hexdigest()


def _random_twin(config, store, sae: LoadedSae, names: Sequence[str]) -> LoadedSae:
    """An SAE of the same shape and frequencies with random directions."""
    chosen = datasets.sample_texts(names, config.source, CONTROL_ROWS)
    x_ND = store.read(_site(sae), chosen)
    twin = random_like(sae.sae, x_ND, jax.random.key(config.seed))
    return LoadedSae(
        sae=twin,
        id=RANDOM_SAE,
        site=sae.site,
        expected_l0=sae.expected_l0,
        source=f"random twin of {sae.id}",
    )


def _encode_dataset(config, store, sae: LoadedSae, dataset, splits) -> DatasetLatents:
    shifted = shifted_set(config, dataset)
    x_ND = store.read(_site(sae), dataset.texts)
    x_MD = store.read(_site(sae), shifted.texts if shifted else ())
    encoder, d_sae = prepare(sae.sae, _padded(x_ND)), sae.sae.d_sae
    rows = [(split.train_N, split.y_train_N) for split in splits]
    weights = selection.class_weights(len(_padded(x_ND)), rows)
    measured = sparsity.MeasuredL0(sae, dataset.name, len(x_ND))

    def encode_block(start: int, stop: int):
        z_NB = encoder(start, stop)
        measured.add(z_NB[: len(x_ND)])
        return z_NB

    width = min(config.max_latents, d_sae)
    top = selection.top_latents(encode_block, d_sae, weights, width, config.ranking)
    measured.report()
    random_PK = np.stack(
        [
            _random_latents(config, dataset.name, split, top.fires_TS[number])
            for split, number in zip(splits, weights.set_P, strict=True)
        ]
    )
    latent_U = np.union1d(top.index_PK, random_PK).astype(np.int32)
    shifted_encoder = prepare(sae.sae, _padded(x_MD))
    return DatasetLatents(
        rows=Columns.of(kept_columns(encoder, len(x_ND), latent_U), len(x_ND)),
        shifted=Columns.of(kept_columns(shifted_encoder, len(x_MD), latent_U), len(x_MD)),
        top_PK=np.searchsorted(latent_U, top.index_PK).astype(np.int32),
        random_PK=np.searchsorted(latent_U, random_PK).astype(np.int32),
        latent_U=latent_U,
    )


def kept_columns(encoder: BlockEncoder, num_rows: int, latent_U) -> Iterator[np.ndarray]:
    """Latents of the first rows at these columns, a block of columns at a time."""
    if num_rows == 0:
        yield np.zeros((0, len(latent_U)), np.float32)
        return
    for start in range(0, len(latent_U), COLUMNS_AT_ONCE):
        index_B = latent_U[start : start + COLUMNS_AT_ONCE]
        # A program per number of columns would be compiled per dataset: pad to a few sizes.
        padded_B = np.pad(index_B, (0, -len(index_B) % 256), mode="edge")
        yield np.asarray(encoder.columns(padded_B))[:num_rows, : len(index_B)]


def _padded(x_ND: np.ndarray) -> np.ndarray:
    return np.pad(x_ND, ((0, -len(x_ND) % ROW_STEP), (0, 0)))


def _random_latents(config, name: str, split: base.Split, alive_S) -> np.ndarray:
    """Latents for the control, drawn without regard to labels; few alive: the rest are silent."""
    address = f"{config.seed}/{name}/{split.regime}/{split.level}/{split.protocol}"
    entropy = int.from_bytes(hashlib.sha256(address.encode()).digest()[:8], "little")
    rng = np.random.default_rng(entropy)
    order = np.concatenate(
        [rng.permutation(np.flatnonzero(alive_S)), rng.permutation(np.flatnonzero(~alive_S))]
    )
    return order[: config.random_latents].astype(np.int32)


def _site(sae: LoadedSae) -> base.Site:
    if sae.site is None:
        raise ValueError(
            f"SAE {sae.id} does not say which site it reads; name a folder that follows the"
            " published layout, or save it with a site"
        )
    return sae.site


def latents_identity(
    config: EncodeConfig, store: ActivationStore, sae: LoadedSae, dataset: base.TextDataset
) -> dict[str, object]:
    """Everything that decides a dataset's latents, and in what order their splits stand."""
    # They decide which files there are, not what is in one.
    elsewhere = ("datasets", "source", "random_sae", "control_datasets")
    settings = dataclasses.asdict(config).items()
    fields = {name: value for name, value in settings if name not in elsewhere}
    if config.dedup_by == "exact":
        del fields["dedup_by"]  # latents from before there was another are the same latents
    return {
        **fields,
        "version": VERSION,
        "store": store.digest,
        "sae": weights_digest(sae),
        "dataset": dataset_digest(dataset),
        "shifted": shifted_digest(config, dataset),
    }


def dataset_digest(dataset: base.TextDataset) -> str:
    """Hex SHA-256 of prompts and labels."""
    digest = hashlib.sha256()
    for text, label in zip(dataset.texts, dataset.y_N.tolist(), strict=True):
        digest.update(hashlib.sha256(text.encode()).digest() + bytes([label]))
    return digest.hexdigest()

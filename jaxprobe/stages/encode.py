"""Activations and an SAE to the latents that probes read: ranked per split, kept columns only.

One pass over blocks of latents ranks all splits of a dataset; a second pass encodes the union of
the columns that any split kept. The dense [N, d_sae] array never exists.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import safe_open
from tqdm import tqdm

from jaxprobe import base, datasets, regimes, selection
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.saes import prepare, random_like
from jaxprobe.stages import sparsity
from jaxprobe.store import ActivationStore, replace_file

FOLDER = "latents"  # below the work directory
RANDOM_SAE = "random_sae"  # the control's id, and its `features` in result rows
CONTROL_ROWS = 2048  # activations on which the random SAE's thresholds are matched


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Which splits to rank latents for, and how.

    Attributes:
        source: Where the published datasets come from.
        datasets: Names or paths of CSV files; none means all of the source.
        regimes: Some of `base.REGIMES`.
        protocols: Some of `base.PROTOCOLS`.
        seed: Seed of the splits and the controls.
        max_latents: Latents kept per split: the largest k of a probe.
        ranking: `normalised` or `raw`, see `selection.score`.
        random_sae: Whether to encode the control too.
        random_latents: Latents of the random-latents control; 0 leaves it out.
    """

    source: str = datasets.DEFAULT_SOURCE
    datasets: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ("standard",)
    protocols: tuple[str, ...] = base.PROTOCOLS
    seed: int = 42
    max_latents: int = 512
    ranking: str = "normalised"
    random_sae: bool = True
    random_latents: int = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetLatents:
    """The latents of one dataset that some split kept.

    Attributes:
        z_NU: float32 latents of all rows, at the union of kept columns.
        top_PK: Columns of `z_NU` per split, best latent first.
        random_PK: Columns of `z_NU` per split: latents drawn from those active in training.
        latent_U: The SAE's latent in each column.
    """

    z_NU: np.ndarray
    top_PK: np.ndarray
    random_PK: np.ndarray
    latent_U: np.ndarray


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
    with tqdm(total=len(by_id) * len(names), desc="encode", unit="set") as bar:
        for name in names:
            dataset = datasets.load(name, config.source)
            splits = dataset_splits(config, dataset)
            for sae in by_id.values():
                path = latents_path(workdir, sae.id, name)
                identity = latents_identity(config, store, sae, dataset)
                if splits and not _is_done(path, identity):
                    _write(path, identity, _encode_dataset(config, store, sae, dataset, splits))
                bar.update()
    return by_id


def with_control(
    config: EncodeConfig, store: ActivationStore, saes: Sequence[LoadedSae]
) -> dict[str, LoadedSae]:
    """SAEs by id, and the first one's random twin where the config asks for it.

    Raises:
        ValueError: Two SAEs share an id, or the first does not say its site.
    """
    by_id: dict[str, LoadedSae] = {}
    for sae in saes:
        if sae.id in by_id:
            raise ValueError(
                f"SAEs must differ in their ids, got {sae.id!r} from {by_id[sae.id].source} and"
                f" {sae.source}; name only one of them"
            )
        by_id[sae.id] = sae
    if config.random_sae and saes:
        names = config.datasets or datasets.names(config.source)
        by_id[RANDOM_SAE] = _random_twin(config, store, saes[0], names)
    return by_id


def dataset_splits(config: EncodeConfig, dataset: base.TextDataset) -> tuple[base.Split, ...]:
    """Every split that the config asks of a dataset, in a fixed order."""
    return tuple(
        split
        for regime in config.regimes
        for protocol in config.protocols
        for split in regimes.splits(dataset, regime, protocol=protocol, seed=config.seed)
    )


def latents_path(workdir: Path | str, sae_id: str, dataset: str) -> Path:
    """Where a dataset's latents lie; user files are told apart by a hash of their path."""
    folder = hashlib.sha256(sae_id.encode()).hexdigest()[:12]
    stem = Path(dataset).stem if dataset.endswith((".csv", ".zst")) else dataset
    digest = hashlib.sha256(dataset.encode()).hexdigest()[:8]
    return Path(workdir) / FOLDER / folder / f"{stem}-{digest}.safetensors"


def read(path: Path, identity: Mapping[str, object]) -> DatasetLatents:
    """Reads what `encode` wrote.

    Args:
        path: From `latents_path`.
        identity: From `latents_identity`: latents of other splits, or of another SAE, are of no use.

    Raises:
        FileNotFoundError: The encode stage has not been here.
        ValueError: It has been here with another SAE, dataset or config.
    """
    if not path.exists():
        raise FileNotFoundError(f"no latents at {path}; run the encode stage first")
    if not _is_done(path, identity):
        raise ValueError(
            f"{path} was made with another SAE, dataset, activations or config; run the encode stage"
            " again"
        )
    return DatasetLatents(**safetensors.numpy.load_file(path))


def weights_digest(sae: LoadedSae) -> str:
    """Hex SHA-256 of an SAE's weights and settings."""
    arrays, structure = jax.tree.flatten(sae.sae)
    digest = hashlib.sha256(str(structure).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _random_twin(config, store, sae: LoadedSae, names: Sequence[str]) -> LoadedSae:
    """An SAE of the same shape and frequencies with random directions."""
    texts = {text: None for name in names for text in datasets.load(name, config.source).texts}
    # Rows by hash order: addressed, so that the sample does not follow the datasets' order.
    chosen = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())[:CONTROL_ROWS]
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
    encoder = prepare(sae.sae, store.read(_site(sae), dataset.texts))
    d_sae = sae.sae.d_sae
    rows = [(split.train_N, split.y_train_N) for split in splits]
    weights = selection.class_weights(len(dataset.texts), rows)
    alive_PS = np.zeros((len(splits), d_sae), bool)

    measured = sparsity.MeasuredL0(sae, dataset.name, len(dataset.texts))

    def encode_block(start: int, stop: int):
        z_NB = encoder(start, stop)
        measured.add(z_NB)
        alive_PS[:, start:stop] = np.asarray(weights.train_PN @ (z_NB != 0).astype(jnp.float32)) > 0
        return z_NB

    width = min(config.max_latents, d_sae)
    top = selection.top_latents(encode_block, d_sae, weights, width, config.ranking)
    measured.report()
    top_PK = np.asarray(top.index_PK)
    random_PK = np.stack(
        [
            _random_latents(config, dataset.name, split, alive_S)
            for split, alive_S in zip(splits, alive_PS, strict=True)
        ]
    )
    latent_U = np.union1d(top_PK, random_PK).astype(np.int32)
    # A program per number of columns would be compiled per dataset: pad to a few sizes.
    padded_U = np.pad(latent_U, (0, -len(latent_U) % 256), mode="edge")
    z_NU = np.asarray(encoder.columns(padded_U))[:, : len(latent_U)]
    return DatasetLatents(
        z_NU=np.ascontiguousarray(z_NU),
        top_PK=np.searchsorted(latent_U, top_PK).astype(np.int32),
        random_PK=np.searchsorted(latent_U, random_PK).astype(np.int32),
        latent_U=latent_U,
    )


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
    elsewhere = ("datasets", "source", "random_sae")  # they decide which files, not what is in one
    settings = dataclasses.asdict(config).items()
    fields = {name: value for name, value in settings if name not in elsewhere}
    return {
        **fields,
        "store": store.digest,
        "sae": weights_digest(sae),
        "dataset": dataset_digest(dataset),
    }


def dataset_digest(dataset: base.TextDataset) -> str:
    """Hex SHA-256 of prompts and labels."""
    digest = hashlib.sha256()
    for text, label in zip(dataset.texts, dataset.y_N.tolist(), strict=True):
        digest.update(hashlib.sha256(text.encode()).digest() + bytes([label]))
    return digest.hexdigest()


def _is_done(path: Path, identity: Mapping[str, object]) -> bool:
    """Whether the file was made in this very way; one made otherwise is made again."""
    if not path.exists():
        return False
    with safe_open(path, "numpy") as file:
        return (file.metadata() or {}).get("identity") == json.dumps(dict(identity), sort_keys=True)


def _write(path: Path, identity: Mapping[str, object], latents: DatasetLatents) -> None:
    arrays = {
        field.name: getattr(latents, field.name) for field in dataclasses.fields(DatasetLatents)
    }
    metadata = {"identity": json.dumps(dict(identity), sort_keys=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, safetensors.numpy.save(arrays, metadata))

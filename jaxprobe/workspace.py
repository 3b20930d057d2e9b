"""What an experiment reads: each artefact is opened once, and each digest computed once."""

import dataclasses
import functools
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np

from jaxprobe import base, boundary, checkpoints, checks, datasets, sealed
from jaxprobe.base import Site, Split, TextDataset
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.features import kept, ranked, read, twins
from jaxprobe.features.kept import DatasetLatents
from jaxprobe.features.ranked import Ranking
from jaxprobe.features.read import Features
from jaxprobe.identity import digest
from jaxprobe.place import Place
from jaxprobe.probes import grid
from jaxprobe.store import ActivationStore
from jaxprobe.text_dataset import Texts
from jaxprobe.workdir import Workdir

CONTROL_ROWS = 2048  # prompts on which the random SAEs' thresholds are matched
_BEGUN_AGAIN = "restore it from a copy, or delete it"
_MATRICES = 4  # matrices of activations or latents held in memory at once


class Workspace:
    """The artefacts that a run reads, and the one place where latents and random SAEs are made.

    Attributes:
        work: The work directory.
        source: Where the published datasets come from.
    """

    def __init__(
        self,
        work: Workdir,
        *,
        source: str = datasets.DEFAULT_SOURCE,
        load: Callable[[str, str], TextDataset] = datasets.load,
        control_datasets: Sequence[str] = (),
        seed: int = 42,
        load_saes: Callable[[], Iterable[LoadedSae]] = tuple,
        sae_sites: Mapping[str, Site] | None = None,
        activations: Place | None = None,
    ):
        """Opens nothing yet.

        Args:
            work: The work directory.
            source: Where the published datasets come from.
            load: Reads a dataset, given (name, source).
            control_datasets: Datasets on whose prompts the random SAEs' thresholds are matched.
            seed: Seed of the random SAEs.
            load_saes: Loads the run's SAEs, when one is first needed.
            sae_sites: The SAEs' ids, in order, and where they read, if that is known before they are
                loaded or trained.
            activations: The activation store; by default that of the work directory.
        """
        self.work, self.source, self._load = work, source, load
        self._control_datasets, self._seed = tuple(control_datasets), seed
        self._load_saes, self._sae_sites = load_saes, sae_sites
        self._activations = activations or work.activations
        self._datasets: dict[str, TextDataset] = {}
        self._shifted: dict[str, TextDataset | None] = {}
        self._twins: dict[Site, LoadedSae] = {}
        self._kept: dict[Place, DatasetLatents] = {}
        self._lock = threading.RLock()

    # --- datasets

    def dataset(self, name: str) -> TextDataset:
        """A dataset; its file is read once.

        Raises:
            ValueError: An unknown name or bad content.
            AssetError: The file or the source is not available.
        """
        if name not in self._datasets:
            self._datasets[name] = self._load(name, self.source)
        return self._datasets[name]

    def with_shifted(self, name: str) -> TextDataset:
        """A dataset followed by its shifted test set's rows; as `dataset` where it has none."""
        key = f"{name}\0shifted"
        if key not in self._datasets:
            dataset, shifted = self.dataset(name), self.shifted(name)
            self._datasets[key] = dataset if shifted is None else base.joined(dataset, shifted)
        return self._datasets[key]

    def shifted(self, name: str) -> TextDataset | None:
        """A dataset's shifted test set; None where it has none."""
        if name not in self._shifted:
            self._shifted[name] = datasets.shifted_of(self.dataset(name), self.source)
        return self._shifted[name]

    @functools.cached_property
    def control_texts(self) -> Texts:
        """The prompts on which the random SAEs' thresholds are matched."""
        loaded = [self.dataset(name) for name in self._control_datasets]
        return datasets.lowest_hashes(loaded, CONTROL_ROWS)

    # --- activations

    @functools.cached_property
    def store(self) -> ActivationStore:
        """The activation store.

        Raises:
            StoreError: There is no store, or it is damaged.
        """
        return ActivationStore.open(self._activations)

    def read_from(self, activations: Place) -> None:
        """Reads another store from now on: a shard has its own after extraction."""
        self._activations = activations
        self.__dict__.pop("store", None)

    def activations(self, dataset: TextDataset, site: Site, pooling: str = "last") -> np.ndarray:
        """float32 [N, width] activations of a dataset's rows.

        Raises:
            StoreError: The store lacks some of them.
        """
        return self._matrix(dataset, site, pooling)

    @functools.lru_cache(maxsize=_MATRICES)  # noqa: B019 (a workspace lives as long as its run)
    def _matrix(self, dataset: TextDataset, site: Site, pooling: str) -> np.ndarray:
        return self.store.read(site, dataset.texts, pooling=pooling, hashes=dataset.sha256_N)

    def tokens(
        self, dataset: TextDataset, site: Site, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Activations of the single tokens of a dataset's rows, without BOS.

        Args:
            dataset: The dataset.
            site: Where they were read in the model.
            rows: int [N] row numbers; by default all rows.

        Returns:
            float32 x_TD of all their tokens, row after row, and int64 start_N1: row n has the tokens
            `start_N1[n]` to `start_N1[n + 1] - 1`.

        Raises:
            StoreError: The store lacks some of them.
        """
        row_N = np.arange(len(dataset.texts)) if rows is None else np.asarray(rows)
        texts = [dataset.texts[n] for n in row_N]
        hashes = [dataset.sha256_N[n] for n in row_N]
        first_N, count_N = self.store.token_spans(site, texts, hashes)
        start_N1 = np.concatenate([[0], np.cumsum(count_N)])
        row_T = np.arange(start_N1[-1]) + np.repeat(first_N - start_N1[:-1], count_N)
        return self.store.read_tokens(site, row_T), start_N1

    def features(self, dataset: TextDataset, features: Features | Sequence[Features]) -> np.ndarray:
        """float32 [N, K] features of a dataset's rows; several are concatenated, in their order.

        Raises:
            StoreError: The store lacks some of the activations.
            ValueError: The matrix would be too large, or a prompt has no tokens to pool.
        """
        several = (features,) if isinstance(features, Features) else tuple(features)
        return np.concatenate([self._read(dataset, one) for one in several], axis=1)

    def _read(self, dataset: TextDataset, wanted: Features) -> np.ndarray:
        if wanted.part == base.ACTIVATIONS:
            return self.activations(dataset, wanted.site, wanted.pooling)
        sae = self.sae(wanted.sae, wanted.site)
        read.check_size(sae, len(dataset.texts), wanted.part)
        if not wanted.of_tokens:
            return read.part_of(sae, self.activations(dataset, wanted.site), wanted.part)
        x_TD, start_N1 = self.tokens(dataset, wanted.site)
        empty_N = np.flatnonzero(np.diff(start_N1) == 0)
        if len(empty_N):
            raise ValueError(
                f"row {empty_N[0]} of {dataset.name} has no tokens besides BOS, so there is nothing to"
                f" pool ({len(empty_N)} such rows); leave it out"
            )
        return read.pooled_part(sae, x_TD, start_N1, wanted.part, wanted.pooling)

    # --- SAEs

    @functools.cached_property
    def saes(self) -> Mapping[str, LoadedSae]:
        """The run's SAEs by id, without the random ones.

        Raises:
            ValueError: Two share an id, or one has a reserved id or no site.
        """
        by_id: dict[str, LoadedSae] = {}
        for sae in self._load_saes():
            sources = {name: other.source for name, other in by_id.items()}
            checkpoints.check_id(sae.id, sae.source, sources)
            if sae.site is None:
                raise ValueError(
                    f"SAE {sae.id} does not say which site it reads; name a folder that follows the"
                    " published layout, or save the SAE with a site"
                )
            by_id[sae.id] = sae
        return by_id

    @property
    def sae_sites(self) -> Mapping[str, Site]:
        """Where each SAE of the run reads, by its id, in the config's order."""
        if self._sae_sites is not None:
            return self._sae_sites
        return {name: sae.site for name, sae in self.saes.items() if sae.site is not None}

    def sae(self, name: str, site: Site) -> LoadedSae:
        """An SAE of the run, or the random twin of the first SAE of a site.

        Raises:
            ValueError: The run has no such SAE, or it reads another site, where its latents mean nothing.
        """
        if name == base.RANDOM_SAE:
            return self.twin(site)
        checks.check_choice("SAE", name, self.saes)
        found = self.saes[name]
        if found.site != site:
            raise ValueError(
                f"SAE {name} must be read at its site {found.site}, got {site}; use that one"
            )
        return found

    def twin(self, site: Site) -> LoadedSae:
        """The random SAE of a site: drawn once, stored, and read from then on.

        Raises:
            ValueError: No SAE of the run reads the site.
        """
        if site not in self._twins:
            self._twins[site] = self._kept_twin(site)
        return self._twins[site]

    def _kept_twin(self, site: Site) -> LoadedSae:
        identity = self._twin_identity(site)
        name = f"random-{digest(identity)[:12]}"
        folder = self.work.saes / name
        if not (folder / checkpoints.NATIVE_FILE).exists():
            texts = self.control_texts
            x_ND = self.store.read(site, texts, hashes=texts.sha256)
            drawn = twins.draw(self._first(site), x_ND, self._seed)
            about = {"id": name, "site": str(site), "drawn_from": identity}
            checkpoints.save_sae(folder, drawn.sae, about)
        return dataclasses.replace(checkpoints.load_sae(folder), id=base.RANDOM_SAE)

    def _first(self, site: Site) -> LoadedSae:
        first = next((sae for sae in self.saes.values() if sae.site == site), None)
        if first is None:
            raise ValueError(f"no SAE of the run reads {site}, so it has no random one either")
        return first

    def _twin_identity(self, site: Site) -> dict[str, object]:
        prompts = hashlib.sha256("\0".join(self.control_texts).encode()).hexdigest()
        return twins.identity(self._first(site), self._seed, self.store.digest, prompts)

    def sae_digest(self, name: str, site: Site) -> str:
        """What identifies an SAE: its weights' digest, or for a random one that of what it is drawn from."""
        if name == base.RANDOM_SAE:
            return digest(self._twin_identity(site))
        return self.sae(name, site).digest

    # --- latents

    def has_latents(
        self, dataset: TextDataset, name: str, site: Site, splits: Sequence[Split], ranking: Ranking
    ) -> bool:
        """Whether the latents of exactly these splits are stored and whole."""
        identity = self._latents_identity(dataset, name, site, splits, ranking)
        return kept.is_done(self._latents_place(dataset, name, identity), identity)

    def latents_there(
        self, dataset: TextDataset, name: str, site: Site, splits: Sequence[Split], ranking: Ranking
    ) -> bool:
        """Whether there is a file of these latents, without reading it as `has_latents` does."""
        identity = self._latents_identity(dataset, name, site, splits, ranking)
        return self._latents_place(dataset, name, identity).exists()

    def keep_latents(
        self, dataset: TextDataset, name: str, site: Site, splits: Sequence[Split], ranking: Ranking
    ) -> None:
        """Ranks and encodes the latents that these splits read, and writes them, whole or not at all."""
        identity = self._latents_identity(dataset, name, site, splits, ranking)
        x_ND = self.activations(dataset, site)
        found = ranked.rank(ranking, self.sae(name, site), dataset.name, x_ND, splits)
        kept.write(self._latents_place(dataset, name, identity), identity, found)

    def latents(
        self, dataset: TextDataset, name: str, site: Site, splits: Sequence[Split], ranking: Ranking
    ) -> DatasetLatents:
        """The latents that `keep_latents` stored for these splits.

        Raises:
            FileNotFoundError: The encode stage has not stored them.
            ValueError: The file is damaged.
        """
        identity = self._latents_identity(dataset, name, site, splits, ranking)
        place = self._latents_place(dataset, name, identity)
        with self._lock:  # jobs run in threads
            if place not in self._kept:
                while len(self._kept) >= _MATRICES:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[place] = kept.read(place, identity, len(dataset.texts))
            return self._kept[place]

    def _latents_identity(
        self, dataset: TextDataset, name: str, site: Site, splits: Sequence[Split], ranking: Ranking
    ) -> dict[str, object]:
        return {
            "version": ranked.VERSION,
            "store": self.store.digest,
            "site": str(site),
            "sae": self.sae_digest(name, site),
            "dataset": dataset.digest,
            "splits": hashlib.sha256("".join(s.digest for s in splits).encode()).hexdigest(),
            "ranking": ranking.ranking,
            "max_latents": ranking.max_latents,
            "random_latents": ranking.random_latents,
            "seed": ranking.seed,
        }

    def _latents_place(self, dataset: TextDataset, name: str, identity: Mapping) -> Place:
        folder = hashlib.sha256(name.encode()).hexdigest()[:12]
        return self.work.latents / folder / f"{file_name(dataset.name)}-{digest(identity)[:12]}"

    # --- what was decided when the directory was first used

    def fit_dtype(self, asked: str) -> str:
        """The number format of fits: the requested one, or what `auto` meant when the directory was new.

        So a run that is continued on another machine computes its remaining fits like the first ones.
        """
        if asked != "auto":
            return asked
        return str(self._begun["fit_dtype"])

    def begin(self) -> None:
        """Stores what `auto` means here, unless the directory holds that already."""
        if not self.work.begun.exists():
            self.work.begun.create(sealed.to_json(_here()))
        self.__dict__.pop("_begun", None)  # another process may have been first

    @functools.cached_property
    def _begun(self) -> Mapping[str, object]:
        place = self.work.begun
        if not place.exists():
            return _here()
        held = sealed.read_json(place, _BEGUN_AGAIN)
        if held.get("fit_dtype") not in ("float32", "float64"):
            raise boundary.FileError(
                f"{place} must hold a `fit_dtype` of float32 or float64, got"
                f" {held.get('fit_dtype')!r}; {_BEGUN_AGAIN}"
            )
        return held


def _here() -> dict[str, object]:
    """What `auto` means in this process."""
    return {"fit_dtype": grid.resolve_dtype("auto"), "device": jax.default_backend()}


def file_name(name: str) -> str:
    """A dataset's name as part of a file name: short, and of characters valid in every file system."""
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "_" for c in name)
    return plain[:60].lstrip(".") or "_"

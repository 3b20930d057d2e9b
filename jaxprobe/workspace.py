"""What an experiment may read: each artefact is opened once, each digest is computed once."""

import dataclasses
import functools
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np

from jaxprobe import base, boundary, checkpoints, datasets, sealed
from jaxprobe.base import Site, Split, TextDataset
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.features import kept, ranked, twins
from jaxprobe.features.kept import DatasetLatents
from jaxprobe.features.ranked import Ranking
from jaxprobe.identity import digest
from jaxprobe.place import Place
from jaxprobe.probes import grid
from jaxprobe.store import ActivationStore
from jaxprobe.text_dataset import Texts
from jaxprobe.workdir import Workdir

CONTROL_ROWS = 2048  # prompts on which the random SAEs' thresholds are matched
_BEGUN_AGAIN = "restore it from a copy, or delete it"
_MATRICES = 4  # activations and latents that are held at once


class Workspace:
    """The reading side of a run, and the one place where latents and random SAEs are made.

    Attributes:
        work: Where artefacts lie.
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
            work: Where artefacts lie.
            source: Where the published datasets come from.
            load: Reads a dataset of (name, source).
            control_datasets: Datasets on whose prompts the random SAEs' thresholds are matched.
            seed: Of the random SAEs.
            load_saes: Loads the run's SAEs, when one is first asked for.
            sae_sites: The SAEs' ids, in order, and where they read, where that is known before they are
                loaded or trained.
            activations: The activation store; that of the work directory where it is None.
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
            AssetError: The file or the source cannot be had.
        """
        if name not in self._datasets:
            self._datasets[name] = self._load(name, self.source)
        return self._datasets[name]

    def with_shifted(self, name: str) -> TextDataset:
        """A dataset with its shifted test set's rows behind its own; as `dataset` where it has none."""
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
            StoreError: There is none, or it is damaged.
        """
        return ActivationStore.open(self._activations)

    def read_from(self, activations: Place) -> None:
        """Reads another store from here on: a shard has its own once it has extracted."""
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
                    " published layout, or save it with a site"
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
        """An SAE of the run, or the random one that stands beside the first SAE of a site."""
        return self.twin(site) if name == base.RANDOM_SAE else self.saes[name]

    def twin(self, site: Site) -> LoadedSae:
        """The random SAE of a site: drawn once, kept, and read from then on.

        Raises:
            KeyError: No SAE of the run reads the site.
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
        return next(sae for sae in self.saes.values() if sae.site == site)

    def _twin_identity(self, site: Site) -> dict[str, object]:
        prompts = hashlib.sha256("\0".join(self.control_texts).encode()).hexdigest()
        return twins.identity(self._first(site), self._seed, self.store.digest, prompts)

    def sae_digest(self, name: str, site: Site) -> str:
        """What identifies an SAE's latents: its weights' digest, of a random one what it is drawn from."""
        if name == base.RANDOM_SAE:
            return digest(self._twin_identity(site))
        return self.saes[name].digest

    # --- latents

    def has_latents(
        self, dataset: TextDataset, name: str, site: Site, splits: Sequence[Split], ranking: Ranking
    ) -> bool:
        """Whether the latents of these very splits are kept, whole."""
        identity = self._latents_identity(dataset, name, site, splits, ranking)
        return kept.is_done(self._latents_place(dataset, name, identity), identity)

    def latents_there(
        self, dataset: TextDataset, name: str, site: Site, splits: Sequence[Split], ranking: Ranking
    ) -> bool:
        """Whether there is a file of these latents; `has_latents` reads it."""
        identity = self._latents_identity(dataset, name, site, splits, ranking)
        return self._latents_place(dataset, name, identity).exists()

    def keep_latents(
        self, dataset: TextDataset, name: str, site: Site, splits: Sequence[Split], ranking: Ranking
    ) -> None:
        """Ranks and encodes what these splits read, and writes it, whole or not at all."""
        identity = self._latents_identity(dataset, name, site, splits, ranking)
        x_ND = self.activations(dataset, site)
        found = ranked.rank(ranking, self.sae(name, site), dataset.name, x_ND, splits)
        kept.write(self._latents_place(dataset, name, identity), identity, found)

    def latents(
        self, dataset: TextDataset, name: str, site: Site, splits: Sequence[Split], ranking: Ranking
    ) -> DatasetLatents:
        """What `keep_latents` kept for these splits.

        Raises:
            FileNotFoundError: The encode stage has not been here.
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

    # --- what was settled when the directory was begun

    def fit_dtype(self, asked: str) -> str:
        """The number format of fits: what was asked, or what `auto` meant when the directory was begun.

        So a run that goes on elsewhere computes its remaining fits as it computed the first ones.
        """
        if asked != "auto":
            return asked
        return str(self._begun["fit_dtype"])

    def begin(self) -> None:
        """Keeps what `auto` means here, where the directory holds no such word yet."""
        if not self.work.begun.exists():
            self.work.begun.create(sealed.to_json(_here()))
        self.__dict__.pop("_begun", None)  # another start may have come first

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
    """A dataset's name as part of a file's: short, and of letters that every file system takes."""
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "_" for c in name)
    return plain[:60].lstrip(".") or "_"

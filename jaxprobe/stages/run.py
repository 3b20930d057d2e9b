"""The main job: extract, train_sae, encode, fit, report, each resuming what is there."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxprobe import assets, base, checks, datasets, models, sealed, stopping, table, tokens
from jaxprobe.checkpoints import LoadedSae, bos_setting, load_sae, native
from jaxprobe.checkpoints.training_settings import agreed_bos
from jaxprobe.experiments.probing import leaks
from jaxprobe.sites import MODULE_OUT
from jaxprobe.stages import encode as encoding
from jaxprobe.stages import extract as extraction
from jaxprobe.stages import fit as fitting
from jaxprobe.stages import names, preflight, run_file, settings
from jaxprobe.stages import report as reporting
from jaxprobe.stages import shards as sharding
from jaxprobe.stages import train_sae as training
from jaxprobe.stages.settings import build
from jaxprobe.store import ActivationStore, replace_file

STAGES = ("extract", "train_sae", "encode", "fit", "report")
SHARDED = ("extract", "encode", "fit")  # what a shard does alone
RECORD = "run.json"
SAES = "saes"  # folder below the work directory


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The whole job.

    Attributes:
        extract, train_sae, encode, fit, report: The stages' own configs. `train_sae` is None
            where no SAE is trained.
        site: Where baselines read.
        saes: SAEs to load besides the trained one: folders, files or `hf://` addresses; `NAME=` before
            one of them is its id in results.
        shard: The part of the job to do; None is all of it.
    """

    extract: extraction.ExtractConfig
    train_sae: training.TrainSaeConfig | None
    encode: encoding.EncodeConfig
    fit: fitting.FitConfig
    report: reporting.ReportConfig
    site: str
    saes: tuple[str, ...] = ()
    shard: sharding.Shard | None = None

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "RunConfig":
        """Builds the stages' configs from a config file's content.

        What stages share (model, dtype, bos, site, source, datasets, seed) is said once at the top;
        a section `extract`, `train_sae`, `encode`, `fit` or `report` sets the rest.

        Raises:
            ValueError: An unknown key or choice; the message names the known ones.
        """
        shared = ("model", "dtype", "bos", "site", "source", "datasets", "seed", "saes")
        for key in config:
            checks.check_choice("config key", key, (*shared, *STAGES))
        given = {key: config[key] for key in shared if key in config}
        sections = {key: _section(key, config.get(key)) for key in STAGES}
        site = str(base.Site.parse(str(given.get("site", training.TrainSaeConfig.site))))
        common = {key: given[key] for key in ("source", "datasets") if key in given}
        trains = bool(sections["train_sae"])
        extract = {key: given[key] for key in ("model", "dtype", "bos") if key in given}
        extract |= common
        extract |= {"sites": (site,), "token_sites": (site,) if trains else ()}
        seeded = common | ({"seed": given["seed"]} if "seed" in given else {})
        built = cls(
            extract=build(extraction.ExtractConfig, "extract", extract | sections["extract"]),
            train_sae=build(
                training.TrainSaeConfig, "train_sae", {"site": site} | sections["train_sae"]
            )
            if trains
            else None,
            encode=build(encoding.EncodeConfig, "encode", seeded | sections["encode"]),
            fit=build(fitting.FitConfig, "fit", sections["fit"]),
            report=build(reporting.ReportConfig, "report", sections["report"]),
            site=site,
            saes=settings.checked("config.saes", given.get("saes", ()), tuple[str, ...]),
        )
        preflight.check_config(built)
        return built


def run(config: RunConfig, workdir: Path | str, stages: Sequence[str] = STAGES) -> str:
    """Runs stages in order; a stage that finds its work done takes seconds.

    Args:
        config: The job.
        workdir: Everything is written below it.
        stages: Some of `STAGES`; what an absent earlier stage makes must be there.

    Returns:
        The report's table for the terminal; empty without that stage.

    Raises:
        ValueError: An unknown stage, or a config that a stage refuses.
        StoreError: Activations that are not there, or were made in another way.
        TableError: Results that are not there, or were made in another way.
    """
    for stage in stages:
        checks.check_choice("stage", stage, STAGES)
    workdir, config = Path(workdir), with_stored_sites(config)
    # Refuses SAEs that do not go together, by their headers alone.
    request = None if set(stages) <= {"report"} else to_extract(config)
    if "extract" in stages:
        preflight.check_inputs(config)
    if config.shard is not None:
        return _run_shard(config, config.shard, workdir, stages)
    workdir.mkdir(parents=True, exist_ok=True)
    if "report" in stages and sharding.found(workdir):
        sharding.merge(workdir, _names(config))
        stages = ("report",)  # the shards have done the rest
    if set(stages) <= {"report"}:
        reporting.run_record(workdir / RECORD)  # the page is made of it: a damaged one is refused
    text = ""
    if request is None or set(stages) <= {"report"}:
        record = Record(workdir, config)
        return (
            record.timed("report", stages, lambda: reporting.report(config.report, workdir)) or ""
        )
    record = Record(workdir, config)
    store = record.timed("extract", stages, lambda: extraction.extract(request, workdir))
    record.leaks(config.encode)
    store = store or ActivationStore.open(workdir / extraction.FOLDER)
    if set(stages) <= {"extract"}:
        return text
    trained = record.timed("train_sae", stages, lambda: _train(config, store, workdir))
    saes = load_saes(config, workdir, trained)
    _encode_and_fit(config, record, store, saes, workdir, stages)
    if "report" in stages:
        text = record.timed("report", stages, lambda: reporting.report(config.report, workdir))
    return text or ""


def with_stored_sites(config: RunConfig) -> RunConfig:
    """The job with its sites under the names that the model's activations are kept by."""
    extract, train = config.extract, config.train_sae
    given = (config.site, *extract.sites, *extract.token_sites, *([train.site] if train else []))
    sites = {name: base.Site.parse(name) for name in given}
    if not any(site.stream in MODULE_OUT for site in sites.values()):
        return config
    model = _identity(config)
    named = {name: str(model.stored(site)) for name, site in sites.items()}
    extract = dataclasses.replace(
        extract,
        sites=tuple(named[name] for name in extract.sites),
        token_sites=tuple(named[name] for name in extract.token_sites),
    )
    train = dataclasses.replace(train, site=named[train.site]) if train else None
    return dataclasses.replace(config, extract=extract, train_sae=train, site=named[config.site])


def _identity(config: RunConfig) -> models.ModelIdentity:
    return models.identify(config.extract.model, config.extract.dtype)


def _run_shard(config: RunConfig, shard: sharding.Shard, root: Path, stages: Sequence[str]) -> str:
    """The shard's own part: extract, encode and fit, in its own folder."""
    parts = [stage for stage in stages if stage in SHARDED]
    if not parts:
        raise ValueError(
            f"a shard runs {', '.join(SHARDED)}; {' and '.join(stages)} works on the whole job: leave"
            " --shard out"
        )
    config, workdir = sharded(config, shard), shard.folder(root)
    request = to_extract(config)
    trained = trained_sae(config, root) if set(parts) != {"extract"} else None
    workdir.mkdir(parents=True, exist_ok=True)
    record = Record(workdir, config)
    store = record.timed(
        "extract", parts, lambda: extraction.extract(request, workdir, shared=root)
    )
    if set(parts) == {"extract"}:
        return ""
    own = workdir / extraction.FOLDER
    store = store or ActivationStore.open(own if own.exists() else root / extraction.FOLDER)
    (workdir / sharding.DONE).unlink(missing_ok=True)
    saes = load_saes(config, root, trained)
    _encode_and_fit(config, record, store, saes, workdir, parts)
    return sharding.finish(shard, root, config.encode.datasets) if "fit" in parts else ""


def sharded(config: RunConfig, shard: sharding.Shard) -> RunConfig:
    """The job with the shard's datasets only, and the same control SAE as every other shard.

    Raises:
        ValueError: There are fewer datasets than shards.
    """
    names = _names(config)
    own = shard.part(names)
    control = names if config.encode.random_sae else ()
    # Training reads the tokens of all datasets, so it comes before, on the whole.
    extract = dataclasses.replace(
        config.extract,
        **{"datasets": own, "control_datasets": control, "token_sites": (), "token_datasets": None},
    )
    encode = dataclasses.replace(config.encode, datasets=own, control_datasets=control)
    return dataclasses.replace(config, extract=extract, encode=encode)


def _names(config: RunConfig) -> tuple[str, ...]:
    return config.encode.datasets or datasets.names(config.encode.source)


def _encode_and_fit(config, record, store, saes, workdir: Path, stages) -> None:
    _check_training(config.extract, store, saes)
    record.describe(store, saes)
    by_id = record.timed(
        "encode", stages, lambda: encoding.encode(config.encode, store, saes, workdir)
    )
    if "fit" in stages:
        by_id = by_id or encoding.with_control(config.encode, store, saes)
        site = base.Site.parse(config.site)
        record.timed(
            "fit",
            stages,
            lambda: fitting.fit(config.fit, config.encode, store, site, by_id, workdir),
        )


def to_extract(config: RunConfig) -> extraction.ExtractConfig:
    """The extract stage's config with what other stages decide of it.

    That is the shifted sets that covariate shift tests on, and BOS as the SAEs were trained with it.

    Raises:
        ValueError: `bos` is `auto`, and one SAE was trained with BOS, another without.
    """
    checks.check_choice("bos", config.extract.bos, tokens.BOS_SETTINGS)
    sources = [assets.split_label(entry)[1] for entry in config.saes]
    said = {source: bos_setting(source) for source in sources}
    extract = dataclasses.replace(config.extract, bos=agreed_bos(config.extract.bos, said))
    if "covariate_shift" not in config.encode.regimes:
        return extract
    known = datasets.shifted_names(config.encode.source)
    wanted = {*extract.shifted, *_names(config)}
    return dataclasses.replace(extract, shifted=tuple(name for name in known if name in wanted))


def _check_training(
    extract: extraction.ExtractConfig, store: ActivationStore, saes: Sequence[LoadedSae]
) -> None:
    """Raises ValueError where SAEs were trained on another kind of activations than the store's."""
    has_bos = store.fingerprint.get("bos") is not None
    other = [sae for sae in saes if sae.bos == ("off" if has_bos else "on")]
    if other and extract.bos == "auto":
        raise ValueError(
            f"SAE {other[0].id} was trained with BOS {other[0].bos}, and the activations in {store.root}"
            f" were made with BOS {'on' if has_bos else 'off'}; extract them into another work"
            " directory, or set bos by hand"
        )
    centred = [sae for sae in saes if sae.centred]
    if centred and models.identify(extract.model, extract.dtype).norm == "rms":
        raise ValueError(
            f"SAE {centred[0].id} says center_writing_weights, which TransformerLens leaves out for models"
            f" without LayerNorm as {extract.model} is one; take the key out of its cfg.json"
        )


class Record:
    """`run.json`: what was run, on what, and how long each stage has worked over all starts."""

    def __init__(self, workdir: Path, config: RunConfig):
        """Reads what earlier starts wrote and brings config, versions and device up to date."""
        self._path = workdir / RECORD
        self._content = run_file.earlier(self._path)
        self._content |= {
            "config": dataclasses.asdict(config),
            "versions": run_file.versions(),
            "device": device(),
            "solver": config.fit.solver,
            "seeds": {"splits": config.encode.seed},
        }
        if config.train_sae is not None:
            self._content["seeds"]["train_sae"] = config.train_sae.seed
        self._write()

    def timed(self, stage: str, stages: Sequence[str], work: Callable[[], Any]) -> Any:
        """Does the stage's work if it is asked for, and adds its wall time in seconds."""
        if stage not in stages:
            return None
        stopping.check()
        start = time.monotonic()
        try:
            result = work()
        except KeyboardInterrupt:  # what it has done counts; after an error that is not known
            self._done(stage, start)
            raise
        self._done(stage, start)
        return result

    def _done(self, stage: str, start: float) -> None:
        with stopping.held():
            times = self._content.setdefault(run_file.TIMES, {})
            times[stage] = round(times.get(stage, 0.0) + time.monotonic() - start, 3)
            if stage == "fit":
                self._results()
            self._write()

    def describe(self, store: ActivationStore, saes: Sequence[LoadedSae]) -> None:
        """Records fingerprints, and the SAEs' quality where their files tell it."""
        self._content["fingerprints"] = {"activations": dict(store.fingerprint)} | {
            sae.id: encoding.weights_digest(sae) for sae in saes
        }
        self._content["sae_quality"] = {
            sae.id: quality for sae in saes if (quality := _quality(sae)) is not None
        }
        self._write()

    def _results(self) -> None:
        """Records whose results the table holds, so that the report knows another run's file."""
        path = self._path.with_name(fitting.FILE_NAME)
        if path.exists():
            self._content[reporting.RESULTS] = reporting.fingerprints(table.read_rows(path))

    def leaks(self, config: encoding.EncodeConfig) -> None:
        """Records the leaks of the paper's standard split of each dataset."""
        names = config.datasets or datasets.names(config.source)
        loaded = (datasets.load(name, config.source) for name in names)
        self._content["leaks"] = leaks.measure(loaded, config.seed, config.dedup_by)
        self._write()

    def _write(self) -> None:
        replace_file(self._path, sealed.to_json(self._content))


def _train(config: RunConfig, store: ActivationStore, workdir: Path) -> LoadedSae | None:
    if config.train_sae is None:
        return None
    return training.train_sae(config.train_sae, store, trained_dir(config.train_sae, workdir))


def trained_dir(config: training.TrainSaeConfig, workdir: Path) -> Path:
    """Where the train_sae stage leaves its SAE."""
    kind = "" if config.architecture == "jump_relu" else f"{config.architecture}_"
    return workdir / SAES / f"{kind}{config.site}_width_{config.d_sae}_l0_{config.target_l0:g}"


def trained_sae(config: RunConfig, workdir: Path) -> LoadedSae | None:
    """The SAE that the train_sae stage left; None where the config trains none.

    Raises:
        FileNotFoundError: The stage has not been here.
    """
    if config.train_sae is None:
        return None
    folder = trained_dir(config.train_sae, workdir)
    if not (folder / native.FILE_NAME).exists():
        raise FileNotFoundError(
            f"there is no SAE in {folder}; run the train_sae stage first"
            " (on the whole job, before any shard)"
        )
    return load_sae(folder)


def load_saes(
    config: RunConfig, workdir: Path, trained: LoadedSae | None = None
) -> list[LoadedSae]:
    """The run's SAEs: the trained one first (read from disk if not given), then the named ones."""
    trained = trained or trained_sae(config, workdir)
    named = [_with_stored_site(names.load_labelled(source), config) for source in config.saes]
    return [*([trained] if trained else []), *named]


def _with_stored_site(sae: LoadedSae, config: RunConfig) -> LoadedSae:
    if sae.site is None or sae.site.stream not in MODULE_OUT:
        return sae
    return dataclasses.replace(sae, site=_identity(config).stored(sae.site))


def _quality(sae: LoadedSae) -> Mapping[str, object] | None:
    trained = sae.metadata.get("training")
    return trained.get("held_out") if isinstance(trained, Mapping) else None


def _section(name: str, value: object) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"`config.{name}` must hold keys and values, got {value!r}")
    return dict(value or {})


def device() -> str:
    """How many devices of which kind the process sees."""
    device = jax.devices()[0]
    return f"{jax.device_count()} x {device.platform} ({device.device_kind})"

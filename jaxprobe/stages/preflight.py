"""What a run would refuse in the end is refused before hours of work."""

from collections import Counter
from collections.abc import Sequence

from jaxprobe import checkpoints, checks, datasets, models
from jaxprobe.checkpoints import LoadedSae
from jaxprobe.experiments.config import Common, saes_to_train, sites_of
from jaxprobe.experiments.experiment import Experiment
from jaxprobe.results import TableError
from jaxprobe.workdir import Workdir
from jaxprobe.workspace import Workspace


def check_config(job: Common) -> None:
    """Raises ValueError for choices that do not exist and for settings that contradict each other."""
    extract = job.extract
    checks.check_choice("dtype", job.dtype, ("bfloat16", "float32"))
    checks.check_choice("extract.token_dtype", extract.token_dtype, ("bfloat16", "float32"))
    for name in ("model", "source"):
        if not getattr(job, name).strip():
            raise ValueError(f"`{name}` must name a file, folder or asset, got an empty text")
    if not extract.buckets or extract.max_length > max(extract.buckets):
        raise ValueError(
            f"`extract.max_length` must not exceed the largest of `extract.buckets`, got"
            f" {extract.max_length} and {extract.buckets}; add a bucket of {extract.max_length}"
        )
    sites_of(job)
    trained = saes_to_train(job)
    for one in trained:
        one.check()
    for name, count in Counter(one.id for one in trained).items():
        if count > 1:
            raise ValueError(f"`config.train_sae` asks for {name} twice; name it once")


def check_directory(work: Workdir) -> None:
    """Raises TableError for a work directory of an earlier version, which is never mixed with today's."""
    begun = work.jobs.children() or work.plans.children()
    if work.results.exists() and not begun:
        raise TableError(
            f"{work} holds a results.parquet without the folder results that this version writes: it is"
            " of an earlier version, or of published files; use another work directory"
        )


def check_inputs(
    experiment: Experiment,
    job: Common,
    named: Sequence[LoadedSae],
    identity: models.ModelIdentity,
) -> None:
    """Looks at datasets, the model and the named SAEs before anything is computed.

    Raises:
        ValueError: A dataset too small for any split, a site that the model lacks, an SAE for another
            width, with fewer latents than probes read, or a name that is taken.
    """
    names = experiment.names(job)
    datasets.check_names(names, job.source)
    trained = saes_to_train(job)
    for site in (*sites_of(job), *(one.site for one in trained)):
        if site.block >= identity.num_blocks:
            raise ValueError(
                f"`{site}` is not in {identity.name}: its blocks are 0 to {identity.num_blocks - 1}"
            )
    sources: dict[str, str] = {}
    for name, source in (
        *((one.id, "the train_sae stage") for one in trained),
        *((sae.id, sae.source) for sae in named),
    ):
        checkpoints.check_id(name, source, sources)
        sources[name] = source
    for sae in named:
        _check_sae(sae, identity)
    experiment.check(job, {sae.id: sae.d_sae for sae in (*trained, *named)})


def _check_sae(sae: LoadedSae, identity: models.ModelIdentity) -> None:
    if sae.site is None:
        raise ValueError(
            f"the SAE at {sae.source} does not say which site it reads; name a folder that follows the"
            " published layout, or save it with a site"
        )
    if sae.site.block >= identity.num_blocks:
        raise ValueError(
            f"the SAE at {sae.source} reads {sae.site}, which is not in {identity.name}: its blocks are 0"
            f" to {identity.num_blocks - 1}"
        )
    width = identity.widths.get(sae.site.stream, identity.d_model)
    if sae.d_model != width:
        raise ValueError(
            f"the SAE at {sae.source} reads activations {sae.d_model:,} wide, the model's at {sae.site}"
            f" are {width:,}; was it trained on another model?"
        )


def check_training(job: Common, workspace: Workspace) -> None:
    """Raises ValueError where SAEs were trained on another kind of activations than the store's."""
    store, saes = workspace.store, workspace.saes
    has_bos = store.fingerprint.get("bos") is not None
    other = [sae for sae in saes.values() if sae.bos == ("off" if has_bos else "on")]
    if other and job.bos == "auto":
        raise ValueError(
            f"SAE {other[0].id} was trained with BOS {other[0].bos}, and the activations in {store.root}"
            f" were made with BOS {'on' if has_bos else 'off'}; extract them into another work"
            " directory, or set bos by hand"
        )
    centred = [sae for sae in saes.values() if sae.centred]
    if centred and models.identify(job.model, job.dtype).norm == "rms":
        raise ValueError(
            f"SAE {centred[0].id} says center_writing_weights, which TransformerLens leaves out for models"
            f" without LayerNorm as {job.model} is one; take the key out of its cfg.json"
        )


def check_some_job(
    experiment: Experiment, job: Common, workspace: Workspace, names: Sequence[str]
) -> None:
    """Raises ValueError where no dataset yields anything to predict; the first that does ends it."""
    if any(next(iter(experiment.jobs(job, workspace, name)), None) for name in names):
        return
    sizes = ", ".join(f"{name} with {len(workspace.dataset(name).texts)}" for name in names[:3])
    raise ValueError(
        f"no dataset has a split in this job ({sizes} rows): they are too small for it, or the source has"
        " no such test set"
    )

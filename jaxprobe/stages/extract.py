"""Datasets to activations: every distinct prompt is run once and stored at every site asked for."""

from collections.abc import Callable, Sequence

from jaxprobe import models
from jaxprobe.experiments.config import Common, saes_to_train
from jaxprobe.experiments.experiment import Experiment
from jaxprobe.extraction.filling import fill
from jaxprobe.extraction.fingerprint import ExtractModel, Identity, fingerprint, open_made_so
from jaxprobe.extraction.passes import MakeForward
from jaxprobe.extraction.request import Request
from jaxprobe.jobs import Need
from jaxprobe.place import Place
from jaxprobe.store import ActivationStore, StoreWriter, is_store
from jaxprobe.workspace import Workspace

Identify = Callable[[str, str], Identity]


def run(
    config: Common,
    request: Request,
    place: Place,
    *,
    shared: Place | None = None,
    model: ExtractModel | None = None,
    identify: Identify | None = models.identify,
    make_forward: MakeForward = models.make_forward,
) -> ActivationStore:
    """Brings the store to hold all that is needed, running only what it lacks.

    Args:
        config: The model and how it is run.
        request: Prompts and where to read them.
        place: Where the store lies.
        shared: Another store, which is taken as it is if it lacks nothing.
        model: A loaded model in place of `config.model`.
        identify: Tells the identity of (model, dtype) without loading weights, from the hash of the file
            that holds weights and tokenizer. With it, a finished store is recognised at once; without it,
            the model is loaded to compare.
        make_forward: Makes the compiled pass of (model, sites, poolings).

    Returns:
        The store.

    Raises:
        ValueError: No prompts, a site that the model lacks, or activations that are not finite.
        StoreError: The store was made with different settings, is in use, or cannot be written.
    """
    settings, bos = config.extract, config.bos
    if model is None:
        if identify is not None:
            for there in (*((shared,) if shared else ()), place):
                if store := _finished(there, config, request, identify):
                    return store
        mesh = models.device_mesh(*settings.mesh)
        more = {} if mesh is None else {"mesh": mesh}
        model = models.load_model(config.model, config.dtype, **more)
    with StoreWriter(place, fingerprint(settings, bos, model)) as writer:
        wanted = request.stored(model)
        fill(writer, wanted, model, settings=settings, bos=bos, make_forward=make_forward)
        return writer.store()


def _finished(
    place: Place, config: Common, request: Request, identify: Identify
) -> ActivationStore | None:
    """The place's store, where it lacks nothing."""
    if not is_store(place):
        return None
    identity = identify(config.model, config.dtype)
    store = open_made_so(config.extract, config.bos, identity, place)
    return None if request.stored(identity).missing(store) else store


def check_same_way(config: Common, place: Place, identify: Identify) -> None:
    """Raises StoreError where the place holds activations that were made with different settings."""
    if is_store(place):
        identity = identify(config.model, config.dtype)
        open_made_so(config.extract, config.bos, identity, place)


def needs_of(
    experiment: Experiment, job: Common, workspace: Workspace, names: Sequence[str]
) -> list[Need]:
    """What the experiment reads, what SAEs are trained on, and what random SAEs are matched on."""
    needs = list(experiment.needs(job, workspace, names))
    read = tuple(dict.fromkeys(workspace.sae_sites.values()))
    if read:
        needs.append(Need(texts=workspace.control_texts, taps=tuple((s, "last") for s in read)))
    trained = dict.fromkeys(one.site for one in saes_to_train(job))
    chosen = job.extract.token_datasets
    for name in (names if chosen is None else chosen) if trained else ():
        taps = tuple((site, "tokens") for site in trained)
        needs.append(Need(texts=workspace.dataset(name).texts, taps=taps))
    return needs

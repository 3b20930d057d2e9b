"""Token activations to the SAEs that a job trains itself: `saes/NAME/sae.safetensors`."""

from jaxprobe.checkpoints import LoadedSae, load_sae
from jaxprobe.experiments.config import Common, saes_to_train
from jaxprobe.store import ActivationStore
from jaxprobe.training.identity import folder_of, is_trained
from jaxprobe.training.settings import SaeToTrain
from jaxprobe.training.trainer import train_sae
from jaxprobe.workdir import Workdir


def run(job: Common, store: ActivationStore, work: Workdir) -> None:
    """Trains every SAE that the job asks for and that is not there yet."""
    for one in saes_to_train(job):
        train_sae(one, store, folder_of(one, store, work))


def missing(job: Common, work: Workdir, store: ActivationStore) -> tuple[SaeToTrain, ...]:
    """The SAEs that are still to be trained."""
    return tuple(one for one in saes_to_train(job) if not is_trained(folder_of(one, store, work)))


def load(job: Common, work: Workdir, store: ActivationStore) -> list[LoadedSae]:
    """The SAEs that the stage has trained for this job.

    Raises:
        FileNotFoundError: The stage has not been here.
    """
    found = []
    for one in saes_to_train(job):
        folder = folder_of(one, store, work)
        if not is_trained(folder):
            raise FileNotFoundError(
                f"there is no SAE in {folder}; run the train_sae stage first (on the whole job, before"
                " any shard)"
            )
        found.append(load_sae(folder))
    return found

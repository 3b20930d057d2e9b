"""The words every other module uses: axis letters, sites, datasets, batches, splits, rows.

Array variables end in their axis letters, in order (`x_ND`, `tokens_BT`):

    N examples       B batch          T tokens        D d_model (residual width)
    S d_sae          K kept latents   P probes        F folds
    R regularisation strengths        G datasets      L layers
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from jaxprobe import arguments
from jaxprobe.sites import STREAMS as STREAMS
from jaxprobe.sites import Site as Site

POOLINGS = ("last", "tokens")
REGIMES = ("standard", "scarcity", "imbalance", "label_noise", "covariate_shift")
PROTOCOLS = ("paper", "dedup")
ACTIVATIONS = "activations"  # the `features` of a probe that reads activations, not latents


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDataset:
    """Labelled prompts.

    Attributes:
        name: Unique name, for example `66_living-room`.
        texts: N prompts.
        y_N: int32 labels in {0, 1}, both present.
        label_names: What 0 and 1 stood for in the source.
        source: Where the rows came from.

    Raises:
        ValueError: Prompts that are no texts, labels other than 0 and 1, or not one a prompt.
    """

    name: str
    texts: tuple[str, ...]
    y_N: np.ndarray
    label_names: tuple[str, str]
    source: str

    def __post_init__(self):
        """Checks what a caller gave; `datasets` finds both labels in what it reads."""
        if isinstance(self.texts, str) or not all(isinstance(text, str) for text in self.texts):
            raise ValueError(f"`texts` of {self.name} must be a sequence of texts, one a prompt")
        hint = f"`label_names` says what 0 and 1 stand for in {self.name}"
        y_N = arguments.labels("y_N", self.y_N, names=(0, 1), hint=hint).y_N
        if len(y_N) != len(self.texts):
            raise ValueError(
                f"`texts` and `y_N` of {self.name} must have one entry per example, got"
                f" {len(self.texts)} and {len(y_N)}"
            )
        object.__setattr__(self, "texts", tuple(self.texts))
        object.__setattr__(self, "y_N", y_N)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Token ids of B prompts in one length bucket, padded on the right.

    Attributes:
        tokens_BT: int32 ids, BOS first where the model has one.
        length_B: int32 count of real tokens; 0 marks a row that only fills the batch.
        prompt_B: int64 index of each prompt in the caller's list; -1 for filling rows.
    """

    tokens_BT: np.ndarray
    length_B: np.ndarray
    prompt_B: np.ndarray


class Fold(NamedTuple):
    """Positions inside a split's training rows: what a fold trains on and what it scores."""

    train: np.ndarray
    valid: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One train/test draw of one dataset: rows and labels, no activations.

    Attributes:
        dataset: The dataset's name.
        regime: One of `REGIMES`.
        level: Training size, positive fraction or noise fraction; NaN for regimes without one.
        protocol: `paper` or `dedup`.
        seed: Seed of the draw.
        train_N: Row numbers to train on (validation rows among them).
        y_train_N: Their labels, flipped ones included.
        test_N: Row numbers to test on. For covariate_shift they count rows of the shifted set.
        y_test_N: Their (clean) labels.
        folds: Validation folds; empty where there are too few rows to validate.
        num_rows: Rows of the dataset that `train_N` numbers; None where nobody knows.
    """

    dataset: str
    regime: str
    level: float
    protocol: str
    seed: int
    train_N: np.ndarray
    y_train_N: np.ndarray
    test_N: np.ndarray
    y_test_N: np.ndarray
    folds: tuple[Fold, ...]
    num_rows: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One evaluated probe: a line of `results.parquet`.

    `level` is NaN where the regime has none, `num_latents` 0 where the probe reads activations,
    `best_c` NaN where the method has no C.
    """

    model: str
    site: str
    features: str
    method: str
    num_latents: int
    dataset: str
    regime: str
    level: float
    protocol: str
    seed: int
    num_train: int
    num_test: int
    valid_auroc: float
    test_auroc: float
    test_f1: float
    test_accuracy: float
    best_c: float
    converged: bool
    fingerprint: str

    def key(self) -> tuple:
        """What makes a row unique: everything that names the probe, nothing that it scored."""
        level = None if math.isnan(self.level) else round(self.level, 6)
        return (
            *(self.model, self.site, self.features, self.method, self.num_latents),
            *(self.dataset, self.regime, level, self.protocol, self.seed, self.fingerprint),
        )

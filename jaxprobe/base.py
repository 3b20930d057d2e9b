"""The words every other module uses: axis letters, sites, datasets, batches, splits, rows.

Array variables end in their axis letters, in order (`x_ND`, `tokens_BT`):

    N examples       B batch          T tokens        D d_model (residual width)
    S d_sae          K kept latents   P probes        F folds
    R regularisation strengths        G datasets      L layers
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jaxprobe import arguments
from jaxprobe.sites import STREAMS as STREAMS
from jaxprobe.sites import Site as Site

POOLINGS = ("last", "tokens")
REGIMES = ("standard", "scarcity", "imbalance", "label_noise", "covariate_shift")
PROTOCOLS = ("paper", "dedup")
ACTIVATIONS = "activations"  # the `features` of a probe that reads activations, not latents
RANDOM_SAE = "random_sae"  # the control SAE's id, and its `features` in result rows
CONTROLS = ("", "shuffled_labels", "random_latents", RANDOM_SAE)
KINDS = ("baseline", "sae", "other")
SAE_METHOD = "logistic_l1"  # the paper's probe of latents
_IN_METHOD = ("shuffled_labels", "random_latents")  # controls that a row's `method` ends in


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TextDataset:
    """Labelled prompts; two are equal where all their fields are.

    Attributes:
        name: Unique name, for example `66_living-room`.
        texts: N prompts; any sequence of texts is taken.
        y_N: int32 labels in {0, 1}, both present. Booleans are taken, whole floats, and two distinct
            texts: those of `label_names`, else the first in their order is 0.
        label_names: What 0 and 1 stood for in the source, two texts that differ.
        source: Where the rows came from.

    Raises:
        ValueError: Labels that are no two classes or not as many as texts, or entries that are no texts.
    """

    name: str
    texts: tuple[str, ...]
    y_N: np.ndarray
    label_names: tuple[str, str] = ("0", "1")
    source: str = "memory"

    def __post_init__(self):
        """Checks and converts the fields; this is no pytree, so they are never tracers."""
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"`name` of a dataset must be a text, got {self.name!r}")
        if isinstance(self.texts, str | bytes):
            raise ValueError(
                f"`texts` must be several texts, got one, {self.texts[:40]!r}; write [text]"
            )
        if not isinstance(self.texts, Iterable):
            raise ValueError(f"`texts` must be several texts, got {self.texts!r:.80}")
        texts = tuple(self.texts)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"`texts` must be texts, got {text!r} in row {row}")
        y_N, names = _two_classes(self.y_N, self.label_names)
        if len(y_N) != len(texts):
            raise ValueError(
                f"`y_N` and `texts` must have one entry per example, got {len(y_N)} and {len(texts)}"
            )
        for field, value in (("texts", texts), ("y_N", y_N), ("label_names", names)):
            object.__setattr__(self, field, value)

    def __repr__(self) -> str:
        """Sizes, not the texts."""
        ones = int(self.y_N.sum())
        return (
            f"TextDataset(name={self.name!r}, {len(self.texts):,} texts:"
            f" {len(self.texts) - ones:,} {self.label_names[0]!r} and {ones:,}"
            f" {self.label_names[1]!r}, source={self.source!r})"
        )

    def __eq__(self, other: object) -> bool:
        """Whether all fields are the same."""
        return same_fields(self, other)

    def __hash__(self) -> int:
        """By what is short."""
        return hash((self.name, len(self.texts), self.source))


def same_fields(one: object, other: object) -> bool:
    """Whether two dataclasses of one type hold the same, arrays compared as wholes; NaN equals NaN."""
    if type(one) is not type(other):
        return NotImplemented
    return all(
        _same(getattr(one, field.name), getattr(other, field.name))
        for field in dataclasses.fields(one)  # type: ignore[arg-type]
    )


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(other))
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other or (one != one and other != other)


def _two_classes(labels: object, names: object) -> tuple[np.ndarray, tuple[str, str]]:
    """int32 labels in {0, 1}, and what they stand for."""
    known = _label_names(names)
    y_N = arguments.array("y_N", labels)
    if y_N.ndim != 1:
        raise ValueError(f"`y_N` must have one label per text, got shape {y_N.shape}")
    if y_N.dtype.kind != "U" or not len(y_N):
        found = arguments.labels("y_N", y_N, names=(0, 1), both=True, hint=_ONE_AGAINST_REST)
        return found.y_N, known
    distinct = np.unique(y_N).tolist()
    if len(distinct) != 2:
        raise ValueError(
            f"`y_N` must hold two classes, got {len(distinct)}: {', '.join(map(repr, distinct[:5]))};"
            f" keep two, or {_ONE_AGAINST_REST}"
        )
    if {*distinct} != {*known}:
        known = (distinct[0], distinct[1])
    return (y_N == known[1]).astype(np.int32), known


_ONE_AGAINST_REST = "make it one class against the rest"


def _label_names(names: object) -> tuple[str, str]:
    """Two different texts."""
    found = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else ()
    if len({*map(str, found)}) != 2 or not all(isinstance(name, str) for name in found):
        raise ValueError(f"`label_names` must be two texts that differ, got {names!r:.80}")
    return str(found[0]), str(found[1])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
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

    def __eq__(self, other: object) -> bool:
        """Whether all fields are the same."""
        return same_fields(self, other)

    __hash__ = None  # type: ignore[assignment]  # arrays have none


class Fold(NamedTuple):
    """Positions inside a split's training rows: what a fold trains on and what it scores."""

    train: np.ndarray
    valid: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        """Sizes, not the rows."""
        level = "" if math.isnan(self.level) else f", level={self.level:g}"
        return (
            f"Split({self.dataset!r}, {self.regime}{level}, {self.protocol}, seed={self.seed},"
            f" {len(self.train_N):,} rows to train on in {len(self.folds)} folds,"
            f" {len(self.test_N):,} to test on)"
        )

    def __eq__(self, other: object) -> bool:
        """Whether all fields are the same."""
        return same_fields(self, other)

    def __hash__(self) -> int:
        """By what is short."""
        return hash((self.dataset, self.regime, self.protocol, self.seed, len(self.train_N)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrow:
    """A method as results know it: what it reads, how it is fitted, and what it counts as.

    Attributes:
        features: `activations`, or the id of an SAE; of an experiment's own features their name.
        method: Which probe, without its control: `logistic_l1`.
        k: How many latents it reads; 0 where it reads all there is.
        control: One of `CONTROLS`.
        kind: One of `KINDS`: what the comparison of baselines with SAE probes takes it for.
        pooling: One of `POOLINGS`: how the tokens of a prompt become what it reads.
    """

    features: str
    method: str
    k: int = 0
    control: str = ""
    kind: str = "baseline"
    pooling: str = "last"

    def __str__(self) -> str:
        """A baseline's method, or an SAE's id and k, its method where that is not the usual one, and its control."""
        tail = f" ({self.control.replace('_', ' ')})" if self.control else ""
        if self.kind == "baseline" or not self.k:
            name = self.method if self.features == ACTIVATIONS else f"{self.features} {self.method}"
            return name + tail
        usual = "" if self.method == SAE_METHOD else f" {self.method}"
        return f"{self.features} k={self.k}{usual}{tail}"

    @property
    def row_method(self) -> str:
        """The `method` of its result rows, which names the controls of labels and latents as well."""
        return f"{self.method}_{self.control}" if self.control in _IN_METHOD else self.method


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One evaluated probe on one test set: a line of `results.parquet`.

    `level` is NaN where the regime has none, `num_latents` 0 where the probe reads activations,
    `best_c` NaN where the method has no C. `control` and `kind`, where they are not given, are what the
    names of `features` and `method` say: that is how the published files tell them.
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
    pooling: str = "last"
    control: str = ""
    test_set: str = "test"
    selection: str = "validation"
    kind: str = ""

    def __post_init__(self):
        """Reads control and kind off the names where the row does not say them."""
        control = self.control or control_of(self.features, self.method)
        kind = self.kind or _kind_of(self.features, control)
        object.__setattr__(self, "control", control)
        object.__setattr__(self, "kind", kind)

    @property
    def arrow(self) -> Arrow:
        """The method that the row scores."""
        return Arrow(
            features=self.features,
            method=self.method.removesuffix(f"_{self.control}") if self.control else self.method,
            k=self.num_latents,
            control=self.control,
            kind=self.kind,
            pooling=self.pooling,
        )

    def key(self) -> tuple:
        """What makes a row unique: everything that names the probe, nothing that it scored."""
        level = None if math.isnan(self.level) else round(self.level, 6)
        return (
            *(self.model, self.site, self.features, self.method, self.num_latents),
            *(self.dataset, self.regime, level, self.protocol, self.seed, self.fingerprint),
            *(self.pooling, self.test_set, self.selection),
        )


def control_of(features: str, method: str) -> str:
    """The control that the names of `features` and `method` in result rows tell; empty for none."""
    if features == RANDOM_SAE:
        return RANDOM_SAE
    return next((name for name in _IN_METHOD if method.endswith(f"_{name}")), "")


def _kind_of(features: str, control: str) -> str:
    if control:
        return "other"
    return "baseline" if features == ACTIVATIONS else "sae"

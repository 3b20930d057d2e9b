"""The types that every other module uses: sites, datasets, batches, splits, rows; and the axis letters.

Array variables end in their axis letters, in order (`x_ND`, `tokens_BT`); a digit is an axis of that size. A letter
has one meaning per module, one of these; a module that uses it for another axis says so.

    N examples                        A arrows, arrays of a store, or weights that may move
    M test rows                       B batch, block of latents, or bootstrap resamples
    V validation rows                 C columns
    D d_model                         E d_model of a decoder's output, or entries of a sparse matrix
    S d_sae                           G datasets, their cases, or groups of rows
    F folds                           K kept latents, or columns that a probe reads
    H candidates of a hyperparameter  I inputs, O outputs of a matrix product
    R regularisation strengths        L layers, or lanes
    P probes                          T tokens, test sets, or trial steps
    W words of a row's bytes          U latents that some split kept, or datasets as units
    Q queried positions
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxprobe.equality import same_fields as same_fields
from jaxprobe.sites import STREAMS as STREAMS
from jaxprobe.sites import Site as Site
from jaxprobe.text_dataset import Column as Column
from jaxprobe.text_dataset import TextDataset as TextDataset
from jaxprobe.text_dataset import joined as joined

POOLINGS = ("last", "mean", "max", "tokens")
REGIMES = ("standard", "scarcity", "imbalance", "label_noise", "covariate_shift")
PROTOCOLS = ("paper", "dedup")
ACTIVATIONS = "activations"  # the `features` of a probe that reads activations
RANDOM_SAE = "random_sae"  # the control SAE's id, and its `features` in result rows
CONTROLS = ("", "shuffled_labels", "random_latents", RANDOM_SAE)
KINDS = ("baseline", "sae", "other")
SAE_METHOD = "logistic_l1"  # the paper's probe of latents
_IN_METHOD = ("shuffled_labels", "random_latents")  # controls that are a suffix of a row's `method`


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

    __hash__ = None  # type: ignore[assignment]  # arrays are not hashable


class Fold(NamedTuple):
    """Positions within a split's training rows: those that a fold trains on and those it scores."""

    train: np.ndarray
    valid: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TestSet:
    """Rows that a probe is tested on.

    Attributes:
        name: Unique among the test sets of a split.
        row_M: Row numbers, of the same table as the split's `train_N`.
        y_M: Their (clean) labels in {0, 1}.
        group_M: A group's code per row, -1 for none, where a metric compares groups; else None.
    """

    __test__ = False  # not a test for pytest

    name: str
    row_M: np.ndarray
    y_M: np.ndarray
    group_M: np.ndarray | None = None

    def __repr__(self) -> str:
        """Sizes, not the rows."""
        groups = "" if self.group_M is None else ", in groups"
        return f"TestSet({self.name!r}, {len(self.row_M):,} rows{groups})"

    def __eq__(self, other: object) -> bool:
        """Whether all fields are the same."""
        return same_fields(self, other)

    def __hash__(self) -> int:
        """By what is short."""
        return hash((self.name, len(self.row_M)))


def _one_test_set(row_M: np.ndarray | None, y_M: np.ndarray | None) -> TestSet:
    if row_M is None or y_M is None:
        raise ValueError("`test_N` and `y_test_N` must both be given, or `tests` instead of them")
    return TestSet(name="test", row_M=row_M, y_M=y_M)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False, init=False)
class Split:
    """One draw of training rows and one or more test sets: row numbers and labels, no activations.

    All rows belong to one table: the dataset's or, under covariate shift, `joined(dataset, shifted)`.

    Attributes:
        dataset: The dataset's name.
        regime: One of `REGIMES`.
        level: Training size, positive fraction or noise fraction; NaN for regimes without one.
        protocol: `paper` or `dedup`.
        seed: Seed of the draw.
        train_N: Row numbers to train on (validation rows included).
        y_train_N: Their labels, flipped ones included.
        folds: Validation folds; empty where there are too few rows to validate.
        tests: Test sets by distinct names, at least one.
        weight_train_N: Non-negative weights of training rows, in fits and in validation; None for 1.
        num_rows: Rows of the table; None if unknown.
    """

    dataset: str
    regime: str
    level: float
    protocol: str
    seed: int
    train_N: np.ndarray
    y_train_N: np.ndarray
    folds: tuple[Fold, ...]
    tests: tuple[TestSet, ...]
    weight_train_N: np.ndarray | None = None
    num_rows: int | None = None

    def __init__(
        self,
        *,
        dataset: str,
        regime: str,
        level: float,
        protocol: str,
        seed: int,
        train_N: np.ndarray,
        y_train_N: np.ndarray,
        folds: tuple[Fold, ...],
        tests: Iterable[TestSet] = (),
        weight_train_N: np.ndarray | None = None,
        num_rows: int | None = None,
        test_N: np.ndarray | None = None,
        y_test_N: np.ndarray | None = None,
    ):
        """Takes the fields; `test_N` and `y_test_N` are short for one test set, named `test`.

        Given together with `tests`, as by `dataclasses.replace`, they replace those of the first set.

        Raises:
            ValueError: No test set, or two of the same name.
        """
        tests = tuple(tests)
        if test_N is not None or y_test_N is not None:
            first = tests[0] if tests else _one_test_set(test_N, y_test_N)
            row_M, y_M = (
                kept if given is None else given
                for given, kept in ((test_N, first.row_M), (y_test_N, first.y_M))
            )
            tests = (dataclasses.replace(first, row_M=row_M, y_M=y_M), *tests[1:])
        names = [test.name for test in tests]
        if not tests or len({*names}) < len(names):
            raise ValueError(
                f"`tests` of a split of {dataset} must be test sets of distinct names, at least one,"
                f" got {names}"
            )
        fields = {
            "dataset": dataset,
            "regime": regime,
            "level": level,
            "protocol": protocol,
            "seed": seed,
            "train_N": train_N,
            "y_train_N": y_train_N,
            "folds": folds,
            "tests": tests,
            "weight_train_N": weight_train_N,
            "num_rows": num_rows,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def test_N(self) -> np.ndarray:
        """Row numbers of the first test set."""
        return self.tests[0].row_M

    @property
    def y_test_N(self) -> np.ndarray:
        """Labels of the first test set."""
        return self.tests[0].y_M

    @functools.cached_property
    def digest(self) -> str:
        """Hex SHA-256 of what the split draws: rows, labels, weights, folds, test sets and names."""
        named = (self.dataset, self.regime, self.level, self.protocol, self.seed)
        found = hashlib.sha256(repr(named).encode())
        arrays = [self.train_N, self.y_train_N, self.weight_train_N]
        arrays += [part for fold in self.folds for part in (fold.train, fold.valid)]
        for test in self.tests:
            found.update(test.name.encode())
            arrays += [test.row_M, test.y_M, test.group_M]
        for array in arrays:
            content = b"none" if array is None else np.asarray(array).astype("<f8").tobytes()
            found.update(len(content).to_bytes(8, "little") + content)
        return found.hexdigest()

    def __repr__(self) -> str:
        """Sizes, not the rows."""
        level = "" if math.isnan(self.level) else f", level={self.level:g}"
        return (
            f"Split({self.dataset!r}, {self.regime}{level}, {self.protocol}, seed={self.seed},"
            f" {len(self.train_N):,} rows to train on in {len(self.folds)} folds,"
            f" {', '.join(f'{len(test.row_M):,}' for test in self.tests)} to test on)"
        )

    def __eq__(self, other: object) -> bool:
        """Whether all fields are the same."""
        return same_fields(self, other)

    def __hash__(self) -> int:
        """By what is short."""
        return hash((self.dataset, self.regime, self.protocol, self.seed, len(self.train_N)))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prediction:
    """The scores of one method on one split, before any metric.

    Attributes:
        valid_auroc: The score by which methods are chosen: mean AUROC over validation folds at the chosen
            value (the training AUROC where there are no folds).
        score_M: Per test set, by name, the log-odds of class 1 of each row.
        valid_score_FN: Log-odds of training rows by the model of each fold at the chosen value; NaN for
            rows that the fold trains on, and for a fold that trains on one class only.
        best_value: The chosen value of the method's hyperparameter.
        converged: Whether every fit that the result rests on reached its optimum.
        residual: The largest certificate among those fits.
        model: The model that scored the rows, where the method returns it: a pytree, called with features.
    """

    valid_auroc: Any
    score_M: Mapping[str, Any]
    valid_score_FN: Any
    best_value: Any = math.nan
    converged: Any = True
    residual: Any = 0.0
    model: Any = None

    def __repr__(self) -> str:
        """Sizes, not the scores."""
        sizes = ", ".join(
            f"{name!r}: {len(score_M):,} rows" for name, score_M in self.score_M.items()
        )
        return f"Prediction(valid_auroc={self.valid_auroc!r}, {sizes})"

    def __eq__(self, other: object) -> bool:
        """Whether all fields are the same."""
        return same_fields(self, other)

    __hash__ = None  # type: ignore[assignment]  # arrays are not hashable


jax.tree_util.register_dataclass(
    Prediction,
    ("valid_auroc", "score_M", "valid_score_FN", "best_value", "converged", "residual", "model"),
    (),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrow:
    """A method as named in results: what it reads, how it is fitted, and what it counts as.

    Attributes:
        features: `activations`, the id of an SAE, or the name of an experiment's own features.
        method: The probe, without its control, such as `logistic_l1`.
        k: How many latents it reads; 0 for all features.
        control: One of `CONTROLS`.
        kind: One of `KINDS`: its role in the comparison of baselines with SAE probes.
        pooling: One of `POOLINGS`: how the tokens of a prompt become its features.
    """

    features: str
    method: str
    k: int = 0
    control: str = ""
    kind: str = "baseline"
    pooling: str = "last"

    def __str__(self) -> str:
        """A baseline's method, or an SAE's id and k with its method if unusual; then its control."""
        tail = f" ({self.control.replace('_', ' ')})" if self.control else ""
        if self.kind == "baseline" or not self.k:
            name = self.method if self.features == ACTIVATIONS else f"{self.features} {self.method}"
            return name + tail
        usual = "" if self.method == SAE_METHOD else f" {self.method}"
        return f"{self.features} k={self.k}{usual}{tail}"

    @property
    def row_method(self) -> str:
        """The `method` of its result rows, which includes the controls of labels and latents."""
        return f"{self.method}_{self.control}" if self.control in _IN_METHOD else self.method


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One evaluated probe on one test set: a line of `results.parquet`.

    `level` is NaN where the regime has none, `num_latents` 0 where the probe reads activations,
    `best_c` NaN where the method has no C. `control` and `kind`, if not given, are derived from the names
    in `features` and `method`, as published files have only those.
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
        """Derives control and kind from the names where they are not given."""
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
        """What makes a row unique: everything that identifies the probe, and none of its scores."""
        level = None if math.isnan(self.level) else round(self.level, 6)
        return (
            *(self.model, self.site, self.features, self.method, self.num_latents),
            *(self.dataset, self.regime, level, self.protocol, self.seed, self.fingerprint),
            *(self.pooling, self.test_set, self.selection),
        )


def control_of(features: str, method: str) -> str:
    """The control implied by `features` and `method` of a result row; empty for none."""
    if features == RANDOM_SAE:
        return RANDOM_SAE
    return next((name for name in _IN_METHOD if method.endswith(f"_{name}")), "")


def _kind_of(features: str, control: str) -> str:
    if control:
        return "other"
    return "baseline" if features == ACTIVATIONS else "sae"

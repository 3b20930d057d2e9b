"""One probe on rows that the caller has: `fit_probe`, also under jit, vmap and shard_map."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from jaxprobe import arguments, base, checks, regimes, selection
from jaxprobe.probes import grid, registry, traced

FEATURES = (base.ACTIVATIONS, "latents")
PENALTIES = ("l1", "l2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """How a probe did; see `Scores` for what each number means."""

    valid_auroc: Any
    test_auroc: Any
    test_f1: Any
    test_accuracy: Any
    best_value: Any
    converged: Any
    residual: Any

    @property
    def best_c(self) -> Any:
        """The chosen C of a logistic probe."""
        return self.best_value


_NUMBERS = tuple(field.name for field in dataclasses.fields(ProbeResult))
jax.tree_util.register_dataclass(ProbeResult, _NUMBERS, ())


def fit_probe(
    method: str,
    x_train,
    y_train,
    x_test,
    y_test,
    *,
    seed: int = 42,
    features: str = base.ACTIVATIONS,
    num_latents: int | None = None,
    penalty: str | None = None,
    ranking: str | None = None,
    dtype: str = "auto",
) -> ProbeResult:
    """Fits one probe by the protocol: folds by training size, best hyperparameter, refit, test.

    Args:
        method: A key of `registry.PROBES`.
        x_train: [N, D] activations, or [N, S] latents: finite numbers, of any array-like; read as
            float32.
        y_train: [N] labels, both classes: 0 and 1, booleans, or two other whole numbers or texts, of
            which the smaller (the first in the order of characters) is class 0.
        x_test: [M, D] or [M, S].
        y_test: [M] labels, among those of `y_train`.
        seed: Seed of the validation folds and of the probe's own randomness.
        features: `activations`, or `latents`: the k best by class-mean difference are read.
        num_latents: k, of latents; all where None.
        penalty: Of `logistic`: `l2` or `l1`; by default `l2` for activations and `l1` for latents.
        ranking: Of latents, see `selection.score`; by default `normalised`.
        dtype: Arithmetic: `float64`, `float32`, or `auto`: float64 on CPUs. Traced, `auto` follows
            `jax_enable_x64`, and so must what is asked for. Methods of host libraries take `auto` only.

    Returns:
        Validation AUROC at the chosen value; test AUROC, support-weighted F1 and accuracy at
        probability 0.5. `converged` is False where a fit stopped before its optimum. Python
        numbers; scalar arrays where an argument is traced (values are then not checked: labels
        of one class alone give an AUROC of 0.5, or NaN in the test).

    Raises:
        ValueError: Unknown names, shapes that disagree, labels that are not binary, one class only,
            features that are not finite, or arguments that have no effect on this method.

    Example:
        >>> import jax, numpy as np
        >>> import jaxprobe as jp
        >>> y = np.arange(300) % 2
        >>> x = np.random.default_rng(0).normal(size=(300, 8)) + y[:, None]
        >>> score = jp.fit_probe("logistic", x[:200], y[:200], x[200:], y[200:])
        >>> score.converged and score.test_auroc > 0.95
        True

    References:
        Kantamneni et al., Are Sparse Autoencoders Useful?, arXiv 2502.16681.
    """
    probe = registry.PROBES[_method(method, features, penalty)]
    seed = arguments.whole("seed", seed, 0, 2**32 - 1)
    num_latents, ranking = _latents(features, num_latents, ranking)
    if probe.on_host and dtype != "auto":
        raise ValueError(f"`dtype` has no effect on {method}, a library's; leave it out")
    arrays = _checked(x_train, y_train, x_test, y_test)
    x_train, y_train, x_test, y_test = arrays
    if not arguments.traced(*arrays):
        x_ND, split = table_of(*arrays, seed)
        columns = None
        if features == "latents":
            columns = [_ranked(x_ND[split.train_N], split.y_train_N, num_latents, ranking)]
        count = () if columns is None else (len(columns[0]),)
        fit = functools.partial(grid.fit_grid, columns=columns, num_latents=count, dtype=dtype)
        scores = fit(probe, x_ND, [split])
        return ProbeResult(**{name: np.ravel(getattr(scores, name))[0].item() for name in _NUMBERS})
    if probe.on_host:
        raise ValueError(f"{method} runs on the host and cannot be traced; call it outside of jit")
    if features == "latents":
        index_K = traced.ranked(x_train, y_train, num_latents, ranking)
        x_train, x_test = x_train[:, index_K], x_test[:, index_K]
    scores = traced.fit(probe, x_train, y_train, x_test, y_test, seed, grid.traced_dtype(dtype))
    return ProbeResult(**{name: getattr(scores, name) for name in _NUMBERS})


def _method(method: str, features: str, penalty: str | None) -> str:
    """The key of `PROBES` that a method and a penalty name."""
    checks.check_choice("method", method, registry.PROBES)
    checks.check_choice("features", features, FEATURES)
    if penalty is not None:
        checks.check_choice("penalty", penalty, PENALTIES)
        if method != "logistic":
            raise ValueError(f"`penalty` is of `logistic` alone, got it for {method}; leave it out")
    default = "l1" if features == "latents" else "l2"
    return "logistic_l1" if method == "logistic" and (penalty or default) == "l1" else method


def _latents(features: str, num_latents, ranking: str | None) -> tuple[int | None, str]:
    """What only latents have."""
    for name, given in (("num_latents", num_latents), ("ranking", ranking)):
        if given is not None and features != "latents":
            raise ValueError(
                f"`{name}` has no effect on {features}; leave it out, or set features='latents'"
            )
    if num_latents is not None:
        num_latents = arguments.whole("num_latents", num_latents, 1)
    ranking = "normalised" if ranking is None else ranking
    checks.check_choice("ranking", ranking, selection.RANKINGS)
    return num_latents, ranking


def _checked(x_train, y_train, x_test, y_test) -> tuple[Any, Any, Any, Any]:
    """The arrays, in numbers; what is traced as it is."""
    x_train = arguments.features("x_train", x_train)
    hint = "train and test must agree"
    x_test = arguments.features("x_test", x_test, (None, x_train.shape[1]), hint)
    # Of traced ones the precision is the program's.
    x_train, x_test = (
        x if arguments.traced(x) else x.astype(np.float32) for x in (x_train, x_test)
    )
    names = None
    if not arguments.traced(y_train):
        y_train, names = arguments.labels("y_train", y_train, both=True)
    if not arguments.traced(y_test):
        # Traced training labels are 0 and 1, for nothing else can be read there.
        y_test = arguments.labels("y_test", y_test, names=names or (0, 1)).y_N
    for name, y_N, x_ND in (("y_train", y_train, x_train), ("y_test", y_test, x_test)):
        checks.check_shape(name, y_N, (x_ND.shape[0],), "one label per row")
    return x_train, y_train, x_test, y_test


def table_of(x_train, y_train, x_test, y_test, seed: int) -> tuple[np.ndarray, base.Split]:
    """All rows in one array, and the split that numbers them."""
    num_train = len(y_train)
    split = base.Split(
        dataset="",
        regime="standard",
        level=float("nan"),
        protocol="paper",
        seed=seed,
        train_N=np.arange(num_train),
        y_train_N=y_train,
        test_N=np.arange(num_train, num_train + len(y_test)),
        y_test_N=y_test,
        folds=regimes.validation_folds(y_train, seed),
    )
    return np.concatenate([np.asarray(x_train), np.asarray(x_test)]), split


def _ranked(z_NS, y_N, num_latents: int | None, ranking: str) -> np.ndarray:
    width = z_NS.shape[1] if num_latents is None else num_latents
    weights = selection.class_weights(len(z_NS), [(np.arange(len(y_N)), np.asarray(y_N))])
    top = selection.top_latents(
        lambda start, stop: z_NS[:, start:stop], z_NS.shape[1], weights, width, ranking
    )
    return np.asarray(top.index_PK[0])

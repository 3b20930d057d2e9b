"""One probe on the caller's own rows: `fit_probe`, also under jit, vmap and shard_map."""

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxprobe import arguments, base, checks, regimes, selection
from jaxprobe.probes import grid, registry, traced
from jaxprobe.probes.fitted import FittedProbe
from jaxprobe.probes.host_probe import HostProbe
from jaxprobe.probes.knn import NeighboursModel

FEATURES = (base.ACTIVATIONS, "latents")
PENALTIES = ("l1", "l2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """The scores of a probe, and the probe itself; see `Scores` for what each number means.

    Attributes:
        probe: The fitted probe: it scores new activations, `probe(x_ND) -> log-odds`, and can be saved.
        no_probe: Why there is no probe, in a sentence; empty where there is one.
    """

    valid_auroc: Any
    test_auroc: Any
    test_f1: Any
    test_accuracy: Any
    best_value: Any
    converged: Any
    residual: Any
    probe: FittedProbe | None = dataclasses.field(default=None, compare=False, repr=False)
    no_probe: str = dataclasses.field(default="", compare=False, repr=False)

    @property
    def best_c(self) -> Any:
        """The chosen C of a logistic probe."""
        return self.best_value


_NUMBERS = tuple(field.name for field in dataclasses.fields(ProbeResult) if field.compare)
jax.tree_util.register_dataclass(ProbeResult, (*_NUMBERS, "probe"), ("no_probe",))


def fit_probe(
    method: str,
    x_train: Any,
    y_train: Any,
    x_test: Any,
    y_test: Any,
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
        x_train: [N, D] activations, or [N, S] latents: finite numbers, any array-like; read as float32.
        y_train: [N] labels of both classes: 0 and 1, booleans, or two other integers or strings, of which
            the smaller (the first in character order) is class 0.
        x_test: [M, D] or [M, S].
        y_test: [M] labels, among those of `y_train`.
        seed: Seed of the validation folds and of the probe's own randomness.
        features: `activations`, or `latents`: the k best by class-mean difference are read.
        num_latents: k, for latents only; None reads all.
        penalty: For `logistic` only: `l2` or `l1`; by default `l2` for activations and `l1` for latents.
        ranking: For latents only, see `selection.score`; by default `normalised`.
        dtype: Arithmetic: `float64`, `float32`, or `auto`: float64 on CPUs. In a traced call `auto` follows
            `jax_enable_x64`, without which float64 is refused. Methods of host libraries take only `auto`.

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
    method = _method(method, features, penalty)
    probe = registry.PROBES[method]
    seed = arguments.whole("seed", seed, 0, 2**32 - 1)
    num_latents, ranking = _latents(features, num_latents, ranking)
    if probe.on_host and dtype != "auto":
        raise ValueError(
            f"`dtype` has no effect on {method}, a method of a host library; leave it out"
        )
    arrays = _checked(x_train, y_train, x_test, y_test)
    if arguments.traced(*arrays):
        return _traced(method, arrays, seed, features, num_latents, ranking, dtype)
    x_ND, split = table_of(*arrays, seed)
    columns = None
    if features == "latents":
        columns = [_ranked(x_ND[split.train_N], split.y_train_N, num_latents, ranking)]
    count = () if columns is None else (len(columns[0]),)
    scores = grid.fit_grid(
        method,
        x_ND,
        [split],
        columns=columns,
        num_latents=count,
        dtype=dtype,
        keep_probes=True,
    )
    kept = jax.tree.leaves(scores.probes, is_leaf=lambda leaf: isinstance(leaf, FittedProbe))
    kept = kept[0] if kept else None
    return ProbeResult(
        **{name: np.ravel(getattr(scores, name))[0].item() for name in _NUMBERS},
        probe=kept,
        no_probe="" if kept is not None else f"{method}'s model stays inside its library",
    )


def _traced(
    method: str,
    arrays: tuple[Any, Any, Any, Any],
    seed: int,
    features: str,
    num_latents: int | None,
    ranking: str,
    dtype: str,
) -> ProbeResult:
    """The same inside a caller's compiled program."""
    probe = registry.PROBES[method]
    if isinstance(probe, HostProbe):
        raise ValueError(f"{method} runs on the host and cannot be traced; call it outside of jit")
    x_train, y_train, x_test, y_test = arrays
    num_features, index_K = x_train.shape[1], None
    if features == "latents":
        index_K = traced.ranked(x_train, y_train, num_latents, ranking)
        x_train, x_test = x_train[:, index_K], x_test[:, index_K]
    scores, model = traced.fit(
        probe, x_train, y_train, x_test, y_test, seed, grid.traced_dtype(dtype)
    )
    kept, reason = (
        None,
        "a traced kNN is not returned: its training rows would be copied for every lane",
    )
    if not isinstance(model, NeighboursModel):
        reason = ""
        kept = FittedProbe(
            model=model,
            latents=index_K,
            method=method,
            num_features=num_features,
            number_format=str(x_train.dtype),
        )
    return ProbeResult(
        **{name: getattr(scores, name) for name in _NUMBERS}, probe=kept, no_probe=reason
    )


def _method(method: str, features: str, penalty: str | None) -> str:
    """The key of `PROBES` that a method and a penalty name."""
    checks.check_choice("method", method, registry.PROBES)
    checks.check_choice("features", features, FEATURES)
    if penalty is not None:
        checks.check_choice("penalty", penalty, PENALTIES)
        if method != "logistic":
            raise ValueError(
                f"`penalty` applies to `logistic` only, got it for {method}; leave it out"
            )
    default = "l1" if features == "latents" else "l2"
    return "logistic_l1" if method == "logistic" and (penalty or default) == "l1" else method


def _latents(features: str, num_latents, ranking: str | None) -> tuple[int | None, str]:
    """The arguments that apply to latents only, with their defaults."""
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
    """The arrays, checked and as numbers; traced ones unchanged."""
    x_train = arguments.features("x_train", x_train)
    hint = "train and test must agree"
    x_test = arguments.features("x_test", x_test, (None, x_train.shape[1]), hint)
    # Traced arrays keep the precision of the caller's program.
    x_train, x_test = (
        x if arguments.traced(x) else x.astype(np.float32) for x in (x_train, x_test)
    )
    names = None
    if not arguments.traced(y_train):
        y_train, names = arguments.labels("y_train", y_train, both=True)
    if not arguments.traced(y_test):
        # Traced training labels must be 0 and 1, since their values cannot be read.
        y_test = arguments.labels("y_test", y_test, names=names or (0, 1)).y_N
    for name, y_N, x_ND in (("y_train", y_train, x_train), ("y_test", y_test, x_test)):
        checks.check_shape(name, y_N, (x_ND.shape[0],), "one label per row")
    return x_train, y_train, x_test, y_test


def table_of(
    x_train: Any, y_train: Any, x_test: Any, y_test: Any, seed: int
) -> tuple[np.ndarray, base.Split]:
    """All rows in one array, and the split over them."""
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

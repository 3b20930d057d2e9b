"""What callers may hand over as arrays, labels and numbers, and what is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import arguments, base, regimes, selection

WANTED = [[1.5, 2.0], [3.0, -4.0]]


def readable():
    """The same matrix in every form that is read."""
    x_ND = np.array(WANTED)
    frozen = x_ND.copy()
    frozen.flags.writeable = False
    yield from (WANTED, tuple(map(tuple, WANTED)), x_ND, frozen, x_ND.astype(">f8"))
    yield from (x_ND.astype(kind) for kind in (np.float16, np.float32, np.longdouble, object))
    yield np.asfortranarray(x_ND)
    yield np.repeat(x_ND, 2, axis=1)[:, ::2]
    yield from (jnp.asarray(x_ND, jnp.float32), jnp.asarray(x_ND, jnp.bfloat16))
    yield np.asarray(jnp.asarray(x_ND, jnp.bfloat16))


def test_every_form_of_a_matrix_is_read():
    for value in readable():
        np.testing.assert_array_equal(np.asarray(arguments.features("x", value), float), WANTED)
    assert arguments.features("x", np.ones((2, 2), bool)).dtype == np.float32


def test_tensors_are_read_off_their_gradient_and_their_precision():
    torch = pytest.importorskip("torch", reason="its tensors are read")
    x_ND = torch.tensor(WANTED)
    tensors = [x_ND, x_ND.requires_grad_(), x_ND.bfloat16(), x_ND.half(), x_ND.double(), x_ND.T.T]
    for value in tensors:
        np.testing.assert_array_equal(arguments.features("x", value), WANTED)
    assert arguments.labels("y", torch.tensor([True, False])).y_N.tolist() == [1, 0]
    for value in (x_ND.detach().to_sparse(), x_ND.to_sparse()):
        with pytest.raises(ValueError, match="`x` must be a dense array, got a sparse Tensor"):
            arguments.features("x", value)
    with pytest.raises(ValueError, match="`x` must be an array, got Tensor"):
        arguments.features("x", torch.empty((2, 2), device="meta"))


def test_sparse_matrices_are_refused():
    sparse = pytest.importorskip("scipy.sparse", reason="its matrices are refused")
    for value in (sparse.csr_matrix(WANTED), sparse.coo_array(np.array(WANTED))):
        with pytest.raises(ValueError, match="`x` must be a dense array, got a sparse"):
            arguments.features("x", value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.ma.masked_array(WANTED, [[0, 1], [0, 0]]), "must be a plain array, got a masked one"),
        ([[1.0, 2.0], [3.0]], "must be an array"),
        (np.array([[1, None]], object), r"Python objects \(NoneType, int\)"),
        ([["a", "b"]], "must hold real numbers, got text"),
        (np.array([[1j]]), "must hold real numbers, got complex"),
        (np.zeros((2, 2), "M8[s]"), "must hold real numbers, got datetime64"),
        (np.array([[1.0, np.nan]]), r"must be finite, got nan at index \(0, 1\)"),
        (jnp.array([[1.0, -np.inf]]), r"must be finite, got -inf at index \(0, 1\)"),
        (np.array([[1.0, 1e39]]), r"must be in the range of float32, got numbers up to 1e\+39"),
        (np.zeros((0, 3)), "must have at least one row and column"),
        (np.zeros(3), r"must have shape \(\*, \*\)"),
        ({1.0, 2.0}, "Python objects"),
    ],
)
def test_what_can_only_be_misread_is_refused(value, said):
    with pytest.raises(ValueError, match=f"`x` {said}|`x` must be an array.*{said}"):
        arguments.features("x", value)


def test_huge_but_finite_features_are_finite():
    x_ND = np.full((4, 4), 3e38, np.float32)  # their sum is not
    assert arguments.features("x", x_ND) is not None


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([0, 1, 1], (0, 1)),
        ([0.0, 1.0, 1.0], (0, 1)),
        ([False, True, True], (False, True)),
        ([-1, 1, 1], (-1, 1)),
        ([0, 2, 2], (0, 2)),
        (np.array([1, 2, 2], ">i8"), (1, 2)),
        (np.array([200, 201, 201], np.uint8), (200, 201)),
        (["cat", "dog", "dog"], ("cat", "dog")),
        (np.array(["cat", "dog", "dog"], object), ("cat", "dog")),
        (np.array([b"n", b"y", b"y"]), (b"n", b"y")),
        (np.array([False, True, True], object), (False, True)),
        (jnp.array([0, 1, 1], jnp.bfloat16), (0, 1)),
    ],
)
def test_labels_of_every_kind_are_two_numbers(given, names):
    found = arguments.labels("y", given, both=True)
    assert found.y_N.tolist() == [0, 1, 1] and found.y_N.dtype == np.int32
    assert found.names == names
    # Test labels follow the training labels, of one class too.
    assert arguments.labels("y", given[1:], names=names).y_N.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([0.2, 1.0], "whole numbers or text, got 0.2 at index 0"),
        ([0.9, 1.9], "whole numbers or text, got 0.9 at index 0"),
        ([0.0, np.nan], "whole numbers or text, got nan at index 1"),
        ([0, 1, 2], "0 and 1, or two others, got 3: 0, 1, 2"),
        ([2, 2], "0 and 1, or two others, got 1: 2"),
        (["a", "b", "c"], "got 3: 'a', 'b', 'c'"),
        (np.array([0, None], object), "Python objects"),
        ([[0], [1]], r"one label per example, got shape \(2, 1\)"),
        ("ab", r"one label per example, got shape \(\)"),
        ([1, 1], r"both classes, got only label \[1\]"),
        (np.array([1j, 0]), "must hold labels, got complex"),
    ],
)
def test_what_are_no_binary_labels_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        arguments.labels("y", given, both=True)


def test_labels_that_others_have_not_named_are_refused():
    with pytest.raises(ValueError, match="the labels 'a' and 'b' only, got 'c'"):
        arguments.labels("y", ["a", "c"], names=("a", "b"))


def test_whole_numbers_and_positions():
    assert arguments.whole("k", np.int64(3), 1) == 3
    for bad in (0, 2.0, True, "3", None, 9):
        with pytest.raises(
            ValueError, match=f"`k` must be a whole number from 1 to 8, got {bad!r}"
        ):
            arguments.whole("k", bad, 1, 8)
    assert arguments.positions("rows", [0, 4], 5).tolist() == [0, 4]
    for bad in ([0, 5], [-1], [0.0], [True], [[0]]):
        with pytest.raises(ValueError, match="`rows` must"):
            arguments.positions("rows", bad, 5)


def dataset(**changes):
    texts = tuple(f"text {row}" for row in range(240))
    given = {"name": "d", "texts": texts, "y_N": np.arange(240) % 2, "source": "test"}
    return base.TextDataset(**(given | {"label_names": ("a", "b")} | changes))


def test_splits_take_datasets_and_a_seed():
    assert regimes.splits(dataset())[0].num_rows == 240
    for changes in ({"seed": -1}, {"seed": 1.5}, {"shifted": 3, "regime": "covariate_shift"}):
        with pytest.raises(ValueError, match=r"`(seed|shifted)` must"):
            regimes.splits(dataset(), **changes)
    with pytest.raises(ValueError, match="`dataset` must be a TextDataset, got list"):
        regimes.splits(["a text"])


def test_class_weights_refuse_rows_that_are_not_there():
    y_N = np.array([0, 1, 1])
    for rows, said in (([0, 1, 4], "between 0 and 3, got 4"), ([0, -1, 2], "got -1")):
        with pytest.raises(ValueError, match=said):
            selection.class_weights(4, [(rows, y_N)])
    with pytest.raises(ValueError, match="one entry per example, got 2 and 3"):
        selection.class_weights(4, [([0, 1], y_N)])
    with pytest.raises(ValueError, match=r"whole numbers or text, got 0\.5"):
        selection.class_weights(4, [([0, 1, 2], [0.5, 1, 0])])
    assert selection.class_weights(4, [([0, 1], ["no", "yes"])]).pos_PN.tolist() == [[0, 1, 0, 0]]


def test_top_latents_refuse_latents_that_rank_nothing():
    weights = selection.class_weights(4, [(np.arange(4), np.arange(4) % 2)])
    z_NS = np.ones((4, 3), np.float32)

    def top(z_NS, k=2, **others):
        return selection.top_latents(
            lambda start, stop: z_NS[:, start:stop], 3, weights, k, **others
        )

    for bad in (np.nan, np.inf):
        z_NS[1, 2] = bad
        with pytest.raises(ValueError, match=r"must be finite, got (nan|inf) at index \(1, 2\)"):
            top(z_NS)
    with pytest.raises(ValueError, match=r"must have shape \(4, 3\), got \(3, 3\)"):
        top(z_NS[:3])
    for others in ({"k": 0}, {"block": 0}, {"block": 1.5}):
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            top(z_NS, **others)


def test_traced_values_pass():
    @jax.jit
    def program(x_ND):
        return arguments.features("x", x_ND) * 2

    assert np.isnan(program(np.full((1, 2), np.nan, np.float32))).all()

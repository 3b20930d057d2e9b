"""Datasets that a user builds: converted or refused, short to print, safe to compare."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprobe import base, regimes


def dataset(texts=("a", "b", "c"), y_N=(0, 1, 0), **more):
    return base.TextDataset(name="x", texts=texts, y_N=y_N, **more)


@pytest.mark.parametrize(
    ("labels", "wanted", "names"),
    [
        ([0, 1, 0], [0, 1, 0], ("0", "1")),
        (np.array([True, False, True]), [1, 0, 1], ("0", "1")),
        ([False, True, False], [0, 1, 0], ("0", "1")),
        (np.array([1.0, 0.0, 1.0]), [1, 0, 1], ("0", "1")),
        (np.array([1, 0, 1], np.uint8), [1, 0, 1], ("0", "1")),
        (["spam", "ham", "spam"], [1, 0, 1], ("ham", "spam")),
        (np.array(["no", "yes", "no"], object), [0, 1, 0], ("no", "yes")),
        (np.array(["no", "yes", "no"], np.dtypes.StringDType()), [0, 1, 0], ("no", "yes")),
        (np.array([0, 1, 0], object), [0, 1, 0], ("0", "1")),
        (jnp.array([0, 1, 0], jnp.bfloat16), [0, 1, 0], ("0", "1")),
    ],
)
def test_labels_of_a_dataset_are_converted(labels, wanted, names):
    data = dataset(list("abc"), labels)
    assert data.y_N.tolist() == wanted and data.y_N.dtype == np.int32
    assert data.label_names == names
    assert data.texts == ("a", "b", "c")


def test_labels_of_tensors_are_converted():
    torch = pytest.importorskip("torch")
    plain = torch.tensor([0.0, 1.0, 0.0])
    for labels in (plain.bfloat16(), plain.clone().requires_grad_(), plain.int()):
        assert dataset(y_N=labels).y_N.tolist() == [0, 1, 0]


def test_label_names_say_which_text_is_one():
    data = dataset(y_N=["yes", "no", "yes"], label_names=("yes", "no"))
    assert data.y_N.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_N": [0, 1, 2]}, "`y_N` must hold the labels 0 and 1 only, got 2; make it one class"),
        ({"y_N": [-1, 1, 1]}, "labels 0 and 1 only, got -1"),
        ({"y_N": [0.2, 1.0, 0.0]}, r"whole numbers or text, got 0\.2 at index 0"),
        ({"y_N": [np.nan, 1.0, 0.0]}, "whole numbers or text, got nan at index 0"),
        ({"y_N": [0, 1]}, "one entry per example, got 2 and 3"),
        ({"y_N": [[0, 1, 0]]}, r"one label per text, got shape \(1, 3\)"),
        ({"y_N": ["a", "b", "c"]}, "must hold two classes, got 3: 'a', 'b', 'c'"),
        ({"y_N": ["a", "a", "a"]}, "must hold two classes, got 1"),
        ({"y_N": [0, None, 1]}, r"`y_N` must be an array of numbers .*NoneType, int"),
        ({"y_N": [1, 1, 1]}, r"`y_N` must hold both classes, got only label \[1\]"),
        (
            {"y_N": np.ma.array([0, 1, 0], mask=[1, 0, 0])},
            "`y_N` must be a plain array, got a masked",
        ),
        ({"y_N": [0, 1j, 1]}, "`y_N` must hold labels, got complex numbers"),
        ({"texts": [], "y_N": []}, "`y_N` must hold both classes"),
        ({"texts": None}, "`texts` must be several texts, got None"),
        ({"label_names": ("a", "a")}, "`label_names` must be two texts that differ"),
        ({"label_names": "ab"}, "`label_names` must be two texts that differ, got 'ab'"),
        ({"label_names": None}, "`label_names` must be two texts that differ, got None"),
        ({"texts": "abc"}, r"must be several texts, got one, 'abc'; write \[text\]"),
        ({"texts": ["a", b"b", "c"]}, "must be texts, got b'b' in row 1"),
        ({"texts": ["a", "b", float("nan")]}, "must be texts, got nan in row 2"),
        ({"label_names": ("a",)}, "`label_names` must be two texts"),
    ],
)
def test_a_dataset_that_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataset(**changes)


def test_datasets_and_splits_are_short_to_print_and_compare():
    long = dataset(["word " * 999] * 3, [0, 1, 0], source="memory")
    assert repr(long) == "TextDataset(name='x', 3 texts: 2 '0' and 1 '1', source='memory')"
    assert dataset() == dataset() and hash(dataset()) == hash(dataset())
    assert dataset() != dataset(y_N=[1, 1, 0]) and dataset() != dataset(["a", "b", "d"])
    assert dataset() != 3
    (one,), (other,) = (
        regimes.splits(dataset([f"t{n}" for n in range(200)], [0, 1] * 100)) for _ in range(2)
    )
    assert one == other and hash(one) == hash(other)
    assert one != dataclasses.replace(one, seed=1)
    assert len(repr(one)) < 200 and "100 rows to train on" in repr(one)

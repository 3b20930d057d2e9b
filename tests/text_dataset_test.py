"""Datasets that a user builds: converted or refused, short to print, safe to compare."""

import dataclasses
import hashlib

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
        ({"label_names": ("a", "a")}, "`label_names` must be two distinct texts"),
        ({"label_names": "ab"}, "`label_names` must be two distinct texts, got 'ab'"),
        ({"label_names": None}, "`label_names` must be two distinct texts, got None"),
        ({"texts": "abc"}, r"must be several texts, got one, 'abc'; write \[text\]"),
        ({"texts": ["a", b"b", "c"]}, "must be texts, got b'b' in row 1"),
        ({"texts": ["a", "b", float("nan")]}, "must be texts, got nan in row 2"),
        ({"label_names": ("a",)}, "`label_names` must be two distinct texts"),
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


def grouped():
    return dataset(list("abcd"), [0, 1, 0, 1], columns={"kind": ["x", "y", "z", "x"]})


def test_columns_are_codes_and_names():
    data = grouped()
    assert data.columns["kind"].names == ("x", "y", "z")
    assert data.columns["kind"].code_N.tolist() == [0, 1, 2, 0]
    assert data.column("target").code_N.tolist() == [0, 1, 0, 1]
    assert base.Column.of([None, 2, 10]).code_N.tolist() == [-1, 1, 0]  # as texts, "10" < "2"
    assert data == grouped() and data != dataset(list("abcd"), [0, 1, 0, 1])
    for changes, message in (
        ({"columns": {"kind": ["x"]}}, "column 'kind' must have one entry per text, got 1 for 3"),
        ({"columns": {"target": [0, 1, 0]}}, "must not name 'target'"),
    ):
        with pytest.raises(ValueError, match=message):
            dataset(**changes)
    with pytest.raises(ValueError, match="must lie between 0 and 2, got 3"):
        base.Column(code_N=[0, 2], names=("a", "b"))
    with pytest.raises(ValueError, match="must be distinct texts"):
        base.Column(code_N=[0], names=("a", "a"))
    with pytest.raises(ValueError, match="must be one of target, kind; got 'group'"):
        data.column("group")


def test_one_class_against_the_rest_shares_the_texts_and_their_hashes():
    data = grouped()
    assert data.sha256_N[0] == hashlib.sha256(b"a").digest() and len(data.sha256_N) == 4
    view = data.one_against_rest("kind", "x")
    assert view.y_N.tolist() == [1, 0, 0, 1] and view.label_names == ("not x", "x")
    assert view.texts is data.texts and view.sha256_N is data.sha256_N
    assert view.name == "x[kind=x]"
    with pytest.raises(
        ValueError, match="must be one of the column's names, 'x', 'y', 'z'; got 'w'"
    ):
        data.one_against_rest("kind", "w")
    gaps = dataset(columns={"kind": ["x", None, "y"]})
    with pytest.raises(ValueError, match=r"in every row, got 1 rows without.*`rows`"):
        gaps.one_against_rest("kind", "x")
    assert data.rows([3, 0]).columns["kind"].code_N.tolist() == [0, 0]


def test_a_joined_table_hashes_no_text_again(monkeypatch):
    data = grouped()
    shifted = dataset(columns={"kind": ["w", "x", None], "more": ["m", "m", "n"]})
    both = data.sha256_N + shifted.sha256_N
    monkeypatch.setattr(hashlib, "sha256", lambda content: 1 / 0)
    table = base.joined(data, shifted)
    assert table.sha256_N == both and table.texts == ("a", "b", "c", "d", "a", "b", "c")
    assert table.y_N.tolist() == [0, 1, 0, 1, 0, 1, 0]
    kind = table.columns["kind"]
    assert [kind.names[code] if code >= 0 else None for code in kind.code_N] == (
        ["x", "y", "z", "x", "w", "x", None]
    )
    assert table.columns["more"].code_N.tolist() == [-1] * 4 + [0, 0, 1]
    assert table.columns["part"].code_N.tolist() == [0] * 4 + [1] * 3
    swapped = dataset(y_N=["no", "yes", "no"], label_names=("yes", "no"))
    with pytest.raises(ValueError, match="0 and 1 are swapped"):
        base.joined(dataset(y_N=["no", "yes", "no"]), swapped)

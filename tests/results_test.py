"""Result rows: a finished job's object and the compacted tables, round trips, other writers' files, damage."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxprobe import results
from jaxprobe.base import ResultRow
from jaxprobe.place import Place
from jaxprobe.results import Scored, TableError

NAN = float("nan")
DESIGN = (
    "model, site, features, method, num_latents, dataset, regime, level, protocol, seed, num_train,"
    " num_test, valid_auroc, test_auroc, test_f1, test_accuracy, best_c, converged, fingerprint"
).split(", ")


def row(dataset="66_living-room", **changes) -> ResultRow:
    values = {
        "model": "gemma-3-270m",
        "site": "blocks.12.resid_post",
        "features": "activations",
        "method": "logistic",
        "num_latents": 0,
        "dataset": dataset,
        "regime": "standard",
        "level": NAN,
        "protocol": "paper",
        "seed": 42,
        "num_train": 1024,
        "num_test": 900,
        "valid_auroc": 1.0,
        "test_auroc": 0.987654321,
        "test_f1": 0.9,
        "test_accuracy": 0.91,
        "best_c": 1e-5,
        "converged": True,
        "fingerprint": "ab12",
    }
    return ResultRow(**{**values, **changes})


ROWS = [row(), row("b", level=0.05, regime="imbalance", best_c=NAN, converged=False)]


def same(one, other) -> bool:
    return repr(list(one)) == repr(list(other))  # NaN is not equal to itself


@pytest.fixture(params=["path", "memory"])
def place(request, tmp_path):
    """Where an object may lie."""
    if request.param == "path":
        return Place.parse(tmp_path / "work") / "results" / "a-1.parquet"
    return Place.parse(f"memory://results_test/{tmp_path.name}") / "results" / "a-1.parquet"


def test_a_jobs_object_keeps_rows_metrics_and_what_is_said_of_them(place):
    metrics = {"log_loss": [0.25, NAN], "recall": [1, np.float32(0.5)]}
    about = {"record": "12ab", "chosen": [{"latent": 3, "weight": -0.5}]}
    results.write_job(place, Scored(rows=ROWS, metrics=metrics, about=about))
    read = results.read_job(place)
    assert same(read.rows, ROWS)
    assert same(read.metrics["log_loss"], [0.25, NAN])
    assert read.metrics["recall"] == [1.0, 0.5]
    assert read.about == about
    # The same job writes the same bytes.
    first = place.read()
    results.write_job(place, read)
    assert place.read() == first


def test_the_table_has_the_published_columns_in_their_order(tmp_path):
    path = tmp_path / "results.parquet"
    results.write(Place.parse(path), ROWS)
    assert same(results.read_rows(Place.parse(path)), ROWS)
    # An independent reader sees the columns of DESIGN.md first.
    found = pq.read_schema(path).names
    assert found[: len(DESIGN)] == DESIGN
    assert found[len(DESIGN) :] == ["pooling", "control", "test_set", "selection", "kind"]
    assert pq.read_table(path).to_pylist()[1]["level"] == 0.05
    results.write(Place.parse(path), [])
    assert results.read_rows(Place.parse(path)) == []


def test_further_metrics_are_a_line_each_under_their_rows_key(tmp_path):
    path = tmp_path / "metrics.parquet"
    parts = [
        Scored(rows=ROWS, metrics={"log_loss": [0.5, 0.25], "recall": [NAN, 1.0]}),
        Scored(rows=[row("c", test_set="shifted")], metrics={"log_loss": [2.0]}),
    ]
    results.write_metrics(Place.parse(path), parts)
    lines = pq.read_table(path).to_pylist()
    got = [(line["dataset"], line["metric"], line["value"]) for line in lines]
    wanted = [
        ("66_living-room", "log_loss", 0.5),
        ("b", "log_loss", 0.25),
        ("66_living-room", "recall", NAN),
        ("b", "recall", 1.0),
        ("c", "log_loss", 2.0),
    ]
    assert same(got, wanted)
    # All that tells one row from another stands in a line, so the two tables can be joined.
    assert {*results.KEY} == {*lines[0]} - {"metric", "value"}
    assert [line["test_set"] for line in lines][-1] == "shifted"
    told = {name for name in results.COLUMNS if name in results.KEY}
    own = {tuple(str(line[name]) for name in sorted(told)) for line in lines}
    assert len(own) == 3


def test_numpy_scalars_are_taken_and_other_types_refused(place):
    given = row(seed=np.int64(1), test_f1=np.float32(0.5), converged=np.bool_(False))
    results.write_job(place, Scored(rows=[given]))
    before = place.read()
    assert same(results.read_job(place).rows, [row(seed=1, test_f1=0.5, converged=False)])
    for changes, message in (
        ({"seed": "1"}, "`seed` of a result row must be int, got '1'"),
        ({"test_auroc": None}, "`test_auroc` of a result row must be float, got None"),
        ({"seed": True}, "`seed`"),
        ({"converged": 1}, "`converged`"),
    ):
        with pytest.raises(TypeError, match=message):
            results.write_job(place, Scored(rows=[row(**changes)]))
    assert place.read() == before


def test_levels_that_differ_in_the_last_bits_are_one_key():
    keys = {row(level=level, regime="imbalance").key() for level in (0.1 + 0.2, 0.3, 0.3 - 1e-12)}
    assert len(keys) == 1
    assert row(level=0.30001, regime="imbalance").key() not in keys
    assert row(level=NAN).key() == row(level=-math.nan).key()


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_names_itself_and_the_way_out(place, damage):
    results.write_job(place, Scored(rows=ROWS))
    whole = place.read()
    place.replace({"cut": whole[:-20], "empty": b"", "text": b"model,site\n"}[damage])
    for call in (results.read, results.read_rows, results.read_job):
        with pytest.raises(TableError, match=r"a-1\.parquet is damaged.*delete it and run the fit"):
            call(place)
    place.delete()
    with pytest.raises(TableError, match=r"no results at .*a-1\.parquet; run the fit stage first"):
        results.read_job(place)


def test_a_number_that_was_changed_by_a_program_is_refused(place):
    """Parquet's own checksums are right: only the digest of what the columns hold is not."""
    results.write_job(
        place, Scored(rows=ROWS, metrics={"recall": [0.5, 1.0]}, about={"record": "x"})
    )
    table = pq.read_table(pa.BufferReader(place.read()))

    def rewritten(changed):
        sink = pa.BufferOutputStream()
        pq.write_table(changed, sink)
        place.replace(sink.getvalue().to_pybytes())

    rewritten(table)  # another encoding of the same content is the same content
    assert same(results.read_job(place).rows, ROWS)
    auroc = table.schema.get_field_index("test_auroc")
    recall = table.schema.get_field_index("metric.recall")
    other = pa.array([0.5, 0.6])
    said = {**table.schema.metadata, b"jaxprobe.about": b'{"record": "y"}'}
    for changed in (
        table.set_column(auroc, table.schema.field(auroc), other),
        table.set_column(recall, table.schema.field(recall), other),
        table.slice(0, 1),
        table.take([1, 0]),
        table.replace_schema_metadata(said),
    ):
        rewritten(changed)
        with pytest.raises(TableError, match=r"a-1\.parquet is not what was written"):
            results.read_job(place)


def test_other_columns_and_types_are_refused_by_name(tmp_path):
    path = tmp_path / "results.parquet"
    place = Place.parse(path)
    results.write(place, ROWS)
    good = pq.read_table(path).replace_schema_metadata(None)  # another writer's
    pq.write_table(good.drop_columns(["best_c"]).append_column("auc", pa.array([1.0, 1.0])), path)
    with pytest.raises(TableError, match="missing: best_c; unknown: auc"):
        results.read(place)
    at = good.schema.get_field_index("seed")
    pq.write_table(good.set_column(at, "seed", pa.array(["42", "42"])), path)
    with pytest.raises(TableError, match=r"column `seed` of .* must be int64, got string"):
        results.read(place)
    at = good.schema.get_field_index("test_f1")
    pq.write_table(good.set_column(at, "test_f1", pa.array([None, 1.0], pa.float64())), path)
    with pytest.raises(TableError, match=r"`test_f1` of .* must not hold nulls"):
        results.read(place)
    # The order of columns is no matter, and columns that came later may be absent.
    pq.write_table(good.select(good.column_names[::-1]).drop_columns(["kind", "test_set"]), path)
    assert same(results.read_rows(place), ROWS)
    with pytest.raises(TableError, match="unknown column 'auc'"):
        pq.write_table(good.append_column("auc", pa.array([1.0, 1.0])), path)
        results.read_job(place)

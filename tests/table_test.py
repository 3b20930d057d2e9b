"""Result rows: round trips, repeats, damage, and a writer killed at any moment."""

import dataclasses
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from jaxprobe import table
from jaxprobe.base import ResultRow

ROOT = Path(__file__).parents[1]
NAN = float("nan")


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


def same(one: list[ResultRow], other: list[ResultRow]) -> bool:
    return [repr(row) for row in one] == [repr(row) for row in other]  # NaN is not equal to itself


def test_round_trip_keeps_order_values_and_the_published_columns(tmp_path):
    path = tmp_path / "results.parquet"
    rows = [row(), row("b", level=0.05, regime="imbalance", best_c=NAN, converged=False)]
    assert table.append(path, rows[:1]) == 1
    assert table.append(path, rows[1:]) == 1
    assert same(table.read_rows(path), rows)
    assert table.done_keys(path) == {row.key() for row in rows}
    # An independent reader sees the columns of DESIGN.md.
    assert pq.read_schema(path).names == [
        "model",
        "site",
        "features",
        "method",
        "num_latents",
        "dataset",
        "regime",
        "level",
        "protocol",
        "seed",
        "num_train",
        "num_test",
        "valid_auroc",
        "test_auroc",
        "test_f1",
        "test_accuracy",
        "best_c",
        "converged",
        "fingerprint",
        *("pooling", "control", "test_set", "selection", "kind"),
    ]
    assert table.append(path, []) == 0
    assert table.done_keys(tmp_path / "none.parquet") == set()


def test_numpy_scalars_are_taken_and_other_types_refused(tmp_path):
    path = tmp_path / "results.parquet"
    table.append(path, [row(seed=np.int64(1), test_f1=np.float32(0.5), converged=np.bool_(False))])
    assert same(table.read_rows(path), [row(seed=1, test_f1=0.5, converged=False)])
    with pytest.raises(TypeError, match="`seed` of a result row must be int, got '1'"):
        table.append(path, [row(seed="1")])
    with pytest.raises(TypeError, match="`test_auroc`"):
        table.append(path, [row(test_auroc=None)])
    assert len(table.read(path)) == 1


def test_levels_that_differ_in_the_last_bits_are_one_key(tmp_path):
    path = tmp_path / "results.parquet"
    table.append(path, [row(level=0.1 + 0.2, regime="imbalance")])
    assert row(level=0.3, regime="imbalance").key() in table.done_keys(path)
    assert row(level=0.30001, regime="imbalance").key() not in table.done_keys(path)


def test_repeats_are_left_out_and_contradictions_refused(tmp_path):
    path = tmp_path / "results.parquet"
    rows = [row(), row("b")]
    table.append(path, rows)
    assert table.append(path, [row("b"), row("c"), row("c")]) == 1
    assert same(table.read_rows(path), [*rows, row("c")])
    before = path.read_bytes()
    with pytest.raises(table.TableError, match=r"66_living-room.*test_f1 0.9 and 0.5"):
        table.append(path, [row("d"), row(test_f1=0.5)])
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_file_names_itself_and_the_way_out(tmp_path, damage):
    path = tmp_path / "results.parquet"
    table.append(path, [row()])
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-20], "empty": b"", "text": b"model,site\n"}[damage])
    for call in (lambda: table.read(path), lambda: table.append(path, [row("b")])):
        with pytest.raises(table.TableError, match=r"results\.parquet is damaged.*delete it"):
            call()


def test_other_columns_and_types_are_refused_by_name(tmp_path):
    path = tmp_path / "results.parquet"
    table.append(path, [row()])
    good = table.read(path)
    pq.write_table(good.drop_columns(["best_c"]).append_column("auc", pa.array([1.0])), path)
    with pytest.raises(table.TableError, match="missing: best_c; unknown: auc"):
        table.append(path, [row("b")])
    at = good.schema.get_field_index("seed")
    pq.write_table(good.set_column(at, "seed", pa.array(["42"])), path)
    with pytest.raises(table.TableError, match=r"column `seed` of .* must be int64, got string"):
        table.read(path)
    pq.write_table(good.select(table.COLUMNS[::-1]), path)
    with pytest.raises(table.TableError, match="in the order model, site"):
        table.read(path)
    at = good.schema.get_field_index("test_f1")
    pq.write_table(good.set_column(at, "test_f1", pa.array([None], pa.float64())), path)
    with pytest.raises(table.TableError, match=r"`test_f1` of .* holds nulls"):
        table.read(path)
    with pytest.raises(table.TableError, match="missing: best_c"):
        table.write(path, good.drop_columns(["best_c"]))


def test_merged_shards_are_the_same_in_any_order(tmp_path):
    rows = [row(f"d{number}", level=level, regime="scarcity") for number in range(4)
            for level in (2.0, 10.0, NAN)]  # fmt: skip
    paths = [tmp_path / f"shard{index}.parquet" for index in range(3)]
    for index, path in enumerate(paths):
        table.append(path, rows[index::3])
    table.append(paths[0], rows[1:2])  # a row that two shards hold
    merged = table.merge(paths)
    assert _texts(merged) == _texts(table.merge(paths[::-1]))
    assert len(merged) == len(rows)
    whole = tmp_path / "results.parquet"
    table.write(whole, merged)
    assert table.done_keys(whole) == {row.key() for row in rows}
    assert [r.level for r in table.read_rows(whole)[:2]] == [2.0, 10.0]
    clash = tmp_path / "clash.parquet"
    table.append(clash, [dataclasses.replace(rows[0], test_auroc=0.1)])
    with pytest.raises(table.TableError, match=r"clash\.parquet"):
        table.merge([*paths, clash])


def _texts(merged: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(merged, sink)
    return sink.getvalue().to_pybytes()


# Appends numbered batches of ten rows from where the file stands, until there are 60.
WRITER = """
import sys
from jaxprobe import table
from tests.table_test import row
path = sys.argv[1]
print("ready", flush=True)
for batch in range(len(table.done_keys(path)) // 10, 60):
    table.append(path, [row(f"{batch}_{index}") for index in range(10)])
"""


def writer(path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], env=environment, stdout=subprocess.PIPE
    )


def test_a_killed_writer_leaves_whole_batches_and_the_same_bytes(tmp_path):
    path, undisturbed = tmp_path / "results.parquet", tmp_path / "undisturbed.parquet"
    draw, counts, killed = random.Random(1), [], 0
    for _ in range(4):
        with writer(path) as process:
            process.stdout.readline()
            time.sleep(draw.uniform(0.02, 0.15))
            killed += process.poll() is None
            process.kill()
        counts.append(len(table.read(path)) if path.exists() else 0)
        assert counts[-1] % 10 == 0
    assert killed and counts == sorted(counts)
    for target in (path, undisturbed):
        with writer(target) as process:
            assert process.wait() == 0
    assert path.read_bytes() == undisturbed.read_bytes()
    left = {entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".")}
    assert left == {path.name, undisturbed.name}


def test_two_writers_lose_nothing(tmp_path):
    path = tmp_path / "results.parquet"
    script = WRITER.replace("range(len(table.done_keys(path)) // 10, 60)", "range(60)").replace(
        "{batch}_", "{sys.argv[2]}_{batch}_"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), name],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for name in ("x", "y")
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(table.done_keys(path)) == 1200

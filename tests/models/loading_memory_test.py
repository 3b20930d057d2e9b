"""Loading a sharded checkpoint holds its parameters and about one of them more, never a wider copy."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = {  # 436 MB in bfloat16
    **{"model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 16_000},
    **{"num_hidden_layers": 12, "num_attention_heads": 8, "num_key_value_heads": 8},
}


def test_peak_memory_is_bounded_by_shards_and_parameters(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "launch"))
    from benchmarks import models as bench

    largest, total = bench.write_checkpoint(tmp_path, SMALL, 96 << 20)
    assert total > 400 << 20 and largest < 100 << 20
    done = subprocess.run(
        [sys.executable, bench.__file__, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # Norms are widened to float32; everything else stays as it is stored.
    assert 0 <= found["device"] - total < 1 << 20
    assert found["peak"] - found["before"] < 1.3 * largest + found["device"]

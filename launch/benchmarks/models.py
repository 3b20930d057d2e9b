"""Suites of bench.py for large models: host memory while loading, and estimated device memory."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from jaxprobe.base import Site
from jaxprobe.models import Model, hf_config, hf_names, load_model, make_forward, memory, parameters

GIB = 1 << 30
SHARD_BYTES = 1 << 30
# A Llama of 2.0 billion parameters: 4 GB in bfloat16.
LOADED = {
    **{
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "vocab_size": 128_000,
    },
    **{"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8},
}
GEMMA_2_9B = {
    **{"model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "head_dim": 256},
    **{"num_hidden_layers": 42, "num_attention_heads": 16, "num_key_value_heads": 8},
    **{"vocab_size": 256_000, "sliding_window": 4096, "query_pre_attn_scalar": 256},
}
# Memory of one device in GiB, and the number of devices of a host.
DEVICES = {"TPU v5e-8": (16, 8), "H100": (80, 1)}


def load_suite(config, workdir: Path) -> None:
    """Peak host memory while a sharded 4 GB checkpoint is loaded, against its shards and parameters."""
    del config
    folder = Path(workdir) / "bench_load"
    largest, total = write_checkpoint(folder, LOADED, SHARD_BYTES)
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    bound = 1.3 * largest + found["device"]
    print(
        f"  {total / GIB:.2f} GiB in shards of up to {largest / GIB:.2f} GiB: {found['seconds']:.0f} s,"
        f" parameters {found['device'] / GIB:.2f} GiB, peak {found['peak'] / GIB:.2f} GiB, of which"
        f" {found['before'] / GIB:.2f} GiB before loading; 1.3 shards and parameters are"
        f" {bound / GIB:.2f} GiB: {'within' if found['peak'] <= bound else 'BEYOND'}"
    )


def memory_suite(config, workdir: Path) -> None:
    """Memory per device of a model of Gemma 2 9B's shape, compiled for abstract parameters."""
    del config, workdir
    model_config, _ = hf_config.read_config(GEMMA_2_9B)
    for name, (gib, count) in DEVICES.items():
        for dtype in parameters.DTYPES:
            part = memory.footprint(model_config, dtype, {"model": count})
            print(
                f"  gemma-2-9b, {dtype}, {count} x {name} ({gib} GiB each): parameters"
                f" {part.parameters / GIB:.2f} GiB per device"
            )
    if len(jax.devices()) < 8:
        print(
            "  XLA_FLAGS=--xla_force_host_platform_device_count=8 adds the compiled program's own"
        )
        return
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]).reshape(1, 8), ("data", "model"))
    stack = memory.abstract_parameters(model_config, "bfloat16", mesh)
    model = Model(
        name="gemma-2-9b",
        config=model_config,
        parameters=stack,
        found_tokenizer=None,
        dtype="bfloat16",
        fingerprint="",
        mesh=mesh,
    )
    forward = make_forward(model, [Site.parse("blocks.20.resid_post")])
    for rows, num_tokens in ((128, 8), (1, 1024), (8, 1024)):
        tokens_BT = jax.ShapeDtypeStruct((rows, num_tokens), np.int32)
        length_B = jax.ShapeDtypeStruct((rows,), np.int32)
        lower = forward.compiled.lower  # type: ignore[attr-defined]
        program = lower(forward.parameters, tokens_BT, length_B).compile()
        stats = program.memory_analysis()
        print(
            f"  to block 20 on 8 devices, {rows} x {num_tokens} tokens: arguments"
            f" {stats.argument_size_in_bytes / GIB:.2f} GiB, temporaries"
            f" {stats.temp_size_in_bytes / GIB:.2f} GiB per device"
        )


def write_checkpoint(folder: Path, raw: dict, shard_bytes: int) -> tuple[int, int]:
    """Writes a random bfloat16 checkpoint in shards of at most `shard_bytes`, or one tensor.

    Returns:
        Bytes of the largest shard, and of all shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, family = hf_config.read_config(raw)
    axes_of = parameters.labels(config)
    names = hf_names.names(config, family.layout, "model.")
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for label, axes in axes_of.items():
        if size and size + 2 * np.prod(list(axes.values())) > shard_bytes:
            shards, size = [*shards, {}], 0
        shards[-1][names[label].name] = tuple(axes.values())
        size += 2 * int(np.prod(list(axes.values())))
    rng = np.random.default_rng(0)
    some = (rng.normal(size=1 << 22) / 50).astype(ml_dtypes.bfloat16)
    weight_map, sizes = {}, []
    for number, shapes in enumerate(shards):
        name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        sizes.append(_write_shard(folder / name, shapes, some))
        weight_map |= dict.fromkeys(shapes, name)
    (folder / "config.json").write_text(json.dumps(raw))
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return max(sizes), sum(sizes)


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]], some: np.ndarray) -> int:
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        # Files hold matrices; heads are split only in the model.
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            left = int(np.prod(shape))
            while left:
                count = min(left, len(some))
                file.write(some[:count].tobytes())
                left -= count
    return path.stat().st_size


def _measure(folder: str) -> None:
    """Loads a checkpoint, in a separate process, and prints its time and memory."""
    jax.block_until_ready(jax.numpy.zeros(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    model = load_model(folder, "bfloat16")
    leaves = [leaf for leaf in jax.tree.leaves(model.parameters) if isinstance(leaf, jax.Array)]
    jax.block_until_ready(leaves)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - start,
                "before": before,
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "device": sum(leaf.nbytes for leaf in leaves),
            }
        )
    )


if __name__ == "__main__":
    _measure(sys.argv[1])

"""The same numbers however many devices hold the parameters, and the memory that each of them needs."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxprobe.models import load_model, memory, parameters, sharding
from jaxprobe.models.hf_config import read_config
from tests import compiling_flags

ROOT = Path(__file__).parents[2]
GEMMA_2_9B = {
    **{"model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "head_dim": 256},
    **{"num_hidden_layers": 42, "num_attention_heads": 16, "num_key_value_heads": 8},
    **{"vocab_size": 256_000, "sliding_window": 4096, "query_pre_attn_scalar": 256},
}
# Each loads on meshes of 1, 2 and 8 devices and compares with the first; prints the largest differences.
SCRIPT = """
import json, sys
import jax, numpy as np
from jaxprobe.base import Site
from jaxprobe.models import load_model, make_forward

rng = np.random.default_rng(0)
tokens_BT = rng.integers(4, 320, (4, 16), dtype=np.int32)
length_B = np.array([16, 9, 3, 1], np.int32)
names = ["embed", "blocks.0.attn_z", "blocks.1.mlp_in", "blocks.1.resid_post"]
names += ["blocks.0.attn_module_out", "blocks.1.attn_in_unscaled", "blocks.1.mlp_module_out"]
sites = [Site.parse(name) for name in names]
devices, first, found = np.array(jax.devices()), None, {}
for shape in [(1, 1), (1, 2), (4, 2), (1, 8)]:
    count = shape[0] * shape[1]
    mesh = jax.sharding.Mesh(devices[:count].reshape(shape), ("data", "model"))
    model = load_model(sys.argv[1], "float32", mesh)
    out = make_forward(model, sites)(tokens_BT, length_B)
    out = {str(site): np.asarray(x) for site, x in out.items()}
    first = first or out
    leaves = [x for x in jax.tree.leaves(model.parameters) if isinstance(x, jax.Array)]
    assert all(len(x.sharding.device_set) == count for x in leaves)
    held = sum(x.addressable_shards[0].data.nbytes for x in leaves)
    gaps = [float(np.abs(out[n] - first[n]).max() / np.abs(first[n]).max()) for n in names]
    found[str(shape)] = {"gap": max(gaps), "held": held, "all": sum(x.nbytes for x in leaves)}
alone = make_forward(load_model(sys.argv[1], "float32"), sites)(tokens_BT, length_B)
gaps = [float(np.abs(alone[s] - first[str(s)]).max() / np.abs(first[str(s)]).max()) for s in sites]
found["no mesh"] = {"gap": max(gaps)}
print(json.dumps(found))
"""


def test_one_two_and_eight_devices_give_the_same_numbers(make_tiny, tiny_tensors):
    cut = {k: x for k, x in tiny_tensors.items() if not k.startswith("blk.") or k[4] in "01"}
    path = make_tiny(metadata={"block_count": 2}, tensors=cut)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=compiling_flags.with_devices(8),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == 5
    for shape, row in found.items():
        assert row["gap"] < 1e-5, shape
    # Two devices of `model` hold half each but for norms; `data` holds copies.
    assert found["(1, 1)"]["held"] == found["(1, 1)"]["all"]
    assert found["(1, 2)"]["held"] == found["(4, 2)"]["held"]
    assert found["(1, 2)"]["held"] < 0.53 * found["(1, 2)"]["all"]
    assert found["(1, 8)"]["held"] < 0.16 * found["(1, 8)"]["all"]


def test_a_model_of_gemma_2_9bs_shape_fits_a_v5e_8_and_an_h100():
    config, _ = read_config(GEMMA_2_9B)
    counted = sum(int(np.prod(list(axes.values()))) for axes in parameters.labels(config).values())
    assert (
        9.24e9 < counted < 9.25e9
    )  # the published 9.24 billion; only the final norm is not counted
    one, eight = (memory.footprint(config, "bfloat16", {"model": n}) for n in (1, 8))
    assert one.parameters < 0.3 * 80 * 2**30
    assert eight.parameters < 0.2 * 16 * 2**30
    assert eight.parameters < one.parameters / 7.9
    # The abstract model says the same, device by device.
    mesh = jax.sharding.AbstractMesh((1, 8), ("data", "model"))
    stack = memory.abstract_parameters(config, "bfloat16", mesh)
    leaves = [leaf for leaf in jax.tree.leaves(stack) if getattr(leaf, "sharding", None)]
    held = sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize for leaf in leaves
    )
    assert held == eight.parameters


def test_rules_on_axis_names():
    shape = {"data": 2, "model": 4}

    def spec(axes, mesh_shape):
        return tuple(sharding.parameter_spec(axes, mesh_shape))

    assert spec({"neurons": 80, "embedding": 48}, shape) == ("model", None)
    assert spec({"embedding": 48, "neurons": 80}, shape) == (None, "model")
    query = {"head_groups": 3, "query_heads": 2, "projection": 16, "embedding": 48}
    assert spec(query, shape) == (None, None, None, "model")
    assert spec({"embedding": 48}, shape) == ()
    assert spec({"projection": 16}, shape) == ()
    assert spec({"neurons": 80}, {"data": 8}) == ()
    assert sharding.split_size({"neurons": 80, "embedding": 48}, shape) == 960


def test_meshes_by_their_shape():
    assert sharding.device_mesh(1, 1) is None
    assert dict(sharding.device_mesh(1, 2).shape) == {"data": 1, "model": 2}
    with pytest.raises(ValueError, match="99 x 1 needs 99 devices"):
        sharding.device_mesh(99, 1)


def test_unknown_mesh_axes_are_refused(tiny_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("batch",))
    with pytest.raises(ValueError, match=r"axes 'data' and 'model'.*got \['batch'\]"):
        load_model(tiny_path, mesh=mesh)

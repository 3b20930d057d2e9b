"""Gemma's Flax trees, written by Orbax itself in each of its layouts, against transformers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts

from jaxprobe.base import Site
from jaxprobe.models import load_model, make_forward
from jaxprobe.models.flax_tree import open_directory
from tests.models import families

ocp = pytest.importorskip("orbax.checkpoint", reason="orbax-checkpoint is missing")
torch = pytest.importorskip("torch", reason="torch is missing: install the `parity` extra")
pytest.importorskip("transformers", reason="transformers is missing: install the `parity` extra")
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

HEADERS = (".zarray", "zarr.json")


def tree_of(model, *, turned=False, fused=False):
    """{path: array} as the published trees have it; by loops over heads, not by our own reshapes."""
    config = model.config
    heads, groups, d_head = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    new = type(config).__name__ != "GemmaConfig"

    def value(parameter):
        return parameter.detach().numpy()

    def by_head(linear, count):  # rows of [count * d_head, d_model] -> [count, d_model, d_head]
        rows = value(linear.weight)
        return np.stack([rows[h * d_head : (h + 1) * d_head].T for h in range(count)])

    tree = {
        "embedder": {"input_embedding": value(model.model.embed_tokens.weight)},
        "final_norm": {"scale": value(model.model.norm.weight)},
    }
    for number, layer in enumerate(model.model.layers):
        attention, root = layer.self_attn, f"layer_{number}"
        q, k, v = (
            by_head(attention.q_proj, heads),
            by_head(attention.k_proj, groups),
            by_head(attention.v_proj, groups),
        )
        if fused:
            tree[f"{root}/attn/qkv_einsum"] = {"w": np.stack([q, k, v])}
        else:
            tree[f"{root}/attn/q_einsum"] = {"w": q}
            tree[f"{root}/attn/kv_einsum"] = {"w": np.stack([k, v])}
        columns = value(attention.o_proj.weight)
        out = [columns[:, h * d_head : (h + 1) * d_head].T for h in range(heads)]
        tree[f"{root}/attn/attn_vec_einsum"] = {"w": np.stack(out)}
        gates = np.stack([value(layer.mlp.gate_proj.weight), value(layer.mlp.up_proj.weight)])
        tree[f"{root}/mlp/gating_einsum"] = {"w": gates if turned else gates.transpose(0, 2, 1)}
        tree[f"{root}/mlp/linear"] = {"w": value(layer.mlp.down_proj.weight).T}
        norms = {"pre_attention_norm": layer.input_layernorm}
        if new:
            norms["post_attention_norm"] = layer.post_attention_layernorm
            norms["pre_ffw_norm"] = layer.pre_feedforward_layernorm
            norms["post_ffw_norm"] = layer.post_feedforward_layernorm
        else:
            norms["pre_ffw_norm"] = layer.post_attention_layernorm
        if hasattr(attention, "q_norm"):
            norms |= {"attn/_query_norm": attention.q_norm, "attn/_key_norm": attention.k_norm}
        tree |= {f"{root}/{name}": {"scale": value(norm.weight)} for name, norm in norms.items()}
    return tree


def save(folder, tree, layout):
    if layout == "nested":  # a tree of dictionaries, below `params`
        nested = {}
        for path, leaves in tree.items():
            inner = nested
            for word in path.split("/"):
                inner = inner.setdefault(word, {})
            inner.update(leaves)
        tree = {"params": nested}
    else:  # flat, with slashes inside the names
        tree = {f"transformer/{path}": leaves for path, leaves in tree.items()}
    tree = jax.tree.map(jnp.asarray, tree)
    ocp.PyTreeCheckpointer(use_ocdbt=layout != "folders", use_zarr3=layout == "nested").save(
        folder, tree
    )


def largest_error(model, folder):
    tokens_BT = np.random.default_rng(0).integers(3, 96, (2, 30), dtype=np.int32)
    seen = []
    for block in model.model.layers:
        block.register_forward_hook(
            lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
    with torch.no_grad():
        model.model(torch.tensor(tokens_BT), use_cache=False)
    ours = load_model(folder, "float32")
    sites = [Site(block=block, stream="resid_post") for block in range(ours.num_blocks)]
    got = make_forward(ours, sites, "tokens")(tokens_BT, np.array([30, 30], np.int32))
    errors = []
    for site, wanted in zip(sites, seen, strict=True):
        gap = np.linalg.norm(got[site] - wanted.numpy(), axis=-1)
        errors.append((gap / np.linalg.norm(wanted.numpy(), axis=-1)).max())
    return ours, max(errors)


def test_gemma_1_is_told_by_its_shapes_in_every_layout(tmp_path):
    model = families.make("gemma1")
    for layout in ("flat", "folders", "nested"):
        save(tmp_path / layout / "gemma-2b" / "2b", tree_of(model), layout)
    ours, error = largest_error(model, tmp_path / "flat" / "gemma-2b")
    assert error < 1e-4
    for layout in ("folders", "nested"):
        other = load_model(tmp_path / layout / "gemma-2b", "float32")
        assert other.config == ours.config
        jax.tree.map(np.testing.assert_array_equal, other.parameters, ours.parameters)
        assert other.name == ours.name == "gemma-2b"


def test_gemma_1_7bs_fused_heads(tmp_path):
    model = families.make("gemma1", num_key_value_heads=6)
    save(tmp_path / "tree", tree_of(model, fused=True), "flat")
    assert largest_error(model, tmp_path / "tree")[1] < 1e-4


@pytest.mark.parametrize(("case", "turned"), [("gemma2", False), ("gemma3", True)])
def test_other_sizes_read_a_config_beside_the_tree(tmp_path, case, turned):
    model = families.make(case)
    save(tmp_path / "tree", tree_of(model, turned=turned), "flat")
    with pytest.raises(ValueError, match=r"no published size; put its Hugging Face config\.json"):
        load_model(tmp_path)
    model.config.save_pretrained(tmp_path)
    assert largest_error(model, tmp_path)[1] < 1e-4


def test_published_sizes_say_what_shapes_cannot(tmp_path):
    model = families.make("gemma3", num_hidden_layers=34)
    save(tmp_path / "tree", tree_of(model), "flat")
    config = open_directory(tmp_path).config
    # The published gemma-3-4b.
    assert {window for window in config.windows} == {1024, None}
    assert [b for b, window in enumerate(config.windows) if window is None] == [5, 11, 17, 23, 29]
    assert (config.rotary[0].base, config.rotary[5].base) == (1e4, 1e6)
    assert config.rotary[0].divisors is None and set(config.rotary[5].divisors) == {8.0}
    assert config.query_scale == 16**-0.5 and config.query_key_norm and config.post_norms


def test_what_is_missing_or_not_understood_is_refused(tmp_path):
    tree = tree_of(families.make("gemma1"))
    del tree["layer_1/mlp/linear"]
    tree["layer_1/attn/q_einsum"]["bias"] = np.zeros(3, np.float32)
    save(tmp_path / "tree", tree, "flat")
    with pytest.raises(
        ValueError,
        match=r"missing \['layer_1/mlp/linear'\], not understood \['layer_1/attn/q_einsum/bias'\]",
    ):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError):
        load_model(tmp_path)


@pytest.mark.parametrize("layout", ["flat", "folders", "nested"])
def test_an_absent_chunk_is_an_error_and_zeros_are_read(tmp_path, layout):
    """Orbax writes chunks of zeros too, so that what is not there was lost."""
    tree = tree_of(families.make("gemma1"))
    tree["layer_1/mlp/linear"]["w"] = np.zeros_like(tree["layer_1/mlp/linear"]["w"])
    folder = tmp_path / "tree"
    save(folder, tree, layout)
    load_model(folder, "float32")
    base = {"driver": "file", "path": f"{folder}/"}
    place = base if layout == "folders" else {"driver": "ocdbt", "base": base}
    store = ts.KvStore.open(place).result()
    keys = [key.decode() for key in store.list().result()]
    (header,) = (
        key for key in keys if "layer_1" in key and "linear" in key and key.endswith(HEADERS)
    )
    leaf = header.rpartition("/")[0]
    for key in keys:
        if key.startswith(f"{leaf}/") and key != header:
            store.delete_range(ts.KvStore.KeyRange(key, key + "\0")).result()
    with pytest.raises(ValueError, match=r"`layer_1/mlp/linear.* cannot be read .*fetch it again"):
        load_model(folder, "float32")
    store.delete_range(ts.KvStore.KeyRange(f"{leaf}/", f"{leaf}0")).result()
    with pytest.raises(ValueError, match=r"_METADATA and arrays disagree: without .*linear"):
        load_model(folder, "float32")

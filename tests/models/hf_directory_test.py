"""Hugging Face directories: shards, number formats, roots of names, damage."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxprobe.base import Site
from jaxprobe.models import identify, load_model, make_forward
from tests.models import families

torch = pytest.importorskip("torch", reason="torch is missing: install the `parity` extra")
pytest.importorskip("transformers", reason="transformers is missing: install the `parity` extra")
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

LAST = Site.parse("blocks.2.resid_post")


@pytest.fixture(scope="module")
def gemma():
    return families.make("gemma2")


@pytest.fixture(scope="module")
def folder(gemma, tmp_path_factory):
    path = tmp_path_factory.mktemp("hf") / "My Gemma_2"
    gemma.save_pretrained(path)
    return path


def values(folder, dtype="float32"):
    rng = np.random.default_rng(0)
    tokens_BT = rng.integers(3, 96, (2, 16), dtype=np.int32)
    model = load_model(folder, dtype)
    out = make_forward(model, [LAST], "tokens")(tokens_BT, np.array([16, 16], np.int32))
    return model, np.asarray(out[LAST])


@pytest.fixture(scope="module")
def whole(folder):
    return load_model(folder, "float32")


def assert_same(ours, other):
    """The same model to the last bit, so the same activations everywhere."""
    assert ours.config == other.config
    assert jax.tree.structure(ours.parameters) == jax.tree.structure(other.parameters)
    jax.tree.map(np.testing.assert_array_equal, ours.parameters, other.parameters)


def test_shards_give_the_same_numbers(gemma, tmp_path, whole):
    gemma.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert_same(load_model(tmp_path, "float32"), whole)
    next(iter(sorted(tmp_path.glob("*.safetensors")))).unlink()
    with pytest.raises(ValueError, match=r"which .* lacks"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_formats_are_widened_exactly(gemma, tmp_path, kind):
    import copy

    half = copy.deepcopy(gemma).to(getattr(torch, kind))
    half.save_pretrained(tmp_path / "half")
    half.float().save_pretrained(tmp_path / "wide")
    assert_same(*(load_model(tmp_path / name, "float32") for name in ("half", "wide")))
    model, mixed = values(tmp_path / "half", "bfloat16")
    _, same = values(tmp_path / "wide", "bfloat16")
    np.testing.assert_array_equal(mixed, same)  # the first blocks are exact in both
    leaves = [leaf for leaf in jax.tree.leaves(model.parameters) if isinstance(leaf, jax.Array)]
    assert {str(leaf.dtype) for leaf in leaves} == {"float32", "bfloat16", kind}
    assert all(leaf.dtype.itemsize == 2 for leaf in leaves if leaf.ndim > 1)  # norms alone are wide


def test_untied_and_tied_embeddings_give_the_same_activations(gemma, tmp_path, folder, whole):
    names = load_file(folder / "model.safetensors")
    names["lm_head.weight"] = np.zeros((96, 48), np.float32)
    save_file(names, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    assert_same(load_model(tmp_path, "float32"), whole)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    """A saved Gemma 3 of text alone."""
    path = tmp_path_factory.mktemp("hf") / "text"
    families.make("gemma3").save_pretrained(path)
    return path, load_model(path, "float32")


@pytest.mark.parametrize("root", ["language_model.model.", "model.language_model.", ""])
def test_other_roots_of_names(tmp_path, root, text_model):
    text, wanted = text_model
    tensors = load_file(text / "model.safetensors")
    config = json.loads((text / "config.json").read_text())
    moved = {root + name.removeprefix("model."): value for name, value in tensors.items()}
    if root:
        moved["vision_tower.vision_model.layers.0.weight"] = np.zeros(3, np.float32)
        moved["multi_modal_projector.mm_input_projection_weight"] = np.zeros(3, np.float32)
        config = {"model_type": "gemma3", "text_config": config, "vision_config": {"x": 1}}
    (tmp_path / "moved").mkdir()
    save_file(moved, tmp_path / "moved" / "model.safetensors")
    (tmp_path / "moved" / "config.json").write_text(json.dumps(config))
    assert_same(load_model(tmp_path / "moved", "float32"), wanted)


def test_fields_of_older_files_mean_the_same(tmp_path):
    """transformers 4 wrote rope_theta, rope_scaling, rotary_pct and their like."""
    for name in ("llama3.1", "llama_biases", "gemma3", "pythia"):
        model = families.make(name)
        model.save_pretrained(tmp_path / name)
        path = tmp_path / name / "config.json"
        config = json.loads(path.read_text())
        new = load_model(tmp_path / name, "float32")
        rope = config.pop("rope_parameters")
        if name == "gemma3":
            near, far = rope["sliding_attention"], rope["full_attention"]
            config |= {"rope_theta": far["rope_theta"], "rope_local_base_freq": near["rope_theta"]}
            config["rope_scaling"] = {"rope_type": "linear", "factor": far["factor"]}
            config["sliding_window_pattern"] = 6
            del config["layer_types"]
        elif name == "pythia":
            config |= {
                "rotary_emb_base": rope["rope_theta"],
                "rotary_pct": rope["partial_rotary_factor"],
            }
        else:
            config["rope_theta"] = rope.pop("rope_theta")
            rope["type"] = rope.pop("rope_type")
            config["rope_scaling"] = rope
        path.write_text(json.dumps(config))
        assert load_model(tmp_path / name, "float32").config == new.config, name


def test_missing_unknown_and_misshapen_tensors_are_refused(tmp_path, folder):
    tensors = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())

    def refused(changes, match):
        changed = {k: v for k, v in {**tensors, **changes}.items() if v is not None}
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=match):
            load_model(tmp_path)

    key = "model.layers.1.self_attn.k_proj"
    refused({f"{key}.weight": None}, rf"missing \['{key}\.weight'\]")
    refused({f"{key}.bias": np.zeros(48, np.float32)}, rf"not understood \['{key}\.bias'\]")
    refused({f"{key}.weight": np.zeros((40, 48), np.float32)}, r"must fill .*got shape \(40, 48\)")
    turned = tensors["model.layers.1.mlp.up_proj.weight"].T.copy()
    refused({"model.layers.1.mlp.up_proj.weight": turned}, r"must fill .*got shape \(48, 80\)")
    refused({f"{key}.weight": np.zeros((48, 48), np.int8)}, r"stored as one of F32.*got I8")


def test_damaged_and_unsafe_files_are_refused(tmp_path, folder):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"must hold model\.safetensors or .*pickles"):
        load_model(tmp_path)
    content = (folder / "model.safetensors").read_bytes()
    for cut in (4, 100, len(content) - 1):
        (tmp_path / "model.safetensors").write_bytes(content[:cut])
        with pytest.raises(
            ValueError, match=r"model\.safetensors cannot be read as a whole safetensors"
        ):
            load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="outside its folder"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(ValueError, match=r"config\.json cannot be read as a JSON file"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="must lead to a directory with"):
        load_model(tmp_path.parent)


def test_identity_is_that_of_the_loaded_model(folder, whole):
    model = whole
    found = identify(folder, "float32")
    assert (found.name, found.fingerprint) == (
        model.name,
        model.fingerprint,
    ) and found.name == "my-gemma-2"
    assert found.widths == model.widths == {"attn_z": 96}
    assert identify(folder, "bfloat16").fingerprint != found.fingerprint
    with pytest.raises(ValueError, match="hold no tokenizer"):
        _ = model.tokenizer


def test_what_modules_put_out_has_the_name_of_the_same_tensor(folder, whole, tmp_path):
    module = Site(block=1, stream="mlp_module_out")
    assert identify(folder, "float32").stored(module) == whole.stored(module) == module
    families.make("llama2").save_pretrained(tmp_path)
    added = Site(block=1, stream="mlp_out")  # no post norm stands between
    assert identify(tmp_path, "float32").stored(module) == added
    assert load_model(tmp_path, "float32").stored(module) == added

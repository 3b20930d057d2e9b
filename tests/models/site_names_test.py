"""Names of places against real hooks: each gives the tensor that its library's hook gives, or is refused."""

import re

import numpy as np
import pytest

from jaxprobe.models import load_model, make_forward
from jaxprobe.sites import site_named
from tests.models import families, lens

torch = pytest.importorskip("torch", reason="torch is missing: install the `parity` extra")
pytest.importorskip("transformers", reason="transformers is missing: install the `parity` extra")
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

_ROPE = {"rope_type": "default", "rope_theta": 300.0}
_NEOX_ROPE = {**_ROPE, "partial_rotary_factor": 0.5}
_GEMMA3_ROPE = {"sliding_attention": {**_ROPE, "rope_theta": 100.0}, "full_attention": _ROPE}
_GEMMA3 = {"layer_types": ["sliding_attention", "full_attention"], "rope_parameters": _GEMMA3_ROPE}
# Family -> (case of `families`, what is made plainer, since only names are compared here).
FAMILIES = {
    "gemma": ("gemma1", {"rope_parameters": _ROPE}),
    "gemma2": ("gemma2", {"rope_parameters": _ROPE}),
    "gemma3": ("gemma3", _GEMMA3),
    "llama": ("llama2", {"rope_parameters": _ROPE}),
    "mistral": ("mistral_whole", {"rope_parameters": _ROPE}),
    "qwen2": ("qwen2", {"rope_parameters": _ROPE}),
    "qwen3": ("qwen3", {"rope_parameters": _ROPE}),
    "pythia": ("pythia", {"rope_parameters": _NEOX_ROPE}),
    "neox_sequential": (
        *("neox_sequential", {"rope_parameters": _NEOX_ROPE, "attention_bias": True}),
    ),
}
# What is read: hooks below `blocks.L.`, modules below a layer. All else is refused.
HOOKS = (
    *("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_in", "attn.hook_z"),
    *("hook_attn_out", "hook_mlp_out", "ln1.hook_normalized", "ln2.hook_normalized"),
)
SIDE_BY_SIDE_LACKS = ("hook_resid_mid", "hook_mlp_in")
_ANY = ("input", "output", "input_layernorm.input", "mlp.input", "mlp.output")
LLAMA = (
    *(*_ANY, "self_attn.output", "self_attn.o_proj.input", "self_attn.o_proj.output"),
    *("mlp.gate_proj.input", "mlp.up_proj.input", "mlp.down_proj.output"),
)
POST_NORMS = tuple(
    f"{name}_feedforward_layernorm.{port}"
    for name in ("pre", "post")
    for port in ("input", "output")
)
NEOX = (
    *(*_ANY, "attention.output", "attention.dense.input", "attention.dense.output"),
    *("mlp.dense_h_to_4h.input", "mlp.dense_4h_to_h.output"),
    *("post_attention_dropout.input", "post_attention_dropout.output"),
    *("post_mlp_dropout.input", "post_mlp_dropout.output"),
)
LENGTH = 9
BLOCK = 1  # the last of two


def expected(family):
    """The names that are read."""
    neox = "neox" in FAMILIES[family][0] or family == "pythia"
    hooks = [hook for hook in HOOKS if family != "pythia" or hook not in SIDE_BY_SIDE_LACKS]
    read = {f"blocks.{block}.{hook}" for block in range(BLOCK + 1) for hook in hooks}
    modules = NEOX if neox else LLAMA + (POST_NORMS if family in ("gemma2", "gemma3") else ())
    root = "gpt_neox" if neox else "model"
    read |= {f"{root}.layers.{BLOCK}.{module}" for module in modules}
    return read | {"hook_embed", f"{root}.{'embed_in' if neox else 'embed_tokens'}.output"}


def named(text, library):
    """The site of a name, or None where it is refused by name."""
    try:
        return site_named(text, library)
    except ValueError as error:
        assert repr(text) in str(error) and "a site is `embed` or `blocks.L.STREAM`" in str(error)
        return None


def of_modules(model, ids):
    """{NAME.input or NAME.output: [D]} of every module of the last block and the embedding."""
    seen, handles = {}, []

    def keep(name):
        def hook(_module, inputs, kwargs, output):
            first = inputs[0] if inputs else kwargs.get("hidden_states")
            output = output[0] if isinstance(output, tuple) else output
            for port, value in (("input", first), ("output", output)):
                if value is not None:
                    seen[f"{name}.{port}"] = value[0, -1].reshape(-1).numpy().copy()

        return hook

    for name, module in model.named_modules():
        if re.fullmatch(rf".*\.layers\.{BLOCK}(\..*)?|.*\.(embed_tokens|embed_in)", name):
            handles.append(module.register_forward_hook(keep(name), with_kwargs=True))
    with torch.no_grad():
        model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


def of_hooks(model, ids):
    """{hook: [D]} of every hook of TransformerLens's model that has a row for each token."""
    with torch.no_grad():
        _, cache = lens.hooked(model).run_with_cache(ids, prepend_bos=False)
    rows = {name: value[0] for name, value in cache.items() if value.shape[1] == LENGTH}
    return {name: value[-1].reshape(-1).numpy() for name, value in rows.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_is_what_its_hook_gives_or_is_refused(family, tmp_path):
    # Not above: it takes seconds to import, in every process that collects this test.
    pytest.importorskip("transformer_lens", reason="install the `parity` extra")
    case, changes = FAMILIES[family]
    theirs = families.make(case, **{"num_hidden_layers": BLOCK + 1, **changes})
    theirs.save_pretrained(tmp_path)
    ids = torch.tensor(np.random.default_rng(0).integers(3, 96, (1, LENGTH)))
    modules, hooks = of_modules(theirs, ids), of_hooks(theirs, ids)
    site_of = {name: named(name, "hugging_face") for name in modules}
    site_of |= {name: named(name, "transformer_lens") for name in hooks}
    ours = load_model(tmp_path, "float32")
    # A block whose branches stand side by side has no such place, and no hook of that name.
    absent = "resid_mid" if ours.config.parallel_residual else ""
    sites = sorted({site for site in site_of.values() if site and site.stream != absent})
    batch = ids.numpy().astype(np.int32), np.array([LENGTH], np.int32)
    got = make_forward(ours, sites)(*batch)
    right = set()
    for name, wanted in (modules | hooks).items():
        if site_of[name] in got:
            value = np.asarray(got[site_of[name]])[0]
            assert value.shape == wanted.shape, (name, str(site_of[name]))
            error = np.linalg.norm(value - wanted) / np.linalg.norm(wanted)
            assert error < 1e-5, (name, str(site_of[name]), error)
            right.add(name)
    assert right == expected(family)

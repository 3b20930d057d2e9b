"""A Pythia-like SAE end to end: TransformerLens' BOS and centred weights, SAELens' latents."""

import json
import warnings
from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the references need torch")
transformers = pytest.importorskip("transformers")

import jaxprobe as jp  # noqa: E402
from tests.tokens import bos_test  # noqa: E402

TEXTS = ["The orchard was quiet.", "kettle", "Lanterns went out."]
# Ours, TransformerLens' and whether centring its writing weights changes it.
PLACES = (
    ("embed", "hook_embed", True),
    ("blocks.1.resid_pre", "blocks.1.hook_resid_pre", True),
    ("blocks.1.resid_post", "blocks.1.hook_resid_post", True),
    ("blocks.1.attn_out", "blocks.1.hook_attn_out", True),
    ("blocks.1.mlp_out", "blocks.1.hook_mlp_out", True),
    ("blocks.1.attn_z", "blocks.1.attn.hook_z", False),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random GPT-NeoX with Pythia's kind of tokenizer."""
    folder = tmp_path_factory.mktemp("pythia")
    torch.manual_seed(0)
    model = transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            vocab_size=264,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
        )
    )
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.2 * torch.randn(value.shape))
    model.save_pretrained(folder)
    bos_test.write(folder, "pythia")
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    """TransformerLens' activations at the last token, by hook: centred, with BOS."""
    lens = pytest.importorskip("transformer_lens", reason="the reference is TransformerLens")
    model = transformers.GPTNeoXForCausalLM.from_pretrained(folder)
    config = mock.patch.object(
        transformers.AutoConfig, "from_pretrained", return_value=model.config
    )
    with warnings.catch_warnings(), config:  # the one file that it would fetch
        warnings.simplefilter("ignore", DeprecationWarning)  # of HookedTransformer as a whole
        model = lens.HookedTransformer.from_pretrained_no_processing(
            "pythia-14m",
            hf_model=model,
            tokenizer=transformers.AutoTokenizer.from_pretrained(str(folder)),
            center_writing_weights=True,
            device="cpu",
        )
    hooks = [hook for _, hook, _ in PLACES]
    rows = {hook: [] for hook in hooks}
    for text in TEXTS:
        _, cache = model.run_with_cache(text, prepend_bos=True, names_filter=hooks)
        for hook in hooks:
            rows[hook].append(cache[hook][0, -1].detach().reshape(-1).numpy())
    return {hook: np.stack(found) for hook, found in rows.items()}


def relative(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def test_centring_takes_the_mean_away_and_nothing_else(folder, theirs):
    model = jp.load_model(folder, dtype="float32")
    x = jp.extract(model, TEXTS, [place for place, _, _ in PLACES], bos="on")
    for place, hook, changes in PLACES:
        x_ND = x[place]
        if changes:
            assert relative(x_ND, theirs[hook]) > 0.01
            x_ND = x_ND - x_ND.mean(axis=1, keepdims=True)
        assert relative(x_ND, theirs[hook]) < 1e-5, place
    without = jp.extract(model, TEXTS, "blocks.1.resid_post")
    assert relative(without["blocks.1.resid_post"], x["blocks.1.resid_post"]) > 0.01


def test_an_sae_says_how_to_read_the_model_and_gives_the_librarys_latents(folder, theirs, tmp_path):
    sae_lens = pytest.importorskip("sae_lens", reason="the reference is SAELens")
    sae = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(d_in=16, d_sae=48))
    with torch.no_grad():
        for value in sae.parameters():
            value.copy_(0.4 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    sae.save_model(tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    config["metadata"] |= {
        "model_name": "pythia-14m",
        "hook_name": "blocks.1.hook_resid_post",
        "prepend_bos": True,
        "model_from_pretrained_kwargs": {"center_writing_weights": True},
    }
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    ours = jp.load_sae(tmp_path)
    assert ours.site is not None
    model = jp.load_model(folder, dtype="float32")
    x_ND = jp.extract(model, TEXTS, ours.site, bos=ours.bos)[ours.site]
    with torch.no_grad():
        z_NS = sae.encode(torch.tensor(theirs["blocks.1.hook_resid_post"])).numpy()
    assert (z_NS != 0).any()
    assert relative(np.asarray(jp.encode(ours, x_ND)), z_NS) < 1e-5

"""Every family and switch against transformers: the same random model, saved by it and read by us."""

import numpy as np
import pytest

from jaxprobe.base import STREAMS, Site
from jaxprobe.models import load_model, make_forward
from tests.models import families

torch = pytest.importorskip("torch", reason="torch is missing: install the `parity` extra")
transformers = pytest.importorskip(
    "transformers", reason="transformers is missing: install the `parity` extra"
)
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

LENGTHS = (1, 2, 9, 30)  # beyond every window and every first context
POST_NORMS = ("gemma2", "gemma2_bias", "gemma3", "gemma3_types", "gemma3_yarn")
PARALLEL = ("pythia", "neox_yarn", "neox_dynamic")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    tokens_BT = rng.integers(3, 96, (len(LENGTHS), max(LENGTHS)), dtype=np.int32)
    return tokens_BT, np.array(LENGTHS, np.int32)


def reference(model, name, batch):
    """{Site: [T, D]} of each row by forward hooks, shortest first: dynamic scaling never shrinks again."""
    neox = type(model.config).__name__ == "GPTNeoXConfig"
    rows = [{} for _ in LENGTHS]
    seen = {}

    def keep(site, where="output"):
        def hook(module, inputs, output=None):
            value = inputs[0] if where == "input" else output
            if where == "unscaled":
                value = unscaled(module, inputs[0])
            seen[site] = (
                (value[0] if isinstance(value, tuple) else value).detach().numpy()[0].copy()
            )

        return hook

    blocks = families.blocks(model)
    blocks[0].register_forward_pre_hook(keep(Site.parse("embed"), "input"))
    for number, block in enumerate(blocks):
        at = {stream: Site(block=number, stream=stream) for stream in STREAMS[1:]}
        attention = block.attention if neox else block.self_attn
        block.register_forward_pre_hook(keep(at["resid_pre"], "input"))
        block.register_forward_hook(keep(at["resid_post"]))
        output = attention.dense if neox else attention.o_proj
        output.register_forward_pre_hook(keep(at["attn_z"], "input"))
        block.mlp.register_forward_pre_hook(keep(at["mlp_in"], "input"))
        attention.register_forward_hook(keep(at["attn_module_out"]))
        block.mlp.register_forward_hook(keep(at["mlp_module_out"]))
        block.input_layernorm.register_forward_hook(keep(at["attn_in_unscaled"], "unscaled"))
        if name in POST_NORMS:
            block.post_attention_layernorm.register_forward_hook(keep(at["attn_out"]))
            block.post_feedforward_layernorm.register_forward_hook(keep(at["mlp_out"]))
            before_mlp = block.pre_feedforward_layernorm
        else:
            attention.register_forward_hook(keep(at["attn_out"]))
            block.mlp.register_forward_hook(keep(at["mlp_out"]))
            before_mlp = block.post_attention_layernorm
        before_mlp.register_forward_hook(keep(at["mlp_in_unscaled"], "unscaled"))
        if not (neox and block.use_parallel_residual):
            before_mlp.register_forward_pre_hook(keep(at["resid_mid"], "input"))
    with torch.no_grad():
        for row, length in enumerate(LENGTHS):
            model.base_model(torch.tensor(batch[0][row : row + 1, :length]), use_cache=False)
            rows[row] = dict(seen)
    return rows


def unscaled(norm, x):
    """What a norm makes of its input before its weight and bias."""
    if hasattr(norm, "bias"):  # GPT-NeoX's LayerNorm
        return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=norm.eps)
    epsilon = getattr(norm, "eps", None) or norm.variance_epsilon
    return x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()


def errors(got_BTD, rows, site):
    """The largest relative error of a prompt's vectors, in L2."""
    worst = 0.0
    for row, length in enumerate(LENGTHS):
        wanted = rows[row][site]
        gap = np.linalg.norm(np.asarray(got_BTD[row, :length]) - wanted, axis=-1)
        worst = max(worst, float((gap / np.linalg.norm(wanted, axis=-1)).max()))
    return worst


@pytest.mark.parametrize("name", families.CASES)
def test_every_site_of_every_family(name, tmp_path, batch):
    theirs = families.make(name)
    theirs.save_pretrained(tmp_path)
    rows = reference(theirs, name, batch)
    ours = load_model(tmp_path, "float32")
    sites = sorted(rows[0])
    got = make_forward(ours, sites, "tokens")(*batch)
    for site in sites:
        assert got[site].shape[-1] == ours.width(site)
        assert errors(got[site], rows, site) < 1e-4, str(site)
    # The last block run at the last token alone, and every set of sites, give the same.
    last = make_forward(ours, sites)(*batch)
    for site in sites:
        wanted = np.asarray(got[site])[np.arange(len(LENGTHS)), batch[1] - 1]
        np.testing.assert_allclose(last[site], wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    assert any(site.stream == "resid_mid" for site in sites) != (name in PARALLEL)

import jax
import numpy as np
import pytest

from jaxprobe.base import Site
from jaxprobe.models import load_model, make_forward

EMBED = Site.parse("embed")
SITES = [EMBED, *(Site(block=block, stream="resid_post") for block in (0, 2, 5, 6))]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request, tiny_path):
    return load_model(tiny_path, request.param)


@pytest.fixture(scope="module")
def exact(tiny_path):
    """The model in float32, for what no number format has a part in."""
    return load_model(tiny_path, "float32")


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    tokens_BT = rng.integers(4, 320, (4, 24), dtype=np.int32)
    return tokens_BT, np.array([24, 1, 13, 7], np.int32)


def close(model, got, wanted):
    # Different shapes sum in another order; in bfloat16 a rounding may then fall the other way.
    scale = 1e-5 if model.dtype == "float32" else 1e-2
    return np.abs(got - wanted).max() <= scale * np.abs(wanted).max()


def test_many_sites_in_one_pass_equal_each_alone(exact, batch):
    together = make_forward(exact, SITES)(*batch)
    assert list(together) == SITES
    # The table; a block with a window and the one without, each run at the last token alone.
    for site in (SITES[0], SITES[2], SITES[3]):
        alone = make_forward(exact, [site])(*batch)[site]
        assert alone.shape == (4, 48)
        assert alone.dtype == np.float32
        assert close(exact, together[site], alone)


def test_last_pooling_is_the_last_row_of_tokens_pooling(model, batch):
    # In the last block, attention's input is there for every token, the rest for the last alone.
    unscaled = [Site(block=6, stream=f"{part}_in_unscaled") for part in ("attn", "mlp")]
    sites = [*SITES, *unscaled]
    both = make_forward(model, sites, ("last", "tokens"))(*batch)
    last = make_forward(model, sites)(*batch)
    everything = make_forward(model, sites, "tokens")(*batch)
    for site in sites:
        assert everything[site].shape == (4, 24, 48)
        rows = np.asarray(everything[site])[np.arange(4), batch[1] - 1]
        assert close(model, last[site], rows)
        assert close(model, both[site, "last"], rows)
        assert close(model, both[site, "tokens"], everything[site])


def test_neither_padding_nor_neighbours_matter(model, batch):
    tokens_BT, length_B = batch
    site = SITES[-1]
    forward = make_forward(model, [site])
    together = forward(tokens_BT, length_B)[site]
    for row in (1, 2):  # of one token, and of less than the others
        length = length_B[row]
        alone = forward(tokens_BT[row : row + 1, :length], np.array([length], np.int32))[site]
        assert close(model, together[row], alone[0])
    other = np.where(np.arange(24) < length_B[:, None], tokens_BT, 9).astype(np.int32)
    np.testing.assert_array_equal(forward(other, length_B)[site], together)


def test_compiled_once_per_shape(exact, batch):
    forward = make_forward(exact, SITES[:2])
    for rows, num_tokens in [(4, 24), (2, 24), (4, 8), (4, 24), (2, 24)]:
        tokens_BT = batch[0][:rows, :num_tokens]
        forward(tokens_BT, np.minimum(batch[1][:rows], num_tokens))
    assert forward.num_compiled() == 3


def test_blocks_behind_the_last_tap_are_left_out(exact, batch):
    site = Site.parse("blocks.2.resid_post")
    early, late = make_forward(exact, [site]), make_forward(exact, [SITES[-1]])
    assert len(early.parameters.sublayers) == 1 + 3
    lowered = [forward.compiled.lower(forward.parameters, *batch) for forward in (early, late)]
    floats = [one.compile().cost_analysis()["flops"] for one in lowered]
    assert floats[0] < 0.5 * floats[1]
    sizes = [np.size(leaf) for leaf in jax.tree.leaves(early.parameters)]
    assert max(sizes) == 320 * 48
    # The weights are arguments: the program itself holds nothing of that size.
    assert len(lowered[0].as_text()) < 2_000_000


def test_filling_rows_stay_finite(model, batch):
    forward = make_forward(model, SITES)
    out = forward(batch[0], np.array([24, 0, 0, 3], np.int32))
    assert all(np.isfinite(value).all() for value in out.values())


def test_embed_is_the_scaled_table(model, batch, tiny_tensors):
    got = make_forward(model, [EMBED], "tokens")(*batch)[EMBED]
    wanted = tiny_tensors["token_embd.weight"][batch[0]] * np.sqrt(48)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_wrong_arguments_are_refused(model, batch):
    with pytest.raises(ValueError, match=r"blocks\.7\.resid_post.*blocks are 0 to 6"):
        make_forward(model, [Site.parse("blocks.7.resid_post")])
    for wrong in (("resid_past", 2), ("resid_post", -1), ("resid_pre", -2), ("embed", 0)):
        with pytest.raises(ValueError, match="a site has a stream of"):
            make_forward(model, [Site(stream=wrong[0], block=wrong[1])])
    with pytest.raises(ValueError, match="at least one site"):
        make_forward(model, [])
    with pytest.raises(ValueError, match="`sites` must be a sequence of sites, got one"):
        make_forward(model, "embed")
    with pytest.raises(ValueError, match="`pooling` must name at least one"):
        make_forward(model, SITES, ())
    for bad in (batch[0].astype(np.float32), [["a"] * 24] * 4):
        with pytest.raises(ValueError, match="`tokens_BT` must hold whole numbers"):
            make_forward(model, ["embed"])(bad, batch[1])
    with pytest.raises(ValueError, match="unknown pooling 'median'"):
        make_forward(model, [EMBED], "median")
    forward = make_forward(model, [EMBED])
    with pytest.raises(ValueError, match="`tokens_BT` must lie in 0 to 319, got 320"):
        forward(np.full((1, 2), 320, np.int32), np.array([2], np.int32))
    with pytest.raises(ValueError, match="`length_B` must lie in 0 to 24"):
        forward(batch[0], batch[1] + 1)
    with pytest.raises(ValueError, match="`length_B` must have shape"):
        forward(batch[0], batch[1][:2])


def test_mean_and_max_read_every_real_token_but_the_first(model, batch):
    tokens_BT, length_B = batch
    found = make_forward(model, [EMBED], ("tokens", "mean", "max"))(tokens_BT, length_B)
    site = Site.parse(EMBED) if isinstance(EMBED, str) else EMBED
    x_BTD = np.asarray(found[site, "tokens"])
    for row, length in enumerate(length_B.tolist()):
        read_TD = x_BTD[row, min(1, length - 1) : length].astype(np.float64)
        np.testing.assert_allclose(
            found[site, "mean"][row], read_TD.mean(axis=0), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_array_equal(found[site, "max"][row], read_TD.max(axis=0))


def test_model_knows_itself(model, tiny_path, make_tiny):
    assert (model.num_blocks, model.d_model, model.name) == (7, 48, "tiny")
    for dtype in ("float32", "bfloat16"):
        again = load_model(str(tiny_path), dtype)
        assert (again.fingerprint == model.fingerprint) == (dtype == model.dtype)
    other = load_model(make_tiny(metadata={"attention.sliding_window": 6}), model.dtype)
    assert other.fingerprint != model.fingerprint
    with pytest.raises(ValueError, match="unknown dtype 'float16'"):
        load_model(tiny_path, "float16")

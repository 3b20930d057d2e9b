"""The one compiled function: token batches to activations at any set of sites."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from penzai import pz

from jaxprobe import arguments, checks
from jaxprobe.base import POOLINGS, STREAMS, Site
from jaxprobe.models import sharding
from jaxprobe.models.model import Model
from jaxprobe.models.rotary import rotary_table
from jaxprobe.models.taps import marked_site, queries_only, with_taps

# The axes that make up a site's width, slowest first: the stream's own, or those of the heads.
_WIDTH_AXES = ("embedding", "head_groups", "query_heads", "projection")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forward:
    """A model's compiled forward pass up to the last site.

    Attributes:
        compiled: The jitted function of (parameters, tokens_BT, length_B).
        parameters: The blocks that it runs, passed as arguments so that no program holds a copy.
        vocab_size: Ids lie below this.
    """

    compiled: Callable = dataclasses.field(repr=False)
    parameters: pz.nn.Sequential = dataclasses.field(repr=False)
    vocab_size: int

    def __call__(self, tokens_BT, length_B) -> dict:
        """Runs one batch; the results are still being computed when this returns.

        Args:
            tokens_BT: int32 ids, padded on the right. Lists and other whole numbers are read too.
            length_B: int32 count of real tokens; a row of 0 gives finite values without meaning.

        Returns:
            Per site (or per (site, pooling) where several poolings were asked) float32 activations:
            [B, D] at the last real token, or [B, T, D], whose entries at padding have no meaning.
            D is d_model, and all heads together, num_heads * d_head, at `attn_z`.

        Raises:
            ValueError: Shapes disagree, other numbers than whole ones, or (but for JAX arrays, which
                may still be computed) ids or lengths out of range.
        """
        tokens_BT, length_B = _whole("tokens_BT", tokens_BT), _whole("length_B", length_B)
        checks.check_shape("tokens_BT", tokens_BT, (None, None))
        checks.check_shape("length_B", length_B, (tokens_BT.shape[0],))
        if isinstance(tokens_BT, np.ndarray):
            tokens_BT = _in_range("tokens_BT", tokens_BT, self.vocab_size - 1)
        if isinstance(length_B, np.ndarray):
            length_B = _in_range("length_B", length_B, tokens_BT.shape[1])
        return self.compiled(self.parameters, tokens_BT, length_B)

    def num_compiled(self) -> int:
        """Programs compiled so far: one per batch shape."""
        return self.compiled._cache_size()  # type: ignore[attr-defined]


def make_forward(
    model: Model, sites: Sequence[Site], pooling: str | Sequence[str] = "last"
) -> Forward:
    """Makes the compiled forward pass that reads `sites`; blocks behind the last are left out.

    Args:
        model: A loaded model.
        sites: Where to read, at least one; their names will do.
        pooling: `last` (at the last real token), `mean` or `max` (over every real token but the first),
            `tokens` (everywhere), or a sequence of them.

    Returns:
        A function of (tokens_BT, length_B), compiled once per shape.

    Raises:
        ValueError: No site, a site that the model lacks, or an unknown pooling.
    """
    if isinstance(sites, str | Site):
        raise ValueError(f"`sites` must be a sequence of sites, got one: write [{str(sites)!r}]")
    named = (Site.parse(site) if isinstance(site, str) else site for site in sites)
    sites = tuple(dict.fromkeys(named))
    if not sites:
        raise ValueError("`sites` must name at least one site, got none; try blocks.0.resid_post")
    for site in sites:
        _check_site(model, site)
    poolings = (pooling,) if isinstance(pooling, str) else tuple(dict.fromkeys(pooling))
    if not poolings:
        raise ValueError(f"`pooling` must name at least one of {', '.join(POOLINGS)}, got none")
    for name in poolings:
        checks.check_choice("pooling", name, POOLINGS)
    last_block = max(marked_site(site, model.config.post_norms).block for site in sites)
    used = pz.nn.Sequential(list(model.parameters.sublayers[: last_block + 2]))
    precision = "highest" if model.dtype == "float32" else "default"
    config, mesh = model.config, model.mesh

    def run(parameters, tokens_BT, length_B):
        # penzai mixes dtypes and ranks by NumPy's rules; callers may have forbidden that.
        with (
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            jax.default_matmul_precision(precision),
        ):
            tokens_BT, length_B = sharding.spread_rows((tokens_BT, length_B), mesh)
            values = _read(config, parameters, sites, poolings, tokens_BT, length_B)
            values = sharding.spread_rows(values, mesh)
        if isinstance(pooling, str):
            return {site: value for (site, _), value in values.items()}
        return values

    return Forward(compiled=jax.jit(run), parameters=used, vocab_size=model.config.vocab_size)


def _whole(name: str, value):
    """Whole numbers as NumPy's; what JAX holds or traces as it is."""
    if not isinstance(value, jax.Array):
        value = arguments.array(name, value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise ValueError(f"`{name}` must hold whole numbers, got {value.dtype}")
    return value


def _read(config, stack, sites, poolings, tokens_BT, length_B) -> dict:
    last_B1 = jnp.maximum(length_B.astype(jnp.int32) - 1, 0)[:, None]
    positions = {
        "token_positions": pz.nx.arange("seq", tokens_BT.shape[1]),
        "query_positions": pz.nx.wrap(last_B1, "batch", "seq"),
    }
    length = pz.nx.wrap(length_B.astype(jnp.int32), "batch")
    tables = {
        (name, rotary): rotary_table(where, length, rotary)
        for name, where in positions.items()
        for rotary in set(config.rotary)
    }
    pruned = poolings == ("last",) and len(stack.sublayers) > 1
    if pruned:  # nothing reads the last block but its taps, and they only at the last token
        *before, block = stack.sublayers
        stack = pz.nn.Sequential([*before, queries_only(block)])
    marked = {site: marked_site(site, config.post_norms) for site in sites}
    tapped, variables = with_taps(stack, tuple(marked.values()))
    tapped(pz.nx.wrap(tokens_BT, "batch", "seq"), tables=tables, **positions)
    values = {}
    for site, mark in marked.items():
        seen = variables[mark].value
        rest = [name for name in _WIDTH_AXES if name in seen.named_axes]
        x = seen.unwrap("batch", "seq", *rest).astype(jnp.float32)
        x_BTD = x.reshape(*x.shape[:2], -1)
        # Behind the pick, a pruned block holds nothing but the last token.
        at_last = pruned and x_BTD.shape[1] == 1
        for name in poolings:
            row = jnp.zeros_like(last_B1) if at_last else last_B1
            values[site, name] = _pooled(name, x_BTD, row)
    return values


def _pooled(pooling: str, x_BTD, last_B1):
    """One row a prompt, or every token's."""
    if pooling == "tokens":
        return x_BTD
    if pooling == "last":
        return _take(x_BTD, last_B1)
    # The tokens that `tokens` keeps: every real one but the first, which is BOS in most families and has
    # activations unlike any other's. A prompt of one token has that one alone.
    position_T = jnp.arange(x_BTD.shape[1], dtype=last_B1.dtype)
    read_BT = (position_T <= last_B1) & (position_T >= jnp.minimum(last_B1, 1))
    if pooling == "max":
        return jnp.max(jnp.where(read_BT[:, :, None], x_BTD, -jnp.inf), axis=1)
    total_BD = jnp.sum(jnp.where(read_BT[:, :, None], x_BTD, 0), axis=1)
    return total_BD / jnp.sum(read_BT, axis=1, dtype=x_BTD.dtype)[:, None]


def _take(x_BTD, index_B1):
    return jnp.take_along_axis(x_BTD, index_B1[:, :, None], axis=1, mode="clip")[:, 0]


def _check_site(model: Model, site: Site) -> None:
    lowest = -1 if site.stream == "embed" else 0
    if site.stream not in STREAMS or site.block < lowest or (lowest and site.block != lowest):
        raise ValueError(
            f"a site has a stream of {', '.join(STREAMS)} and a block from 0 (`embed`: -1), got"
            f" {site!r}; make it with Site.parse, for example Site.parse('blocks.0.resid_post')"
        )
    if site.block >= model.num_blocks:
        raise ValueError(
            f"`{site}` is not in {model.name}: its blocks are 0 to {model.num_blocks - 1}"
        )
    if site.stream == "resid_mid" and model.config.parallel_residual:
        raise ValueError(
            f"`{site}` is not in {model.name}: attention and the MLP both read resid_pre and add to"
            " resid_post, as in TransformerLens; name resid_pre, attn_out or mlp_out"
        )


def _in_range(name: str, array: np.ndarray, largest: int) -> np.ndarray:
    if array.size and (array.min() < 0 or array.max() > largest):
        raise ValueError(f"`{name}` must lie in 0 to {largest}, got {array.min()} to {array.max()}")
    return array.astype(np.int32, copy=False)

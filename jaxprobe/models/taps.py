"""Reading activations at marked places, and leaving out what no tap can see."""

import dataclasses
from collections.abc import Sequence

from penzai import pz

from jaxprobe.base import Site
from jaxprobe.models.layers import Mark, PickQueries
from jaxprobe.models.rotary import Rotate


@pz.pytree_dataclass
class Tap(pz.nn.Layer):
    """An identity that keeps what passed through it.

    Attributes:
        seen: Holds the last value.
    """

    seen: pz.StateVariable

    def __call__(self, x: pz.nx.NamedArray, **_unused) -> pz.nx.NamedArray:
        """Returns `x` unchanged."""
        self.seen.value = x
        return x


def marked_site(site: Site, post_norms: bool) -> Site:
    """Where the value of a site is marked: `resid_pre` of a block is what the one before left.

    Args:
        site: A site of the model.
        post_norms: As the model's config has it.
    """
    if site.stream != "resid_pre":
        return site.stored(post_norms)
    before = site.block - 1
    return Site(block=before, stream="embed" if before < 0 else "resid_post")


def with_taps(
    stack: pz.nn.Sequential, sites: Sequence[Site]
) -> tuple[pz.nn.Sequential, dict[Site, pz.StateVariable]]:
    """Turns the marks of `sites` into taps.

    Args:
        stack: A stack as `transformer.build` makes it.
        sites: Marked places.

    Returns:
        The stack with taps, and per site the variable that holds the value after a call.
    """
    variables = {site: pz.StateVariable(value=None, label=str(site)) for site in sites}
    marks = pz.select(stack).at_instances_of(Mark)
    tapped = marks.apply(
        lambda mark: Tap(seen=variables[mark.site]) if mark.site in variables else mark
    )
    return tapped, variables


def queries_only(block: pz.nn.Sequential) -> pz.nn.Sequential:
    """Rewrites a block to compute its output at the side input `query_positions` alone.

    Keys and values still see every token; queries, attention's output and the MLP run at the
    positions that are asked for. The result's `seq` axis counts those positions.
    """
    first, *rest = block.sublayers
    if not isinstance(first, pz.nn.Residual):
        raise TypeError(f"a block must open with a residual branch, got {type(first).__name__}")
    branches = [first.delta]
    if isinstance(first.delta, pz.nn.BranchAndAddTogether):  # attention and the MLP side by side
        branches = first.delta.branches
    picked = [_pick(branch) for branch in branches]
    return type(block)([pz.nn.BranchAndAddTogether([PickQueries(), *picked]), *rest])


def _pick(branch: pz.nn.Layer) -> pz.nn.Layer:
    attention = pz.select(branch).at_instances_of(pz.nn.Attention)
    if attention.is_empty():
        return pz.nn.Sequential([PickQueries(), branch])
    return attention.apply(_pick_in_attention)


def _pick_in_attention(attention: pz.nn.Attention) -> pz.nn.Attention:
    turn = pz.select(attention.input_to_query).at_instances_of(Rotate)
    query = turn.apply(lambda r: dataclasses.replace(r, positions_name="query_positions"))
    masks = (pz.nn.ApplyCausalAttentionMask, pz.nn.ApplyCausalSlidingWindowAttentionMask)
    mask = pz.select(attention.query_key_to_attn).at_instances_of(masks)
    return dataclasses.replace(
        attention,
        input_to_query=pz.nn.Sequential([PickQueries(), query]),
        query_key_to_attn=mask.apply(
            lambda m: dataclasses.replace(m, query_positions_input_name="query_positions")
        ),
    )

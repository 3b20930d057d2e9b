"""Reading the residual stream, and leaving out what no tap can see."""

import dataclasses

from penzai import pz

from jaxprobe.base import Site
from jaxprobe.models.layers import PickQueries, Rotate


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


def with_taps(
    stack: pz.nn.Sequential, sites: tuple[Site, ...]
) -> tuple[pz.nn.Sequential, dict[Site, pz.StateVariable]]:
    """Puts a tap behind the embedding or block of every site.

    Args:
        stack: A stack as `transformer.build` makes it.
        sites: Places behind its sublayers.

    Returns:
        The longer stack, and per site the variable that holds the value after a call.
    """
    variables = {site: pz.StateVariable(value=None, label=str(site)) for site in sites}
    layers = []
    for block, layer in enumerate(stack.sublayers, start=-1):
        layers.append(layer)
        layers += [Tap(seen=variables[site]) for site in sites if site.block == block]
    return pz.nn.Sequential(layers), variables


def queries_only(block: pz.nn.Sequential) -> pz.nn.Sequential:
    """Rewrites a block to compute its output at the side input `query_positions` alone.

    Keys and values still see every token; queries, attention's output and the MLP run at the
    positions that are asked for. The result's `seq` axis counts those positions.
    """
    attention, mlp = block.sublayers
    if not isinstance(attention, pz.nn.Residual):
        raise TypeError(f"a block must open with a residual branch, got {type(attention).__name__}")
    return type(block)(
        [
            pz.nn.BranchAndAddTogether([PickQueries(), _pick(attention.delta)]),
            mlp,
        ]
    )


def _pick(sublayer: pz.nn.Layer) -> pz.nn.Layer:
    selected = pz.select(sublayer).at_instances_of(pz.nn.Attention)
    return selected.apply(_pick_in_attention)


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

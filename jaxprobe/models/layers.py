"""The layers that penzai lacks: mixed-precision products, norms in float32, attention's steps.

Axis names are penzai's own (`penzai.models.transformer.model_parts`): batch, seq, kv_seq, embedding,
head_groups, query_heads, projection, neurons. Side inputs that every layer may read:

    token_positions     {seq}          position of each token
    query_positions     {seq} or {batch, seq}: positions that are asked for in a pruned block
    tables              {(positions name, Rotary): (cosines, sines)}, see `rotary`

Unwrapped arrays of attention have the axes B batch, G head groups, T seq, Q query heads, M T and Q together,
S kv_seq, P projection; in `PickQueries`, Q is the queried positions.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from penzai import pz

from jaxprobe.models.rotary import STATIC
from jaxprobe.sites import Site


@pz.pytree_dataclass(has_implicitly_inherited_fields=True)
class Linear(pz.nn.Linear):
    """A product whose inputs take the weights' dtype and whose sums stay in float32.

    Attributes:
        exact: Whether both factors are float32 instead, however the weights are stored: a bfloat16
            file's matrices are then kept in half the memory at no loss.
    """

    exact: bool = dataclasses.field(default=False, kw_only=True, metadata=STATIC)

    def __call__(self, x: pz.nx.NamedArray, **_unused) -> pz.nx.NamedArray:
        """Contracts `in_axis_names`; the result is float32 with the output axes last."""
        dtype = jnp.float32 if self.exact else self.weights.value.dtype
        weights = self.weights.value.astype(dtype)
        kept = [name for name in x.named_axes if name not in self.in_axis_names]
        left = x.unwrap(*kept, *self.in_axis_names).astype(dtype)
        right = weights.unwrap(*self.out_axis_names, *self.in_axis_names)
        sizes = (*left.shape[: len(kept)], *right.shape[: len(self.out_axis_names)])
        # Weights lie [outputs, inputs] as in every file. As plain matrices they are read where they
        # lie; with more axes XLA would transpose a copy of them in every call.
        right_OI = right.reshape(math.prod(sizes[len(kept) :]), -1)
        left_NI = left.reshape(math.prod(sizes[: len(kept)]), -1)
        y_NO = jax.lax.dot_general(
            left_NI,
            right_OI,
            (((1,), (1,)), ((), ())),
            precision=jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None,
            preferred_element_type=jnp.float32,
        )
        return pz.nx.wrap(y_NO.reshape(sizes), *kept, *self.out_axis_names)


@pz.pytree_dataclass
class Normalise(pz.nn.Layer):
    """Division by the root mean square over one axis, in float32; a norm's part without parameters.

    Attributes:
        axis: Name of the axis.
        epsilon: Added to the mean square.
        centred: Whether the mean is removed before, which makes it a LayerNorm's.
    """

    axis: str = dataclasses.field(metadata=STATIC)
    epsilon: float = dataclasses.field(metadata=STATIC)
    centred: bool = dataclasses.field(metadata=STATIC)

    def __call__(self, x: pz.nx.NamedArray, **_unused) -> pz.nx.NamedArray:
        """Normalises; the result is float32 with `axis` last."""
        kept = [name for name in x.named_axes if name != self.axis]
        values = x.unwrap(*kept, self.axis).astype(jnp.float32)
        if self.centred:
            values = values - jnp.mean(values, -1, keepdims=True)
        mean_square = jnp.mean(jnp.square(values), -1, keepdims=True)
        scaled = values * jax.lax.rsqrt(mean_square + self.epsilon)
        return pz.nx.wrap(scaled, *kept, self.axis)


@pz.pytree_dataclass
class Scale(pz.nn.Layer):
    """A norm's learned factor and, where it has one, its learned offset, in float32.

    Attributes:
        scale: Factor; where a family stores it less one, the loader has added the one.
        bias: Offset, or None.
        axis: Name of the axis.
    """

    scale: pz.nn.ParameterLike[pz.nx.NamedArray]
    bias: pz.nn.ParameterLike[pz.nx.NamedArray] | None
    axis: str = dataclasses.field(metadata=STATIC)

    def __call__(self, x: pz.nx.NamedArray, **_unused) -> pz.nx.NamedArray:
        """Scales and shifts; the result is float32 with `axis` last."""
        kept = [name for name in x.named_axes if name != self.axis]
        values = x.unwrap(*kept, self.axis) * self.scale.value.unwrap(self.axis)
        if self.bias is not None:
            values = values + self.bias.value.unwrap(self.axis)
        return pz.nx.wrap(values, *kept, self.axis)


@pz.pytree_dataclass
class AddBias(pz.nn.Layer):
    """Adds a learned offset in float32.

    Attributes:
        bias: The offset; its axes are the trailing axes of the input.
    """

    bias: pz.nn.ParameterLike[pz.nx.NamedArray]

    def __call__(self, x: pz.nx.NamedArray, **_unused) -> pz.nx.NamedArray:
        """Adds; the order of axes stays."""
        return (x + self.bias.value.astype(jnp.float32)).order_as(*x.named_axes)


@pz.pytree_dataclass
class Mark(pz.nn.Layer):
    """An identity where a tap may be put.

    Attributes:
        site: The place's name.
    """

    site: Site = dataclasses.field(metadata=STATIC)

    def __call__(self, x: pz.nx.NamedArray, **_unused) -> pz.nx.NamedArray:
        """Returns `x`."""
        return x


@pz.pytree_dataclass
class SoftCap(pz.nn.Layer):
    """The scores' bound c tanh(x / c).

    Attributes:
        cap: c.
    """

    cap: float = dataclasses.field(metadata=STATIC)

    def __call__(self, score: pz.nx.NamedArray, **_unused) -> pz.nx.NamedArray:
        """Caps elementwise."""
        return pz.nx.nmap(lambda value: jnp.tanh(value / self.cap) * self.cap)(score)


@pz.pytree_dataclass
class Scores(pz.nn.Layer):
    """Products of every query with every key of its head group, in float32."""

    def __call__(self, query_key, **_unused) -> pz.nx.NamedArray:
        """Maps ({batch, seq, .., projection}, same with kv heads) to {.., query_heads, kv_seq}."""
        query, key = query_key
        q_BGTQP = query.unwrap("batch", "head_groups", "seq", "query_heads", "projection")
        k_BGSP = key.unwrap("batch", "head_groups", "seq", "projection")
        # All queries of all heads of a group are the rows of one matrix, as they lie in memory.
        q_BGMP = q_BGTQP.reshape(*q_BGTQP.shape[:2], -1, q_BGTQP.shape[-1])
        score_BGMS = jnp.einsum("bgmp,bgsp->bgms", q_BGMP, k_BGSP)
        score = score_BGMS.reshape(*q_BGTQP.shape[:-1], -1)
        return pz.nx.wrap(score, "batch", "head_groups", "seq", "query_heads", "kv_seq")


@pz.pytree_dataclass
class Softmax(pz.nn.Layer):
    """Softmax over the keys, which stay the fastest axis in memory."""

    def __call__(self, score: pz.nx.NamedArray, **_unused) -> pz.nx.NamedArray:
        """Normalises over `kv_seq`."""
        order = ("batch", "head_groups", "seq", "query_heads", "kv_seq")
        return pz.nx.wrap(jax.nn.softmax(score.unwrap(*order), axis=-1), *order)


@pz.pytree_dataclass
class Mix(pz.nn.Layer):
    """Sums of the values, weighted by attention, in float32."""

    def __call__(self, attention_value, **_unused) -> pz.nx.NamedArray:
        """Maps (weights, values) to {batch, seq, head_groups, query_heads, projection}."""
        attention, value = attention_value
        a_BGTQS = attention.unwrap("batch", "head_groups", "seq", "query_heads", "kv_seq")
        v_BGSP = value.unwrap("batch", "head_groups", "seq", "projection")
        a_BGMS = a_BGTQS.reshape(*a_BGTQS.shape[:2], -1, a_BGTQS.shape[-1])
        mixed_BGMP = jnp.einsum("bgms,bgsp->bgmp", a_BGMS, v_BGSP)
        mixed = mixed_BGMP.reshape(*a_BGTQS.shape[:-1], -1)
        named = pz.nx.wrap(mixed, "batch", "head_groups", "seq", "query_heads", "projection")
        return named.order_as("batch", "seq", "head_groups", "query_heads", "projection")


@pz.pytree_dataclass
class PickQueries(pz.nn.Layer):
    """Keeps the rows of the `seq` axis that the side input `query_positions` names."""

    def __call__(self, x: pz.nx.NamedArray, *, query_positions, **_unused) -> pz.nx.NamedArray:
        """Gathers one set of positions per batch row."""
        rest = [name for name in x.named_axes if name not in ("batch", "seq")]
        values = x.unwrap("batch", "seq", *rest)
        index_BQ = query_positions.unwrap("batch", "seq")
        index = index_BQ.reshape(*index_BQ.shape, *(1 for _ in rest))
        picked = jnp.take_along_axis(values, index, axis=1, mode="clip")
        return pz.nx.wrap(picked, "batch", "seq", *rest)

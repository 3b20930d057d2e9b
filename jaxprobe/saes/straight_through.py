"""Operations with gradients of their own: through jumps, and in a cheaper number format."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def jump(bandwidth: float, pre_BS: jax.Array, threshold_S: jax.Array) -> jax.Array:
    """JumpReLU with a straight-through gradient for the threshold."""
    return jnp.where(pre_BS > threshold_S[None, :], pre_BS, 0.0)


def _jump_forward(bandwidth, pre_BS, threshold_S):
    return jump(bandwidth, pre_BS, threshold_S), (pre_BS, threshold_S)


def _jump_backward(bandwidth, saved, g_BS):
    pre_BS, threshold_S = saved
    # Raising a threshold removes latents just above it, each of about the threshold's value.
    near_BS = near(bandwidth, pre_BS, threshold_S)
    g_threshold_S = -jnp.where(near_BS, g_BS, 0.0).sum(axis=0) / bandwidth
    return jnp.where(pre_BS > threshold_S[None, :], g_BS, 0.0), g_threshold_S


jump.defvjp(_jump_forward, _jump_backward)


def near(bandwidth: float, pre_BS: jax.Array, threshold_S: jax.Array) -> jax.Array:
    """The rectangle kernel: within half a (relative) bandwidth of the threshold."""
    return jnp.abs(pre_BS - threshold_S[None, :]) < 0.5 * bandwidth * threshold_S[None, :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def matmul(dtype: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Product of factors rounded to `dtype`, forward and backward, with float32 sums."""
    return _contract(a.astype(dtype), 1, b.astype(dtype), 0)


def _matmul_forward(dtype, a, b):
    return matmul(dtype, a, b), (a.astype(dtype), b.astype(dtype))


def _matmul_backward(dtype, saved, g):
    a, b = saved
    g = g.astype(dtype)
    return _contract(g, 1, b, 1), _contract(a, 0, g, 0)


matmul.defvjp(_matmul_forward, _matmul_backward)


def _contract(a: jax.Array, axis_a: int, b: jax.Array, axis_b: int) -> jax.Array:
    """Sum over one axis of each matrix; on CPUs twice as fast as a product with a transpose."""
    axes = (((axis_a,), (axis_b,)), ((), ()))
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)

"""Sparse autoencoders: a pytree and a pair of pure functions per architecture."""

from jaxprobe.saes.jump_relu import JumpReluSae as JumpReluSae
from jaxprobe.saes.jump_relu import decode as decode
from jaxprobe.saes.jump_relu import encode as encode

"""Sparse autoencoders: a pytree and a pair of pure functions per architecture."""

from jaxprobe.saes import matryoshka as matryoshka
from jaxprobe.saes.batch_topk import BatchTopKSae as BatchTopKSae
from jaxprobe.saes.described import check_finite as check_finite
from jaxprobe.saes.encoding import BlockEncoder as BlockEncoder
from jaxprobe.saes.encoding import architecture as architecture
from jaxprobe.saes.encoding import check_sae as check_sae
from jaxprobe.saes.encoding import core_of as core_of
from jaxprobe.saes.encoding import decode as decode
from jaxprobe.saes.encoding import encode as encode
from jaxprobe.saes.encoding import encode_block as encode_block
from jaxprobe.saes.encoding import prepare as prepare
from jaxprobe.saes.encoding import random_like as random_like
from jaxprobe.saes.framed import FramedSae as FramedSae
from jaxprobe.saes.framed import frame as frame
from jaxprobe.saes.gated import GatedSae as GatedSae
from jaxprobe.saes.groupmax import GroupMaxSae as GroupMaxSae
from jaxprobe.saes.jump_relu import JumpReluSae as JumpReluSae
from jaxprobe.saes.matryoshka import MatryoshkaSae as MatryoshkaSae
from jaxprobe.saes.relu import ReluSae as ReluSae
from jaxprobe.saes.topk import TopKSae as TopKSae

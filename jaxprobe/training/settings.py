"""The settings of SAE training: the config's section, and one of the SAEs that it asks for."""

import dataclasses
from typing import Annotated, Any

from jaxprobe import checks
from jaxprobe.saes.rules import RULES
from jaxprobe.settings import MOST_INT, Count, CountOrZero, Gib, Range, Seconds, Seed
from jaxprobe.sites import Site

L0 = Annotated[float, Range(0, MOST_INT)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSae:
    """`config.train_sae`: the SAEs that the job trains itself.

    A file that sets any key of this section trains, unless it sets `train` itself. Every combination of
    site, architecture, d_sae and target_l0 is one SAE.

    Attributes:
        train: Whether to train at all.
        sites: Where SAEs are trained; () means at every site of the job.
        architecture: One of `saes.rules.RULES`: jump_relu, relu, gated, topk, batch_topk.
        architectures: Several of them instead of `architecture`.
        d_sae: Number of latents.
        d_saes: Several of them instead of `d_sae`.
        target_l0: Mean number of active latents per token.
        target_l0s: Several of them instead of `target_l0`.
        num_tokens: Tokens to train on, counting repeats.
        batch_size: Tokens per step.
        learning_rate: Adam's rate at its peak.
        bandwidth: Width of the thresholds' straight-through kernel, relative to the threshold.
        compute_dtype: Type of the factors of matrix products, `bfloat16` or `float32`.
        seed: Seed for initial weights, order of tokens and held-out prompts.
        held_out: Fraction of prompts used only to measure the result.
        max_gib: Most memory for activations; a larger set is streamed.
        checkpoint_seconds: Seconds between saves of the training state.
        num_devices: Devices that share a batch; 0 takes as many as divide it evenly.
    """

    train: bool = False
    sites: tuple[str, ...] = ()
    architecture: str = "jump_relu"
    architectures: tuple[str, ...] = ()
    d_sae: Count = 4096
    d_saes: tuple[Count, ...] = ()
    target_l0: L0 = 62.0
    target_l0s: tuple[L0, ...] = ()
    num_tokens: Annotated[int, Range(1, 2**53)] = 400_000
    batch_size: Count = 512
    learning_rate: Annotated[float, Range(0, 1e6)] = 6e-3
    bandwidth: Annotated[float, Range(0, 1e6)] = 0.5
    compute_dtype: str = "bfloat16"
    seed: Seed = 0
    held_out: Annotated[float, Range(0, 1)] = 0.1
    max_gib: Gib = 2.0
    checkpoint_seconds: Seconds = 30.0
    num_devices: CountOrZero = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaeToTrain:
    """One SAE of the `train_sae` section."""

    site: Site
    architecture: str = TrainSae.architecture
    d_sae: int = TrainSae.d_sae
    target_l0: float = TrainSae.target_l0
    num_tokens: int = TrainSae.num_tokens
    batch_size: int = TrainSae.batch_size
    learning_rate: float = TrainSae.learning_rate
    bandwidth: float = TrainSae.bandwidth
    compute_dtype: str = TrainSae.compute_dtype
    seed: int = TrainSae.seed
    held_out: float = TrainSae.held_out
    max_gib: float = TrainSae.max_gib
    checkpoint_seconds: float = TrainSae.checkpoint_seconds
    num_devices: int = TrainSae.num_devices

    @classmethod
    def of(cls, section: TrainSae, **own: Any) -> "SaeToTrain":
        """One of a section's SAEs.

        Args:
            section: What all of them share.
            **own: What is its own in place of that: `site`, and whatever the section names several of.
        """
        shared = {field.name for field in dataclasses.fields(cls)} & {*vars(section)}
        return cls(**({name: getattr(section, name) for name in shared} | own))

    @property
    def id(self) -> str:
        """What the `features` column of result rows will call the SAE."""
        return f"{self.architecture}/{self.site}/width_{self.d_sae}/l0_{self.target_l0:g}"

    def check(self) -> None:
        """Raises ValueError for numbers that cannot work."""
        checks.check_choice("architecture", self.architecture, RULES)
        for name in ("d_sae", "num_tokens", "batch_size", "learning_rate", "bandwidth", "max_gib"):
            checks.check_positive(name, getattr(self, name))
        if not 0 < self.target_l0 < self.d_sae:
            raise ValueError(
                f"`target_l0` must lie between 0 and d_sae = {self.d_sae}, got {self.target_l0}"
            )
        if not 0 < self.held_out < 1:
            raise ValueError(f"`held_out` must lie between 0 and 1, got {self.held_out}")
        if self.num_devices < 0:
            raise ValueError(f"`num_devices` must be 0 (all) or more, got {self.num_devices}")
        checks.check_choice("compute_dtype", self.compute_dtype, ("bfloat16", "float32"))

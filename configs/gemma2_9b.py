"""Gemma 2 9B, block 20: the paper's main job, all 113 datasets, four regimes, three Gemma Scope SAEs.

Command:  python launch/run.py --config=configs/gemma2_9b.py
Needs:    Gemma's licence accepted on the Hub and HF_TOKEN set; 18 GB of weights and 18 GB of SAEs (16 of them
          the widest); an accelerator with 40 GB, or parameters spread over several
Expected: mean test AUROC .941 of the L2 baseline in the standard regime (the paper's own result files)
Paper:    Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681
"""

from ml_collections import ConfigDict

SCOPE = "hf://google/gemma-scope-9b-pt-res/layer_20"


def get_config() -> ConfigDict:
    """The config; a comment per number that is not obvious."""
    return ConfigDict(
        {
            "model": "hf://google/gemma-2-9b",
            "dtype": "bfloat16",  # products in bfloat16, sums in float32
            "bos": "auto",  # as the SAEs say, else as the tokenizer's files do; or on, off
            "site": "blocks.20.resid_post",
            "source": "pypi://sae-probes",
            "datasets": (),  # all 113: 222,062 distinct prompts, 17.9M tokens
            "seed": 42,  # the published draws
            "saes": (  # the paper's choice for the regimes, one per width
                f"{SCOPE}/width_16k/average_l0_408",
                f"{SCOPE}/width_131k/average_l0_276",
                f"{SCOPE}/width_1m/average_l0_193",
            ),
            "extract": {
                # The paper's layers; the baselines read `site`.
                "sites": (
                    "embed",
                    "blocks.9.resid_post",
                    "blocks.20.resid_post",
                    "blocks.31.resid_post",
                    "blocks.41.resid_post",
                ),
                "max_length": 1024,
                "batch_tokens": 8192,  # an accelerator wants larger products than a CPU
            },
            "encode": {
                "regimes": ("standard", "scarcity", "imbalance", "label_noise"),
                "protocols": ("paper", "dedup"),
            },
            "fit": {
                "num_latents": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
                "regime_num_latents": (16, 128),  # as in the paper
                "controls": True,
            },
            "report": {"model": "", "site": ""},  # "": the first one in the results
        }
    )

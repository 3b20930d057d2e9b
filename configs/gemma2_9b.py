"""Gemma 2 9B, the paper's main job: 113 datasets, five layers, five regimes, three SAEs.

Command:  python launch/run.py --config=configs/gemma2_9b.py
          python launch/run.py --config=configs/gemma2_9b.py:layer_20    only the SAEs' layer
Needs:    Gemma's licence accepted on the Hub and HF_TOKEN set; 18 GB of weights and 18 GB of SAEs
          (16 of them the widest); an accelerator with 40 GB, or parameters spread over several
          (--config.extract.mesh="(1,4)"); pip install 'jaxprobe[xgboost]' for the fifth baseline,
          without which the job runs on the other four
Expected: mean test AUROC .941 of the logistic baseline at block 20 in the standard regime (from the
          paper's own result files). Not run yet; time is unknown
Paper:    Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681,
          sections 3 and 4
"""

from ml_collections import ConfigDict

VARIANTS = {
    "all": "the paper's five layers; the same as no variant",
    "layer_20": "only block 20, where the SAEs are",
}
SAE_SITE = "blocks.20.resid_post"
SCOPE = "hf://google/gemma-scope-9b-pt-res/layer_20"


def get_config(variant: str = "all") -> ConfigDict:
    """The config; comments explain numbers that are not obvious."""
    layers = (
        "embed",
        "blocks.9.resid_post",
        SAE_SITE,
        "blocks.31.resid_post",
        "blocks.41.resid_post",  # the last
    )
    return ConfigDict(
        {
            "model": "hf://google/gemma-2-9b",
            "dtype": "bfloat16",  # products in bfloat16, sums in float32
            "bos": "auto",  # as the SAEs say, else as the tokenizer's files say; or on, off
            "sites": layers if variant == "all" else (SAE_SITE,),  # baselines read each of them
            "source": "pypi://sae-probes",
            "datasets": (),  # all 113: 222,062 distinct prompts, 17.9M tokens; 8 shifted sets
            "seed": 42,  # the published draws
            "saes": (  # the paper's choice for the regimes, one per width
                f"{SCOPE}/width_16k/average_l0_408",
                f"{SCOPE}/width_131k/average_l0_276",
                f"{SCOPE}/width_1m/average_l0_193",
            ),
            "extract": {
                "max_length": 1024,
                "batch_tokens": 8192,  # an accelerator needs larger matrix products than a CPU
            },
            "encode": {
                "regimes": (
                    "standard",
                    "scarcity",
                    "imbalance",
                    "label_noise",
                    "covariate_shift",  # trains on the dataset, tests on its shifted set
                ),
                "protocols": ("paper", "dedup"),
            },
            "fit": {
                "baselines": ("logistic", "pca", "knn", "mlp", "xgboost"),  # the paper's five
                "num_latents": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
                "regime_num_latents": (16, 128),  # as in the paper
                "controls": True,
            },
        }
    )

"""Llama 3.1 8B: 113 datasets, five layers, five regimes, Llama Scope's 32x SAE at block 16.

Command:  python launch/run.py --config=configs/llama3_8b.py
          python launch/run.py --config=configs/llama3_8b.py:layer_16    only the SAE's layer
Needs:    Llama's licence accepted on the Hub and HF_TOKEN set; 16 GB of weights; pip
          install 'jaxprobe[xgboost]' for the fifth baseline, without which the job runs on the
          other four
Expected: not run yet; time and scores are unknown
Paper:    Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681
"""

from ml_collections import ConfigDict

VARIANTS = {
    "all": "the paper's five layers; the same as no variant",
    "layer_16": "only block 16, where the SAE is",
}
SAE_SITE = "blocks.16.resid_post"


def get_config(variant: str = "all") -> ConfigDict:
    """The config; comments in `gemma2_9b.py` explain the numbers."""
    layers = (
        "embed",
        "blocks.8.resid_post",
        SAE_SITE,
        "blocks.24.resid_post",
        "blocks.31.resid_post",
    )
    return ConfigDict(
        {
            "model": "hf://meta-llama/Llama-3.1-8B",
            "dtype": "bfloat16",
            "bos": "auto",  # as the SAEs say, else as the tokenizer's files say; or on, off
            "sites": layers if variant == "all" else (SAE_SITE,),
            "source": "pypi://sae-probes",
            "datasets": (),
            "seed": 42,
            "saes": ("hf://fnlp/Llama3_1-8B-Base-LXR-32x/Llama3_1-8B-Base-L16R-32x",),
            "extract": {"max_length": 1024, "batch_tokens": 8192},
            "encode": {
                "regimes": ("standard", "scarcity", "imbalance", "label_noise", "covariate_shift"),
                "protocols": ("paper", "dedup"),
            },
            "fit": {
                "baselines": ("logistic", "pca", "knn", "mlp", "xgboost"),
                "num_latents": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
                "regime_num_latents": (16, 128),
                "controls": True,
            },
        }
    )

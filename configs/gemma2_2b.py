"""Gemma 2 2B, block 12, the paper's smaller Gemma: 113 datasets, five regimes, a Gemma Scope SAE.

Command:  python launch/run.py --config=configs/gemma2_2b.py
Needs:    Gemma's licence accepted on the Hub and HF_TOKEN set; 10.5 GB of weights (published in
          float32); pip install 'jaxprobe[xgboost]' for the fifth baseline, without which the job
          runs on the other four
Expected: not run yet; time and scores are unknown
Paper:    Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681, where
          this block is read with SAEBench's SAEs; add theirs to `saes`
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The config; comments in `gemma2_9b.py` explain the numbers."""
    return ConfigDict(
        {
            "model": "hf://google/gemma-2-2b",
            "dtype": "bfloat16",
            "bos": "auto",  # as the SAEs say, else as the tokenizer's files say; or on, off
            "sites": ("blocks.12.resid_post",),
            "source": "pypi://sae-probes",
            "datasets": (),
            "seed": 42,
            "saes": ("hf://google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82",),
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

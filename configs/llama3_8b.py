"""Llama 3.1 8B, block 16: all 113 datasets and Llama Scope's residual SAE of 32 times the width.

Command:  python launch/run.py --config=configs/llama3_8b.py
Needs:    Llama's licence accepted on the Hub and HF_TOKEN set; 16 GB of weights
Paper:    Are Sparse Autoencoders Useful? A Case Study in Sparse Probing, arXiv 2502.16681
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The config; `gemma2_9b.py` comments on what the numbers mean."""
    return ConfigDict(
        {
            "model": "hf://meta-llama/Llama-3.1-8B",
            "dtype": "bfloat16",
            "bos": "auto",  # as the SAEs say, else as the tokenizer's files do; or on, off
            "site": "blocks.16.resid_post",
            "source": "pypi://sae-probes",
            "datasets": (),
            "seed": 42,
            "saes": ("hf://fnlp/Llama3_1-8B-Base-LXR-32x/Llama3_1-8B-Base-L16R-32x",),
            "extract": {
                "sites": (  # the paper's layers
                    "embed",
                    "blocks.8.resid_post",
                    "blocks.16.resid_post",
                    "blocks.24.resid_post",
                    "blocks.31.resid_post",
                ),
                "max_length": 1024,
                "batch_tokens": 8192,
            },
            "encode": {"regimes": ("standard",), "protocols": ("paper", "dedup")},
            "fit": {"num_latents": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), "controls": True},
            "report": {"model": "", "site": ""},
        }
    )

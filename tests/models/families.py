"""Small random models of every family, each switch used somewhere, as transformers makes and saves them."""

# Every number differs from every other, so that mixed-up axes show.
_SIZES = {
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 24,
    "rope_theta": 500.0,
}
_LOCAL_GLOBAL = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
}
# Prompts of the tests have up to 30 tokens, more than every first context here.
_YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 24,
    "rope_theta": 10.0,
}
_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0],
    "long_factor": [1.0, 1.7, 3.0, 5.0, 9.0],
    "original_max_position_embeddings": 9,  # a prompt of 9 tokens is still a short one
    "rope_theta": 30.0,
}
_DYNAMIC = {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 20.0}
_NEOX = {k: v for k, v in _SIZES.items() if k != "num_key_value_heads"}

# Name -> (transformers' config class, its arguments).
CASES = {
    "llama2": ("LlamaConfig", {"num_key_value_heads": 6, "rms_norm_eps": 1e-3}),
    "llama3.1": ("LlamaConfig", {"rope_parameters": _LLAMA3}),
    "llama3.2": (
        "LlamaConfig",
        {"rope_parameters": _LLAMA3, "tie_word_embeddings": True, "head_dim": 10},
    ),
    "llama_biases": (
        "LlamaConfig",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "hidden_act": "gelu",
            "rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 300.0},
        },
    ),
    "mistral": ("MistralConfig", {"sliding_window": 5, "head_dim": 12}),
    "mistral_whole": ("MistralConfig", {"sliding_window": None, "head_dim": None}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2.5_windows": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 14}),
    "qwen3_switches": (
        "Qwen3Config",
        {
            "head_dim": 12,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "gemma1": ("GemmaConfig", {"head_dim": 16, "num_key_value_heads": 1}),
    "gemma1_bias": ("GemmaConfig", {"head_dim": 8, "attention_bias": True, "hidden_act": "gelu"}),
    "gemma2": (
        "Gemma2Config",
        {
            "head_dim": 16,
            "sliding_window": 5,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 0.8,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma2_bias": (
        "Gemma2Config",
        {
            "head_dim": 10,
            "sliding_window": 3,
            "attention_bias": True,
            "attn_logit_softcapping": None,
            "layer_types": ["full_attention", "full_attention", "sliding_attention"],
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "head_dim": 16,
            "sliding_window": 5,
            "query_pre_attn_scalar": 20,
            "num_hidden_layers": 7,
            "rope_parameters": _LOCAL_GLOBAL,
        },
    ),
    "gemma3_types": (
        "Gemma3TextConfig",
        {
            "head_dim": 12,
            "sliding_window": 4,
            "attention_bias": True,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "rope_parameters": _LOCAL_GLOBAL,
        },
    ),
    "qwen2.5_yarn": ("Qwen2Config", {"rope_parameters": _YARN}),
    "qwen3_yarn": (
        "Qwen3Config",
        {"head_dim": 20, "rope_parameters": {**_YARN, "mscale": 0.8, "mscale_all_dim": 0.3}},
    ),
    "llama_yarn": (
        "LlamaConfig",
        {
            "head_dim": 20,
            "rope_parameters": {
                **_YARN,
                **{"beta_fast": 3.0, "beta_slow": 0.3, "truncate": False, "attention_factor": 1.3},
            },
        },
    ),
    "mistral_yarn_null_factor": (
        "MistralConfig",
        {"head_dim": 12, "sliding_window": None, "rope_parameters": {**_YARN, "factor": None}},
    ),
    "gemma3_yarn": (
        "Gemma3TextConfig",
        {
            "head_dim": 16,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {**_LOCAL_GLOBAL, "full_attention": _YARN},
        },
    ),
    "neox_yarn": ("GPTNeoXConfig", {"rope_parameters": {**_YARN, "partial_rotary_factor": 0.5}}),
    "llama_longrope": ("LlamaConfig", {"head_dim": 10, "rope_parameters": _LONGROPE}),
    "qwen3_longrope": (
        "Qwen3Config",
        {
            "head_dim": 10,
            "rope_parameters": {**_LONGROPE, "original_max_position_embeddings": 8, "factor": 3.0},
        },
    ),
    "mistral_longrope": (
        "MistralConfig",
        {"head_dim": 10, "rope_parameters": {**_LONGROPE, "attention_factor": 1.4}},
    ),
    "llama_dynamic": (
        "LlamaConfig",
        {"max_position_embeddings": 8, "head_dim": 14, "rope_parameters": _DYNAMIC},
    ),
    "neox_dynamic": (
        "GPTNeoXConfig",
        {
            "max_position_embeddings": 9,
            "rope_parameters": {**_DYNAMIC, "partial_rotary_factor": 0.5},
        },
    ),
    "pythia": (
        "GPTNeoXConfig",
        {"rope_parameters": {"rope_theta": 700.0, "partial_rotary_factor": 0.5}},
    ),
    "neox_sequential": (
        "GPTNeoXConfig",
        {
            "use_parallel_residual": False,
            "attention_bias": False,
            "hidden_act": "gelu_new",
            "layer_norm_eps": 1e-3,
            "rope_parameters": {
                "rope_type": "linear",
                "factor": 3.0,
                "rope_theta": 900.0,
                "partial_rotary_factor": 0.25,
            },
        },
    ),
}


def make(name: str, **other):
    """The random model of a case, in float32, every vector away from its start value."""
    import torch
    import transformers

    kind, changes = CASES[name]
    sizes = _NEOX if kind == "GPTNeoXConfig" else _SIZES
    config = getattr(transformers, kind)(
        **{**sizes, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **changes, **other}
    )
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.25)
    return model


def blocks(model):
    """The blocks of a transformers model."""
    return model.base_model.layers

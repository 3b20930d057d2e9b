"""TransformerLens's `HookedTransformer`, without processing, of a random transformers model."""

import math


def hooked(model):
    """The same model with hooks, made as `from_pretrained_no_processing` makes it."""
    import torch
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions as convert

    c = model.config
    kind = type(model).__name__
    rotary = c.rope_parameters
    gemma = kind.startswith("Gemma")
    common = {
        "n_layers": c.num_hidden_layers,
        "d_model": c.hidden_size,
        "n_heads": c.num_attention_heads,
        "d_head": getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads,
        "d_mlp": c.intermediate_size,
        "d_vocab": c.vocab_size,
        "n_ctx": 64,
        "positional_embedding_type": "rotary",
        "original_architecture": kind,
        "dtype": torch.float32,
        "device": "cpu",
        "init_weights": False,
    }
    if kind == "GPTNeoXForCausalLM":
        width = int(rotary["partial_rotary_factor"] * common["d_head"])
        common |= {
            **{"act_fn": {"gelu": "gelu", "gelu_new": "gelu_new"}[c.hidden_act]},
            **{"eps": c.layer_norm_eps, "normalization_type": "LN", "rotary_dim": width},
            **{"parallel_attn_mlp": c.use_parallel_residual, "rotary_base": rotary["rope_theta"]},
            "rotary_adjacent_pairs": False,
        }
    else:
        base = rotary.get("rope_theta") or rotary["full_attention"]["rope_theta"]
        common |= {
            **{"n_key_value_heads": c.num_key_value_heads, "eps": c.rms_norm_eps},
            **{"act_fn": "gelu_pytorch_tanh" if gemma else c.hidden_act, "gated_mlp": True},
            **{"normalization_type": "RMS", "rotary_base": base, "final_rms": True},
            "rotary_dim": common["d_head"],
        }
    if kind in ("Gemma2ForCausalLM", "Gemma3ForCausalLM"):
        common |= {
            "use_normalization_before_and_after": True,
            "attn_scale": math.sqrt(c.query_pre_attn_scalar),
            "window_size": c.sliding_window,
            "use_local_attn": True,
            "attn_types": ["local" if "sliding" in t else "global" for t in c.layer_types],
        }
    if kind == "Gemma2ForCausalLM" and c.attn_logit_softcapping:
        common["attn_scores_soft_cap"] = c.attn_logit_softcapping
    if kind == "Gemma3ForCausalLM":
        local = rotary["sliding_attention"]["rope_theta"]
        common["rotary_base_local"] = local
    common["use_qk_norm"] = kind in ("Gemma3ForCausalLM", "Qwen3ForCausalLM")
    config = HookedTransformerConfig(**common)
    to = {
        **{"GPTNeoXForCausalLM": convert.convert_neox_weights},
        **{"LlamaForCausalLM": convert.convert_llama_weights},
        **{"MistralForCausalLM": convert.convert_mistral_weights},
        **{"Qwen2ForCausalLM": convert.convert_qwen2_weights},
        **{"Qwen3ForCausalLM": convert.convert_qwen3_weights},
    }.get(kind, convert.convert_gemma_weights)
    lens = HookedTransformer(config, move_to_device=False).eval()
    lens.load_state_dict(to(model, config), strict=False)
    lens.set_use_hook_mlp_in(True)
    return lens

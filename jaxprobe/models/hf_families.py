"""The model families of `config.json`: the fields that each reads, and what a missing one means.

Defaults are those of the published configuration classes, since files leave out what equals them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

# Fields without effect on activations: names of things, decoding, training, caching, sizes of tables.
WITHOUT_EFFECT = {
    *(
        "architectures",
        "model_type",
        "_name_or_path",
        "transformers_version",
        "torch_dtype",
        "dtype",
    ),
    *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id"),
    *("use_cache", "cache_implementation", "initializer_range", "max_position_embeddings"),
    *("attention_dropout", "hidden_dropout", "classifier_dropout", "pretraining_tp"),
    *("tie_word_embeddings", "final_logit_softcapping", "_attn_implementation_autoset"),
    *("output_hidden_states", "output_attentions", "return_dict", "chunk_size_feed_forward"),
    *("id2label", "label2id", "num_labels", "problem_type", "is_decoder", "gradient_checkpointing"),
    *("attention_probs_dropout_prob", "hidden_dropout_prob", "is_llama_config", "unsloth_version"),
    *("_attn_implementation", "attn_implementation", "unsloth_fixed"),
    *("use_return_dict", "tie_last_hidden_states", "prefix", "task_specific_params"),
    # Of other libraries, of generation, and of the tokenizer.
    *("transformers.js_config", "max_sequence_length", "tokenizer_class"),
    *("max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"),
    *("no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "forced_bos_token_id"),
    *("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "diversity_penalty"),
    *("num_beam_groups", "output_scores", "return_dict_in_generate", "remove_invalid_values"),
    *("encoder_no_repeat_ngram_size", "exponential_decay_length_penalty"),
    *("decoder_start_token_id", "tie_encoder_decoder", "finetuning_task"),
}
# Fields that would change the mathematics, and the values that do not.
NEUTRAL: dict[str, tuple] = {
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "use_bidirectional_attention": (False, None),
    "quantization_config": (None,),
    "pruned_heads": ({}, None),
    "use_mrope": (False, None),
    "rope_interleaved": (False, None),
    "per_layer_config": ({}, None),
    # Of families that do not read them.
    **dict.fromkeys(("attention_bias", "mlp_bias"), (False, None)),
}
SIZES = {
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"),
}
_ROTARY = {
    *("rope_theta", "rope_scaling", "rope_parameters", "original_max_position_embeddings"),
}
_LLAMA_LIKE = {"num_key_value_heads", "head_dim", "rms_norm_eps", "hidden_act", *SIZES, *_ROTARY}
_QWEN = {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"}
_GEMMA_2 = {
    *("hidden_activation", "query_pre_attn_scalar", "sliding_window", "layer_types"),
    *("attention_bias", "attn_logit_softcapping", "sliding_window_size"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What a `model_type` reads and assumes.

    Attributes:
        reads: Fields that decide the mathematics.
        defaults: Their values where the file has none.
        layout: Which table of `hf_names` its tensors follow.
    """

    reads: frozenset[str]
    defaults: Mapping[str, Any]
    layout: str = "llama"


_GEMMA_DEFAULTS = {
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "attention_bias": False,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
FAMILIES = {
    "llama": Family(
        reads=frozenset(_LLAMA_LIKE | {"attention_bias", "mlp_bias"}),
        defaults={"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "hidden_act": "silu"},
    ),
    "mistral": Family(
        reads=frozenset(_LLAMA_LIKE | {"sliding_window"}),
        defaults={
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "hidden_act": "silu",
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
    ),
    "qwen2": Family(
        reads=frozenset(_LLAMA_LIKE | _QWEN),
        defaults={
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "hidden_act": "silu",
            "sliding_window": 4096,
            "max_window_layers": 28,
        },
    ),
    "qwen3": Family(
        reads=frozenset(_LLAMA_LIKE | _QWEN | {"attention_bias"}),
        defaults={
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "hidden_act": "silu",
            "head_dim": 128,
            "sliding_window": 4096,
            "max_window_layers": 28,
        },
    ),
    "gemma": Family(
        reads=frozenset(_LLAMA_LIKE | {"hidden_activation", "attention_bias"}),
        defaults=_GEMMA_DEFAULTS,
    ),
    "gemma2": Family(
        reads=frozenset(_LLAMA_LIKE | _GEMMA_2),
        defaults={
            **_GEMMA_DEFAULTS,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "vocab_size": 256_000,
            "attn_logit_softcapping": 50.0,
        },
        layout="gemma2",
    ),
    "gemma3_text": Family(
        reads=frozenset(
            _LLAMA_LIKE
            | _GEMMA_2
            | {"rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"}
        ),
        defaults={
            **_GEMMA_DEFAULTS,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "vocab_size": 262_208,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
        },
        layout="gemma2",
    ),
    "gpt_neox": Family(
        reads=frozenset(
            SIZES
            | _ROTARY
            | {"layer_norm_eps", "hidden_act", "use_parallel_residual"}
            | {"attention_bias", "rotary_pct", "rotary_emb_base", "partial_rotary_factor"}
        ),
        defaults={
            "layer_norm_eps": 1e-5,
            "hidden_act": "gelu",
            "use_parallel_residual": True,
            "attention_bias": True,
        },
        layout="gpt_neox",
    ),
}
# The text part of a multimodal file lies under `text_config`; the rest is about images.
MULTIMODAL = {"gemma3": "gemma3_text"}
ABOUT_IMAGES = {
    *(
        "vision_config",
        "text_config",
        "mm_tokens_per_image",
        "image_token_index",
        "boi_token_index",
    ),
    *("eoi_token_index", "image_token_id", "boi_token_id", "eoi_token_id"),
}

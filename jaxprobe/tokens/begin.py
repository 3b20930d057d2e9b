"""The token that stands in front of prompts where BOS is switched on, as TransformerLens chooses it."""

from collections.abc import Mapping
from typing import Any

import tokenizers

# What TransformerLens takes for EOS, and so for BOS, where a tokenizer names neither.
LAST_RESORT = "<|endoftext|>"


def begin_id(backend: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> int | None:
    """Id of the BOS token that a tokenizer's settings name, else of EOS, else of `<|endoftext|>`.

    Pythia names `<|endoftext|>` as BOS though its tokenizer never adds it; Qwen names no BOS, and
    TransformerLens (and SAELens, which trains with it) puts its EOS in front there.

    Args:
        backend: The compiled tokenizer.
        settings: Special tokens, or their texts, by their names in tokenizer_config.json.

    Returns:
        The id, or None where the vocabulary lacks the token.

    References:
        `HookedTransformer.set_tokenizer` of TransformerLens 3.
    """
    for name in ("bos_token", "eos_token"):
        token = settings.get(name)
        text = getattr(token, "content", token)
        if text is not None:
            return backend.token_to_id(str(text))
    return backend.token_to_id(LAST_RESORT)

"""Byte-level BPE: how a text is cut before its bytes are merged, by family."""

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_CUT = _SPLIT % r"\p{N}{1,3}"
QWEN_CUT = _SPLIT % r"\p{N}"
GPT2_CUT = None  # GPT-2's own, which the library knows


def backend_of_bytes(
    model: BPE, cut: str | None, *, composed: bool, space_prefix: bool = False, digits: bool = False
) -> tokenizers.Tokenizer:
    """A tokenizer of bytes.

    Args:
        model: Vocabulary and merges.
        cut: Pattern of the parts within which bytes are merged; None for GPT-2's.
        composed: Whether a text is brought to the composed form NFC first.
        space_prefix: Whether each part of a text gets a space in front, if it has none.
        digits: Whether digits are separated before the cut.
    """
    backend = tokenizers.Tokenizer(model)
    if composed:
        backend.normalizer = normalizers.NFC()
    steps: list = [pre_tokenizers.ByteLevel(add_prefix_space=space_prefix, use_regex=cut is None)]
    if cut is not None:
        steps.insert(0, pre_tokenizers.Split(Regex(cut), "isolated"))
    if digits:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend

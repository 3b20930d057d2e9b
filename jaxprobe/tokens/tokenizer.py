"""Text to token ids."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import tokenizers

from jaxprobe import checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A tokenizer whose ids are pinned by `fingerprint`.

    Attributes:
        backend: The compiled tokenizer of the `tokenizers` library.
        bos_id: Id that opens every prompt; None for families that have none, such as Qwen and Pythia.
        pad_id: Id that fills rows on the right, and stands for a prompt that would have no ids.
        vocab_size: Number of ids.
        fingerprint: Hex SHA-256 of everything that decides the ids.
    """

    backend: tokenizers.Tokenizer = dataclasses.field(repr=False)
    bos_id: int | None
    pad_id: int
    vocab_size: int
    fingerprint: str

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without BOS.

        Raises:
            ValueError: The text holds a lone surrogate, which has no UTF-8 form.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without BOS, on all cores.

        Raises:
            TypeError: A text is not a string; names its index.
            ValueError: A text holds a lone surrogate; names its index.
        """
        for index, text in enumerate(texts):
            _check_text(index, text)
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def pinned(backend: tokenizers.Tokenizer, bos_id: int | None, pad_id: int) -> Tokenizer:
    """A tokenizer whose fingerprint is the digest of the library's own description of it."""
    digest = hashlib.sha256(f"tokenizers 1 {bos_id} {pad_id}\n".encode())
    digest.update(backend.to_str().encode())
    return Tokenizer(
        backend=backend,
        bos_id=bos_id,
        pad_id=pad_id,
        vocab_size=backend.get_vocab_size(with_added_tokens=True),
        fingerprint=digest.hexdigest(),
    )


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
    """Ids of each prompt: BOS where the tokenizer has one, then as many last tokens as fit.

    The rule is the reference tokenizer's own, which is also TransformerLens's default for these
    families: Gemma, Llama and Mistral open with BOS, Qwen and Pythia with the text. There an empty text,
    which would have nothing to read at, becomes the one token `pad_id`.

    Args:
        tokenizer: Where the ids come from.
        texts: N prompts.
        max_length: Most ids of a prompt, BOS among them; at least 1.

    Returns:
        N int32 arrays of 1 to `max_length` ids.
    """
    checks.check_positive("max_length", max_length)
    ids = tokenizer.encode_batch(texts)
    first = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    kept = max_length - len(first)
    rows = [[*first, *row[max(0, len(row) - kept) :]] or [tokenizer.pad_id] for row in ids]
    return [np.array(row, np.int32) for row in rows]


def _check_text(index: int, text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"text {index} must be a string, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text {index} holds a lone surrogate at character {error.start}; it has no UTF-8 form,"
            " repair or drop it"
        ) from error

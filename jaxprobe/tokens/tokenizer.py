"""Text to token ids."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import tokenizers
from absl import logging

from jaxprobe import checks

BOS_SETTINGS = ("auto", "on", "off")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A tokenizer whose ids are pinned by `fingerprint`.

    Attributes:
        backend: The compiled tokenizer of the `tokenizers` library.
        bos_id: Id that opens every prompt by the files' own rule; None for families whose tokenizer puts
            none there, such as Qwen and Pythia.
        pad_id: Id that fills rows on the right, and stands for a prompt that would have no ids.
        vocab_size: Number of ids.
        fingerprint: Hex SHA-256 of everything that decides the ids.
        begin_id: Id that opens prompts where BOS is switched on and the files' rule puts none there; see
            `begin.begin_id`. None where the files name no such token.
    """

    backend: tokenizers.Tokenizer = dataclasses.field(repr=False)
    bos_id: int | None
    pad_id: int
    vocab_size: int
    fingerprint: str
    begin_id: int | None = None

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


def pinned(
    backend: tokenizers.Tokenizer, bos_id: int | None, pad_id: int, begin_id: int | None = None
) -> Tokenizer:
    """A tokenizer whose fingerprint is the digest of the library's own description of it."""
    digest = hashlib.sha256(f"tokenizers 1 {bos_id} {pad_id}\n".encode())
    digest.update(backend.to_str().encode())
    return Tokenizer(
        backend=backend,
        bos_id=bos_id,
        pad_id=pad_id,
        vocab_size=backend.get_vocab_size(with_added_tokens=True),
        fingerprint=digest.hexdigest(),
        begin_id=begin_id,
    )


def opening_id(tokenizer: Tokenizer, bos: str = "auto") -> int | None:
    """The id that a prompt opens with, or None.

    Args:
        tokenizer: The tokenizer, as read from the model's files.
        bos: `auto` follows the tokenizer files' own rule: Gemma, Llama and Mistral open with BOS, Qwen
            and Pythia with the text, as in TransformerLens's TransformerBridge. `on` puts BOS in front
            in every family, which is the default of TransformerLens's HookedTransformer (Pythia
            included, Qwen not) and of SAELens, and its `prepend_bos`; `off` puts nothing there.

    Raises:
        ValueError: Another setting, or `on` where the files name no token to put in front.
    """
    checks.check_choice("bos", bos, BOS_SETTINGS)
    if bos != "on" or tokenizer.bos_id is not None:
        return None if bos == "off" else tokenizer.bos_id
    if tokenizer.begin_id is None:
        raise ValueError(
            "`bos` must be auto or off for a tokenizer whose files name neither a BOS nor an EOS token,"
            " got on; name its bos_token in tokenizer_config.json if it has one"
        )
    return tokenizer.begin_id


def token_ids(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int, bos: str = "auto"
) -> list[np.ndarray]:
    """Ids of each prompt: BOS where the setting puts one, then as many last tokens as fit.

    A text without ids would leave no token to read at, so it becomes the single token `pad_id`. Where
    BOS is put in front, a warning says how many texts begin with it already.

    Args:
        tokenizer: The tokenizer.
        texts: N prompts.
        max_length: Most ids of a prompt, BOS among them; at least 1.
        bos: See `opening_id`.

    Returns:
        N int32 arrays of 1 to `max_length` ids.
    """
    checks.check_positive("max_length", max_length)
    if int(max_length) != max_length:
        raise ValueError(f"`max_length` must be a whole number of tokens, got {max_length}")
    opening = opening_id(tokenizer, bos)
    ids = tokenizer.encode_batch(texts)
    if opening is not None:
        _warn_of_doubled(opening, ids, texts)
    first = [] if opening is None else [opening]
    kept = int(max_length) - len(first)
    rows = [[*first, *row[max(0, len(row) - kept) :]] or [tokenizer.pad_id] for row in ids]
    return [np.array(row, np.int32) for row in rows]


def _warn_of_doubled(opening: int, ids: Sequence[Sequence[int]], texts: Sequence[str]) -> None:
    doubled = [index for index, row in enumerate(ids) if len(row) and row[0] == opening]
    if doubled:
        logging.warning(
            "%d of %d texts begin with the BOS token and get another in front, the first at index %d"
            " (%r): activations are those of a doubled BOS; take it out of the texts, or set bos to off",
            *(len(doubled), len(texts), doubled[0], texts[doubled[0]][:40]),
        )


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

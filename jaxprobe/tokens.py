"""Text to token ids, and token ids to batches of few fixed shapes.

The tokenizer comes from the model's own GGUF file, so ids cannot drift away from the weights.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, normalizers
from tokenizers.models import BPE

from jaxprobe import checks
from jaxprobe.base import TokenBatch
from jaxprobe.gguf_file import GgufFile, open_gguf

# Steps of a fifth to a half: on the 113 datasets padding is a seventh of all tokens, and every entry
# that is used costs one compiled program. Names and headlines have 5 to 15 tokens, hence the low end.
BUCKETS = (8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024)
# Enough rows to feed the products, few enough that the memory of a pass is small (27 MB): beyond 32 MB
# it is mapped anew for every batch, which costs a tenth of the time on a CPU.
BATCH_TOKENS = 1024

_SPACE = "\u2581"  # SentencePiece's visible space
_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type
_SUPPORTED = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.add_space_prefix": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A tokenizer whose ids are pinned by `fingerprint`.

    Attributes:
        backend: The compiled tokenizer of the `tokenizers` library.
        bos_id: Id that opens every prompt.
        pad_id: Id that fills rows on the right.
        vocab_size: Number of ids.
        fingerprint: Hex SHA-256 of everything that decides the ids.
    """

    backend: tokenizers.Tokenizer = dataclasses.field(repr=False)
    bos_id: int
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


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads the tokenizer inside a GGUF file.

    Raises:
        ValueError: The file's vocabulary is of a kind that is not supported.
    """
    return from_gguf(open_gguf(path))


def from_directory(folder):
    """Placeholder."""
    return None


def directory_files(folder):
    """Placeholder."""
    return ()


def from_gguf(file: GgufFile) -> Tokenizer:
    """Builds the tokenizer that an open GGUF file describes: SentencePiece BPE, as Gemma has it.

    The file lists pieces but no merges. As in SentencePiece, the pair that makes the earliest piece
    merges first; Gemma's scores do not follow that order, the positions do.

    Raises:
        ValueError: The metadata names another kind of tokenizer.
    """
    for name, wanted in _SUPPORTED.items():
        got = file.value(name)
        if got != wanted:
            raise ValueError(f"the GGUF file's `{name}` must be {wanted!r}, got {got!r}")
    if not str(file.value("general.architecture")).startswith("gemma"):
        raise ValueError("only Gemma vocabularies can be read from a GGUF file so far")
    raw = file.value("tokenizer.ggml.tokens")
    kinds = file.value("tokenizer.ggml.token_type")
    # Runs of two and more spaces are stored as spaces, which no normalised text holds.
    pieces = [_SPACE * len(piece) if piece.isspace() and " " in piece else piece for piece in raw]
    bos_id, pad_id = (
        int(file.value(f"tokenizer.ggml.{name}_token_id")) for name in ("bos", "padding")
    )
    backend = _backend(pieces, kinds, unknown=pieces[file.value("tokenizer.ggml.unknown_token_id")])
    digest = hashlib.sha256(b"sentencepiece-bpe 1 %d %d\n" % (bos_id, pad_id))
    digest.update("\0".join(pieces).encode())
    digest.update(np.asarray(kinds, np.int32).tobytes())
    return Tokenizer(
        backend=backend,
        bos_id=bos_id,
        pad_id=pad_id,
        vocab_size=len(pieces),
        fingerprint=digest.hexdigest(),
    )


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
    """Ids of each prompt: BOS, then the last `max_length - 1` tokens of the text.

    Args:
        tokenizer: Where the ids come from.
        texts: N prompts.
        max_length: Most ids of a prompt, BOS among them; at least 1.

    Returns:
        N int32 arrays of 1 to `max_length` ids.
    """
    checks.check_positive("max_length", max_length)
    ids = tokenizer.encode_batch(texts)
    kept = max_length - 1
    return [np.array([tokenizer.bos_id, *row[max(0, len(row) - kept) :]], np.int32) for row in ids]


def batches(
    ids: Sequence[np.ndarray],
    *,
    buckets: Sequence[int] = BUCKETS,
    batch_tokens: int = BATCH_TOKENS,
    pad_id: int = 0,
) -> Iterator[TokenBatch]:
    """Sorts prompts by length into buckets and cuts each bucket into batches of one shape.

    A bucket of T tokens has rows of T and `max(1, batch_tokens // T)` of them, so there are at most
    as many shapes as buckets. What would leave a batch part-filled moves up to the next bucket, if
    it is cheaper there; the last batch is filled with empty rows. The order depends on the ids'
    lengths and positions alone: shortest prompts first.

    Args:
        ids: N arrays of at least one id each, BOS first.
        buckets: Row lengths. Those beyond the last one needed are not used.
        batch_tokens: Tokens of a batch, padding included.
        pad_id: What fills the rows.

    Yields:
        Batches whose `prompt_B` counts into `ids`.

    Raises:
        ValueError: A prompt is empty or longer than the largest bucket.
    """
    checks.check_positive("batch_tokens", batch_tokens)
    sizes = np.unique(np.asarray(buckets, np.int64))
    length_N = np.array([len(row) for row in ids], np.int64)
    if not len(length_N):
        return
    if length_N.min() < 1:
        raise ValueError(
            f"`ids` must hold BOS at least, got none at index {int(length_N.argmin())}"
        )
    if length_N.max() > sizes[-1]:
        raise ValueError(
            f"prompt {int(length_N.argmax())} has {length_N.max()} tokens, the largest bucket"
            f" {sizes[-1]}; truncate with `token_ids` or add a bucket"
        )
    for num_tokens, num_rows, members in _fill_buckets(length_N, sizes, batch_tokens):
        for start in range(0, len(members), num_rows):
            yield _batch(ids, members[start : start + num_rows], num_rows, num_tokens, pad_id)


def _fill_buckets(length_N, sizes, batch_tokens: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields (tokens of a row, rows of a batch, prompts) for every bucket in use."""
    order_N = np.argsort(length_N, kind="stable")
    bucket_N = np.searchsorted(sizes, length_N[order_N])
    used = np.unique(bucket_N).tolist()
    carried = order_N[:0]
    for bucket, above in zip(used, [*used[1:], None], strict=True):
        members = np.concatenate([carried, order_N[bucket_N == bucket]])
        num_tokens = int(sizes[bucket])
        num_rows = max(1, batch_tokens // num_tokens)
        rest = len(members) % num_rows
        moves_up = above is not None and rest * sizes[above] <= num_rows * num_tokens
        members, carried = np.split(members, [len(members) - (rest if moves_up else 0)])
        yield num_tokens, num_rows, members


def _batch(ids, members, num_rows: int, num_tokens: int, pad_id: int) -> TokenBatch:
    tokens_BT = np.full((num_rows, num_tokens), pad_id, np.int32)
    length_B = np.zeros(num_rows, np.int32)
    prompt_B = np.full(num_rows, -1, np.int64)
    for row, prompt in enumerate(members):
        tokens_BT[row, : len(ids[prompt])] = ids[prompt]
        length_B[row] = len(ids[prompt])
        prompt_B[row] = prompt
    return TokenBatch(tokens_BT=tokens_BT, length_B=length_B, prompt_B=prompt_B)


def _backend(pieces: list[str], kinds: list[int], unknown: str) -> tokenizers.Tokenizer:
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        raise ValueError(f"the vocabulary repeats {len(pieces) - len(vocabulary)} pieces")
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(len(piece) - 1, 0, -1)
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    model = BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", _SPACE)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    marked = [(p, k) for p, k in zip(pieces, kinds, strict=True) if k in (_CONTROL, _USER_DEFINED)]
    backend.add_special_tokens(
        [
            tokenizers.AddedToken(p, normalized=False, special=True)
            for p, k in marked
            if k == _CONTROL
        ]
    )
    # Space runs are merged like any other piece, after normalisation; the others match as they are.
    backend.add_tokens(
        [
            tokenizers.AddedToken(p, normalized=False, special=False)
            for p, k in marked
            if k == _USER_DEFINED and _SPACE not in p
        ]
    )
    return backend


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

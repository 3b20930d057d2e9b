"""SentencePiece vocabularies as tokenizers of the `tokenizers` library."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import tokenizers
from tokenizers import Regex, decoders, normalizers
from tokenizers.models import BPE, Unigram

SPACE = "\u2581"  # SentencePiece's visible space
_PIECE_CHARACTERS = 512  # SentencePiece's own limit
_ALL_CHARACTERS = 1 << 22  # of all pieces, as each is split at every position; Gemma's: 1.8 million
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pieces:
    """A SentencePiece vocabulary and how it treats spaces.

    Attributes:
        pieces: The pieces, by id.
        kinds: The kind of each, one of the numbers above.
        scores: The pair that makes the piece of the highest score merges first, ties by id; None where
            the ids alone give the order.
        unknown: The piece for what no piece covers.
        byte_fallback: Whether such text becomes its bytes instead.
        unigram: Whether pieces are chosen by the sum of their scores, not merged.
        space_prefix: Whether every text is opened with a space.
        squeeze_spaces: Whether spaces at the ends are dropped and inner runs become one.
        charsmap: SentencePiece's compiled table of character replacements; empty for none.
        named: Special tokens that the model itself names, by role.
    """

    pieces: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float] | None
    unknown: str
    byte_fallback: bool = True
    unigram: bool = False
    space_prefix: bool = False
    squeeze_spaces: bool = False
    charsmap: bytes = b""
    named: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Piece to id.

        Raises:
            ValueError: A piece appears twice.
        """
        vocabulary = {piece: index for index, piece in enumerate(self.pieces)}
        if len(vocabulary) != len(self.pieces):
            raise ValueError(f"the vocabulary repeats {len(self.pieces) - len(vocabulary)} pieces")
        return vocabulary

    def of_kind(self, *kinds: int) -> list[str]:
        """The pieces of some kinds, by id."""
        return [p for p, kind in zip(self.pieces, self.kinds, strict=True) if kind in kinds]


def check_pieces(pieces: Sequence[str], scores: Sequence[float] = ()) -> None:
    """Checks that a vocabulary is of bounded size: finding merges splits each piece at every position.

    Raises:
        ValueError: A piece or all of them are too long, or a score is not finite.
    """
    longest, size = max(map(len, pieces), default=0), sum(map(len, pieces))
    if longest > _PIECE_CHARACTERS:
        raise ValueError(
            f"a piece must have at most {_PIECE_CHARACTERS} characters, got {longest:,}"
        )
    if size > _ALL_CHARACTERS:
        raise ValueError(
            f"its pieces must have at most {_ALL_CHARACTERS:,} characters, got {size:,}"
        )
    if not all(isinstance(score, float) and math.isfinite(score) for score in scores):
        raise ValueError("the score of a piece must be a finite number")


def backend_of(given: Pieces) -> tokenizers.Tokenizer:
    """The compiled tokenizer of a vocabulary.

    As in the published tokenizers of these models, control, unknown and user-defined pieces are recognised
    inside a text.

    Raises:
        ValueError: A piece appears twice.
    """
    vocabulary = given.vocabulary
    if given.unigram:
        scored = list(zip(given.pieces, map(float, given.scores or ()), strict=True))
        model = Unigram(scored, vocabulary[given.unknown], given.byte_fallback)
    else:
        model = BPE(
            vocabulary,
            _merges(given, vocabulary),
            unk_token=given.unknown,
            fuse_unk=True,
            byte_fallback=given.byte_fallback,
        )
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = _normalizer(given)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = given.of_kind(CONTROL, UNKNOWN)
    backend.add_special_tokens(
        [tokenizers.AddedToken(piece, normalized=False, special=True) for piece in special]
    )
    # Space runs are merged like any other piece, after normalisation; the others match as they are.
    whole = [piece for piece in given.of_kind(USER_DEFINED) if SPACE not in piece]
    backend.add_tokens([tokenizers.AddedToken(piece, normalized=False) for piece in whole])
    return backend


def _normalizer(given: Pieces) -> normalizers.Normalizer:
    steps: list = []
    if given.charsmap:
        steps.append(normalizers.Precompiled(given.charsmap))
    if given.squeeze_spaces:  # spaces only: SentencePiece leaves other white space alone
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if given.space_prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(steps) if len(steps) > 1 else steps[0]


def _merges(given: Pieces, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    order = range(len(given.pieces))
    if given.scores is not None:
        order = sorted(order, key=lambda index: (-given.scores[index], index))
    pieces = (given.pieces[index] for index in order)
    return [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(len(piece) - 1, 0, -1)
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]

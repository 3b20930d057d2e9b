"""Tokenizers of SentencePiece models as transformers 5 builds them, before special tokens are added.

References:
    transformers 5.24, convert_slow_tokenizer.py (`build_tokenizer_from_spm_proto`) and
    tokenization_utils_base.py (`generate_merges`)
"""

import re

import tokenizers
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram

from jaxprobe.tokens.pieces import CONTROL, NORMAL, SPACE, USER_DEFINED, Pieces


def marked_pieces(given: Pieces) -> list[AddedToken]:
    """Control pieces as special tokens and user-defined ones as plain added tokens, by id."""
    return [
        AddedToken(piece, normalized=False, special=kind == CONTROL)
        for piece, kind in zip(given.pieces, given.kinds, strict=True)
        if kind in (CONTROL, USER_DEFINED)
    ]


def model_of_class(given: Pieces) -> BPE:
    """Vocabulary and merges as the classes read them: merges are ordered by id.

    Raises:
        ValueError: A unigram model, which these classes cannot use.
    """
    if given.unigram:
        raise ValueError("`model_type` must be 2 (BPE) for its tokenizer class, got 1 (unigram)")
    vocabulary = given.vocabulary
    merges = [
        (piece[:cut], piece[cut:])
        for piece in given.pieces
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    return BPE(vocabulary, merges)


def backend_of_model(given: Pieces, *, legacy: bool) -> tokenizers.Tokenizer:
    """A tokenizer that encodes like SentencePiece itself.

    Args:
        given: The model.
        legacy: Whether each part between added tokens is opened with a space, not only the first.
    """
    backend = tokenizers.Tokenizer(_model(given))
    steps: list = [normalizers.Precompiled(given.charsmap)] if given.charsmap else []
    if given.squeeze_spaces:  # spaces only: SentencePiece leaves other white space alone
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    steps.append(normalizers.Replace(" ", SPACE))
    if given.space_prefix and legacy:  # the library adds no space where there is one already
        steps.append(normalizers.Replace(Regex(r"\A" + SPACE), SPACE * 2))
    backend.normalizer = normalizers.Sequence(steps)
    cuts: list = []
    if given.space_prefix:
        scheme = "always" if legacy else "first"
        cuts.append(pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False))
    whole = given.of_kind(USER_DEFINED)
    if whole:
        longest_first = sorted(whole, key=len, reverse=True)
        pattern = "|".join(re.escape(piece) for piece in longest_first)
        cuts.append(pre_tokenizers.Split(Regex(pattern), "isolated"))
    if cuts:
        backend.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend


def _model(given: Pieces) -> BPE | Unigram:
    vocabulary = given.vocabulary
    scores = given.scores or [0.0] * len(given.pieces)
    if given.unigram:
        scored = list(zip(given.pieces, map(float, scores), strict=True))
        return Unigram(scored, vocabulary[given.unknown], given.byte_fallback)
    normal = {p: (-scores[vocabulary[p]], vocabulary[p]) for p in given.of_kind(NORMAL)}
    ranked = sorted(
        (*rank, piece[:cut], piece[cut:])
        for piece, rank in normal.items()
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    )
    return BPE(
        vocabulary,
        [(left, right) for *_, left, right in ranked],
        unk_token=given.unknown,
        fuse_unk=True,
        byte_fallback=given.byte_fallback,
        ignore_merges=bool(given.of_kind(USER_DEFINED)),
    )

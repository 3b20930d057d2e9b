"""Tiny tokenizers of every family, and every way in which a folder can hold one."""

import functools
import json
import shutil
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

FIXTURES = Path(__file__).parents[1] / "fixtures"
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace("{1,3}", "")
CORPUS = [
    "the kettle sings there, then the theme of the probe; don't we'll IT'S 12345 1234567890 3.14",
    "  two  spaces   and more    \n\n\n\tdef f(x):\n    return x ** 2  # squares caf\u00e9 na\u00efve",
] * 20
END = "<|endoftext|>"


@functools.cache
def _trained(split: str | None) -> str:
    """Vocabulary and merges of a byte-level BPE, as the library's JSON."""
    backend = tokenizers.Tokenizer(models.BPE())
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split:
        steps.insert(0, pre_tokenizers.Split(Regex(split), "isolated"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend.to_str()


def byte_level(split, special, normalizer=None, bos=None, ignore_merges=False):
    """A byte-level tokenizer with its special tokens behind the vocabulary."""
    backend = tokenizers.Tokenizer.from_str(_trained(split))
    backend.model.ignore_merges = ignore_merges
    backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(special))
    return with_bos(backend, bos)


def with_bos(backend, bos):
    if bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A $B",
            special_tokens=[(bos, backend.token_to_id(bos))],
        )
    return backend


@functools.cache
def spm(name: str):
    """Pieces, types and scores of a SentencePiece fixture, by its own library."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((FIXTURES / f"spm_{name}.model").read_bytes())
    return [(piece.piece, piece.type, piece.score) for piece in model.pieces]


def pieces(name: str, bos: str, gemma: bool):
    """The tokenizer.json of Llama 2 or Gemma, as published."""
    vocabulary = {piece: index for index, (piece, _, _) in enumerate(spm(name))}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in vocabulary
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    space = normalizers.Replace(" ", "\u2581")
    backend.normalizer = (
        space if gemma else normalizers.Sequence([normalizers.Prepend("\u2581"), space])
    )
    if gemma:
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    for piece, kind, _ in spm(name):
        if kind in (2, 3):
            backend.add_special_tokens([piece])
        elif kind == 4:
            backend.add_tokens([tokenizers.AddedToken(piece, normalized=False)])
    return with_bos(backend, bos)


# Name: (model_type, tokenizer_class, tokenizer.json, special tokens by role).
FAMILIES = {
    "gemma": (
        "gemma2",
        "GemmaTokenizer",
        lambda: pieces("gemma", "<s>", gemma=True),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    ),
    "llama2": (
        "llama",
        "LlamaTokenizer",
        lambda: pieces("llama", "<s>", gemma=False),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "mistral": (
        "mistral",
        "LlamaTokenizer",
        lambda: pieces("llama", "<s>", gemma=False),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "llama3": (
        "llama",
        "PreTrainedTokenizerFast",
        lambda: byte_level(
            LLAMA3_SPLIT, ["<|begin|>", "<|end|>"], bos="<|begin|>", ignore_merges=True
        ),
        {"bos_token": "<|begin|>", "eos_token": "<|end|>"},
    ),
    "qwen2": (
        "qwen2",
        "Qwen2Tokenizer",
        lambda: byte_level(QWEN_SPLIT, [END, "<|im_start|>"], normalizers.NFC()),
        {"bos_token": None, "eos_token": END, "pad_token": END},
    ),
    "qwen3": (
        "qwen3",
        "Qwen2TokenizerFast",
        lambda: byte_level(QWEN_SPLIT, [END, "<|im_start|>"], normalizers.NFC()),
        {"eos_token": "<|im_start|>", "pad_token": END},
    ),
    "pythia": (
        "gpt_neox",
        "GPTNeoXTokenizer",
        lambda: byte_level(None, [END, "<|padding|>"], normalizers.NFC()),
        {"bos_token": END, "eos_token": END, "unk_token": END},
    ),
    "smollm": (
        "llama",
        "GPT2Tokenizer",
        lambda: byte_level(None, [END, "<|im_start|>"]),
        {"bos_token": END, "eos_token": END, "unk_token": END},
    ),
}


def flags(text, **changes):
    """An added token as the files spell it."""
    plain = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    return {"content": text, **plain, "special": True, **changes}


def marked(text, **changes):
    return {"__type": "AddedToken", **flags(text, **changes)}


def _numbered(size, stored, **changes):
    """`added_tokens_decoder` of all stored tokens and <mark> behind them."""
    listed = {str(i): flags(t.content, special=t.special) for i, t in stored.items()}
    return {**listed, str(size): flags("<mark>", **changes)}


# Name: what it changes in tokenizer_config.json, and other files; from the size of the vocabulary and the
# added tokens of tokenizer.json by id.
def layouts(size, stored):
    def decoder(**changes):
        return {"added_tokens_decoder": _numbered(size, stored, **changes)}

    some = dict(list(_numbered(size, stored).items())[-1:])
    extra = "extra_special_tokens"
    more = "additional_special_tokens"
    return {
        "plain": ({}, {}),
        "decoder": (decoder(), {}),
        "decoder lstrip": (decoder(lstrip=True), {}),
        "decoder rstrip": (decoder(rstrip=True), {}),
        "decoder single_word": (decoder(single_word=True), {}),
        "decoder normalized": (decoder(normalized=True, special=False), {}),
        "decoder of one": ({"added_tokens_decoder": some}, {}),
        "additional": ({more: ["<mark>", "<img>"]}, {}),
        "additional objects": ({more: [marked("<mark>", rstrip=True)]}, {}),
        "additional and decoder": ({more: ["<mark>", "<img>"], **decoder(rstrip=True)}, {}),
        "extra list": ({extra: ["<mark>", "<img>"]}, {}),
        "extra dict": ({extra: {"image_token": "<img>", "mark_token": "<mark>"}}, {}),
        "both lists": ({extra: ["<mark>"], more: ["<img>"]}, {}),
        "empty extra": ({extra: [], more: ["<img>"]}, {}),
        "own role": ({"image_token": "<img>", "boi_token": marked("<mark>")}, {}),
        "pad": ({"pad_token": "<mark>"}, {}),
        "pad object": ({"pad_token": marked("<mark>", lstrip=True, special=False)}, {}),
        "mask, sep and cls": (
            {"mask_token": "<mask>", "sep_token": "<tool>", "cls_token": "<img>"},
            {},
        ),
        "added": ({}, {"added_tokens.json": {"<mark>": size, "<img>": size + 1}}),
        "added and special": (
            {more: ["<img>"]},
            {"added_tokens.json": {"<mark>": size, "<img>": size + 1}},
        ),
        "added beside decoder": (decoder(), {"added_tokens.json": {"<img>": size + 1}}),
        "map": ({}, {"special_tokens_map.json": {more: ["<mark>", "<img>"]}}),
        "map pad": ({}, {"special_tokens_map.json": {"pad_token": flags("<mark>", rstrip=True)}}),
        "map against settings": (
            {"pad_token": "<img>"},
            {"special_tokens_map.json": {"pad_token": "<mark>", "image_token": "<tool>"}},
        ),
        "map lists": (
            {extra: ["<img>"]},
            {"special_tokens_map.json": {extra: [{"content": "<mark>"}, "<img>"]}},
        ),
        "map dict": ({}, {"special_tokens_map.json": {extra: {"image_token": "<img>"}}}),
        "map beside decoder": (decoder(), {"special_tokens_map.json": {more: ["<img>"]}}),
        "map over additional": ({more: ["<img>"]}, {"special_tokens_map.json": {more: ["<mark>"]}}),
        "all files": (
            {"pad_token": "<tool>"},
            {
                "special_tokens_map.json": {more: ["<img>"], "eos_token": "<mark>"},
                "added_tokens.json": {"<mark>": size},
            },
        ),
        "split special": ({"split_special_tokens": True, **decoder()}, {}),
        "add_bos": ({"add_bos_token": True}, {}),
        "no add_bos": ({"add_bos_token": False}, {}),
        "prefix space": ({"add_prefix_space": True}, {}),
        "no prefix space": ({"add_prefix_space": False}, {}),
        "legacy": ({"legacy": True}, {}),
        "no legacy": ({"legacy": False}, {}),
        "without effect": (
            {
                **{
                    "do_lower_case": True,
                    "clean_up_tokenization_spaces": True,
                    "model_max_length": 9,
                },
                **{"padding_side": "left", "truncation_side": "left", "errors": "replace"},
                **{"chat_template": "{{ bos_token }}", "use_default_system_prompt": True},
                **{
                    "sp_model_kwargs": {},
                    "spaces_between_special_tokens": True,
                    "trim_offsets": False,
                },
            },
            {},
        ),
    }


def write(folder: Path, contents) -> None:
    """Fills a folder: file name to JSON, or to bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in contents.items():
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name).write_bytes(raw)

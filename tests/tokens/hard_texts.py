"""2,000 texts that tokenizers disagree about, the same on every run."""

import random
import unicodedata

MARKS = (
    *("<mark>", "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<|endoftext|>", "<|im_start|>"),
    *("<turn>", "<img>", "<|begin|>", "<|end|>", "<mask>", "<0x0A>", "<|padding|>", "<tool>"),
)
SPACES = (
    *(" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\t\t", "\u00a0", "\u2003", "\u200b", "\u3000"),
    *("\x0b", "\x0c", "\x1f", "\x85", "\u2028", "\u2581", "\u2581\u2581", " " * 17, "\n" * 9),
)
WORDS = (
    *(
        "the",
        "The",
        "THE",
        "there",
        "kettle",
        "sings",
        "probe",
        "a",
        "I",
        "x",
        "don't",
        "IT'S",
        "we'll",
    ),
    *(
        "caf\u00e9",
        "cafe\u0301",
        "na\u00efve",
        "\u00c5ngstr\u00f6m",
        "A\u030angstro\u0308m",
        "\ufb01ne",
    ),
    *(
        "\u2167",
        "\u00bd",
        "\u1e9b\u0323",
        "\u4f60\u597d",
        "\u65e5\u672c\u8a9e",
        "\ud55c\uad6d\uc5b4",
    ),
    *(
        "\u1112\u1161\u11ab",
        "\u041f\u0440\u0438\u0432\u0435\u0442",
        "\u0645\u0631\u062d\u0628\u0627",
    ),
    *("\u05e9\u05dc\u05d5\u05dd", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e44\u0e17\u0e22"),
    *("\u202eright\u202c", "\u0130\u0131\u00df\u1e9e", "\ufeff", "\x00", "nul\x00in", "\ufffd"),
    *("\U0001f600", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
    *("\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f1eb\U0001f1f7", "\U000e0041", "\U00010348"),
    *(
        "0",
        "7",
        "12",
        "123",
        "12345",
        "1234567890",
        "3.14",
        "1,000",
        "\u0661\u0662\u0663",
        "\u00b2",
    ),
    *(
        "x**2",
        "a[i]+=1;",
        "{'k': v}",
        "//",
        "/*",
        "#!",
        "https://e.org/?a=b",
        "&amp;",
        "<b>",
        "===",
    ),
    *("...", "---", "!?", "\u2026", "\u201cquoted\u201d", "$5", "50%", "@user", "_under_", "\\n"),
)
_WHOLE = (
    *("", " ", "  ", "\n", "\u2581", "a", " a", "a ", "  a  b  ", "\ufeffa", "\x00"),
    *("a" * 3000, " " * 2000, "\n" * 999, "ab" * 900, "\u0301" * 300, "\U0001f468\u200d" * 200),
    *("def f(x):\n    return x ** 2  # squares\n", "\tif (a<b && c>>2) {\n\t\tq();\n\t}\n"),
    *(
        "e\u0301" * 50,
        "1" * 500,
        "\u2581" * 40,
        "don't can't I'm you've WE'LL",
        "a\r\n\r\n  b \t c",
    ),
)


def texts(count: int = 2000) -> list[str]:
    """The texts: whole ones, each mark, space and word by itself and in a sentence, then mixtures."""
    draw = random.Random(20)
    made = list(_WHOLE)
    for part in (*MARKS, *SPACES, *WORDS):
        made += [part, f"the {part} sings", f"a{part}b", f"{part} x", f"x {part}", part * 3]
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        made += [
            unicodedata.normalize(form, " ".join(WORDS[at : at + 6])) for at in range(0, 60, 6)
        ]
    kinds = (WORDS, SPACES, MARKS)
    while len(made) < count:
        parts = []
        for _ in range(draw.randrange(1, 9)):
            (kind,) = draw.choices(kinds, (6, 4, 2))
            parts.append(draw.choice(kind))
        if draw.random() < 0.15:  # any character at all, but no half of a pair
            point = draw.choice((draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)))
            parts.append(chr(point))
        made.append(draw.choice(("", " ")).join(parts))
    return made[:count]

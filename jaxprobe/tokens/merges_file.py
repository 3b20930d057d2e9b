"""`vocab.json` with `merges.txt`: byte-level BPE of Qwen 2 to 3, GPT-NeoX and GPT-2 without tokenizer.json.

The two files do not say how a text is cut or which tokens were added to the vocabulary: the class decides
the cut, and the side files list the added tokens.
"""

import os
from pathlib import Path

from tokenizers.models import BPE

from jaxprobe.boundary import MIB, check_size, open_regular, reader
from jaxprobe.tokens.begin import begin_id
from jaxprobe.tokens.classes import CLASSES, added_bos, finish, pad_of
from jaxprobe.tokens.declared import declared
from jaxprobe.tokens.folder import MODEL, SETTINGS, Folder, class_of
from jaxprobe.tokens.tokenizer import Tokenizer, pinned

VOCABULARY, MERGES = "vocab.json", "merges.txt"
_FILE_BYTES = 16 * MIB  # Qwen's have 2.8 and 1.7 MB
_MOST_IDS = 1 << 22


def read_merges(folder: Folder) -> Tokenizer:
    """Builds the tokenizer of a folder's `vocab.json` and `merges.txt`.

    Raises:
        FileError: A damaged file, or a class or rule that is not supported.
    """
    name = class_of(folder, byte_level=False)
    if name not in CLASSES or CLASSES[name].pieces:
        known = " or ".join(name for name, kind in CLASSES.items() if not kind.pieces)
        raise folder.refused(
            VOCABULARY,
            f"and {MERGES} can be read without a tokenizer.json only where `tokenizer_class` of"
            f" {SETTINGS} or the model of {MODEL} is {known}, got {name}; save the tokenizer with"
            " transformers, which writes tokenizer.json",
        )
    kind = CLASSES[name]
    tokens = declared(folder, {}, kind.assumed)
    with reader(folder.path / VOCABULARY, f"a vocabulary that fits {MERGES}", "fetch both again"):
        model = _read(folder.path)
        backend = kind.build(model, folder.settings, tokens.text("unk_token"))
    finish(name, backend, tokens, folder)
    bos_id, begin = added_bos(backend, tokens, folder), begin_id(backend, tokens.named)
    return pinned(backend, bos_id, pad_of(backend, tokens), begin)


def _read(folder: Path) -> BPE:
    for name in (VOCABULARY, MERGES):  # on a pipe the library would wait for a writer
        with open_regular(folder / name) as file:
            check_size(folder / name, os.fstat(file.fileno()).st_size, _FILE_BYTES)
    vocabulary, merges = BPE.read_file(str(folder / VOCABULARY), str(folder / MERGES))
    largest = max(vocabulary.values(), default=0)
    if largest >= _MOST_IDS:
        raise ValueError(f"an id must be below {_MOST_IDS:,}, got {largest:,}")
    return BPE(vocabulary, merges)

"""Coverage-guided files by atheris (libFuzzer), which sees every branch of the product's own Python.

The numbered engine's files depend only on a seed and a number; here each file depends on what earlier ones reached.
Both use the mutations of `mutations`; libFuzzer adds its own, and keeps inputs that reach new lines. It does not see
branches in native libraries (safetensors, tokenizers, TensorStore, Arrow).
"""

import importlib
import importlib.util
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def available() -> bool:
    """Whether atheris is installed: `pip install 'jaxprobe[fuzz]'`."""
    return importlib.util.find_spec("atheris") is not None


def _atheris() -> Any:
    """The library, which has no types; imported only where it is used."""
    return importlib.import_module("atheris")


def imported_readers():
    """The readers, from modules instrumented to count branches."""
    with _atheris().instrument_imports(include=["jaxprobe"]):
        from fuzzing.readers import READERS
    return READERS


def run(
    targets: list[Path],
    one: Callable[[Path, bytes], None],
    *,
    seconds: int,
    seed: int,
    folder: Path,
) -> None:
    """Runs libFuzzer over several files at once: an input's first byte says which.

    Args:
        targets: Valid files to replace, at most 256 of them.
        one: Replaces a file's content and reads it; records findings itself.
        seconds: When to stop; libFuzzer then ends the process.
        seed: Seed of libFuzzer.
        folder: For the corpus.
    """
    atheris = _atheris()
    contents = [path.read_bytes() for path in targets]
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for index, content in enumerate(contents):
        (corpus / str(index)).write_bytes(bytes([index % 256]) + content)

    def mutator(data: bytes, max_size: int, mutation_seed: int) -> bytes:
        from fuzzing import mutations

        draw = random.Random(mutation_seed)
        head, rest = data[:1] or b"\x00", data[1:]
        if draw.random() < 0.5:
            changed = atheris.Mutate(rest, max(1, max_size - 1))
        else:
            changed = mutations.mutate(draw, rest, contents)
        return (head + changed)[:max_size]

    def test_one(data: bytes) -> None:
        if data:
            one(targets[data[0] % len(targets)], data[1:])

    options = (f"-max_total_time={seconds}", f"-seed={seed + 1}", "-max_len=262144", "-timeout=0")
    atheris.Setup(
        [sys.argv[0], *options, "-rss_limit_mb=0", "-print_final_stats=1", str(corpus)],
        test_one,
        custom_mutator=mutator,
    )
    atheris.Fuzz()

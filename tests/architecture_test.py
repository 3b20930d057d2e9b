"""The house rules that a reader relies on: imports point down, no rooms without a name."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxprobe"
# One reading order: a room imports only rooms that stand above it.
ROOMS = (
    *(
        "checks",
        "settings",
        "arguments",
        "boundary",
        "place",
        "outgoing",
        "sealed",
        "stopping",
        "sites",
    ),
    *("equality", "text_dataset", "base"),
    *("metrics", "regimes", "saes", "selection", "probes", "quiver"),
    *(
        "assets",
        "compiling",
        "datasets",
        "gguf_header",
        "gguf_file",
        "orbax_tree",
        "tokens",
        "models",
        "checkpoints",
    ),
    *("store", "table", "published"),
    "experiments",
    "stages",
)
STAGES = (
    *("sae_training", "sparsity", "extract", "in_memory"),
    *("train_sae", "latents", "encode"),
    *(
        "names",
        "arrows",
        "probe_jobs",
        "fit",
        "run_file",
        "finished",
        "report",
        "shards",
        "stage_configs",
        "preflight",
    ),
    *("run", "estimate"),
)


def imported(path: pathlib.Path) -> set[tuple[str, ...]]:
    """Modules of jaxprobe that a file imports, as parts below the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxprobe":
            parts = tuple(node.module.split(".")[1:])
            found |= {(*parts, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                tuple(alias.name.split(".")[1:])
                for alias in node.names
                if alias.name.split(".")[0] == "jaxprobe"
            }
    return found


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules() -> list[pathlib.Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def test_every_room_has_its_place():
    assert {room_of(path) for path in modules()} == set(ROOMS)


def test_imports_point_down():
    for path in modules():
        here = room_of(path)
        for parts in imported(path):
            there = parts[0]
            assert there in ROOMS, f"{path} imports {parts}"
            assert there == here or ROOMS.index(there) < ROOMS.index(here), f"{path} -> {parts}"


def test_stages_import_only_earlier_stages():
    for path in sorted((PACKAGE / "stages").rglob("*.py")):
        here = path.relative_to(PACKAGE / "stages").parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        for parts in imported(path):
            if parts[0] == "stages" and len(parts) > 1:
                assert STAGES.index(parts[1]) <= STAGES.index(here), f"{path} -> {parts}"


def test_penzai_tensorstore_and_gguf_each_have_one_door():
    # TensorStore writes our own arrays and reads Orbax's: one door to each.
    doors = {
        "penzai": ("models",),
        "tensorstore": ("place", "store", "orbax_tree"),
        "gguf": ("gguf_file", "gguf_header"),
    }
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                door = doors.get(name.split(".")[0])
                assert door is None or room_of(path) in door, f"{path} imports {name}"


def test_modules_are_small_and_say_what_they_are():
    for path in modules():
        text = path.read_text()
        assert text.count("\n") <= 400, f"{path} has over 400 lines"
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
        assert path.stem not in {"utils", "util", "common", "helpers", "misc"}

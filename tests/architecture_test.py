"""The house rules that a reader relies on: imports point down, no rooms without a name."""

import ast
import collections
import pathlib
import re

import jaxprobe.base

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxprobe"
# One reading order: a room imports only rooms that stand above it.
FLOORS = (
    # What every room may use: checks, bytes of files, names, the nouns.
    *(
        ("checks", "settings", "arguments", "boundary", "place", "outgoing", "sealed"),
        ("identity", "stopping", "sites", "equality", "text_dataset", "base", "evidence"),
    ),
    # Pure functions of arrays, and of blocks.
    ("metrics", "regimes", "saes", "selection", "probes", "quiver", "rendering"),
    # Each outside thing is known to one room.
    *(
        ("assets", "compiling", "datasets", "gguf_header", "gguf_file", "orbax_tree", "tokens"),
        ("models", "checkpoints", "store", "published", "workdir", "results", "records"),
    ),
    # The reading side, and how predictions are made.
    ("features", "workspace", "jobs", "predictions", "methods"),
    # How what is read gets there, and what a work directory knows of its runs.
    ("extraction", "training", "runs"),
    ("experiments",),
    ("stages",),
)
ROOMS = tuple(room for floor in FLOORS for room in floor)
LARGEST = 1 / 6  # of all lines, in one room
# What all experiments share, of the room `experiments`.
GENERIC = ("EXPERIMENTS", "config", "experiment", "schemas")


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


def test_no_import_leads_back():
    """Inside a room too: a reader comes back to no module that an import has led away from."""
    known = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
    waiting = {name: _targets(path, known) - {name} for name, path in known.items()}
    while ends := {name for name, targets in waiting.items() if not targets}:
        waiting = {name: targets - ends for name, targets in waiting.items() if name not in ends}
    while starts := {*waiting} - {name for targets in waiting.values() for name in targets}:
        waiting = {name: targets for name, targets in waiting.items() if name not in starts}
    assert not waiting, f"imports go in circles among {sorted(waiting)}"


def _name(path: pathlib.Path) -> tuple[str, ...]:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _targets(path: pathlib.Path, known: dict[tuple[str, ...], pathlib.Path]) -> set:
    """The modules that hold what a file imports: `from a import b` names b where it is a module."""
    return {parts if parts in known else parts[:-1] for parts in imported(path)}


def test_no_room_outgrows_the_house():
    lines: dict[str, int] = collections.Counter()
    for path in modules():
        lines[room_of(path)] += path.read_text().count("\n")
    most = LARGEST * sum(lines.values())
    assert {room: count for room, count in lines.items() if count > most} == {}


def test_stages_know_no_experiment():
    """But for the published files, which are the paper's, and the report that Python users call."""
    told = {"report.py", "report_published.py"}
    for path in sorted((PACKAGE / "stages").rglob("*.py")):
        for parts in imported(path):
            experiment = parts[0] == "experiments" and parts[1] not in GENERIC
            assert not experiment or path.name in told, f"{path} imports {parts}"


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


OPENS = {
    *(
        "open",
        "read_bytes",
        "read_text",
        "write_bytes",
        "write_text",
        "unlink",
        "rename",
        "replace",
    ),
    *("mkdir", "makedirs", "rmdir", "rmtree", "remove", "symlink_to", "touch", "fdopen", "link"),
}
ONE_DOOR = (
    *("store", "results", "workdir", "workspace", "extraction", "training", "runs"),
    *("stages", "experiments"),
)


def test_artefacts_have_one_door():
    for path in modules():
        if room_of(path) not in ONE_DOOR:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                assert not {*names, getattr(node, "module", "")} & {
                    "shutil",
                    "tempfile",
                    "fcntl",
                }, path
            if isinstance(node, ast.Call) and _opens(node.func):
                raise AssertionError(f"{path}:{node.lineno} opens, writes or deletes files itself")


def _opens(called: ast.expr) -> bool:
    """Whether a call is `open`, or a method of a path or of `os` that touches files."""
    if isinstance(called, ast.Name):
        return called.id == "open"
    if not isinstance(called, ast.Attribute) or called.attr not in OPENS:
        return False
    owner = ast.unparse(called.value)
    if called.attr == "open":
        return owner.split(".")[-1] not in ("ts", "ActivationStore")
    # Places, texts and dataclasses are replaced too.
    return called.attr not in ("replace", "remove") or owner == "os"


def test_modules_are_small_and_say_what_they_are():
    for path in modules():
        text = path.read_text()
        assert text.count("\n") <= 400, f"{path} has over 400 lines"
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
        assert path.stem not in {"utils", "util", "common", "helpers", "misc"}


def test_axis_letters_are_in_the_glossary():
    glossary = set(re.findall(r"(?:^|[ ,])([A-Z]) [a-z]", jaxprobe.base.__doc__, re.MULTILINE))
    for path in modules():
        names = {
            node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)
        }
        for name in names - {name.upper() for name in names}:
            axes = re.search(r"_([A-Z][A-Z0-9]*)$", name)
            assert not axes or set(re.sub(r"\d", "", axes[1])) <= glossary, f"{path}: {name}"

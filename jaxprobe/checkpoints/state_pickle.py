"""The pickle inside a file of `torch.save`, read as a list of instructions of which only data are understood.

A pickle is a program for a small stack machine. `pickletools` takes it apart without running it; the
machine here knows the instructions that build dictionaries, lists, texts and numbers, and four
calls, each of which only describes bytes. There is nothing else that it could call.

Each instruction adds at most its own bytes to memory, and no value is walked through, hashed or
printed beyond its own length, so a file can cost no more than `INSTRUCTIONS` and its size allow:
tuples that hold each other twice, forty deep, are forty tuples.
"""

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

BYTES = 8 << 20  # of a pickle: a tensor's description takes 200
INSTRUCTIONS = 100_000  # a tensor takes 40
_TEXT = 1 << 14  # longest text: names are short, and keys are compared with each other
_DIMENSIONS = 8  # most axes of a tensor

REBUILD = ("torch._utils", "_rebuild_tensor_v2")
ORDERED = ("collections", "OrderedDict")


class Named(NamedTuple):
    """A name that a pickle looks up; stands for itself, and cannot be called by Python."""

    module: str
    name: str


class Tensor(NamedTuple):
    """A call of torch's that makes a tensor: where it lies in which storage."""

    storage: "Storage"
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Storage(NamedTuple):
    """Numbers of one type in a member of the archive."""

    kind: str
    key: str
    count: int


class Refused(ValueError):
    """A pickle of more than tensors and plain data."""


class _Mark:
    """Where the items of a list or tuple begin on the stack."""


_MARK = _Mark()
_SCALARS = (str, int, float, bool, bytes, type(None))


def read(content: bytes, storages: frozenset[str]) -> Any:
    """What a pickle describes: dictionaries, lists, tuples, texts, numbers and `Tensor`s.

    Args:
        content: The pickle.
        storages: Names in the module torch that are types of storages.

    Raises:
        Refused: It asks for anything else, or is longer than a state dictionary's.
        Exception: Whatever damaged bytes lead to; callers stand in `boundary.reader`.
    """
    if len(content) > BYTES:
        raise Refused(f"its pickle has {len(content):,} bytes, more than the {BYTES:,} of tensors")
    machine = _Machine(storages)
    for count, (code, argument, _) in enumerate(pickletools.genops(content)):
        if count >= INSTRUCTIONS:
            raise Refused(f"its pickle has more than {INSTRUCTIONS:,} instructions")
        if code.name == "STOP":
            return machine.pop()
        machine.step(code.name, argument)
    raise Refused("its pickle does not end")


class _Machine:
    """A stack and a memo; `step` does one instruction."""

    def __init__(self, storages: frozenset[str]):
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages = storages

    def pop(self) -> Any:
        """Takes the top away, which must be a value."""
        value = self._stack.pop()
        if value is _MARK:
            raise Refused("its pickle is damaged: a value is missing")
        return value

    def step(self, name: str, argument: Any) -> None:
        """Does one instruction."""
        if name in _VALUES:
            self._stack.append(_small(argument))
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise Refused(f"its pickle has the instruction {name}, which no tensor needs")

    def _items(self) -> list[Any]:
        """Takes all values above the last mark away, and the mark."""
        place = len(self._stack) - 1
        while place >= 0 and self._stack[place] is not _MARK:
            place -= 1
        if place < 0:
            raise Refused("its pickle is damaged: a mark is missing")
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def _tuple(self, count: int | None) -> None:
        items = self._items() if count is None else [self.pop() for _ in range(count)][::-1]
        self._stack.append(tuple(items))

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise Refused("its pickle appends to what is no list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise Refused("its pickle sets entries of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _SCALARS):  # others would be hashed to their depths
                raise Refused("its pickle has a dictionary whose keys are no texts or numbers")
            target[key] = value

    def _pairs(self) -> None:
        items = self._items()
        self._stack.append({})
        self._set(items)

    def _name(self, argument: str | None) -> None:
        if argument is not None:
            module, name = argument.split(" ", 1)
        else:
            name, module = self.pop(), self.pop()
        if not (type(module) is str and type(name) is str):
            raise Refused("its pickle looks up what is no name")
        named = Named(module, name)
        if named not in (REBUILD, ORDERED) and not (module == "torch" and name in self._storages):
            raise Refused(f"its pickle asks for {module:.80}.{name:.80}")
        self._stack.append(named)

    def _call(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        is_call = type(function) is Named and type(arguments) is tuple
        if is_call and function == ORDERED and not arguments:
            self._stack.append({})
        elif is_call and function == REBUILD and len(arguments) >= 4:
            self._stack.append(_tensor(*arguments[:4]))
        else:
            raise Refused("its pickle calls what cannot be called, or with other arguments")

    def _refer(self, _: Any) -> None:
        """A storage, as torch names it: `("storage", type, key, device, count)`."""
        pid = self.pop()
        fits = type(pid) is tuple and len(pid) == 5 and type(pid[0]) is str and pid[0] == "storage"
        if not fits:
            raise Refused("its pickle refers to something outside, not to a storage")
        _, kind, key, _, count = pid
        fits = type(kind) is Named and kind.module == "torch" and type(key) is str
        if not (fits and type(count) is int and 0 <= count < 2**48):
            raise Refused("its pickle refers to a storage in words that torch does not use")
        self._stack.append(Storage(kind.name, key, count))

    def _state(self, _: Any) -> None:
        """Attributes of an ordered dictionary: torch's versions of modules, which nobody reads."""
        self.pop()
        if type(self._stack[-1]) is not dict:
            raise Refused("its pickle gives attributes to what has none")

    def _discard(self, _: Any) -> None:
        self._stack.pop()

    def _copy(self, _: Any) -> None:
        self._stack.append(self._stack[-1])


def _small(value: Any) -> Any:
    """A scalar of no more than any state dictionary holds: longer ones would be compared slowly."""
    if isinstance(value, str | bytes | bytearray):
        if len(value) > _TEXT:
            raise Refused(f"its pickle holds a text of {len(value):,} characters")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise Refused("its pickle holds a number of more than 64 bits")
    return value


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """A tensor's place; raises Refused for what is none."""
    fits = type(storage) is Storage and type(size) is tuple and type(stride) is tuple
    fits = fits and len(size) == len(stride) <= _DIMENSIONS
    numbers = (offset, *size, *stride) if fits else (None,)
    if not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise Refused("a tensor's place in its storage makes no sense")
    return Tensor(storage, offset, size, stride)


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
    **{"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "MARK": lambda: _MARK},
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda machine, _: machine._tuple(None),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "LIST": lambda machine, _: machine._stack.append(machine._items()),
    "DICT": lambda machine, _: machine._pairs(),
    "APPEND": lambda machine, _: machine._extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine._extend(machine._items()),
    "SETITEM": lambda machine, _: machine._set([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine._set(machine._items()),
    "GLOBAL": _Machine._name,
    "STACK_GLOBAL": _Machine._name,
    "REDUCE": _Machine._call,
    "BINPERSID": _Machine._refer,
    "BUILD": _Machine._state,
    "POP": _Machine._discard,
    "DUP": _Machine._copy,
}

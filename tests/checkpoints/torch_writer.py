"""Writes files as `torch.save` lays them out, without torch: for tests of the reader."""

import io
import pickle
import zipfile
from typing import ClassVar

import numpy as np

STORAGES = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage", "f8": "DoubleStorage"}


class Name:
    """Stands for an object that a pickle names as `module.name`."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    """Stands for the call of a named function."""

    def __init__(self, function: Name, *arguments):
        self.function, self.arguments = function, arguments


class _Storage:
    def __init__(self, kind: str, key: str, count: int):
        self.kind, self.key, self.count = kind, key, count


class _Pickler(pickle._Pickler):
    """Python's own pickler, taught to write names that cannot be imported here."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def persistent_id(self, value):
        if isinstance(value, _Storage):
            return ("storage", Name("torch", value.kind), value.key, "cpu", value.count)
        return None

    def save_name(self, value):
        self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())

    def save_call(self, value):
        self.save(value.function)
        self.save(tuple(value.arguments))
        self.write(pickle.REDUCE)

    dispatch[Name] = save_name
    dispatch[Call] = save_call


REBUILD = Name("torch._utils", "_rebuild_tensor_v2")


def tensor(array, key: str, size=None, stride=None, offset=0) -> tuple[Call, np.ndarray]:
    """A tensor's description and the bytes of its storage."""
    array = np.asarray(array, order="C")
    steps = tuple(step // array.itemsize for step in array.strides)
    kind = STORAGES[array.dtype.str[1:]]
    hooks = Call(Name("collections", "OrderedDict"))
    call = Call(
        *(REBUILD, _Storage(kind, key, array.size), offset),
        *(array.shape if size is None else size, steps if stride is None else stride),
        *(False, hooks),
    )
    return call, array


def write(path, content, storages=None) -> None:
    """Writes a state dictionary of arrays, or any other content with its storages.

    Args:
        path: The file.
        content: Arrays by name; or, where `storages` is given, anything.
        storages: Arrays by their key.
    """
    if storages is None:
        pairs = {n: tensor(a, str(i)) for i, (n, a) in enumerate(content.items())}
        storages = {str(i): array for i, (_, array) in enumerate(pairs.values())}
        content = {name: call for name, (call, _) in pairs.items()}
    stream = io.BytesIO()
    _Pickler(stream, 2).dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())

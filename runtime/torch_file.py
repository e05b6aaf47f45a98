"""Reading the .pt and .pth files that PyTorch writes, without running anything that is in them.

Such a file is a zip archive: `data.pkl`, a pickle of the object, and one entry with the bytes of each storage. Python's
own unpickler calls whatever function a pickle names. The machine here knows the few opcodes that PyTorch writes, builds
plain containers, and admits a fixed list of names, none of which does more than describe a tensor.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy

from . import dtypes
from .tensor_file import DamagedFileError

_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a file has it.

    Attributes:
        array: the values, in host memory; tensors that shared a storage share it again.
        device: where it was, as text.
        requires_grad: whether it required a gradient.
    """

    array: numpy.ndarray
    device: str
    requires_grad: bool


@dataclass(frozen=True)
class _Storage:
    array: numpy.ndarray
    device: str


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple, stride: tuple, requires_grad: bool = False,
                    hooks: Any = None, metadata: Any = None) -> StoredTensor:  # fmt: skip
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise ValueError("a tensor without a storage")
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError(f"a tensor at offset {offset} of size {size} and stride {stride}")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 in size:
        array = numpy.empty(size, storage.array.dtype)
    elif last < storage.array.size:
        steps = tuple(s * storage.array.itemsize for s in stride)
        array = numpy.lib.stride_tricks.as_strided(storage.array[offset:], size, steps)
    else:
        raise ValueError(f"a tensor that ends at element {last} of a storage of {storage.array.size}")
    for flag, apply in (("conj", numpy.conj), ("neg", numpy.negative)):  # PyTorch's lazy views
        if metadata and metadata.get(flag):
            array = apply(array)
    return StoredTensor(array, storage.device, bool(requires_grad))


def _rebuild_untyped(storage: _Storage, offset: int, size: tuple, stride: tuple, requires_grad: bool, hooks: Any,
                     dtype: dtypes.dtype, metadata: Any = None) -> StoredTensor:  # fmt: skip
    """The form of dtypes that have no storage class of their own."""
    typed = _Storage(storage.array.view(dtype.numpy), storage.device)
    return _rebuild_tensor(typed, offset, size, stride, requires_grad, hooks, metadata)


def _rebuild_parameter(data: StoredTensor, requires_grad: bool, hooks: Any = None, state: Any = None) -> StoredTensor:
    return StoredTensor(data.array, data.device, bool(requires_grad))


class _Name:
    """A name that the file may call: what it is made of, and nothing else."""

    def __init__(self, build: Callable) -> None:
        self.build = build


_ADMITTED: dict[str, Any] = {
    "collections.OrderedDict": _Name(OrderedDict),
    "collections.Counter": _Name(dict),
    "torch.Size": _Name(tuple),
    "torch.device": _Name(lambda kind, index=None: kind if index is None else f"{kind}:{index}"),
    "torch._utils._rebuild_tensor_v2": _Name(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v3": _Name(_rebuild_untyped),
    "torch._utils._rebuild_parameter": _Name(_rebuild_parameter),
    "torch._utils._rebuild_parameter_with_state": _Name(_rebuild_parameter),
    "torch.storage.UntypedStorage": dtypes.uint8,
    **{f"torch.{name}": dtypes.of(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch.{dtype.name}": dtype for dtype in dtypes.ALL},
}
for _module in ("builtins", "__builtin__"):
    _ADMITTED |= {f"{_module}.set": _Name(set), f"{_module}.complex": _Name(complex)}


def read(file: IO[bytes], name: str) -> Any:
    """The object in a file that `torch.save` wrote, with `StoredTensor`s for its tensors.

    Raises:
        DamagedFileError: it is no such file or is damaged.
        RuntimeError: it holds other objects than tensors, containers and numbers.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return _Archive(archive, name).load()
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise DamagedFileError(f"{name} is damaged: {error}") from None


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.archive = archive
        self.name = name
        self.storages: dict[str, _Storage] = {}
        found = [entry for entry in archive.namelist() if entry.endswith("/data.pkl") or entry == "data.pkl"]
        if len(found) != 1:
            raise DamagedFileError(f"{name} is a zip archive, but not one that torch.save() wrote: it has no data.pkl")
        self.root = found[0].removesuffix("data.pkl")
        if f"{self.root}constants.pkl" in archive.namelist():
            raise RuntimeError(f"{name} is a TorchScript archive, which holds code; save its state_dict() instead")
        order = self.root + "byteorder"
        self.order = ">" if order in archive.namelist() and archive.read(order) == b"big" else "<"

    def load(self) -> Any:
        pickle = self.archive.read(self.root + "data.pkl")
        try:
            return _Machine(self).run(pickle)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedFileError(f"{self.name} is damaged: {type(error).__name__}: {error}") from error

    def storage(self, reference: Any) -> _Storage:
        """What a persistent id stands for: ("storage", type, key, device, number of elements)."""
        kind, dtype, key, device, count = reference
        if kind != "storage" or not isinstance(dtype, dtypes.dtype) or not isinstance(key, str):
            raise ValueError(f"a reference to {reference!r}")
        if key not in self.storages:
            entry = self.archive.getinfo(f"{self.root}data/{key}")
            if entry.file_size != count * dtype.itemsize:
                raise ValueError(f"storage {key} has {entry.file_size} bytes instead of {count} x {dtype.itemsize}")
            array = numpy.frombuffer(bytearray(self.archive.read(entry)), dtype.numpy)
            self.storages[key] = _Storage(array.byteswap() if self.order == ">" else array, str(device))
        return self.storages[key]


class _Machine:
    """Runs a pickle's opcodes as far as PyTorch writes them."""

    def __init__(self, archive: _Archive) -> None:
        self.archive = archive
        self.stack: list = []
        self.marks: list[list] = []  # the stacks that a MARK has put aside
        self.memo: dict[int, Any] = {}

    def run(self, pickle: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(pickle):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _FRESH:
                self.stack.append(_FRESH[name]())
            elif name in _LITERALS:
                self.stack.append(argument)
            elif name in ("PROTO", "FRAME"):
                continue
            else:
                step = getattr(self, "do_" + name.lower(), None)
                if step is None:
                    raise ValueError(f"opcode {name}, which torch.save() does not write")
                step(argument)
        raise ValueError("the pickle has no end")

    # -- the stack and the memo --------------------------------------------------------------------------------------

    def do_mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def do_pop(self, _: Any) -> None:
        self.stack.pop()

    def do_binput(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    do_put = do_long_binput = do_binput

    def do_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_binget(self, key: int) -> None:
        self.stack.append(self.memo[key])

    do_get = do_long_binget = do_binget

    # -- containers --------------------------------------------------------------------------------------------------

    def do_tuple(self, _: Any) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def do_tuple1(self, _: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def do_tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def do_tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def do_append(self, _: Any) -> None:
        item = self.stack.pop()
        self.container(list).append(item)

    def do_appends(self, _: Any) -> None:
        items = self.since_mark()
        self.container(list).extend(items)

    def do_additems(self, _: Any) -> None:
        items = self.since_mark()
        self.container(set).update(items)

    def do_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.container(dict)[key] = value

    def do_setitems(self, _: Any) -> None:
        items = self.since_mark()
        self.container(dict).update(zip(items[::2], items[1::2], strict=True))

    def container(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"items for a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    # -- names -------------------------------------------------------------------------------------------------------

    def do_global(self, argument: str) -> None:
        self.push_name(argument.replace(" ", ".", 1))

    def do_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(f"{module}.{name}")

    def push_name(self, name: str) -> None:
        if name not in _ADMITTED:
            raise RuntimeError(
                f"{self.archive.name} holds an object of {name}, and loading it could run code. Only tensors, numbers, "
                "strings and plain containers are read: save a state_dict() instead of the object"
            )
        self.stack.append(_ADMITTED[name])

    def do_reduce(self, _: Any) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(args, tuple):
            raise ValueError(f"a call of {function!r}")
        self.stack.append(function.build(*args))

    do_newobj = do_reduce

    def do_build(self, _: Any) -> None:
        state = self.stack.pop()
        # the attributes of a state_dict (`_metadata`, the versions of its modules) mean nothing here
        if not isinstance(self.stack[-1], OrderedDict) or not isinstance(state, dict):
            raise ValueError(f"attributes of a {type(self.stack[-1]).__name__}")

    def do_binpersid(self, _: Any) -> None:
        self.stack.append(self.archive.storage(self.stack.pop()))


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_FRESH: dict[str, Callable] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
}  # fmt: skip



"""`save` and `load`: nested containers of tensors in one file that holds data and nothing that runs.

The file is in the safetensors format: every tensor under its path in the structure, so that a plain state_dict is
readable by whatever reads safetensors. What is not a tensor goes as JSON into the header's metadata.
"""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any, BinaryIO, TypeAlias

import numpy

from ..autograd.variable import LEAF, Variable, box
from ..runtime import device as devices
from ..runtime import dtypes, tensor_file, torch_file
from ..runtime.arrays import to_host
from ..runtime.tensor_file import DamagedFileError

_STRUCTURE = "paceline"  # the entry of the metadata with our JSON
_TAG = "$"  # the key that marks a JSON object as more than a dict
_COMPLEX128 = numpy.dtype(numpy.complex128)  # safetensors lacks it: stored as pairs of float64

Location: TypeAlias = str | devices.device | Mapping[str, str] | Callable[[Any, str], Any] | None


def save(obj: Any, f: str | os.PathLike[str] | IO[bytes]) -> None:
    """Write tensors in nested containers to a file, so that `load` gives them back.

    The file appears at its path only when it is complete and on the disk; a file that was there before stays whole
    until then. Tensors that are the same memory in the same shape are written once and are one memory after loading.

    Args:
        obj: dicts, OrderedDicts, lists, tuples, sets of tensors, NumPy arrays and numbers, Python's numbers, strings,
            bytes, None, dtypes and devices: the state_dicts of modules, optimizers and schedulers, in any arrangement.
        f: a path, or a binary file to write to.

    Raises:
        TypeError: obj holds something else; says what and where. Save a module's `state_dict()`, not the module.

    Example:
        >>> import io, paceline as torch
        >>> file = io.BytesIO()
        >>> torch.save({"weight": torch.ones(2), "epoch": 3}, file)
        >>> torch.load(file)
        {'weight': tensor([1., 1.]), 'epoch': 3}
    """
    writer = _Writer()
    structure = json.dumps(writer.encode(obj, ()), separators=(",", ":"), allow_nan=False)
    metadata = {_STRUCTURE: structure, "format": "pt"}  # "pt" is what other readers expect of weights
    if isinstance(f, str | os.PathLike):
        with tensor_file.replacing(f) as file:
            tensor_file.write(file, writer.arrays, metadata)
    else:
        tensor_file.write(f, writer.arrays, metadata)


def load(f: str | os.PathLike[str] | BinaryIO, map_location: Location = None, *, weights_only: bool = True) -> Any:
    """Read what `save` wrote, any .safetensors file, or a .pt file that PyTorch's `torch.save` wrote.

    Nothing in the file is ever run: of PyTorch's files, which are pickles, only tensors and plain containers are read.

    Args:
        f: a path, or a binary file that can seek.
        map_location: where to put the tensors: a device, a dict from saved to new devices, or a function
            `(tensor on the CPU, saved device) -> tensor or None`. Default: the devices they were on.
        weights_only: loading is always restricted to data; False is accepted and changes nothing.

    Returns:
        what was saved; of a plain .safetensors file a dict of tensors.

    Raises:
        DamagedFileError: the file is cut off, damaged or of another format (a RuntimeError).
        RuntimeError: a PyTorch file holds other objects than tensors, numbers and containers; or a tensor was on a
            device that is not there and no map_location is given.
    """
    if not isinstance(f, str | os.PathLike):
        return _read(f, getattr(f, "name", "the file"), map_location)
    with open(f, "rb") as file:
        return _read(file, os.fspath(f), map_location)


def _read(file: BinaryIO, name: str, map_location: Location) -> Any:
    file.seek(0)
    start = file.read(9)
    if start[:4] == b"PK\x03\x04":
        return _from_torch(torch_file.read(file, name), map_location)
    if start[:1] == b"\x80" and start[8:] != b"{":  # which follows the length of a safetensors header
        raise DamagedFileError(f"{name} is a bare pickle (PyTorch before 1.6 wrote such files), which could run code; "
                               "load it there and save it again, as a .pt archive or .safetensors")  # fmt: skip
    arrays, metadata = tensor_file.read(file, name)
    if _STRUCTURE not in metadata:
        return {key: _tensor(array, "cpu", False, map_location) for key, array in arrays.items()}
    try:
        return _Reader(arrays, map_location).decode(json.loads(metadata[_STRUCTURE]))
    except (ValueError, TypeError, OverflowError, KeyError, RecursionError) as error:
        raise DamagedFileError(f"{name} is damaged: its structure does not fit its tensors: {error!r}") from None


# -- writing -----------------------------------------------------------------------------------------------------------


class _Writer:
    """Turns an object into JSON and the arrays it refers to by name."""

    def __init__(self) -> None:
        self.arrays: dict[str, numpy.ndarray] = {}
        self.names: dict[tuple, str] = {}  # what a tensor's memory is -> the name it is stored under

    def encode(self, value: Any, path: tuple) -> Any:
        if value is None or type(value) in (bool, str):
            return value
        if isinstance(value, Variable):
            return self.tensor(value, path)
        kind = type(value)
        if kind is int or (kind is float and math.isfinite(value)):
            return value
        if isinstance(value, float) and not isinstance(value, numpy.generic):
            return {_TAG: "float", "value": repr(float(value))}
        if kind in (list, tuple, set) or kind.__name__ == "Size":
            items = [self.encode(item, (*path, i)) for i, item in enumerate(value)]
            return items if kind is list else {_TAG: "set" if kind is set else "tuple", "items": items}
        if isinstance(value, dict):
            return self.mapping(value, path)
        encode = _ENCODERS.get(kind)
        if encode is not None:
            return encode(value)
        if isinstance(value, numpy.ndarray):
            return {_TAG: "array"} | self.stored(value, path)
        if isinstance(value, numpy.number | numpy.bool_) and not isinstance(value.item(), numpy.generic):
            return {_TAG: "number", "dtype": value.dtype.name, "value": self.encode(value.item(), path)}
        raise TypeError(f"save(): cannot store {_describe(value)} at obj{_path_text(path)}; {_advice(value)}")

    def mapping(self, value: dict, path: tuple) -> Any:
        ordered = isinstance(value, OrderedDict)
        if all(type(key) is str and key != _TAG for key in value) and not ordered:
            return {key: self.encode(item, (*path, key)) for key, item in value.items()}
        pairs = [[self.encode(k, (*path, f"key {k!r}")), self.encode(v, (*path, k))] for k, v in value.items()]
        return {_TAG: "OrderedDict" if ordered else "dict", "items": pairs}

    def tensor(self, value: Any, path: tuple) -> Any:
        if value.node is not None and value.node is not LEAF:
            raise TypeError(
                f"save(): the tensor at obj{_path_text(path)} is computed from others and requires a gradient; store "
                "its value: tensor.detach()"
            )
        entry = {_TAG: "tensor"} | self.stored(value.array, path)
        if value.is_cuda:
            entry["device"] = str(value.device)
        if value.node is LEAF:
            entry["requires_grad"] = True
        return entry

    def stored(self, array: Any, path: tuple) -> dict[str, Any]:
        """What finds an array again: the name it is stored under, and its dtype if the file has another one."""
        entry = {"name": self.store(array, path)}
        return entry | {"dtype": _COMPLEX128.name} if array.dtype == _COMPLEX128 else entry

    def store(self, array: Any, path: tuple) -> str:
        """The name an array is stored under; equal views of one memory share theirs."""
        pointer = array.ctypes.data if isinstance(array, numpy.ndarray) else array.data.ptr
        identity = (pointer, array.shape, array.strides, array.dtype, type(array))
        name = self.names.get(identity) if array.size else None
        if name is None:
            base = name = ".".join(map(str, path)) or "tensor"
            count = 1
            while name in self.arrays or name == "__metadata__":
                count += 1
                name = f"{base}#{count}"
            host = to_host(array)
            self.arrays[name] = numpy.stack([host.real, host.imag], -1) if host.dtype == _COMPLEX128 else host
            self.names[identity] = name
        return name


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    complex: lambda value: {_TAG: "complex", "value": [repr(value.real), repr(value.imag)]},
    bytes: lambda value: {_TAG: "bytes", "value": value.hex()},
    dtypes.dtype: lambda value: {_TAG: "dtype", "value": value.name},
    devices.device: lambda value: {_TAG: "device", "value": str(value)},
}


def _describe(value: Any) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__


def _path_text(path: tuple) -> str:
    return "".join(f"[{part!r}]" for part in path)


def _advice(value: Any) -> str:
    if callable(getattr(value, "state_dict", None)):
        return "store its state_dict() and load that into a new object"
    if isinstance(value, numpy.generic):
        return "store value.item()"
    if type(value).__name__ in ("Namespace", "SimpleNamespace"):
        return "store vars(value)"
    if isinstance(value, os.PathLike):
        return "store str(value)"
    return "a file holds tensors, NumPy arrays, numbers, strings, bytes, None, dicts, lists, tuples and sets"


# -- reading -----------------------------------------------------------------------------------------------------------


class _Reader:
    """Turns JSON back into the object."""

    def __init__(self, arrays: dict[str, numpy.ndarray], map_location: Location) -> None:
        self.arrays = arrays
        self.map_location = map_location
        self.placed: dict[tuple, Any] = {}  # (name, device) -> the raw array there, for tensors that share memory

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if _TAG not in value:
            return {key: self.decode(item) for key, item in value.items()}
        kind = value[_TAG]
        if kind == "tensor":
            return self.tensor(value)
        if kind == "array":
            return self.array(value)
        if kind == "number":
            return dtypes.of(value["dtype"]).numpy.type(self.decode(value["value"]))
        if kind in ("tuple", "set"):
            items = [self.decode(item) for item in value["items"]]
            return tuple(items) if kind == "tuple" else set(items)
        if kind in ("dict", "OrderedDict"):
            pairs = [(self.decode(key), self.decode(item)) for key, item in value["items"]]
            return dict(pairs) if kind == "dict" else OrderedDict(pairs)
        return _DECODERS[kind](value["value"])

    def array(self, entry: dict[str, Any]) -> numpy.ndarray:
        array = self.arrays[entry["name"]]
        return array.view(_COMPLEX128)[..., 0] if entry.get("dtype") == _COMPLEX128.name else array

    def tensor(self, entry: dict[str, Any]) -> Any:
        array = self.array(entry)
        key = (entry["name"], entry.get("device", "cpu"))
        tensor = _tensor(array, key[1], entry.get("requires_grad", False), self.map_location, self.placed.get(key))
        self.placed[key] = tensor.array
        return tensor


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "complex": lambda parts: complex(*map(float, parts)),
    "bytes": bytes.fromhex,
    "dtype": dtypes.of,
    "device": devices.device,
}


def _tensor(array: numpy.ndarray, saved: str, leaf: bool, map_location: Location, placed: Any = None) -> Any:
    """A tensor with its memory where `map_location` wants it; `placed` is that memory if it was made before."""
    if placed is not None:
        result = box(placed)
    elif callable(map_location):
        chosen = map_location(box(array), saved)
        result = box(devices.move(array, _available(saved))) if chosen is None else box(chosen.array)
    elif isinstance(map_location, Mapping):
        result = box(devices.move(array, _available(str(map_location.get(saved, saved)))))
    elif map_location is not None:
        result = box(devices.move(array, devices.resolve(map_location)))
    else:
        result = box(devices.move(array, _available(saved)))
    if leaf:
        result.node = LEAF
    return result


def _available(saved: str) -> devices.device:
    try:
        return devices.resolve(saved)
    except RuntimeError as error:
        raise RuntimeError(f"load(): {error}; to have the tensors elsewhere pass map_location='cpu'") from None


def _from_torch(value: Any, map_location: Location) -> Any:
    """An object of a PyTorch file with tensors for its stored ones."""
    if isinstance(value, torch_file.StoredTensor):
        return _tensor(value.array, value.device, value.requires_grad, map_location)
    if isinstance(value, list | tuple | set):
        return type(value)(_from_torch(item, map_location) for item in value)
    if isinstance(value, dict):
        return type(value)((_from_torch(k, map_location), _from_torch(v, map_location)) for k, v in value.items())
    return value

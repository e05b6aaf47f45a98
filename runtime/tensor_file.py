"""Files of named arrays in the safetensors format: a JSON header that says where each array lies, then the bytes.

The header is untrusted input: everything it says is checked before memory is allocated for it, and nothing in it is
ever run. Reading goes straight into the arrays' memory, writing straight out of it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy

_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
_NUMPY = {code: numpy.dtype(name) for code, name in _DTYPES.items()}  # little-endian, as all our machines are
_NUMPY["BF16"] = numpy.dtype(ml_dtypes.bfloat16)
_CODES = {dtype: code for code, dtype in _NUMPY.items()}
_MAX_HEADER = 100 * 2**20
_CHECKSUM = "crc32"  # our own entry in the metadata: of all the data; files of other programs have none


class DamagedFileError(RuntimeError):
    """A file is not what it should be: cut off, overwritten, or of another format."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write that appears at `path` only once it is complete and on the disk; nothing changes if that fails.

    Whoever reads `path`, also after a crash, finds the whole old file or the whole new one.
    """
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner may read
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, is only on the disk after this
    finally:
        os.close(folder)


def _umask() -> int:
    """The process's mask for new files, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write(file: IO[bytes], arrays: Mapping[str, numpy.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays in row-major order, the widest elements first so that all of them are aligned.

    Raises:
        TypeError: an array's dtype is not one of the format's.
    """
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    plain = [(name, numpy.ascontiguousarray(array).reshape(array.shape)) for name, array in ordered]
    header: dict[str, Any] = {}
    position = checksum = 0
    for name, array in plain:
        code = _CODES.get(array.dtype)
        if code is None:
            raise TypeError(f"array {name!r}: dtype {array.dtype} cannot be stored in a safetensors file")
        checksum = zlib.crc32(_bytes_of(array), checksum)
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [position, position + array.nbytes]}
        position += array.nbytes
    header["__metadata__"] = {**metadata, _CHECKSUM: f"{checksum:08x}"}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for _, array in plain:
        file.write(_bytes_of(array))


def read(file: IO[bytes], name: str) -> tuple[dict[str, numpy.ndarray], dict[str, str]]:
    """The arrays and the metadata of a file; `name` is what errors call it.

    Raises:
        DamagedFileError: the header is not valid, the data is not of the length it states or has another checksum.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    header = _header(file, size, name)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise DamagedFileError(f"{name} is damaged: its metadata is not a table of strings")
    places = {key: _place(key, entry, name) for key, entry in header.items()}
    position = checksum = 0
    arrays: dict[str, numpy.ndarray] = {}
    data_size = size - file.tell()
    for key, (dtype, shape, start, stop) in sorted(places.items(), key=lambda item: item[1][2:]):
        if start != position or stop > data_size:
            raise DamagedFileError(
                f"{name} is damaged: array {key!r} should be at bytes {start} to {stop} of the data, the one before it "
                f"ends at {position} and the data at {data_size}"
            )
        array = arrays[key] = numpy.empty(shape, dtype)
        if file.readinto(_bytes_of(array)) != stop - start:  # type: ignore[attr-defined]
            raise DamagedFileError(f"{name} is cut off within array {key!r}")
        checksum = zlib.crc32(_bytes_of(array), checksum)
        position = stop
    if position != data_size:
        raise DamagedFileError(f"{name} is damaged: {data_size - position} bytes follow the last array")
    if metadata.pop(_CHECKSUM, f"{checksum:08x}") != f"{checksum:08x}":
        raise DamagedFileError(f"{name} is damaged: the data does not have the checksum it was written with")
    return {key: arrays[key] for key in header}, metadata


def _header(file: IO[bytes], size: int, name: str) -> dict[str, Any]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8 or length > _MAX_HEADER:
        raise DamagedFileError(f"{name} is not a safetensors file, or is cut off: {size} bytes, header of {length}")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{name} is not a safetensors file, or is damaged: {error}") from None
    if not isinstance(header, dict):
        raise DamagedFileError(f"{name} is not a safetensors file: its header is a {type(header).__name__}")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name appears twice in the header")
    return result


def _place(key: str, entry: Any, name: str) -> tuple[numpy.dtype, tuple[int, ...], int, int]:
    """The dtype, shape and byte range of one array, checked against each other."""
    try:
        code, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise DamagedFileError(f"{name} is damaged: the header's entry of array {key!r} is {entry!r}") from None
    if code not in _NUMPY:
        raise DamagedFileError(f"{name}: array {key!r} has dtype {code!r}, known are {', '.join(_NUMPY)}")
    whole = all(type(n) is int and n >= 0 for n in (*shape, start, stop))
    if not whole or stop - start != math.prod(shape) * _NUMPY[code].itemsize:
        raise DamagedFileError(
            f"{name} is damaged: array {key!r} of dtype {code} and shape {list(shape)} at bytes [{start}, {stop})"
        )
    return _NUMPY[code], shape, start, stop


def _bytes_of(array: numpy.ndarray) -> memoryview:
    return array.reshape(-1).view(numpy.uint8).data

"""Where compiled kernels are kept between processes.

Numba's own cache has three faults for us: it does not see that a function of another file has changed; ranks that
start together may mix up its index; and it reads only where it may write, so that nothing filled into an image of a
container is found by a user who may not write there. Here every compiled form is a file of its own, named after all
that it depends on and written under another name first: no index, and no locks.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import sys
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from ...runtime.world import get_world
from .pipeline import Part


@functools.cache
def folders() -> tuple[Path, ...]:
    """Where to look for compiled kernels, in this order; new ones go to the first that can be written to.

    Beside the sources, else in the user's cache; only in the user's choice where NUMBA_CACHE_DIR names one.
    """
    here = Path(__file__).parent
    chosen = numba.config.CACHE_DIR
    user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    places = [Path(chosen, "paceline")] if chosen else [here / "__pycache__", Path(user_cache, "paceline")]
    state = hashlib.sha256(f"{sys.version} {numba.__version__}".encode())
    for source in sorted(here.glob("*.py")):
        state.update(source.read_bytes())
    return tuple(place / f"kernels-{state.hexdigest()[:16]}" for place in places)


def _described(value: Any) -> str:
    """A value that a function was made with, in the same words in every process."""
    if isinstance(value, FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


class Cache:
    """The kept forms of one function, as Numba's dispatcher asks for them."""

    def __init__(self, function: Callable, options: dict[str, Any]) -> None:
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        values = [_described(cell.cell_contents) for cell in function.__closure__ or ()]
        settings = sorted((key, sorted(v) if isinstance(v, set) else v) for key, v in options.items())
        self.cache_path = folders()[0]  # shown in the dispatcher's `stats`
        self._form = f"{function.__qualname__} {function.__code__.co_firstlineno} {values} {settings}"

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The function compiled for the types of a call, or None."""
        context.refresh()
        name = self._file_name(signature, context.codegen())
        for folder in folders():
            with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):  # not there, or cut off by a full disk
                return CompileResult._rebuild(context, *pickle.loads((folder / name).read_bytes()))
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep a function that has just been compiled."""
        if isinstance(result.library, Part) or result.library.has_dynamic_globals:
            return  # it is kept with the kernel that it is a part of; or holds an address of this process
        name = self._file_name(signature, result.codegen)
        data = dumps(result._reduce())
        for folder in folders():
            with contextlib.suppress(OSError):
                return _write(folder / name, data)
        _warn()

    def _file_name(self, signature: Any, codegen: Any) -> str:
        depends_on = f"{self._form} {signature} {codegen.magic_tuple()}"  # the last: the processor and what it can do
        return f"{self._name}-{hashlib.sha256(depends_on.encode()).hexdigest()[:16]}"


def _write(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@functools.cache
def _warn() -> None:
    if get_world().rank == 0:
        places = " nor ".join(str(folder.parent) for folder in folders())
        warnings.warn(
            f"compiled kernels cannot be kept, so every process compiles them anew: neither {places} can be written "
            "to; set NUMBA_CACHE_DIR to a folder that can",
            stacklevel=2,
        )


def contents() -> str:
    """What is kept, in words."""
    counts = {folder: len(os.listdir(folder)) for folder in folders() if folder.is_dir()}
    kept = [f"{count} compiled functions in {folder}" for folder, count in counts.items()]
    return ", ".join(kept) or "none compiled yet (`paceline warmup` does it ahead of time)"

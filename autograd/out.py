"""`out=`: results written into tensors that the caller gives."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ..runtime import arrays, dtypes
from ..runtime.device import device_of
from .declaration import NUMPY_NAMES
from .mode import is_grad_enabled
from .variable import Variable, changed, fresh_node


def write_into(out: Any, result: Any, name: str) -> Any:
    """Write a result (or several) into `out` and return that; the result itself if `out` is None.

    Raises:
        RuntimeError: if the call would have to be recorded, or `out` cannot hold the result.
    """
    if out is None:
        return result
    if not isinstance(result, tuple):
        return _write(out, result, name)
    if not isinstance(out, tuple | list) or len(out) != len(result):
        raise TypeError(f"{name}(): argument 'out' must be a tuple of {len(result)} tensors")
    written = [_write(o, r, name) for o, r in zip(out, result, strict=True)]
    return type(result)(*written) if hasattr(result, "_fields") else tuple(written)


def _write(out: Any, result: Variable, name: str) -> Any:
    if not isinstance(out, Variable):
        raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    if is_grad_enabled() and (result.node is not None or fresh_node(out) is not None):
        raise RuntimeError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, but one of the "
            "arguments requires grad."
        )
    value, target = result.array, out.array
    have, want = dtypes.of(value.dtype), dtypes.of(target.dtype)
    if have.category > want.category:
        raise RuntimeError(f"{name}(): result type {have.name} can't be cast to the desired output type {want.name}")
    if device_of(value) != device_of(target):
        raise RuntimeError(f"{name}(): expected out on device {device_of(value)}, but it is on {device_of(target)}")
    if target.shape != value.shape:
        if target.size:
            raise RuntimeError(
                f"{name}(): out has shape {list(target.shape)}, but the result has shape {list(value.shape)}; give a "
                "tensor of that shape or an empty one"
            )
        target = out.array = arrays.module_of(target).empty(value.shape, target.dtype)
    target[...] = value
    changed(out, name)
    return out


def takes_out(function: Callable) -> Callable:
    """Give a function that is made of primitives the keyword `out`, and NumPy's names for its arguments; primitives
    have both by themselves."""
    signature = inspect.signature(function)
    known = signature.parameters

    @functools.wraps(function)
    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if kwargs:
            kwargs = {k if k in known else NUMPY_NAMES.get(k, k): value for k, value in kwargs.items()}
        result = function(*args, **kwargs)
        return result if out is None else write_into(out, result, function.__name__)

    call.__signature__ = with_out(signature)  # type: ignore[attr-defined]
    return call


def with_out(signature: inspect.Signature) -> inspect.Signature:
    """The signature with `out` as its last keyword, unless that is the name of an input."""
    if "out" in signature.parameters:
        return signature
    out = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Any)
    return signature.replace(parameters=[*signature.parameters.values(), out])

"""The operands of a call: bringing them to one device and one dtype, and saying what is wrong with them."""

from __future__ import annotations

from typing import Any

import numpy

from ..runtime import arrays, dtypes
from ..runtime.device import device_of
from .plan import FLOATING, WEAK_NUMBERS
from .variable import Variable, box

_ndarray = numpy.ndarray
_MOST_SHOWN = 6  # operands in a message: a list of tensors may have hundreds


def uniform(declaration: Any, inputs: tuple) -> bool:
    """Whether the operands are host tensors of one dtype, and numbers that take it, so that there is nothing to bring
    together."""
    dtype = None
    promote, kept = declaration.promote, len(declaration.keep)
    numbers = False
    for i, x in enumerate(inputs):
        if isinstance(x, Variable):
            if x.array.__class__ is not _ndarray:
                return False
            if promote != "none" and i >= kept:
                dtype = dtype or x.array.dtype
                if x.array.dtype is not dtype:
                    return False
        elif type(x) is float or type(x) is int:
            numbers = True
        elif x is not None or not declaration.optional:
            return False
    if numbers:
        return dtype in WEAK_NUMBERS
    return inputs[0] is not None and (promote != "float" or dtype in FLOATING)


def harmonize(declaration: Any, inputs: tuple) -> tuple:
    """Bring operands to one device and, where the declaration says so, to one dtype."""
    for name, x in zip(names_of(declaration, inputs), inputs, strict=True):
        accepted = isinstance(x, Variable | bool | int | float | complex) and not isinstance(x, numpy.generic)
        if not (accepted or (x is None and name in declaration.optional)):
            return harmonize(declaration, adopt(declaration, inputs, name, x))
    tensors = [x for x in inputs if isinstance(x, Variable)]
    if not tensors:
        raise TypeError(f"{declaration.name}(): expected a tensor among the arguments {', '.join(declaration.inputs)}")
    home = common_device(declaration, tensors)
    if home is not None:
        move = declaration.registry["move"]
        inputs = tuple(move(x, home, device_of(x.array)) if isinstance(x, Variable) else x for x in inputs)
    return inputs if declaration.promote == "none" else promoted(declaration, inputs)


def promoted(declaration: Any, inputs: tuple) -> tuple:
    """The operands with their common dtype; numbers stay numbers, which take the dtype of what they meet."""
    names = names_of(declaration, inputs)
    moving = [i for i, x in enumerate(inputs) if x is not None and names[i] not in declaration.keep]
    tensors = [inputs[i] for i in moving if isinstance(inputs[i], Variable)]
    scalars = [inputs[i] for i in moving if not isinstance(inputs[i], Variable)]
    target = common_dtype(declaration, tensors, scalars)
    result = list(inputs)
    for i in moving:
        x = inputs[i]
        if not isinstance(x, Variable):
            if target.category == 1 and type(x) is int and not 0 <= x < 128:
                x = result[i] = _wrapped(x, target)
            if not tensors or target is dtypes.bfloat16:
                like = next(x for x in inputs if isinstance(x, Variable))
                result[i] = box(arrays.module_of(like.array).asarray(x, target.numpy))
        elif x.array.dtype != target.numpy:
            result[i] = declaration.registry["cast"](x, target, dtypes.of(x.array.dtype))
    return tuple(result)


def _wrapped(number: int, target: dtypes.dtype) -> int:
    """A Python integer by its lowest bits, as PyTorch takes it where it does not fit; NumPy raises an error."""
    if not -(1 << 63) <= number < 1 << 63:
        return number  # an error in PyTorch, too
    limits = numpy.iinfo(target.numpy)
    return (number - int(limits.min)) % (1 << limits.bits) + int(limits.min)


def names_of(declaration: Any, inputs: tuple) -> tuple[str, ...]:
    return declaration.inputs * len(inputs) if declaration.variadic else declaration.inputs


def adopt(declaration: Any, inputs: tuple, name: str, value: Any) -> tuple:
    """Accept a NumPy number or array as an operand, as PyTorch does; refuse anything else."""
    if isinstance(value, numpy.generic):
        accepted = value.item()
    elif isinstance(value, numpy.ndarray):
        accepted = box(value)
    else:
        raise TypeError(f"{declaration.name}(): argument {name!r} must be a tensor, got {type(value).__name__}")
    return tuple(accepted if x is value else x for x in inputs)


def common_device(declaration: Any, tensors: list) -> Any:
    """None if all tensors are on one device; the device to go to if the strays are zero-dimensional on the CPU."""
    devices = {device_of(x.array) for x in tensors}
    if len(devices) == 1:
        return None
    homes = {device_of(x.array) for x in tensors if x.array.ndim or device_of(x.array).type != "cpu"}
    if len(homes) == 1:
        return homes.pop()
    raise RuntimeError(
        f"{declaration.name}(): expected all tensors on one device, found {' and '.join(sorted(map(str, devices)))}; "
        "move them with .to(device)"
    )


def common_dtype(declaration: Any, tensors: list, scalars: list) -> dtypes.dtype:
    full = [dtypes.of(x.array.dtype) for x in tensors if x.array.ndim]
    zero_dim = [dtypes.of(x.array.dtype) for x in tensors if not x.array.ndim]
    target = dtypes.result_type(full, zero_dim, scalars)
    if declaration.promote == "float" and target.category < 2:
        return dtypes.get_default_dtype()
    return target


def explain(declaration: Any, error: Exception, raw: tuple) -> Exception:
    """The exception PyTorch users expect for what NumPy refused, naming the operation and its operands."""
    operands = [
        f"{name} {dtypes.of(a.dtype).name}{list(a.shape)}"
        for name, a in zip(names_of(declaration, raw), raw, strict=False)
        if hasattr(a, "dtype")
    ]
    if len(operands) > _MOST_SHOWN:
        operands[_MOST_SHOWN:] = [f"... {len(operands)} in all"]
    kind = IndexError if isinstance(error, IndexError) else RuntimeError
    return kind(f"{declaration.name}(): {str(error).rstrip()} ({', '.join(operands)})")

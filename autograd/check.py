"""Gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from ..runtime.arrays import module_of, to_host
from .api import grad, wants_grad
from .mode import enable_grad
from .variable import Variable, box


def gradcheck(
    func: Callable,
    inputs: Variable | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compare the gradients of `func` with central finite differences, element by element.

    For each input element x_j and output element y_i: dy_i/dx_j = (y_i(x_j + eps) - y_i(x_j - eps)) / (2 eps).

    Args:
        func: takes the inputs, returns a tensor or a tuple of tensors.
        inputs: tensors (float64, or the differences are noise) and other arguments.
        eps: step of the differences.
        atol, rtol: absolute and relative tolerance.
        raise_exception: raise with both Jacobians at the first mismatch; otherwise return False.

    Example:
        >>> import paceline as torch
        >>> x = torch.randn(3, dtype=torch.float64, requires_grad=True)
        >>> torch.autograd.gradcheck(torch.sin, x)
        True
    """
    args = (inputs,) if isinstance(inputs, Variable) else tuple(inputs)
    if not any(wants_grad(x) for x in args):
        raise ValueError("gradcheck expects at least one input tensor to require gradient, but none of them does")
    with enable_grad():
        if not any(wants_grad(y) for y in _outputs(func(*args))):
            raise ValueError("gradcheck(): no output of func depends on an input that requires a gradient")
        return _verdict(_mismatch(func, args, eps, atol, rtol), raise_exception)


class GradcheckError(RuntimeError):
    """Gradients and finite differences disagree."""


def gradgradcheck(
    func: Callable,
    inputs: Variable | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Check second derivatives: `gradcheck` of a fixed random projection of the gradients of `func`.

    Args: as for `gradcheck`.
    """
    args = (inputs,) if isinstance(inputs, Variable) else tuple(inputs)
    random = numpy.random.default_rng(0)
    projections: dict[int, Any] = {}

    def gradients(*args: Any) -> tuple:
        outputs = [y for y in _outputs(func(*args)) if wants_grad(y)]
        for i, y in enumerate(outputs):
            if i not in projections:
                xp = module_of(y.array)
                projections[i] = box(xp.asarray(random.standard_normal(y.array.shape), y.array.dtype))
        wanted = [x for x in args if wants_grad(x)]
        weights = [projections[i] for i in range(len(outputs))]
        return grad(outputs, wanted, weights, create_graph=True, materialize_grads=True)

    with enable_grad():
        # a gradient that does not depend on the inputs must be found constant by the differences as well
        return _verdict(_mismatch(gradients, args, eps, atol, rtol, constants=True), raise_exception)


def _verdict(mismatch: str, raise_exception: bool) -> bool:
    if mismatch and raise_exception:
        raise GradcheckError(mismatch)
    return not mismatch


def _mismatch(func: Callable, args: tuple, eps: float, atol: float, rtol: float, constants: bool = False) -> str:
    """The first Jacobian that differs from finite differences; "" if none does. `constants`: check zero ones too."""
    checked = [i for i, x in enumerate(args) if wants_grad(x)]
    for k, y in enumerate(_outputs(func(*args))):
        if not wants_grad(y) and not constants:
            continue
        analytic = _analytic(y, [args[i] for i in checked])
        for i, found in zip(checked, analytic, strict=True):
            expected = _numeric(func, args, i, k, eps)
            if not numpy.allclose(found, expected, rtol, atol):
                worst = float(numpy.max(numpy.abs(found - expected)))
                return (
                    f"Jacobian mismatch for output {k} with respect to input {i} (largest difference {worst:g}),\n"
                    f"numerical:\n{expected}\nanalytical:\n{found}"
                )
    return ""


def _outputs(result: Any) -> tuple:
    return result if isinstance(result, tuple) else (result,)


def _analytic(y: Variable, inputs: list) -> list[numpy.ndarray]:
    """Rows of the Jacobian by one backward pass per output element."""
    if not wants_grad(y):
        return [numpy.zeros((y.array.size, x.array.size)) for x in inputs]
    rows: list[list] = [[] for _ in inputs]
    xp = module_of(y.array)
    for i in range(y.array.size):
        seed = xp.zeros(y.array.size, y.array.dtype)
        seed[i] = 1
        found = grad(y, inputs, box(seed.reshape(y.array.shape)), retain_graph=True, allow_unused=True)
        for row, x, g in zip(rows, inputs, found, strict=True):
            row.append(numpy.zeros(x.array.size) if g is None else to_host(g.array).reshape(-1))
    return [numpy.stack(row) if row else numpy.zeros((0, x.array.size)) for row, x in zip(rows, inputs, strict=True)]


def _numeric(func: Callable, args: tuple, i: int, k: int, eps: float) -> numpy.ndarray:
    """The Jacobian of output k with respect to args[i], by central differences."""
    x = args[i]
    original = x.array
    columns = []
    if original.size == 0:
        return numpy.zeros((_outputs(func(*args))[k].array.size, 0))
    try:
        for j in range(original.size):
            ends = []
            for step in (eps, -eps):
                x.array = original.copy("C")
                x.array.reshape(-1)[j] += step
                ends.append(to_host(_outputs(func(*args))[k].array).reshape(-1).copy())
            columns.append((ends[0] - ends[1]) / (2 * eps))
    finally:
        x.array = original
    return numpy.stack(columns, axis=1)

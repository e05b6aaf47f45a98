"""Products with Jacobians, whole Jacobians and Hessians of functions of tensors: `torch.autograd.functional`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from ..runtime.arrays import module_of
from . import api
from .batching import vmap
from .mode import enable_grad
from .primitive import RECORDED
from .variable import Variable, box, fresh_node

Tensors = Any  # a tensor or a tuple of tensors, as PyTorch has it here: a single one comes back as a single one


def vjp(
    func: Callable, inputs: Tensors, v: Tensors = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensors, Tensors]:
    """The outputs of `func` and the vector-Jacobian product v^T J.

    Args:
        func: takes the inputs, returns a tensor or a tuple of tensors.
        inputs: a tensor or a tuple of them.
        v: of the outputs' shapes; may be left out if the output has one element.
        create_graph: record the computation, so that the results can be differentiated.
        strict: raise where an output does not depend on an input, instead of giving zeros.

    Example:
        >>> import paceline as torch
        >>> torch.autograd.functional.vjp(torch.exp, torch.zeros(2), torch.tensor([1.0, 2.0]))[1]
        tensor([1., 2.])
    """
    with enable_grad():
        given = _Inputs(inputs, "vjp", create_graph)
        outputs, single = _call(func, given, "vjp", strict)
        vectors = _vectors(v, outputs, "vjp", "the output of the user-provided function")
    with enable_grad() if create_graph else contextlib.nullcontext():
        found = _gradients(outputs, given.tensors, vectors, create_graph, strict, "vjp")
    return _returned(outputs, single, create_graph), given.packed(_returned(found, False, create_graph))


def jvp(
    func: Callable, inputs: Tensors, v: Tensors = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensors, Tensors]:
    """The outputs of `func` and the Jacobian-vector product J v.

    Two passes backward: w^T J is linear in w, and its derivative with respect to w in the direction v is J v.

    Args: as for `vjp`; v has the inputs' shapes, and may be left out if the input has one element.

    Example:
        >>> import paceline as torch
        >>> torch.autograd.functional.jvp(torch.exp, torch.zeros(2), torch.tensor([1.0, 2.0]))[1]
        tensor([1., 2.])
    """
    with enable_grad():
        given = _Inputs(inputs, "jvp", create_graph)
        vectors = _vectors(v, given.tensors, "jvp", "the input to the user-provided function")
        outputs, single = _call(func, given, "jvp", strict)
        weights = [api.zeros_like(y).requires_grad_() for y in outputs]
        products = _gradients(outputs, given.tensors, weights, True, strict, "jvp")
        found = _gradients(products, weights, vectors, create_graph, strict, "jvp")
    tangents = _returned(found, False, create_graph)
    return _returned(outputs, single, create_graph), tangents[0] if single else tangents


def jacobian(
    func: Callable,
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of `func`: for each output and input a tensor of shape output.shape + input.shape.

    Args:
        func: takes the inputs, returns a tensor or a tuple of tensors.
        inputs: a tensor or a tuple of them.
        create_graph: record the computation, so that the Jacobian can be differentiated.
        strict: raise where an output does not depend on an input, instead of giving zeros.
        vectorize: all rows in one backward over a batch of unit vectors (see `func.vmap`) instead of one by one.
        strategy: "reverse-mode", row by row, or "forward-mode", column by column, which needs vectorize=True.

    Returns:
        one tensor for one output and one input, otherwise a tuple over the outputs of tuples over the inputs, without
        the level of which there is only one.

    Example:
        >>> import paceline as torch
        >>> torch.autograd.functional.jacobian(lambda x: x**2, torch.tensor([1.0, 2.0]))
        tensor([[2., 0.],
                [0., 4.]])
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError(f'Expected strategy to be either "forward-mode" or "reverse-mode", got {strategy!r}')
    if strategy == "forward-mode" and not vectorize:
        raise NotImplementedError('strategy="forward-mode" is implemented for vectorize=True only')
    if vectorize and strict:
        raise RuntimeError("jacobian(): strict=True and vectorize=True cannot be combined")
    with enable_grad():
        given = _Inputs(inputs, "jacobian", create_graph)
        outputs, single = _call(func, given, "jacobian", strict)
        if strategy == "forward-mode":
            weights = [api.zeros_like(y).requires_grad_() for y in outputs]
            products = _gradients(outputs, given.tensors, weights, True, False, "jacobian")
            columns = [_rows(p, weights, create_graph, strict, vectorize) for p in products]  # [input][output]
            blocks = [
                [_columns_last(columns[j][i], x.array.ndim) for j, x in enumerate(given.tensors)]
                for i in range(len(outputs))
            ]
        else:
            blocks = [_rows(y, given.tensors, create_graph, strict, vectorize) for y in outputs]
    blocks = [_returned(row, False, create_graph) for row in blocks]  # type: ignore[misc]
    rows = tuple(given.packed(row) for row in blocks)
    return rows[0] if single else rows


def _columns_last(block: Any, count: int) -> Any:
    """[input dimensions, output dimensions] with the input's last."""
    ndim = block.array.ndim
    return block.permute(*range(count, ndim), *range(count))


def _rows(y: Any, inputs: list, create_graph: bool, strict: bool, vectorize: bool) -> list:
    """The Jacobian of one output with respect to each input."""
    count, shape = y.array.size, y.array.shape
    units = api.units_like(y)
    if vectorize and count:
        found: Any = vmap(lambda unit: tuple(_gradients([y], inputs, [unit], create_graph, False, "jacobian")))(units)
        return [g.reshape(*shape, *x.array.shape) for g, x in zip(found, inputs, strict=True)]
    rows = [_gradients([y], inputs, [units[i]], create_graph, strict, "jacobian") for i in range(count)]
    if not rows:
        return [box(module_of(x.array).zeros((*shape, *x.array.shape), x.array.dtype)) for x in inputs]
    stacked = [RECORDED.stack([row[j] for row in rows], 0) for j in range(len(inputs))]
    return [g.reshape(*shape, *x.array.shape) for g, x in zip(stacked, inputs, strict=True)]


def hessian(
    func: Callable,
    inputs: Tensors,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a function with one output element: for each pair of inputs a tensor of both their shapes.

    Args: as for `jacobian`.

    Example:
        >>> import paceline as torch
        >>> torch.autograd.functional.hessian(lambda x: (x**3).sum(), torch.tensor([1.0, 2.0]))
        tensor([[ 6.,  0.],
                [ 0., 12.]])
    """

    def gradient(*xs: Any) -> Any:
        y = func(*xs)
        if not isinstance(y, Variable) or y.array.size != 1:
            raise RuntimeError("The Tensor returned by the function given to hessian should contain a single element")
        found = jacobian(lambda *again: func(*again).reshape(()), xs, create_graph=True, strict=strict)
        return found if isinstance(inputs, tuple) else found[0]

    return jacobian(gradient, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)


def vhp(
    func: Callable, inputs: Tensors, v: Tensors = None, create_graph: bool = False, strict: bool = False
) -> tuple[Tensors, Tensors]:
    """The output of a function with one output element, and the vector-Hessian product v^T H.

    Args: as for `vjp`; v has the inputs' shapes.

    Example:
        >>> import paceline as torch
        >>> torch.autograd.functional.vhp(lambda x: (x**3).sum(), torch.tensor([1.0, 2.0]), torch.ones(2))[1]
        tensor([ 6., 12.])
    """
    with enable_grad():
        given = _Inputs(inputs, "vhp", create_graph)
        vectors = _vectors(v, given.tensors, "vhp", "the input to the user-provided function")
        outputs, single = _call(func, given, "vhp", strict)
        if not single or outputs[0].array.size != 1:
            raise RuntimeError("The Tensor returned by the function given to vhp should contain a single element")
        first = _gradients(outputs, given.tensors, [None], True, strict, "vhp")
        found = _gradients(first, given.tensors, vectors, create_graph, strict, "vhp")
    return _returned(outputs, True, create_graph), given.packed(_returned(found, False, create_graph))


hvp = vhp  # H is symmetric, and H v by two passes backward is what v^T H is


# -- inputs and outputs ------------------------------------------------------------------------------------------------


class _Inputs:
    """A user's inputs as tensors to differentiate with respect to."""

    def __init__(self, inputs: Tensors, name: str, create_graph: bool) -> None:
        self._single = not isinstance(inputs, tuple | list)
        self.tensors = []
        each: list[Any] = [inputs] if self._single else list(inputs)
        for i, x in enumerate(each):
            if not isinstance(x, Variable):
                kind = type(x).__name__
                raise TypeError(f"{name}(): inputs must be a Tensor or a tuple of Tensors, the one at {i} is a {kind}")
            connected = create_graph and fresh_node(x) is not None
            fresh = x.detach().requires_grad_  # type: ignore[attr-defined]  # all Variables of users are Tensors
            self.tensors.append(RECORDED.reshape(x, x.array.shape) if connected else fresh())

    def packed(self, found: Sequence) -> Any:
        """One result per input, as the inputs were given."""
        return found[0] if self._single else tuple(found)


def _call(func: Callable, given: _Inputs, name: str, strict: bool) -> tuple[list, bool]:
    """The outputs as a list, and whether there is one that came without a tuple."""
    result = func(*given.tensors)
    single = isinstance(result, Variable)
    outputs = [result] if single else list(result)
    for i, y in enumerate(outputs):
        if not isinstance(y, Variable):
            raise TypeError(f"The outputs of the function given to {name} must be tensors, output {i} is a "
                            f"{type(y).__name__}.")  # fmt: skip
        if strict and fresh_node(y) is None:
            raise RuntimeError(
                f"Output {i} of the user-provided function does not require gradients. The outputs must be computed in "
                "a differentiable manner from the input when running in strict mode."
            )
    return outputs, single


def _vectors(v: Tensors, like: Sequence, name: str, what: str) -> list:
    if v is None:
        if len(like) != 1 or like[0].array.size != 1:
            raise RuntimeError(f"The vector v can only be None if {what} is a single Tensor with a single element.")
        return [api.zeros_like(like[0]) + 1]
    vectors = list(v) if isinstance(v, tuple | list) else [v]
    if [tuple(x.array.shape) for x in vectors] != [tuple(x.array.shape) for x in like]:
        raise RuntimeError(
            f"{name}(): v has the shapes {[list(x.array.shape) for x in vectors]}, {what} has "
            f"{[list(x.array.shape) for x in like]}"
        )
    return vectors


def _gradients(
    outputs: Sequence, inputs: Sequence, vectors: Sequence, create_graph: bool, strict: bool, name: str
) -> list:
    """`grad` that gives zeros where there is no path, or raises if strict."""
    reached = [(y, v) for y, v in zip(outputs, vectors, strict=True) if fresh_node(y) is not None]
    found: Any = [None] * len(inputs)
    if reached:
        ys, vs = zip(*reached, strict=True)
        found = api.grad(ys, inputs, vs, retain_graph=True, create_graph=create_graph, allow_unused=True)
    if strict and any(g is None for g in found):
        raise RuntimeError(
            f"{name}(): the output of the user-provided function is independent of input "
            f"{[g is None for g in found].index(True)}. This is not allowed in strict mode."
        )
    return [api.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def _returned(tensors: Sequence, single: bool, create_graph: bool) -> Any:
    """Results for the user: off the tape unless create_graph."""
    kept = tuple(t if create_graph else t.detach() for t in tensors)
    return kept[0] if single else kept

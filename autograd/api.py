"""`backward` and `grad`: the checked, public way into the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from ..runtime.arrays import module_of
from . import engine
from .batching import gradients_per_example, level_of
from .mode import is_grad_enabled
from .variable import Variable, box, fresh_node

_FLOAT32 = numpy.dtype(numpy.float32)


def _as_list(value: Any, what: str) -> list:
    values = [value] if value is None or isinstance(value, Variable) else list(value)
    for v in values:
        if v is not None and not isinstance(v, Variable):
            raise TypeError(f"{what}: expected tensors, got {type(v).__name__}")
    return values


def _check_roots(roots: list, gradients: list, function: str) -> None:
    if len(roots) != len(gradients):
        raise RuntimeError(f"{function}: got {len(roots)} tensors and {len(gradients)} gradients")
    for i, root in enumerate(roots):
        _check_root(root, gradients[i], i)


def _check_root(root: Variable, gradient: Variable | None, i: int) -> None:
    array = root.array
    if root.node is None and fresh_node(root) is None:
        raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn")
    if gradient is not None:
        if gradient.array.shape != array.shape:
            raise RuntimeError(
                f"Mismatch in shape: grad_output[{i}] has a shape of {list(gradient.array.shape)} and output[{i}] "
                f"has a shape of {list(array.shape)}."
            )
    elif array.size != 1:
        raise RuntimeError(
            "grad can be implicitly created only for scalar outputs; this one has shape "
            f"{list(array.shape)}: reduce it first, or pass a gradient of that shape"
        )
    elif array.dtype is not _FLOAT32 and array.dtype.kind == "c":
        raise RuntimeError(f"grad can be implicitly created only for real scalar outputs, got {root.dtype}")


def backward(
    tensors: Variable | Sequence[Variable],
    grad_tensors: Variable | Sequence[Variable | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Variable | Sequence[Variable] | None = None,
) -> None:
    """Add the gradients of `tensors` to `.grad` of the leaves they were computed from.

    Args:
        tensors: what to differentiate; scalars, unless a gradient is given.
        grad_tensors: for each of them the vector of the vector-Jacobian product, of its shape; None means 1.
        retain_graph: keep the graph for another backward; default: `create_graph`.
        create_graph: record the computation of the gradients, for higher derivatives.
        inputs: accumulate into these only.

    Example:
        >>> import paceline as torch
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> torch.autograd.backward((x * x).sum())
        >>> x.grad
        tensor([2., 4.])
    """
    retain = create_graph if retain_graph is None else retain_graph
    roots = _as_list(tensors, "backward(): tensors")
    gradients = [None] * len(roots) if grad_tensors is None else _as_list(grad_tensors, "backward(): grad_tensors")
    if any(map(level_of, roots)):
        raise RuntimeError("backward() cannot be called within vmap; use func.grad, which returns the gradients")
    _check_roots(roots, gradients, "backward()")
    targets = None if inputs is None else _as_list(inputs, "backward(): inputs")
    if targets is not None and not targets:
        raise RuntimeError("backward(): inputs cannot be empty; leave it out to accumulate into all leaves")
    engine.backward(roots, gradients, retain, create_graph, targets)


def grad(
    outputs: Variable | Sequence[Variable],
    inputs: Variable | Sequence[Variable],
    grad_outputs: Variable | Sequence[Variable | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple:
    """The gradients of `outputs` with respect to `inputs`, without touching any `.grad`.

    Args:
        outputs: what to differentiate; scalars, unless `grad_outputs` are given.
        inputs: leaves or intermediate tensors that require gradients.
        grad_outputs: for each output the vector of the vector-Jacobian product; None means 1.
        retain_graph: keep the graph for another backward; default: `create_graph`.
        create_graph: record the computation, so that the result can be differentiated again.
        only_inputs: no effect, here for PyTorch's older scripts.
        allow_unused: return None for an input that the outputs do not depend on, instead of raising.
        materialize_grads: return zeros instead of None there.

    Example:
        >>> import paceline as torch
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> (g,) = torch.autograd.grad(x**3, x, create_graph=True)
        >>> torch.autograd.grad(g, x)
        (tensor(18.),)
    """
    roots = _as_list(outputs, "grad(): outputs")
    wanted = _as_list(inputs, "grad(): inputs")
    gradients = _as_list(grad_outputs, "grad(): grad_outputs") if grad_outputs is not None else [None] * len(roots)
    _check_roots(roots, gradients, "grad()")
    retain = create_graph if retain_graph is None else retain_graph
    if any(map(level_of, roots)):
        options = {"retain_graph": retain, "create_graph": True, "allow_unused": True}
        results = list(gradients_per_example(grad, roots, wanted, gradients, **options))
    else:  # rules cannot compute on the raw arrays of batched tensors, so those are recorded
        results = engine.gradients_of(roots, gradients, wanted, retain, create_graph or any(map(level_of, gradients)))
    if not create_graph:
        results = [g if g is None or g.node is None else g.detach() for g in results]
    for i, (x, g) in enumerate(zip(wanted, results, strict=True)):
        if g is None and materialize_grads:
            results[i] = zeros_like(x)
        elif g is None and not allow_unused:
            raise RuntimeError(
                "One of the differentiated Tensors appears to not have been used in the graph. "
                f"Set allow_unused=True if this is the desired behavior. (It is inputs[{i}].)"
            )
    return tuple(results)


def wants_grad(x: Any) -> bool:
    """Whether recording is on and `x` is a tensor that requires a gradient."""
    return isinstance(x, Variable) and is_grad_enabled() and fresh_node(x) is not None


class FormerVariable:
    """PyTorch's former word for a tensor on the tape: calling it gives the same memory with a place of its own there.

    Example:
        >>> import paceline as torch
        >>> x = torch.autograd.Variable(torch.ones(2), requires_grad=True)
        >>> isinstance(x, torch.autograd.Variable)
        True
    """

    def __call__(self, data: Variable, requires_grad: bool = False) -> Variable:
        if not isinstance(data, Variable):
            raise TypeError(f"Variable data has to be a tensor, but got {type(data).__name__}")
        return data.detach().requires_grad_(requires_grad)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, Variable)


def zeros_like(x: Variable) -> Any:
    """Zeros in the form of a tensor, off the tape."""
    return box(module_of(x.array).zeros(x.array.shape, x.array.dtype))


def units_like(x: Variable) -> Any:
    """All unit vectors in the form of a tensor, along dimension 0."""
    array = x.array
    return box(module_of(array).eye(array.size, dtype=array.dtype).reshape(array.size, *array.shape))

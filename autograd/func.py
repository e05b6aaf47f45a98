"""Functions that transform functions: `torch.func`.

Each differentiated argument is given to the function as a tensor with a fresh mark on the tape. What was recorded since
then belongs to the transform; whether its result must stay on the tape is a matter of what else it leads to: leaves, or
nodes of before, which then are of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..runtime import tree
from . import api
from .batching import batched_everywhere, vmap
from .mode import enable_grad, is_grad_enabled
from .variable import LEAF, Node, Variable, box, fresh_node, new_node, next_number


class _Mark:
    """The plan of the node that marks a differentiated argument: passes its gradient on to the argument's own node."""

    multiple = simple = holomorphic = False
    title = "FuncInputBackward"

    def lift(self, node: Node, saved: tuple) -> tuple:
        return saved

    def gradients(self, F: Any, g: Any, saved: tuple, create_graph: bool) -> list:
        return [g]


_MARK = _Mark()


def _marked(x: Any) -> Any:
    """The argument as a tensor to differentiate by."""
    x = batched_everywhere(x)
    source = fresh_node(x)
    result = box(x.array)
    shape = getattr(x.array, "real_array", x.array).shape
    result.node = new_node(_MARK, (x if source is LEAF else source,), (), shape, ())
    return result


def _leads_outside(tensors: Sequence, mark: int) -> bool:
    """Whether what was recorded since `mark` leads to a leaf or to a node of before."""
    stack: list = [fresh_node(x) for x in tensors if isinstance(x, Variable)]
    if LEAF in stack:
        return True
    seen = set()
    while stack:
        node = stack.pop()
        if isinstance(node, Variable) or (node is not None and node.number < mark):
            return True
        if node is not None and node not in seen:
            seen.add(node)
            stack.extend(node.edges)
    return False


def _settled(results: Any, mark: int, recorded: bool) -> Any:
    """Results for the caller: on the tape only if they depend on what requires a gradient outside."""
    leaves, structure = tree.flatten(results)
    if recorded and _leads_outside(leaves, mark):
        return results
    return tree.unflatten([_detached(x) for x in leaves], structure)


def _detached(x: Any) -> Any:
    return x.detach() if isinstance(x, Variable) else x  # type: ignore[attr-defined]  # all results are Tensors


class _Call:
    """One call of a function with some arguments marked: what it returned, and how to go back from there."""

    def __init__(self, func: Callable, args: tuple, kwargs: dict, argnums: tuple[int, ...], has_aux: bool, name: str):
        self.recorded = is_grad_enabled()
        self.mark = next_number()
        self.name = name
        with enable_grad():
            args, self.structure, self.inputs = _mark_arguments(args, argnums, name)
            result = func(*args, **kwargs)
        self.aux = None
        if has_aux:
            if not (isinstance(result, tuple) and len(result) == 2):
                raise RuntimeError(f"{name}: output of function f should be a tuple: (output, aux) if has_aux is True")
            result, self.aux = result
        self.outputs, self.output_structure = tree.flatten(result)
        for y in self.outputs:
            if not isinstance(y, Variable):
                raise RuntimeError(f"{name}: expected f to return tensors, got {type(y).__name__}")

    def pull_back(self, vectors: Sequence, create_graph: bool = False) -> list:
        """The vector-Jacobian products with respect to the marked inputs, zeros where there is no path."""
        reached = [(y, v) for y, v in zip(self.outputs, vectors, strict=True) if fresh_node(y) is not None]
        found: Any = [None] * len(self.inputs)
        if reached:
            ys, vs = zip(*reached, strict=True)
            create_graph = create_graph or (self.recorded and _leads_outside(ys, self.mark))
            with enable_grad():
                found = api.grad(ys, self.inputs, vs, retain_graph=True, create_graph=create_graph, allow_unused=True)
        return [api.zeros_like(x) if g is None else g for x, g in zip(self.inputs, found, strict=True)]

    def settled(self, results: Any) -> Any:
        return _settled(results, self.mark, self.recorded)

    def output(self) -> Any:
        return self.settled(tree.unflatten(self.outputs, self.output_structure))


def _mark_arguments(args: tuple, argnums: tuple[int, ...], name: str) -> tuple[tuple, Any, list]:
    """The arguments with the chosen ones' tensors marked, the structure of the chosen ones, the marked tensors."""
    given = list(args)
    for i in argnums:
        if not -len(given) <= i < len(given):
            raise RuntimeError(f"{name}: got argnum={i}, but only {len(given)} positional inputs")
    chosen = tuple(given[i] for i in argnums)
    leaves, structure = tree.flatten(chosen)
    for x in leaves:
        if not isinstance(x, Variable):
            raise RuntimeError(f"{name}: expected to differentiate by tensors, got an argument of {type(x).__name__}")
    marked = [_marked(x) for x in leaves]
    for i, value in zip(argnums, tree.unflatten(marked, structure), strict=True):
        given[i] = value
    return tuple(given), structure, marked


def _as_argnums(argnums: int | tuple[int, ...]) -> tuple[int, ...]:
    if not isinstance(argnums, int | tuple):
        raise RuntimeError(f"argnums must be an int or a tuple of ints, got {type(argnums).__name__}")
    return (argnums,) if isinstance(argnums, int) else argnums


# -- first derivatives -------------------------------------------------------------------------------------------------


def grad(func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """A function that computes the gradient of `func`, which returns a scalar.

    Args:
        func: returns a tensor with one element, or (that, anything) with has_aux.
        argnums: the argument to differentiate by (a tensor, or a container of them), or a tuple of several.
        has_aux: func returns something besides, which is passed on.

    Returns:
        a function of func's arguments that returns the gradient, arranged like the argument; with has_aux (gradient,
        aux).

    Example:
        >>> import paceline as torch
        >>> torch.func.grad(torch.func.grad(torch.sin))(torch.tensor(0.5))
        tensor(-0.4794)
    """
    both = grad_and_value(func, argnums, has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        found, value = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


def grad_and_value(func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable:
    """`grad` that returns (gradient, value), or with has_aux (gradient, (value, aux)).

    Example:
        >>> import paceline as torch
        >>> torch.func.grad_and_value(torch.square)(torch.tensor(3.0))
        (tensor(6.), tensor(9.))
    """
    numbers = _as_argnums(argnums)

    def both(*args: Any, **kwargs: Any) -> Any:
        call = _Call(func, args, kwargs, numbers, has_aux, "grad")
        if len(call.outputs) != 1 or call.outputs[0].array.size != 1 or call.outputs[0].array.ndim:
            shapes = [list(y.array.shape) for y in call.outputs]
            raise RuntimeError(f"grad: expected f to return one tensor of 0 dimensions, got shapes {shapes}")
        found = tree.unflatten(call.pull_back([None]), call.structure)
        found = found[0] if isinstance(argnums, int) else found
        gradient, value, aux = call.settled((found, call.outputs[0], call.aux))
        return gradient, (value, aux) if has_aux else value

    return both


def vjp(func: Callable, *primals: Any, has_aux: bool = False) -> tuple:
    """The value of `func` and the function that maps vectors v to v^T J.

    Args:
        func: returns tensors in any containers.
        primals: its arguments: tensors, or containers of them.
        has_aux: func returns (output, anything).

    Returns:
        (output, vjp_fn), with has_aux (output, vjp_fn, aux). vjp_fn takes vectors arranged like the output and
        returns a tuple with one entry per argument.

    Example:
        >>> import paceline as torch
        >>> output, vjp_fn = torch.func.vjp(torch.sin, torch.tensor(0.0))
        >>> vjp_fn(torch.tensor(2.0))
        (tensor(2.),)
    """
    call = _Call(func, primals, {}, tuple(range(len(primals))), has_aux, "vjp")

    def vjp_fn(vectors: Any) -> tuple:
        leaves, _ = tree.flatten(vectors)
        if len(leaves) != len(call.outputs):
            raise RuntimeError(f"vjp_fn: expected {len(call.outputs)} vectors, like the output of f, got {len(leaves)}")
        return call.settled(tree.unflatten(call.pull_back(leaves), call.structure))

    return (call.output(), vjp_fn, call.settled(call.aux)) if has_aux else (call.output(), vjp_fn)


def jvp(func: Callable, primals: tuple, tangents: tuple, *, strict: bool = False, has_aux: bool = False) -> tuple:
    """The value of `func` and the Jacobian-vector product J v.

    Two passes backward: w^T J is linear in w, and its derivative with respect to w in the direction v is J v.

    Args:
        func: returns tensors in any containers.
        primals: its arguments, a tuple.
        tangents: v, a tuple arranged like primals.
        has_aux: func returns (output, anything).

    Returns:
        (output, J v), with has_aux (output, J v, aux).

    Example:
        >>> import paceline as torch
        >>> torch.func.jvp(torch.sin, (torch.tensor(0.0),), (torch.tensor(2.0),))
        (tensor(0.), tensor(2.))
    """
    if not isinstance(primals, tuple) or not isinstance(tangents, tuple):
        raise RuntimeError("jvp(): expected primals and tangents to be tuples")
    vectors, _ = tree.flatten(tangents)
    call = _Call(func, primals, {}, tuple(range(len(primals))), has_aux, "jvp")
    if [x.array.shape for x in vectors] != [x.array.shape for x in call.inputs]:
        raise RuntimeError("jvp(): expected primals and tangents of the same structure and shapes")
    found = tree.unflatten(_push_forward(call)(vectors), call.output_structure)
    return (call.output(), call.settled(found), call.settled(call.aux)) if has_aux else (
        call.output(), call.settled(found))  # fmt: skip


def _push_forward(call: _Call) -> Callable[[Sequence], list]:
    """The function from tangents of the inputs to tangents of the outputs."""
    with enable_grad():
        weights = [_marked(api.zeros_like(y)) for y in call.outputs]
        products = call.pull_back(weights, create_graph=True)

    def push(vectors: Sequence) -> list:
        reached = [(p, v) for p, v in zip(products, vectors, strict=True) if fresh_node(p) is not None]
        found: Any = [None] * len(weights)
        if reached:
            ps, vs = zip(*reached, strict=True)
            with enable_grad():
                found = api.grad(ps, weights, vs, retain_graph=True, create_graph=True, allow_unused=True)
        return [api.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]

    return push


# -- Jacobians and Hessians --------------------------------------------------------------------------------------------


def jacrev(
    func: Callable, argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False, chunk_size: int | None = None
) -> Callable:
    """A function that computes the Jacobian of `func`, all rows in one backward over a batch of unit vectors.

    Args:
        func: returns tensors in any containers.
        argnums: the argument to differentiate by, or a tuple of several.
        has_aux: func returns (output, anything).
        chunk_size: how many rows to compute at once; default: all.

    Returns:
        a function of func's arguments that returns, for each output in its containers, for each argument in its, a
        tensor of shape output.shape + argument.shape; with has_aux (that, aux).

    Example:
        >>> import paceline as torch
        >>> torch.func.jacrev(torch.square)(torch.tensor([1.0, 2.0]))
        tensor([[2., 0.],
                [0., 4.]])
    """
    numbers = _as_argnums(argnums)

    def jacobian(*args: Any, **kwargs: Any) -> Any:
        call = _Call(func, args, kwargs, numbers, has_aux, "jacrev")
        blocks = []
        for i, y in enumerate(call.outputs):
            def row(unit: Any, i: int = i) -> tuple:
                vectors = [unit if j == i else api.zeros_like(other) for j, other in enumerate(call.outputs)]
                return tuple(call.pull_back(vectors))

            rows = vmap(row, chunk_size=chunk_size)(api.units_like(y))
            shape = tuple(y.array.shape)
            blocks.append([g.reshape(*shape, *x.array.shape) for g, x in zip(rows, call.inputs, strict=True)])
        return _arranged(call, blocks, argnums, has_aux)

    return jacobian


def jacfwd(
    func: Callable, argnums: int | tuple[int, ...] = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable:
    """`jacrev` column by column: for each element of the arguments a Jacobian-vector product, all of them in one batch.

    Args: as for `jacrev`; randomness is accepted for PyTorch's sake.

    Example:
        >>> import paceline as torch
        >>> torch.func.jacfwd(torch.square)(torch.tensor([1.0, 2.0]))
        tensor([[2., 0.],
                [0., 4.]])
    """
    numbers = _as_argnums(argnums)

    def jacobian(*args: Any, **kwargs: Any) -> Any:
        call = _Call(func, args, kwargs, numbers, has_aux, "jacfwd")
        push = _push_forward(call)
        columns = []  # [input][output]
        for i, x in enumerate(call.inputs):
            def column(unit: Any, i: int = i) -> tuple:
                return tuple(push([unit if j == i else api.zeros_like(other) for j, other in enumerate(call.inputs)]))

            columns.append([c.movedim(0, -1) for c in vmap(column)(api.units_like(x))])
        blocks = [
            [columns[j][i].reshape(*y.array.shape, *x.array.shape) for j, x in enumerate(call.inputs)]
            for i, y in enumerate(call.outputs)
        ]
        return _arranged(call, blocks, argnums, has_aux)

    return jacobian


def _arranged(call: _Call, blocks: list[list], argnums: Any, has_aux: bool) -> Any:
    rows = []
    for block in blocks:
        row = tree.unflatten(block, call.structure)
        rows.append(row[0] if isinstance(argnums, int) else row)
    result, aux = call.settled((tree.unflatten(rows, call.output_structure), call.aux))
    return (result, aux) if has_aux else result


def hessian(func: Callable, argnums: int | tuple[int, ...] = 0) -> Callable:
    """A function that computes the Hessian of `func`.

    Example:
        >>> import paceline as torch
        >>> torch.func.hessian(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0]))
        tensor([[ 6.,  0.],
                [ 0., 12.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)


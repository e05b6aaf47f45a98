"""`vmap`: a function of single examples as a function of a batch.

Within the function a batched tensor looks like one example. It is the tensor of the whole batch with its place on the
tape, only that its raw array is a Batched: an array whose first dimension nobody sees. Such an array can do nothing;
the call of an operation finds it and comes to `_call_batched`, which shows the operation the whole batch: by the rule
that is registered for the operation, or, where there is none, by a loop over the examples. Either way the operation is
recorded on the tape as usual, so that gradients flow through `vmap` from and to outside.

Levels: a vmap within a vmap hides a second dimension, and the array within its Batched is a Batched again.

What reads raw values (a condition on a tensor's value, say) meets a Batched and raises NotBatchable. `vmap` then calls
the function for the examples one by one, which is right for everything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn

from ..runtime import arrays, rng, tree
from . import declaration as declarations
from .primitive import RECORDED
from .variable import Variable, box, counter_of, fresh_node


class NotBatchable(Exception):  # not a RuntimeError: nobody on the way may take it for an error of the user's
    """Raw values of a batched tensor were asked for."""


class Batched(arrays.StandIn):
    """An array of examples in place of the array of one.

    Attributes:
        batch: the array with all examples along dimension 0: NumPy's, CuPy's, or a Batched of an outer vmap.
        level: of the vmap whose examples they are; outer ones have lower levels.
    """

    def __init__(self, batch: Any, level: int) -> None:
        self.batch = batch
        self.level = level
        self.shape = tuple(batch.shape[1:])
        self.ndim = batch.ndim - 1
        self.dtype = batch.dtype
        self.itemsize = batch.itemsize
        self.size = batch.size // batch.shape[0] if batch.shape[0] else 0
        self.real = batch.real_array if isinstance(batch, Batched) else batch

    @property
    def real_array(self) -> Any:
        """The array at the bottom, for its module and device."""
        return self.real

    def refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotBatchable

    def __getattr__(self, name: str) -> NoReturn:
        raise NotBatchable(name)


_levels: ContextVar[tuple[int, ...]] = ContextVar("the batch sizes of the enclosing vmaps", default=())


def level_of(x: Any) -> int:
    """The innermost vmap whose examples a tensor holds; 0 if it is not batched."""
    array = getattr(x, "array", None)
    return array.level if array.__class__ is Batched else 0


# -- between a tensor of examples and a tensor that looks like one -----------------------------------------------------


def _twin(x: Variable, array: Any) -> Any:
    """The same tensor, also to the tape, with another array object."""
    fresh_node(x)  # and the change counter must be there to be shared
    counter_of(x)
    twin = box(array)
    twin.__dict__.update(x.__dict__)
    twin.array = array
    return twin


def hide(x: Any, level: int) -> Any:
    """A tensor of examples (along dimension 0) as what looks like one of them."""
    array = x.array
    if array.__class__ is Batched and array.level > level:
        # the outer level goes below the inner one: the array within has dimensions (inner, outer, ...)
        below = hide(RECORDED.transpose(show(x, array.level), 0, 1), level)
        return hide(below, array.level)
    return _twin(x if x.node is None or x.grad_fn else RECORDED.reshape(x, x.shape), Batched(array, level))


def show(x: Any, level: int) -> Any:
    """The tensor with all examples of a level along dimension 0; itself if it is the same for all of them."""
    own = level_of(x)
    if own == level:
        return _twin(x, x.array.batch)
    if own > level:
        within = _twin(x, x.array.batch)
        whole = show(within, level)
        return x if whole is within else hide(RECORDED.transpose(whole, 0, 1), own)
    return x


# -- operations --------------------------------------------------------------------------------------------------------


# How operations take a whole batch, by name and by the module they are declared in; filled where they are declared.
# A rule is called with (operation, tensor inputs, which of them are batched, attributes).
rules: dict[str, Callable] = {}
family_rules: dict[str, Callable] = {}


def _call_batched(declaration: Any, inputs: tuple, attributes: tuple) -> Any:
    """Run an operation of which an input is batched; NotImplemented if none is."""
    level = max(map(level_of, inputs), default=0)
    if not level:
        return NotImplemented
    batched = tuple(level_of(x) == level for x in inputs)
    values = tuple(show(x, level) if b else x for x, b in zip(inputs, batched, strict=True))
    rule = rules.get(declaration.name) or family_rules.get(declaration.body.__module__.rpartition(".")[2])
    result = NotImplemented if rule is None else rule(declaration.function, values, batched, attributes)
    if result is NotImplemented:
        result = _loop(declaration, values, batched, attributes)
    if declaration.multiple is None:
        return hide(result, level)
    return declaration.multiple(*(hide(r, level) for r in result))


def _loop(declaration: Any, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """The operation on one example after the other."""
    count = next(x.array.shape[0] for x, b in zip(values, batched, strict=True) if b)
    if not count:
        raise NotBatchable
    results = []
    for i in range(count):
        inputs = tuple(RECORDED.select(x, 0, i) if b else x for x, b in zip(values, batched, strict=True))
        results.append(declaration.call((inputs,) if declaration.variadic else inputs, attributes))
    if declaration.multiple is None:
        return RECORDED.stack(results, 0)
    return [RECORDED.stack(list(each), 0) for each in zip(*results, strict=True)]


def elementwise(function: Callable, values: tuple, batched: tuple, attributes: tuple) -> Any:
    """The rule of operations that broadcast all their inputs and treat all elements alike."""
    ndim = max(x.array.ndim - b if isinstance(x, Variable) else 0 for x, b in zip(values, batched, strict=True))
    lined_up = [_with_ndim(x, ndim + 1) if b else x for x, b in zip(values, batched, strict=True)]
    return function(*lined_up, *attributes)


def _with_ndim(x: Any, ndim: int) -> Any:
    """A batch with dimensions of size 1 behind the first, so that examples broadcast as they would alone."""
    shape = x.array.shape
    missing = ndim - len(shape)
    return RECORDED.reshape(x, (shape[0], *(1,) * missing, *shape[1:])) if missing else x


# -- vmap --------------------------------------------------------------------------------------------------------------


def vmap(
    func: Callable,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable:
    """A function of single examples as a function of batches: each operation is run once for the whole batch.

    Where the function asks for the value of a tensor (in an `if`, by `.item()`) it is called once per example instead.
    It may then be called twice, so it should have no side effects.

    Args:
        func: takes and returns tensors, in any containers.
        in_dims: the dimension of the examples in each argument, or None for what is the same for all: one number for
            all arguments, or a container shaped like the arguments.
        out_dims: where the examples are in the results, in the same way.
        randomness: "error" refuses random numbers within func, "same" draws the same ones for all examples, "different"
            draws anew for each, by calling func example by example.
        chunk_size: how many examples to take at once; default: all.

    Example:
        >>> import paceline as torch
        >>> torch.func.vmap(torch.dot)(torch.ones(2, 3), torch.ones(2, 3))
        tensor([3., 3.])
    """
    if randomness not in ("error", "same", "different"):
        raise ValueError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if _call_batched not in declarations.interceptors:
        declarations.interceptors.append(_call_batched)

    @functools.wraps(func)
    def batched(*args: Any, **kwargs: Any) -> Any:
        leaves, structure, dims, size = _arguments(func, args, kwargs, in_dims)
        step = chunk_size or max(size, 1)
        parts = [
            _run(func, leaves, structure, dims, range(start, min(start + step, size)), size, randomness)
            for start in range(0, max(size, 1), step)
        ]
        flat, result = parts[0]
        if len(parts) > 1:
            flat = [RECORDED.cat([part[i] for part, _ in parts], 0) for i in range(len(flat))]
        out = _spread(out_dims, result, len(flat), "out_dims")
        placed = [x if d in (0, None) else x.movedim(0, d) for x, d in zip(flat, out, strict=True)]
        return tree.unflatten(placed, result)

    return batched


def _arguments(func: Callable, args: tuple, kwargs: dict, in_dims: Any) -> tuple[list, Any, list, int]:
    """The leaves of the arguments, the structure around them, the dimension of the examples in each, their number."""
    leaves, structure = tree.flatten((args, kwargs))
    count = len(tree.flatten(args)[0])
    in_dims = tuple(in_dims) if isinstance(in_dims, list) else in_dims
    dims: list = _spread(in_dims, tree.flatten(args)[1], count, "in_dims")
    dims += [0 if isinstance(x, Variable) else None for x in leaves[count:]]  # as PyTorch has it for keywords
    sizes = {}
    for i, (x, d) in enumerate(zip(leaves, dims, strict=True)):
        if d is None or (not isinstance(x, Variable) and isinstance(in_dims, int)):
            dims[i] = None
            continue
        if not isinstance(x, Variable):
            raise ValueError(f"vmap(): got in_dim={d} for an input of type {type(x).__name__}; it should be None")
        if not -x.array.ndim <= d < x.array.ndim:
            raise ValueError(f"vmap(): got in_dim={d} for an input of {x.array.ndim} dimensions")
        dims[i] = d % x.array.ndim
        sizes[i] = x.array.shape[d]
    if not sizes:
        raise ValueError(f"vmap({getattr(func, '__name__', func)}): at least one input must have an in_dim")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
                         f"{list(sizes.values())} for the mapped dimension")  # fmt: skip
    return leaves, structure, dims, next(iter(sizes.values()))


def _spread(dims: Any, structure: tree.Structure, count: int, name: str) -> list:
    """One dimension per leaf, from a number for all or a container shaped like the arguments down to some depth."""
    if dims is None or isinstance(dims, int):
        return [dims] * count
    if structure.rebuild is None or len(tree.flatten(dims)[1].children) != len(structure.children):
        raise ValueError(f"vmap(): {name}={dims} is not compatible with the structure of the tensors")
    items = list(dims.values()) if isinstance(dims, dict) else list(dims)
    spread = []
    for item, child in zip(items, structure.children, strict=True):
        spread += _spread(item, child, _leaf_count(child), name)
    return spread


def _leaf_count(structure: tree.Structure) -> int:
    return 1 if structure.rebuild is None else sum(map(_leaf_count, structure.children))


def _run(func: Callable, leaves: list, structure: Any, dims: list, examples: range, size: int,
         randomness: str) -> tuple[list, Any]:  # fmt: skip
    """The results for a range of examples, these along dimension 0."""
    fronts = [x if d is None else x.movedim(d, 0) if d else x for x, d in zip(leaves, dims, strict=True)]
    if len(examples) != size:
        fronts = [x if d is None else RECORDED.narrow(x, 0, examples.start, len(examples))
                  for x, d in zip(fronts, dims, strict=True)]  # fmt: skip
    state = rng.default_generator().get_state()
    if randomness != "different":
        try:
            with rng.refused(_NO_RANDOMNESS if randomness == "error" else None):
                return _at_once(func, fronts, structure, dims, len(examples))
        except NotBatchable:
            rng.default_generator().set_state(state)
    results = []
    for i in range(len(examples)):
        if randomness == "same":
            rng.default_generator().set_state(state)
        views = [x if d is None else RECORDED.select(x, 0, i) for x, d in zip(fronts, dims, strict=True)]
        # memory of its own, as operations that look at a tensor's memory (as_strided) expect of one example
        own = [x if d is None else RECORDED.contiguous_copy(x) for x, d in zip(views, dims, strict=True)]
        args, kwargs = tree.unflatten(own, structure)
        with rng.refused(_NO_RANDOMNESS if randomness == "error" else None):
            results.append(tree.flatten(func(*args, **kwargs)))
        for view, x in zip(views, own, strict=True):
            if x is not view and counter_of(x)[0]:  # the function has changed its argument in place
                view.copy_(x)
    if not results:
        raise RuntimeError("vmap(): the function must be called per example, and the batch has none")
    _check_results(func, results[0][0])
    return [RECORDED.stack([r[0][i] for r in results], 0) for i in range(len(results[0][0]))], results[0][1]


def _at_once(func: Callable, fronts: list, structure: Any, dims: list, count: int) -> tuple[list, Any]:
    outer = _levels.get()
    level = len(outer) + 1
    token = _levels.set((*outer, count))
    try:
        inside = [x if d is None else hide(x, level) for x, d in zip(fronts, dims, strict=True)]
        args, kwargs = tree.unflatten(inside, structure)
        flat, result = tree.flatten(func(*args, **kwargs))
        _check_results(func, flat)
        whole = [show(x, level) for x in flat]
    finally:
        _levels.reset(token)
    for i, (x, w) in enumerate(zip(flat, whole, strict=True)):
        if w is x:  # the same for all examples
            whole[i] = RECORDED.expand(x, (count, *x.array.shape))
    return whole, result


def _check_results(func: Callable, flat: list) -> None:
    for x in flat:
        if not isinstance(x, Variable):
            name = getattr(func, "__name__", func)
            raise ValueError(f"vmap({name}): the function must only return tensors, got type {type(x).__name__}")


_NO_RANDOMNESS = (
    "vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' "
    "randomness flags on vmap or perform the randomness operation out of vmap"
)


def batched_everywhere(x: Any) -> Any:
    """A tensor as one that is batched at every enclosing vmap: what is then differentiated by it is per example."""
    for level, count in enumerate(_levels.get(), 1):
        if show(x, level) is x:
            x = hide(RECORDED.expand(x, (count, *x.array.shape)), level)
    return x


def per_example(function: Callable, args: tuple) -> Any:
    """Call a function that is no operation of ours for one example after the other; some of its arguments are batched.

    The function returns a tensor or a tuple of tensors.
    """
    level = max(map(level_of, args))
    shown = [show(x, level) if level_of(x) else x for x in args]
    batched = [s is not x for s, x in zip(shown, args, strict=True)]
    count = next(s.array.shape[0] for s, b in zip(shown, batched, strict=True) if b)
    results = [
        tree.flatten(function(*(RECORDED.select(s, 0, i) if b else s for s, b in zip(shown, batched, strict=True))))
        for i in range(count)
    ]
    if not results:
        raise NotBatchable
    stacked = [hide(RECORDED.stack(list(each), 0), level) for each in zip(*(r[0] for r in results), strict=True)]
    return tree.unflatten(stacked, results[0][1])


def gradients_per_example(grad: Callable, outputs: list, inputs: list, vectors: list, **options: Any) -> tuple:
    """`grad` of outputs that are batched: the gradient of each example's outputs."""
    level = max(map(level_of, outputs))
    xs = [show(x, level) for x in inputs]
    if any(s is x for s, x in zip(xs, inputs, strict=True)):
        raise RuntimeError(
            "grad(): the output is batched by vmap and an input is not, so its gradient would be that of all examples "
            "together; use func.grad within the function, which differentiates per example"
        )
    ys, vs = [], []
    for y, v in zip(outputs, vectors, strict=True):
        whole = show(y, level)
        if v is None:
            v = RECORDED.ones_like(whole)
        elif whole is not y and show(v, level) is v:
            v = RECORDED.expand(v, whole.array.shape)
        else:
            v = show(v, level)
        ys.append(whole)
        vs.append(v)
    found = grad(ys, xs, vs, **options)
    return tuple(g if g is None else hide(g, level) for g in found)

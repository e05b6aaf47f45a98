"""Operations that users write themselves: subclasses of Function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from .api import wants_grad
from .batching import level_of, per_example
from .mode import is_grad_enabled, no_grad
from .plan import Pick, attach_outputs
from .variable import LEAF, Node, Variable, box, changed, counter_of, fresh_node, new_node


class FunctionCtx:
    """What forward leaves for backward; any other attribute may be set on it as well.

    Attributes:
        needs_input_grad: for each argument of forward, whether its gradient will be used.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.to_save: tuple = ()
        self.not_differentiable: tuple = ()
        self.dirty: tuple = ()
        self.materialize = True
        self.node: Node | None = None

    def save_for_backward(self, *tensors: Variable | None) -> None:
        """Keep inputs or outputs for backward, which refuses to run if they were changed in place meanwhile."""
        for t in tensors:
            if not (t is None or isinstance(t, Variable)):
                raise TypeError(f"save_for_backward() can only save tensors, got {type(t).__name__}")
        self.to_save = tensors

    def mark_non_differentiable(self, *outputs: Variable) -> None:
        """Name outputs that never get a gradient."""
        self.not_differentiable = outputs

    def mark_dirty(self, *inputs: Variable) -> None:
        """Name inputs that forward changed in place and returns."""
        self.dirty = inputs

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros (the default) or None for outputs without a gradient."""
        self.materialize = value

    @property
    def saved_tensors(self) -> tuple:
        """The tensors that were given to `save_for_backward`, in their places on the tape."""
        if self.node is None:
            return self.to_save
        return self.node.plan.unpack(self.node)


class FunctionPlan:
    """What the engine asks of a node's plan, for one call of a user's function."""

    simple = holomorphic = False

    def __init__(self, function: type[Function], ctx: FunctionCtx, places: list) -> None:
        self.title = f"{function.__name__}Backward"
        self.function = function
        self.ctx = ctx
        self.places = places  # of each saved tensor: its edge if it is an input, its index if it is an output, or None
        self.multiple = ctx.materialize

    def lift(self, node: Node, saved: tuple) -> tuple:
        return saved

    def unpack(self, node: Node) -> tuple:
        tensors: list[Variable | None] = []
        for array, place in zip(node.values(), self.places, strict=True):
            tensor = None if array is None else box(array)
            if isinstance(place, Variable):
                tensor = place
            elif tensor is not None and isinstance(place, Node):
                tensor.node = place
            elif tensor is not None and isinstance(place, int):
                tensor.node = new_node(Pick(self.title, place), (node,), (), array.shape, ())
            tensors.append(tensor)
        return tuple(tensors)

    def gradients(self, F: Any, g: Iterable, saved: tuple, create_graph: bool) -> list:
        given = [x if x is None or isinstance(x, Variable) else box(x) for x in g]
        results = self.function.backward(self.ctx, *given)
        results = results if isinstance(results, tuple | list) else (results,)
        expected = len(self.ctx.needs_input_grad)
        if any(r is not None for r in results[expected:]) or len(results) < expected:
            raise RuntimeError(
                f"function {self.title} returned an incorrect number of gradients (expected {expected}, "
                f"got {len(results)})"
            )
        for i, r in enumerate(results):
            if not (r is None or isinstance(r, Variable)):
                raise TypeError(f"{self.title}: expected a tensor or None as gradient {i}, got {type(r).__name__}")
        if create_graph:
            return list(results[:expected])
        # copies: a user's backward may well return what it was given, or what it saved
        return [None if r is None else r.array.copy() for r in results[:expected]]


class Function:
    """A differentiable operation with its own forward and backward.

    Subclass it with static methods `forward(ctx, *args)` and `backward(ctx, *grad_outputs)`, or with
    `forward(*args)`, `setup_context(ctx, inputs, output)` and `backward`; call it with `.apply(*args)`.

    Example:
        >>> import paceline as torch
        >>> class Square(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x * x
        ...     @staticmethod
        ...     def backward(ctx, g):
        ...         (x,) = ctx.saved_tensors
        ...         return 2 * x * g
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> Square.apply(x).backward()
        >>> x.grad
        tensor(6.)
    """

    setup_context: Any = None

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a Function needs a static method forward")

    @staticmethod
    def backward(ctx: FunctionCtx, *grad_outputs: Any) -> Any:
        raise NotImplementedError("a Function needs a static method backward to be differentiated")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward on the arguments and put its outputs on the tape."""
        if any(map(level_of, args)):
            return per_example(cls.apply, args)
        needs = tuple(wants_grad(x) for x in args)
        ctx = FunctionCtx(needs)
        with no_grad():
            if cls.setup_context is None:
                output = cls.forward(ctx, *args)
            else:
                output = cls.forward(*args)
                cls.setup_context(ctx, args, output)
        outputs = output if isinstance(output, tuple) else (output,)
        dirty = {id(x) for x in ctx.dirty}
        for x in ctx.dirty:
            changed(x, cls.__name__)
        # an input that comes back unchanged becomes a tensor of its own, since it gets another place on the tape
        aliases = {id(x) for x in args if isinstance(x, Variable)} - dirty
        outputs = tuple(_alias(x) if id(x) in aliases else x for x in outputs)
        if any(needs):
            cls._record(ctx, args, outputs)
        return outputs if isinstance(output, tuple) else outputs[0]

    @classmethod
    def _record(cls, ctx: FunctionCtx, args: tuple, outputs: tuple) -> None:
        edges = tuple(_edge(x) if need else None for x, need in zip(args, ctx.needs_input_grad, strict=True))
        positions = {id(x): i for i, x in enumerate(outputs) if isinstance(x, Variable)}
        sources = {id(x): edge for x, edge in zip(args, edges, strict=True)}
        places = [positions.get(id(t), sources.get(id(t))) for t in ctx.to_save]
        saved = tuple(None if t is None else t.array for t in ctx.to_save)
        counters = tuple(counter_of(t) for t in ctx.to_save if t is not None)
        results = [x for x in outputs if isinstance(x, Variable)]
        node = new_node(FunctionPlan(cls, ctx, places), edges, saved, (), counters)
        constants = {id(x) for x in ctx.not_differentiable}
        attach_outputs(node, results, [id(x) not in constants for x in results])
        ctx.node, ctx.to_save = node, ()


def once_differentiable(fn: Callable) -> Callable:
    """Decorate the backward of a Function that itself cannot be differentiated: doing so raises.

    Example:
        >>> import paceline as torch
        >>> class Double(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         return 2 * x
        ...     @staticmethod
        ...     @torch.autograd.function.once_differentiable
        ...     def backward(ctx, g):
        ...         return 2 * g
    """

    @functools.wraps(fn)
    def backward(ctx: FunctionCtx, *gradients: Any) -> Any:
        with no_grad():
            results = fn(ctx, *gradients)
        if is_grad_enabled() and any(map(wants_grad, (*gradients, *ctx.saved_tensors))):
            for r in results if isinstance(results, tuple | list) else (results,):
                if isinstance(r, Variable):
                    r.node = new_node(_NotTwice(), (None,), (), r.array.shape, ())
        return results

    return backward


class _NotTwice:
    """The plan of a node that no gradient may come to."""

    multiple = simple = holomorphic = False
    title = "OnceDifferentiableBackward"

    def lift(self, node: Node, saved: tuple) -> tuple:
        return saved

    def gradients(self, F: Any, g: Any, saved: tuple, create_graph: bool) -> list:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")


def _edge(x: Variable) -> Any:
    node = fresh_node(x)
    return x if node is LEAF else node


def _alias(x: Variable) -> Variable:
    alias = box(x.array)
    alias.counter = counter_of(x)
    return alias

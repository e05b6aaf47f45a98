"""`compile`: a function or module whose calls are replayed."""

from __future__ import annotations

import copy
import functools
import logging
import random
import types
from collections.abc import Callable
from typing import Any

import numpy

from ..autograd.mode import is_grad_enabled, node_observers, recording_now
from ..autograd.recording import Unrecordable, one_at_a_time, recording
from ..autograd.region import MISSED
from ..autograd.replay import replay
from ..autograd.variable import Variable
from ..runtime import tree
from . import structure
from .module import Module
from .names import Names, modules_of
from .parameter import Parameter

_log = logging.getLogger("paceline.compile")
_LIMIT = 8  # recordings of one function; PyTorch's limit of recompilations


class Compiled:
    """A function whose recorded calls are replayed.

    Attributes:
        reasons: why calls were run as they are written.
    """

    def __init__(self, function: Callable, fullgraph: bool) -> None:
        self.function = function
        self.fullgraph = fullgraph
        self.reasons: list[str] = []
        self._names = Names(function)
        self._strict = False  # whether it uses parameters of modules that were not found
        self._modules: list[Module] = []
        self._parts: list[tuple[Module, Compiled]] = []  # replays of the modules, for calls that have none
        self._records: list[tuple] = []  # (state, names of named arguments, replay)
        self._refused: list[tuple] = []  # (state, signature)
        self._version = -1  # of all modules when the present state was found, with what belongs to it:
        self._current: list[tuple] = []  # (names of named arguments, replay)
        self._eager: set[tuple] = set()  # signatures
        if not isinstance(function, Module):
            functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves = (*args, *kwargs.values()) if kwargs else args
        if self._version == structure.version[0] and self._names.unchanged():
            result = self._replayed(leaves, kwargs)
            if result is not MISSED:
                return result
            if self._eager and _signature(leaves, kwargs) in self._eager:
                return self._written(args, kwargs)
        if recording_now.get() is not None:  # a part of what somebody else records
            return self.function(*args, **kwargs)
        with one_at_a_time:
            result = self._found(args, kwargs, leaves)
        return self._written(args, kwargs) if result is MISSED else result

    def _written(self, args: tuple, kwargs: dict) -> Any:
        """The call as it is written, but for the modules that a function calls: their calls are replayed."""
        parts = [(m, part) for m, part in self._parts if "forward" not in m.__dict__]
        for module, part in parts:
            module.__dict__["forward"] = part  # nobody is to record anything anew for that
        try:
            return self.function(*args, **kwargs)
        finally:
            for module, _ in parts:
                module.__dict__.pop("forward", None)

    def __deepcopy__(self, memo: dict) -> Compiled:
        return Compiled(copy.deepcopy(self.function, memo), self.fullgraph)

    def __reduce__(self) -> tuple:
        return Compiled, (self.function, self.fullgraph)

    def _replayed(self, leaves: tuple, kwargs: dict) -> Any:
        for names, run in self._current:
            if names == tuple(kwargs):
                result = run(leaves)
                if result is not MISSED:
                    return result
        return MISSED

    def _found(self, args: tuple, kwargs: dict, leaves: tuple) -> Any:
        """The result of a replay that was recorded in another state of the modules, or is recorded now, or MISSED."""
        version = structure.version[0]
        state = self._state()
        self._current = [(names, run) for known, names, run in self._records if known == state]
        self._eager = {signature for known, signature in self._refused if known == state}
        self._version = version
        result = self._replayed(leaves, kwargs)  # another thread may have recorded it meanwhile
        signature = _signature(leaves, kwargs)
        if result is not MISSED or node_observers or signature in self._eager:
            return result
        try:
            self._check(leaves)
            run, result, again = self._recorded(args, kwargs, leaves)
        except Unrecordable as error:
            self._refuse(state, signature, str(error))
            return MISSED
        if again:
            state = self._state() if self._strict else state
            self._records.append((state, tuple(kwargs), run))
            self._current.append((tuple(kwargs), run))
        else:  # this call is done; it has kept something in the user's list, say, and is not to be made a second time
            self._refuse(state, signature, "it keeps a tensor, or a number, that it does not return")
        return result

    def _check(self, leaves: tuple) -> None:
        if len(self._records) >= _LIMIT:
            raise Unrecordable(f"it was recorded {_LIMIT} times already: arguments or modules change at each call")
        if not all(isinstance(x, Variable | int | float | str | bool | None) for x in leaves):
            raise Unrecordable("an argument is neither a tensor nor a number, a text or None")
        if any(isinstance(x, Variable) and type(x.array) is not numpy.ndarray for x in leaves):
            raise Unrecordable("an argument is not on the CPU, or batched by vmap")
        if any(module._hooked for module in self._tree()):
            raise Unrecordable("a module has hooks")

    def _recorded(self, args: tuple, kwargs: dict, leaves: tuple) -> tuple:
        """A replay, its result of these arguments, and whether it is right for other calls."""
        before = random.getstate(), numpy.random.get_state()
        with recording() as record:
            twins = [record.stand_in(x) if isinstance(x, Variable) else x for x in leaves]
            try:
                output = self.function(*twins[: len(args)], **dict(zip(kwargs, twins[len(args) :], strict=True)))
            except Unrecordable:
                raise
            except Exception as error:  # perhaps the function's own, which comes again when it is run as it is
                raise Unrecordable(record.reason or f"{type(error).__name__}: {error}") from None
            finally:
                record.close()
                drawn = _draws(before)
        if drawn:
            raise Unrecordable("it draws random numbers")
        if record.reason is not None:  # the function caught the exception that told so
            raise Unrecordable(record.reason)
        run = replay(record, leaves, output)
        known = {x for module in self._modules for x in module.parameters()}
        self._strict |= not all(x in known for _, x in record.externals.values() if isinstance(x, Parameter))
        kept = record.settle(tree.flatten(output)[0])
        record.steps.clear()
        del output, twins  # with all that was computed to record it: the replay needs the memory
        result = run(leaves)
        if result is MISSED:
            raise Unrecordable("its replay does not take the call that was recorded")
        return run, result, not kept

    def _refuse(self, state: tuple, signature: tuple, reason: str) -> None:
        if self.fullgraph:
            raise RuntimeError(f"compile(fullgraph=True): the call cannot be replayed: {reason}")
        self._refused.append((state, signature))
        self._eager.add(signature)
        if reason not in self.reasons:
            self.reasons.append(reason)
            _log.info("%s is run as it is written: %s", getattr(self, "__name__", type(self.function).__name__), reason)

    def _tree(self) -> list[Module]:
        seen: set[Module] = set()
        return [module for root in self._modules for _, module in root.named_modules(seen)]

    def _state(self) -> tuple:
        """What the function's names stand for, and all attributes of all its modules; where those are not all known,
        the version of all there are."""
        names = tuple(map(_identity, self._names.refresh()))
        self._find_modules()
        if self._strict or not self._modules:
            return names, structure.version[0]
        return names, tuple((_Same(m), type(m), tuple((n, _identity(v)) for n, v in m.__dict__.items()))
                            for m in self._tree())  # fmt: skip

    def _find_modules(self) -> None:
        modules = modules_of(self.function)
        if modules != self._modules:
            self._modules = modules
            own = self.function, getattr(self.function, "__self__", None)
            self._parts = [(m, Compiled(types.MethodType(type(m).forward, m), fullgraph=False))
                           for m in modules if m not in own]  # fmt: skip


def _draws(before: tuple) -> bool:
    """Whether Python's or NumPy's own random numbers were drawn since; if so, they are to be drawn again."""
    state, (kind, keys, *position) = before
    _, now_keys, *now = numpy.random.get_state()
    if random.getstate() == state and now == position and (keys == now_keys).all():
        return False
    random.setstate(state)
    numpy.random.set_state((kind, keys, *position))
    return True


class CompiledModule(Module):
    """A module whose recorded calls are replayed; anything but a call is the module's own affair."""

    def __init__(self, module: Module, fullgraph: bool) -> None:
        super().__init__()
        self._orig_mod = module
        self._compiled = Compiled(module, fullgraph)
        self.__dict__["training"] = module.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in ("_orig_mod", "_compiled"):  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self._orig_mod, name)

    @property
    def reasons(self) -> list[str]:
        """Why calls were run as they are written."""
        return self._compiled.reasons


def _identity(value: Any) -> Any:
    if isinstance(value, int | float | str | bool | None):
        return type(value), repr(value)  # which tells -0.0 from 0.0
    if type(value) is dict:
        return tuple((k, _identity(v)) for k, v in value.items())
    if type(value) is tuple or type(value) is list:
        return tuple(map(_identity, value))
    return _Same(value)


class _Same:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _signature(leaves: tuple, kwargs: dict) -> tuple:
    """What replays of calls that were refused would differ by."""
    return is_grad_enabled(), tuple(kwargs), tuple(map(_kind, leaves))


def _kind(x: Any) -> Any:
    if isinstance(x, Variable):
        return x.array.shape, x.array.dtype, type(x.array), x.node is None
    return type(x), x if x.__hash__ else None


def compile(
    model: Callable | None = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
) -> Any:
    """A function or module that does the same with less Python: its calls are recorded once and then replayed.

    The first call with arguments of certain shapes and dtypes is recorded: which primitives were called on what. Later
    ones call the same primitives and, in backward, their rules, in the same order, so that results and gradients are
    the same to the last bit; elementwise operations on large arrays in one pass over memory. A whole training step can
    be one call: backward, the optimizer's step and what else changes something outside are made after the operations.
    Calls that cannot be replayed are run as they are written; `reasons` of the result, and the logger
    "paceline.compile", say why: values of tensors are read otherwise than to return them, results are kept elsewhere,
    an argument is changed in place, gradients are read, attributes of modules are changed, hooks, autograd.Function,
    complex tensors, CUDA. The modules that a function refers to are replayed even then.

    A call is recorded anew when the shape, dtype or requires_grad of a tensor changed, a plain argument, the grad mode,
    the default dtype or device, an attribute of a module (training, a replaced parameter, ...), or what a name in the
    function stands for. What is NOT noticed: values within objects that the function reads (items of lists, clocks;
    also what a helper decides by `.array` of tensors from outside), what else it does (printing, counting), and methods
    replaced in a class.

    Args:
        model: a function of tensors, numbers, texts and None, or a module; None makes a decorator.
        fullgraph: raise RuntimeError instead of running a call as it is written.
        dynamic, backend, mode, options: accepted for PyTorch's sake.
        disable: return `model` itself.

    Example:
        >>> import paceline as torch
        >>> double = torch.compile(lambda x: 2 * x)
        >>> double(torch.ones(2)), double.reasons
        (tensor([2., 2.]), [])
    """
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph, disable=disable)
    if disable:
        return model
    return CompiledModule(model, fullgraph) if isinstance(model, Module) else Compiled(model, fullgraph)

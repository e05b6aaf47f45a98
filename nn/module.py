"""Module: the base class of everything that has parameters."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Self

import numpy

from ..autograd.mode import later, no_grad
from ..runtime import device as devices
from ..runtime import dtypes, timeline
from ..tensor import Tensor
from ..tensor.creation import zeros_like
from .hooks import Hooks
from .parameter import Buffer, Parameter
from .registry import Kind, Registered
from .state import EXTRA_STATE, IncompatibleKeys, load
from .structure import changing

_NOTHING = object()  # stands for an argument that is not given
_NO_TENSORS = (numpy.ndarray, list, tuple, int, float, str)  # what is taken for one


class Module(Hooks):
    """Base class of neural network modules.

    Parameters, buffers and modules that are assigned as attributes become part of the module: `parameters()`,
    `state_dict()`, `to()` and the rest find them.

    Example:
        >>> import paceline as torch
        >>> class Scale(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.factor = torch.nn.Parameter(torch.tensor([2.0]))
        ...     def forward(self, x):
        ...         return x * self.factor
        >>> module = Scale()
        >>> module(torch.tensor([3.0, 4.0]))
        tensor([6., 8.], grad_fn=<MulBackward0>)
        >>> dict(module.state_dict())
        {'factor': tensor([2.])}
    """

    training: bool

    if TYPE_CHECKING:  # attributes are registered by name, which no type checker can follow

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self) -> None:
        # Values are ordinary attributes, so that reading `self.weight` costs no more than any attribute. The registries
        # hold names only, in order of registration; for buffers also whether they are persistent.
        self.__dict__.update(
            training=True,
            _hooked=False,  # the class has it, too, but reading it from there takes longer
            _parameter_names={},
            _buffer_names={},
            _module_names={},
        )

    @timeline.traced("forward", lambda self, *args, **kwargs: type(self).__name__)
    def __call__(self, first: Any = _NOTHING, second: Any = _NOTHING, /, *args: Any, **kwargs: Any) -> Any:
        try:
            if not (args or kwargs or self._hooked):  # unpacking them takes half as long as adding two small tensors
                if second is not _NOTHING:
                    return self.forward(first, second)
                if first is not _NOTHING:
                    return self.forward(first)
            args = tuple(x for x in (first, second, *args) if x is not _NOTHING)
            return self._call_with_hooks(args, kwargs) if self._hooked else self.forward(*args, **kwargs)
        except AttributeError as error:
            given = any(x is error.obj for x in (first, second, *args, *kwargs.values()))
            of_tensors = error.name == "array" or hasattr(Tensor, error.name or "")
            if not (given and of_tensors and isinstance(error.obj, _NO_TENSORS)):
                raise
            name, kind = type(self).__name__, type(error.obj).__name__
            raise TypeError(f"{name}: expected a tensor, got {kind}; make one of it: torch.as_tensor(...)") from error

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; every subclass defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    # -- attributes --------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        changing()
        attributes = self.__dict__
        own = _kind_of(value)
        kind = next((each for each in _KINDS if each is own or name in attributes.get(each.names, ())), None)
        if kind is None:
            object.__setattr__(self, name, value)
            return
        kind.check_value(name, value)
        names = kind.names_in(attributes)
        for other in _KINDS:
            if other is not kind:
                attributes[other.names].pop(name, None)
        names[name] = value.persistent if isinstance(value, Buffer) else names.get(name, True)
        attributes[name] = value

    def __delattr__(self, name: str) -> None:
        changing()
        object.__delattr__(self, name)
        for kind in _KINDS:
            self.__dict__[kind.names].pop(name, None)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of `copy.copy()` and unpickling: what is registered on the copy must not appear on the original."""
        self.__dict__.update(state)
        for kind in _KINDS:
            self.__dict__[kind.names] = dict(state[kind.names])

    @property
    def _parameters(self) -> MutableMapping[str, Parameter | None]:
        return Registered(self.__dict__["_parameter_names"], self.__dict__)

    @property
    def _buffers(self) -> MutableMapping[str, Tensor | None]:
        return Registered(self.__dict__["_buffer_names"], self.__dict__)

    @property
    def _modules(self) -> MutableMapping[str, Module | None]:
        return Registered(self.__dict__["_module_names"], self.__dict__)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under an attribute name; None reserves the name."""
        self._register(_PARAMETER, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is part of the state but not trained.

        Args:
            name: the attribute; without a dot, not in use.
            tensor: the values; None reserves the name.
            persistent: whether it is part of `state_dict()`.

        Example:
            >>> import paceline as torch
            >>> module = torch.nn.Module()
            >>> module.register_buffer("running_mean", torch.zeros(2))
            >>> module.running_mean
            tensor([0., 0.])
        """
        self._register(_BUFFER, name, tensor, persistent)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a child module under an attribute name; None reserves the name."""
        self._register(_MODULE, name, module)

    add_module = register_module

    def _register(self, kind: Kind, name: str, value: Any, persistent: bool = True) -> None:
        changing()
        names = kind.names_in(self.__dict__)
        kind.check_name(name)
        if name not in names and hasattr(self, name):
            raise KeyError(f"attribute '{name}' already exists")
        kind.check_value(name, value)
        names[name] = persistent
        self.__dict__[name] = value

    # -- walking the tree --------------------------------------------------------------------------------------------

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their dotted names; each module once unless remove_duplicate is False."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(memo, _dotted(prefix, name), remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one with their names, each once."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The modules directly below this one, each once."""
        for _, child in self.named_children():
            yield child

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names.

        Args:
            prefix: put before every name.
            recurse: also those of the modules below.
            remove_duplicate: name a shared parameter once.

        Example:
            >>> import paceline as torch
            >>> [name for name, _ in torch.nn.Sequential(torch.nn.Linear(2, 1)).named_parameters()]
            ['0.weight', '0.bias']
        """
        return self._named_members(_PARAMETER, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters of this module and, if recurse, of those below; each once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their dotted names; the arguments are those of `named_parameters`."""
        return self._named_members(_BUFFER, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers of this module and, if recurse, of those below; each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def _named_members(
        self, kind: Kind, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for module_prefix, module in modules:
            for name in module.__dict__[kind.names]:
                value = module.__dict__[name]
                if value is None or value in seen:
                    continue
                if remove_duplicate:
                    seen.add(value)
                yield _dotted(module_prefix, name), value

    def get_submodule(self, target: str) -> Module:
        """The module with a dotted name; the empty name is this module.

        Raises:
            AttributeError: there is none.
        """
        module: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with a dotted name; AttributeError if there is none."""
        return self._get_member(_PARAMETER, target, "an nn.Parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with a dotted name; AttributeError if there is none."""
        return self._get_member(_BUFFER, target, "a buffer")

    def _get_member(self, kind: Kind, target: str, what: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        if name not in kind.names_in(module.__dict__):
            raise AttributeError(f"`{name}` is not {what}")
        return getattr(module, name)

    # -- state -------------------------------------------------------------------------------------------------------

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by name, sharing memory with the module.

        Args:
            destination: the dict to fill; default: a new OrderedDict.
            prefix: put before every name.
            keep_vars: the parameters themselves instead of detached tensors.

        Example:
            >>> import paceline as torch
            >>> list(torch.nn.Linear(2, 1).state_dict(prefix="fc."))
            ['fc.weight', 'fc.bias']
        """
        if destination is None:
            destination = OrderedDict()
        for pre_hook in self._state_dict_pre_hooks.values():
            pre_hook(self, prefix, keep_vars)
        values = self.__dict__
        persistent = (name for name, keep in values["_buffer_names"].items() if keep)
        for name in itertools.chain(values["_parameter_names"], persistent):
            tensor = values[name]
            if tensor is not None:
                destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if self._has_extra_state():
            destination[prefix + EXTRA_STATE] = self.get_extra_state()
        for name, child in self._modules.items():
            if child is not None:
                child.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        for hook in self._state_dict_hooks.values():
            hook(self, destination, prefix, {})
        return destination

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy parameters and buffers from `state_dict` into this module's memory.

        Args:
            state_dict: tensors by name, as `state_dict()` returns them.
            strict: refuse missing and unexpected names.
            assign: take the given tensors themselves instead of copying into those at hand.

        Returns:
            (missing_keys, unexpected_keys).

        Raises:
            RuntimeError: all missing, unexpected and mis-shaped names at once; nothing was loaded then.

        Example:
            >>> import paceline as torch
            >>> source, target = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
            >>> target.load_state_dict(source.state_dict())
            <All keys matched successfully>
        """
        return load(self, state_dict, strict, assign)

    def _has_extra_state(self) -> bool:
        return type(self).get_extra_state is not Module.get_extra_state

    def get_extra_state(self) -> Any:
        """What besides tensors belongs in the state_dict; define it together with `set_extra_state`."""
        raise RuntimeError(f"{self._get_name()} defines set_extra_state() but not get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        """Take what `get_extra_state` returned."""
        raise RuntimeError(f"{self._get_name()} defines get_extra_state() but not set_extra_state()")

    # -- changing all parameters and modules -------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Switch this module and all below it to training mode (or to evaluation, if mode is False)."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Switch this module and all below it to evaluation mode."""
        return self.train(False)

    def apply(self, fn: Callable[[Module], None]) -> Self:
        """Call `fn(module)` on every module below this one, then on this one.

        Example:
            >>> import paceline as torch
            >>> net = torch.nn.Sequential(torch.nn.ReLU()).apply(lambda module: print(module._get_name()))
            ReLU
            Sequential
        """
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Replace the memory of all parameters, their gradients and buffers by `fn(tensor)`; identities stay."""
        with no_grad():
            for tensor in itertools.chain(self.parameters(), self.buffers()):
                data = fn(tensor.data)
                if data.array is tensor.array:
                    continue
                gradient = tensor.grad
                tensor.data = data
                if gradient is not None:
                    tensor.grad = fn(gradient)
        return self

    def to(self, *args: Any, device: Any = None, dtype: dtypes.dtype | None = None, non_blocking: bool = False) -> Self:
        """Move parameters and buffers to a device, and convert the floating ones to a dtype.

        Args: a device, a floating or complex dtype, or both in any order; or a tensor to take both from.

        Example:
            >>> import paceline as torch
            >>> torch.nn.Linear(2, 1).to(torch.float64).weight.dtype
            paceline.float64
        """
        for argument in args:
            if isinstance(argument, Tensor):
                device, dtype = argument.device, argument.dtype
            elif isinstance(argument, dtypes.dtype):
                dtype = argument
            elif isinstance(argument, str | int | devices.device) and not isinstance(argument, bool):
                device = argument
            elif not isinstance(argument, bool) and argument is not None:
                raise TypeError(f"to() expects a device, a dtype or a tensor, got {type(argument).__name__}")
        dtype = None if dtype is None else dtypes.of(dtype)
        if dtype is not None and dtype.category < 2:
            raise TypeError(
                f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={dtype!r}"
            )
        return self._apply(lambda t: t.to(device=device, dtype=dtype if t.dtype.category >= 2 else None))

    def cpu(self) -> Self:
        """Move parameters and buffers to the CPU."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Self:
        """Move parameters and buffers to a CUDA device (the current one if none is given)."""
        return self.to("cuda" if device is None else device)

    def type(self, dst_type: dtypes.dtype) -> Self:
        """Convert all parameters and buffers to a dtype."""
        return self._apply(lambda t: t.to(dst_type))

    def float(self) -> Self:
        """Convert floating parameters and buffers to float32."""
        return self.to(dtypes.float32)

    def double(self) -> Self:
        """Convert floating parameters and buffers to float64."""
        return self.to(dtypes.float64)

    def half(self) -> Self:
        """Convert floating parameters and buffers to float16."""
        return self.to(dtypes.float16)

    def bfloat16(self) -> Self:
        """Convert floating parameters and buffers to bfloat16."""
        return self.to(dtypes.bfloat16)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Accepted for PyTorch's sake: modules run as they are written."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    @later
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to 0 if set_to_none is False."""
        for parameter in self.parameters():
            gradient = parameter.gradient
            if set_to_none:
                parameter.grad = None
            elif gradient is not None:
                if gradient.grad_fn is not None:  # made under create_graph: others may still use its values
                    parameter.grad = zeros_like(gradient)
                else:
                    gradient.zero_()

    # -- printing ----------------------------------------------------------------------------------------------------

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's text; layers define it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = self._child_lines()
        if not children and len(lines) <= 1:
            return f"{self._get_name()}({extra})"
        return self._get_name() + "(\n  " + "\n  ".join(lines + children) + "\n)"

    def _child_lines(self) -> list[str]:
        return [f"({name}): {indented(child)}" for name, child in self._modules.items()]


_PARAMETER = Kind("_parameter_names", "parameter", "parameters", Parameter, "nn.Parameter")
_BUFFER = Kind("_buffer_names", "buffer", "buffer", Tensor, "nn.Buffer, Tensor")
_MODULE = Kind("_module_names", "module", "module", Module, "nn.Module")
_KINDS = (_PARAMETER, _MODULE, _BUFFER)  # a name keeps its kind unless the value is of one further left


def _kind_of(value: Any) -> Kind | None:
    """What assigning a value registers it as, whatever its name; plain tensors are registered by name only."""
    if isinstance(value, Module):
        return _MODULE
    if isinstance(value, Parameter):
        return _PARAMETER
    return _BUFFER if isinstance(value, Buffer) else None


def indented(module: Module | None) -> str:
    """A module's text as part of its parent's."""
    return repr(module).replace("\n", "\n  ")


def _dotted(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name

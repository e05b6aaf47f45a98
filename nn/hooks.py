"""Hooks of modules: functions called around forward, in backward, and around saving and loading the state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..autograd.function import Function
from ..autograd.mode import is_grad_enabled
from ..autograd.variable import HookHandle
from ..tensor import Tensor
from .structure import changing

_NONE: Mapping[int, Any] = MappingProxyType({})


class Hooks:
    """The part of Module that is about hooks. A registry is made when the first hook of its kind is registered."""

    _hooked = False  # whether calls must look for hooks
    _forward_pre_hooks = _forward_hooks = _backward_pre_hooks = _backward_hooks = _NONE
    _state_dict_pre_hooks = _state_dict_hooks = _load_state_dict_pre_hooks = _load_state_dict_post_hooks = _NONE
    forward: Callable[..., Any]

    def _add_hook(self, registry: str, hook: Any, prepend: bool = False) -> HookHandle:
        if registry not in self.__dict__:
            self.__dict__[registry] = OrderedDict()
        hooks = self.__dict__[registry]
        handle = HookHandle(hooks, hook)
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        return handle

    def _add_call_hook(self, registry: str, hook: Any, prepend: bool) -> HookHandle:
        changing()
        self.__dict__["_hooked"] = True
        return self._add_hook(registry, hook, prepend)

    # -- forward -----------------------------------------------------------------------------------------------------

    def register_forward_pre_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call `hook(module, args)` before every forward; what it returns replaces the arguments.

        Args:
            hook: returns None, the new argument, or a tuple of them.
            prepend: before the hooks that are there already.
            with_kwargs: call `hook(module, args, kwargs)`, which returns None or (args, kwargs).
        """
        return self._add_call_hook("_forward_pre_hooks", _WithKwargs(hook) if with_kwargs else hook, prepend)

    def register_forward_hook(
        self, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> HookHandle:
        """Call `hook(module, args, output)` after every forward; what it returns replaces the output.

        Args:
            hook: returns None or the new output.
            prepend: before the hooks that are there already.
            with_kwargs: call `hook(module, args, kwargs, output)`.
            always_call: also when forward raises, with None as the output.

        Example:
            >>> import paceline as torch
            >>> relu = torch.nn.ReLU()
            >>> with relu.register_forward_hook(lambda module, args, output: output + 1):
            ...     relu(torch.tensor([-1.0, 2.0]))
            tensor([1., 3.])
        """
        special = with_kwargs or always_call
        kept = _ForwardHook(hook, with_kwargs, always_call) if special else hook
        return self._add_call_hook("_forward_hooks", kept, prepend)

    def _call_with_hooks(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        for hook in tuple(self._forward_pre_hooks.values()):
            args, kwargs = self._changed_arguments(hook, args, kwargs)
        boundary = None
        if (self._backward_hooks or self._backward_pre_hooks) and is_grad_enabled():
            boundary = _Boundary(self)
            args = boundary.enter(args)
        try:
            output = self.forward(*args, **kwargs)
        except Exception:
            for hook in tuple(self._forward_hooks.values()):
                if isinstance(hook, _ForwardHook) and hook.always:
                    hook.call(self, args, kwargs, None)
            raise
        for hook in tuple(self._forward_hooks.values()):
            if isinstance(hook, _ForwardHook):
                changed = hook.call(self, args, kwargs, output)
            else:
                changed = hook(self, args, output)
            output = output if changed is None else changed
        return output if boundary is None else boundary.leave(output)

    def _changed_arguments(self, hook: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        if not isinstance(hook, _WithKwargs):
            changed = hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
            return args, kwargs
        changed = hook.hook(self, args, kwargs)
        if changed is None:
            return args, kwargs
        if not (isinstance(changed, tuple) and len(changed) == 2):
            raise RuntimeError(
                f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}."
            )
        return changed

    # -- backward ----------------------------------------------------------------------------------------------------

    def register_full_backward_hook(
        self, hook: Callable[[Any, tuple, tuple], Any], prepend: bool = False
    ) -> HookHandle:
        """Call `hook(module, grad_input, grad_output)` once the gradients by the module's inputs are known.

        Args:
            hook: grad_input has one entry per positional argument, None for what needs no gradient; grad_output one per
                output. It returns None, or what replaces grad_input.
            prepend: before the hooks that are there already.

        Example:
            >>> import paceline as torch
            >>> relu = torch.nn.ReLU()
            >>> handle = relu.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 10,))
            >>> x = torch.ones(2, requires_grad=True)
            >>> relu(x).sum().backward(); x.grad
            tensor([10., 10.])
        """
        return self._add_call_hook("_backward_hooks", hook, prepend)

    register_backward_hook = register_full_backward_hook

    def register_full_backward_pre_hook(
        self, hook: Callable[[Any, tuple], Any], prepend: bool = False
    ) -> HookHandle:
        """Call `hook(module, grad_output)` before backward goes through the module; what it returns replaces that."""
        return self._add_call_hook("_backward_pre_hooks", hook, prepend)

    # -- state -------------------------------------------------------------------------------------------------------

    def register_state_dict_pre_hook(self, hook: Callable[[Any, str, bool], None]) -> HookHandle:
        """Call `hook(module, prefix, keep_vars)` before the module's entries go into a state_dict."""
        return self._add_hook("_state_dict_pre_hooks", hook)

    def register_state_dict_post_hook(self, hook: Callable[[Any, dict, str, dict], None]) -> HookHandle:
        """Call `hook(module, state_dict, prefix, metadata)` after the entries of the module and those below are there.

        It may change the state_dict. The metadata is empty.
        """
        return self._add_hook("_state_dict_hooks", hook)

    _register_state_dict_hook = register_state_dict_post_hook

    def register_load_state_dict_pre_hook(self, hook: Callable) -> HookHandle:
        """Call `hook(module, state_dict, prefix, metadata, strict, missing_keys, unexpected_keys, error_msgs)` before
        the module's entries are read. It may change the (copied) state_dict and add to the lists."""
        return self._add_hook("_load_state_dict_pre_hooks", _WithModule(hook))

    def _register_load_state_dict_pre_hook(self, hook: Callable, with_module: bool = False) -> HookHandle:
        """The same; without `with_module` the hook is not given the module."""
        return self._add_hook("_load_state_dict_pre_hooks", _WithModule(hook) if with_module else hook)

    def register_load_state_dict_post_hook(self, hook: Callable[[Any, Any], None]) -> HookHandle:
        """Call `hook(module, incompatible_keys)` after loading; keys it takes out of the two lists raise no error."""
        return self._add_hook("_load_state_dict_post_hooks", hook)


class _WithKwargs:
    """A forward pre-hook that is called with the named arguments as well."""

    def __init__(self, hook: Callable) -> None:
        self.hook = hook


class _ForwardHook:
    """A forward hook with options."""

    def __init__(self, hook: Callable, with_kwargs: bool, always: bool) -> None:
        self.hook = hook
        self.with_kwargs = with_kwargs
        self.always = always

    def call(self, module: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        return self.hook(module, args, *((kwargs,) if self.with_kwargs else ()), output)


class _WithModule:
    """A pre-hook of loading that is given the module."""

    def __init__(self, hook: Callable) -> None:
        self.hook = hook


def call_load_pre_hooks(module: Any, state_dict: dict, prefix: str, strict: bool, lists: tuple) -> None:
    """Run the pre-hooks of loading of one module; `lists` are missing keys, unexpected keys and error messages."""
    for hook in tuple(module._load_state_dict_pre_hooks.values()):
        if isinstance(hook, _WithModule):
            hook.hook(module, state_dict, prefix, {}, strict, *lists)
        else:
            hook(state_dict, prefix, {}, strict, *lists)


# -- the boundary of a module with backward hooks ----------------------------------------------------------------------


class _Gate(Function):
    """The identity on some tensors; their gradients, all together, pass through `callback(gradients)`."""

    @staticmethod
    def forward(ctx: Any, callback: Callable[[tuple], tuple], *tensors: Any) -> tuple:
        ctx.callback = callback
        ctx.set_materialize_grads(False)
        return tensors

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple:
        return None, *ctx.callback(gradients)


class _Boundary:
    """One call of a module with backward hooks: its inputs and its outputs go through a gate each."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._count = 0  # of arguments
        self._places: list[int] = []  # of those that want a gradient
        self._grad_output: tuple = ()

    def enter(self, args: tuple) -> tuple:
        self._count = len(args)
        self._places = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
        return self._through_gate(args, self._places, self._at_inputs)

    def leave(self, output: Any) -> Any:
        outputs = output if isinstance(output, tuple) else (output,)
        places = [i for i, y in enumerate(outputs) if isinstance(y, Tensor) and y.requires_grad]
        self._outputs = (len(outputs), places)
        passed = self._through_gate(outputs, places, self._at_outputs)
        return passed if isinstance(output, tuple) else passed[0]

    @staticmethod
    def _through_gate(values: tuple, places: list[int], callback: Callable) -> tuple:
        if not places:
            return values
        passed = list(values)
        for i, tensor in zip(places, _Gate.apply(callback, *(values[i] for i in places)), strict=True):
            passed[i] = tensor
        return tuple(passed)

    def _at_outputs(self, gradients: tuple) -> tuple:
        count, places = self._outputs
        grad_output = _spread(gradients, places, count)
        for hook in tuple(self._module._backward_pre_hooks.values()):
            grad_output = _replaced(hook(self._module, grad_output), grad_output, "full_backward_pre_hook")
        self._grad_output = grad_output
        if not self._places:  # no gradient goes on to the inputs, so the hooks' turn is now
            self._call_hooks((None,) * self._count)
        return tuple(grad_output[i] for i in places)

    def _at_inputs(self, gradients: tuple) -> tuple:
        grad_input = self._call_hooks(_spread(gradients, self._places, self._count))
        return tuple(grad_input[i] for i in self._places)

    def _call_hooks(self, grad_input: tuple) -> tuple:
        for hook in tuple(self._module._backward_hooks.values()):
            changed = hook(self._module, grad_input, self._grad_output)
            grad_input = _replaced(changed, grad_input, "full_backward_hook")
        return grad_input


def _spread(gradients: tuple, places: list[int], count: int) -> tuple:
    spread: list = [None] * count
    for i, g in zip(places, gradients, strict=True):
        spread[i] = g
    return tuple(spread)


def _replaced(changed: Any, given: tuple, name: str) -> tuple:
    if changed is None:
        return given
    changed = changed if isinstance(changed, tuple) else (changed,)
    if len(changed) != len(given):
        raise RuntimeError(f"{name}: expected {len(given)} gradients in place of {len(given)}, got {len(changed)}")
    return changed

"""The interface of all optimizers: parameter groups, state, hooks, state_dict. Steps are in flat.py."""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy

from ..autograd.mode import enable_grad, recorders, recording_now
from ..autograd.variable import HookHandle, Variable, any_leaf, box, changed
from ..runtime import device as devices
from ..runtime import dtypes, timeline
from ..runtime.arrays import module_of
from ..tensor import Tensor
from ..tensor.arena import flat_gradients
from ..tensor.creation import as_array


def loss_of(closure: Callable[[], Any] | None) -> Any:
    """What a closure given to step() returns, called with gradients on; None without one."""
    if closure is None:
        return None
    with enable_grad():
        return closure()


class Optimizer:
    """Base class of optimizers, with PyTorch's interface; a subclass defines `step`.

    Args:
        params: an iterable of leaf tensors, of (name, tensor) as from `named_parameters()`, or of dicts with "params"
            and the options of that group.
        defaults: the options of groups that do not set their own.

    Attributes:
        param_groups: list of dicts; options may be changed between steps: `group["lr"] = 0.1`.
        state: for each parameter a dict of what the optimizer remembers of it.

    Raises:
        ValueError: no parameters, a parameter that was computed (not a leaf), or one in two groups.
        TypeError: something that is not a tensor or a dict.

    Example:
        >>> import paceline as torch
        >>> class SignDescent(Optimizer):
        ...     @torch.no_grad()
        ...     def step(self):
        ...         for group in self.param_groups:
        ...             for p in group["params"]:
        ...                 p -= group["lr"] * p.grad.sign()
        >>> w = torch.tensor([1.0, -2.0], requires_grad=True)
        >>> (w * w).sum().backward()
        >>> SignDescent([w], {"lr": 0.5}).step()
        >>> w
        tensor([ 0.5000, -1.5000], requires_grad=True)
    """

    stepped = False  # whether step() was called: a scheduler warns if it comes first
    announced = False  # whether those who combine the parameters' gradients over ranks know this optimizer
    numbers: tuple[str, ...] = ()  # names of the state, besides "step", that is one number for a whole parameter

    def __init__(self, params: Iterable, defaults: dict[str, Any]) -> None:
        if isinstance(params, Variable):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got a Tensor; "
                "put it into a list: [param]"
            )
        self.defaults = defaults
        self.state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._forget_hooks()
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            cls.step = _with_hooks(cls.step)  # type: ignore[method-assign]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, e.g. layers that were frozen so far.

        Args:
            param_group: a dict with "params" (a tensor or an iterable of them) and options; other options are the
                defaults.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        params = param_group["params"]
        if isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
                "will change between runs. Please use a list instead."
            )
        params = [params] if isinstance(params, Variable) else list(params)
        if any(isinstance(p, tuple) for p in params):
            params = self._named(param_group, params)
        for group in self.param_groups:
            if ("param_names" in group) != ("param_names" in param_group):
                raise ValueError("all optimizer param groups should be with/without names: give names to all or none")
        for p in params:
            self._check_parameter(p)
        if len(params) != len(set(params)):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; each is updated once", stacklevel=3
            )
            params = list(dict.fromkeys(params))
        if not set(params).isdisjoint(chain(*(group["params"] for group in self.param_groups))):
            raise ValueError("some parameters appear in more than one parameter group")
        param_group["params"] = params
        for name, default in self.defaults.items():
            param_group.setdefault(name, default)
        self.param_groups.append(param_group)

    def _named(self, param_group: dict[str, Any], params: list) -> list:
        """The parameters of (name, parameter) pairs, whose names the group keeps."""
        if not all(isinstance(p, tuple) for p in params):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        param_group["param_names"] = [name for name, _ in params]
        return [p for _, p in params]

    def _check_parameter(self, p: Any) -> None:
        if not isinstance(p, Tensor):
            raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(p).__name__}")
        if not p.is_leaf:
            raise ValueError("can't optimize a non-leaf Tensor")
        if p.is_complex():
            raise TypeError(f"optimizer cannot optimize complex Tensors, but one of the params is {p.dtype!r}")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: computes the loss and its gradients anew, and returns the loss; step() returns it, too.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define step()")

    def _announce(self) -> None:
        """Let those who combine the parameters' gradients over ranks compare the ranks' optimizers."""
        leaves = chain(*(group["params"] for group in self.param_groups))
        groups = dict.fromkeys(p.group for p in leaves if p.group is not None)
        self.announced = all(group.before_update(self) for group in groups)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or make them zero with set_to_none=False."""
        recording = recording_now.get() if recorders else None
        if recording is not None:
            recording.later(type(self).zero_grad, self, set_to_none)
        elif set_to_none:
            for group in self.param_groups:
                for p in group["params"]:
                    p.gradient = None
        else:
            self._make_zero()

    def _make_zero(self) -> None:
        gradients = [p.gradient for group in self.param_groups for p in group["params"] if p.gradient is not None]
        for array in flat_gradients(gradients):
            array.fill(0)
        for gradient in gradients:
            gradient.node = None  # a gradient made under create_graph leaves its graph
            changed(gradient, "zero_grad")

    # -- hooks -------------------------------------------------------------------------------------------------------

    def _forget_hooks(self) -> None:
        self._before_step: dict[int, Callable] = {}
        self._after_step: dict[int, Callable] = {}
        self._before_saving: dict[int, Callable] = {}
        self._after_saving: dict[int, Callable] = {}
        self._before_loading: dict[int, Callable] = {}
        self._after_loading: dict[int, Callable] = {}

    def unscale(self, factor: float) -> bool | None:
        """For GradScaler: multiply the gradients of the coming step; whether one is not finite, None without any.

        Raises:
            ValueError: a gradient is of float16.
        """
        return multiply([p.grad for group in self.param_groups for p in group["params"] if p.grad is not None], factor)

    def register_step_pre_hook(self, hook: Callable) -> HookHandle:
        """Call `hook(optimizer, args, kwargs)` before every step, with the arguments of step()."""
        return HookHandle(self._before_step, hook)

    def register_step_post_hook(self, hook: Callable) -> HookHandle:
        """Call `hook(optimizer, args, kwargs)` after every step, with the arguments of step()."""
        return HookHandle(self._after_step, hook)

    def register_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """Call `hook(optimizer)` before every state_dict(), before the hooks there are with prepend=True."""
        return _registered(self._before_saving, hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """Call `hook(optimizer, state_dict)` on every state_dict(); what it returns, if not None, takes its place."""
        return _registered(self._after_saving, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """Call `hook(optimizer, state_dict)` before loading; what it returns, if not None, is loaded instead."""
        return _registered(self._before_loading, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> HookHandle:
        """Call `hook(optimizer)` after every load_state_dict()."""
        return _registered(self._after_loading, hook, prepend)

    # -- saving and loading ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state and the options in PyTorch's format: parameters are numbered through all groups.

        Returns:
            {"state": {number: {name: tensor}}, "param_groups": [{option: value, "params": [numbers]}]}; the tensors
            share memory with the optimizer's, unless data-parallel ranks keep one state for all: then they are copies.
        """
        for hook in self._before_saving.values():
            hook(self)
        params = [p for group in self.param_groups for p in group["params"]]
        numbers = {p: i for i, p in enumerate(params)}
        saved = self.state_to_save()
        state_dict: dict[str, Any] = {
            "state": {numbers.get(p, p): state for p, state in saved.items() if p not in numbers or state},
            "param_groups": [
                {**{k: v for k, v in group.items() if k != "params"}, "params": [numbers[p] for p in group["params"]]}
                for group in self.param_groups
            ],
        }
        return _through(self._after_saving, self, state_dict)

    def state_to_save(self) -> defaultdict[Any, dict[str, Any]]:
        """`state` for who reads it now and keeps nothing: where data-parallel ranks share one, a copy of it."""
        return self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state and the options that `state_dict()` returned, here or in PyTorch.

        Args:
            state_dict: as `state_dict()` returns it; arrays and PyTorch's tensors are copied to the dtype and device
                of their parameters.

        Raises:
            ValueError: other numbers of groups or parameters than this optimizer has.
            RuntimeError: state of another shape than its parameter.
        """
        state_dict = _through(self._before_loading, self, state_dict.copy())
        saved = state_dict["param_groups"]
        have, want = [len(g["params"]) for g in saved], [len(g["params"]) for g in self.param_groups]
        if len(have) != len(want):
            raise ValueError(
                f"loaded state dict has a different number of parameter groups: {len(have)} instead of {len(want)}"
            )
        if have != want:
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                f"the groups have {have} parameters instead of {want}"
            )
        numbers = chain(*(group["params"] for group in saved))
        params = dict(zip(numbers, chain(*(group["params"] for group in self.param_groups)), strict=True))
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for key, entry in state_dict["state"].items():
            p = params.get(key)
            state[key if p is None else p] = entry if p is None else self._fitted(key, p, entry)
        self.state = state
        for group, loaded in zip(self.param_groups, saved, strict=True):
            group.update({k: v for k, v in loaded.items() if k != "params"})
        for hook in self._after_loading.values():
            hook(self)

    def _fitted(self, number: Any, p: Tensor, entry: dict[str, Any]) -> dict[str, Any]:
        """Copies of a parameter's loaded state."""
        host = (dtypes.float32, devices.device("cpu"))
        there = (p.dtype, devices.device_of(p.array))
        return {k: _fitted_value(v, *(host if k in ("step", *self.numbers) else there)) for k, v in entry.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state_to_save(), "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._forget_hooks()

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines += ["", f"Parameter Group {i}"] if i else ["Parameter Group 0"]
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def _with_hooks(step: Callable) -> Callable:
    """step() between its hooks."""

    @timeline.traced("optimizer", lambda self, *args, **kwargs: type(self).__name__)
    @functools.wraps(step)
    def wrapped(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        recording = recording_now.get() if recorders else None
        if recording is not None:
            if args or kwargs:
                recording.refuse("it gives arguments to an optimizer's step")
            recording.later(wrapped, self, changes=chain(*(group["params"] for group in self.param_groups)))
            return None
        self.stepped = True
        if any_leaf.grouped and not self.announced:
            self._announce()
        if not (args or kwargs or self._before_step or self._after_step):
            return step(self)  # the usual call, spared what unpacking arguments takes
        if self._before_step:
            for hook in tuple(self._before_step.values()):
                hook(self, args, kwargs)
        result = step(self, *args, **kwargs)
        if self._after_step:
            for hook in tuple(self._after_step.values()):
                hook(self, args, kwargs)
        return result

    return wrapped


def multiply(gradients: list[Any], factor: float) -> bool | None:
    """Multiply gradients in place; whether one of them was not finite, None if there are none."""
    if any(gradient.array.dtype == numpy.float16 for gradient in gradients):
        raise ValueError("Attempting to unscale FP16 gradients.")
    overflowed = False
    for array in flat_gradients(gradients):
        overflowed |= not bool(module_of(array).isfinite(array).all())
        array *= array.dtype.type(factor)
    for gradient in gradients:
        changed(gradient, "unscale_")
    return overflowed if gradients else None


def _registered(hooks: dict[int, Callable], hook: Callable, first: bool) -> HookHandle:
    handle = HookHandle(hooks, hook)
    if first:
        hooks.update({number: hooks.pop(number) for number in list(hooks) if number != handle.id})
    return handle


def _through(hooks: dict[int, Callable], optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict after hooks that may change or replace it."""
    for hook in hooks.values():
        replacement = hook(optimizer, state_dict)
        state_dict = state_dict if replacement is None else replacement
    return state_dict


def _fitted_value(value: Any, dtype: dtypes.dtype, device: devices.device) -> Any:
    """A copy of one entry of a parameter's loaded state: of a tensor, or of tensors in a list."""
    if isinstance(value, list | tuple):
        return type(value)(_fitted_value(v, dtype, device) for v in value)
    if not hasattr(value, "shape"):
        return value
    value = value if isinstance(value, Variable) else numpy.asarray(value)
    return box(devices.move(as_array(value, dtype), device))


def check_options(**options: Any) -> None:
    """Refuse options out of their range, and those of PyTorch's that mean something that is not supported.

    Options named `foreach` and `fused` choose between implementations of one result; there is one here.
    """
    for name in ("differentiable", "capturable"):
        if options.pop(name, False):
            raise NotImplementedError(f"{name}=True is not supported: steps are not recorded; leave it at False")
    for name, text in _RANGES.items():
        if isinstance(options.get(name), Variable) and options[name].array.size != 1:
            raise ValueError(f"Tensor {name} must be 1-element, but has shape {list(options[name].array.shape)}")
        if name in options and not options[name] >= 0.0:
            raise ValueError(f"Invalid {text}: {options[name]}")
    for i, beta in enumerate(options.get("betas", ())):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")


_RANGES = {
    "lr": "learning rate",
    "momentum": "momentum value",
    "weight_decay": "weight_decay value",
    "eps": "epsilon value",
    "alpha": "alpha value",
    "lr_decay": "lr_decay value",
    "momentum_decay": "momentum_decay value",
    "initial_accumulator_value": "initial_accumulator_value value",
}

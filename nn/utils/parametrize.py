"""Parametrizations: tensors of a module that are computed from the parameters that are trained."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from ...autograd.mode import no_grad
from ...tensor import Tensor
from ..container import ModuleDict, ModuleList
from ..module import Module
from ..parameter import Parameter

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]

_cache: ContextVar[dict[tuple[int, str], Any] | None] = ContextVar("parametrizations", default=None)


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Compute every parametrized tensor at most once within the block.

    Example:
        >>> import paceline as torch
        >>> net = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 1))
        >>> with torch.nn.utils.parametrize.cached():
        ...     net.weight is net.weight
        True
    """
    if _cache.get() is not None:  # the outermost block's
        yield
        return
    token = _cache.set({})
    try:
        yield
    finally:
        _cache.reset(token)


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, applied one after the other, and what they start from.

    Args:
        modules: the parametrizations; the first one's `right_inverse` may return several tensors.
        original: the tensor that they are to stand for.
        unsafe: whether they may change its dtype and shape.

    Attributes:
        original: what is trained, or original0, original1, ... if `right_inverse` returned a sequence.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        shape, dtype = original.shape, original.dtype
        with no_grad():
            new = _inverted(self, original)
        self.is_tensor = isinstance(new, Tensor)
        if self.is_tensor:
            if (new.dtype, new.device) != (dtype, original.device):
                raise ValueError(
                    "When `right_inverse` outputs one tensor, it may not change the dtype or the device: it turned "
                    f"{dtype} on {original.device} into {new.dtype} on {new.device}"
                )
            _write(original, new)
            register(self, "original", original)
        elif isinstance(new, Sequence):
            self._register_all(original, new)
        else:
            raise ValueError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got "
                f"{type(new).__name__}"
            )
        self.ntensors = 1 if self.is_tensor else len(new)
        if not unsafe:
            _check_kept("Registering a parametrization", self(), shape, dtype)

    def _register_all(self, original: Tensor, values: Sequence[Any]) -> None:
        for i, value in enumerate(values):
            if not isinstance(value, Tensor):
                raise ValueError(
                    "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got element "
                    f"{i} of the sequence with type {type(value).__name__}."
                )
            if isinstance(original, Parameter):
                value = Parameter(value.detach(), original.requires_grad)
            register(self, f"original{i}", value)

    @property
    def originals(self) -> list[Tensor]:
        """What the first parametrization is applied to."""
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def forward(self) -> Tensor:
        first, *rest = self
        value = first(*self.originals)
        for module in rest:
            value = module(value)
        return value

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the parametrized tensor becomes `value`.

        Raises:
            RuntimeError: a parametrization has no `right_inverse`.
            ValueError: it returned tensors of another number or dtype than those at hand.
        """
        with no_grad():
            for module in reversed(self):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(f"parametrization {type(module).__name__} does not implement right_inverse.")
                value = module.right_inverse(value)
        values = [value] if self.is_tensor else value
        if not isinstance(values, Sequence) or len(values) != self.ntensors:
            got = f"a sequence of length {len(values)}" if isinstance(values, Sequence) else type(values).__name__
            raise ValueError(f"'right_inverse' must return a sequence of tensors of length {self.ntensors}. Got {got}.")
        for i, (target, new) in enumerate(zip(self.originals, values, strict=True)):
            if not isinstance(new, Tensor) or new.dtype != target.dtype:
                got = f"has dtype {new.dtype}" if isinstance(new, Tensor) else f"is a {type(new).__name__}"
                raise ValueError(f"Tensor {i} returned by `right_inverse` {got} while its original has {target.dtype}")
            _write(target, new)


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Let `parametrization(original)` stand for a tensor of a module, whose original is what is trained.

    The original is found under `module.parametrizations.<tensor_name>.original` (or original0, original1, ...).
    Assigning to the tensor sets the original through `parametrization.right_inverse(value)`, if it has one; the same
    gives the first original. Several parametrizations of one tensor are applied in the order of registration.

    Args:
        module: changed in place, and returned.
        tensor_name: a parameter, a buffer, or a tensor parametrized already.
        parametrization: from the original to the tensor.
        unsafe: whether it may change the dtype and the shape; nothing is checked then.

    Raises:
        ValueError: the module has no such tensor, or the parametrization changes its dtype or shape.

    Example:
        >>> import paceline as torch
        >>> class Symmetric(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x.triu() + x.triu(1).mT
        >>> net = torch.nn.utils.parametrize.register_parametrization(torch.nn.Linear(3, 3), "weight", Symmetric())
        >>> torch.equal(net.weight, net.weight.mT)
        True
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        parametrizations = module.parametrizations[tensor_name]
        if not unsafe:
            _check_next(parametrization, getattr(module, tensor_name))
        parametrizations.append(parametrization)
        parametrizations.unsafe |= unsafe
    elif tensor_name in module._buffers or tensor_name in module._parameters:
        parametrizations = ParametrizationList([parametrization], getattr(module, tensor_name), unsafe=unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            module.parametrizations = ModuleDict()
        _set_computed(module, type_before_parametrizations(module), (*module.parametrizations, tensor_name))
        module.parametrizations[tensor_name] = parametrizations
    else:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
            f"'{tensor_name}'"
        )
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a tensor of a module, or any of them, is parametrized."""
    parametrizations = module.__dict__.get("parametrizations")
    if not isinstance(parametrizations, ModuleDict):
        return False
    return len(parametrizations) > 0 if tensor_name is None else tensor_name in parametrizations


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Turn a parametrized tensor into an ordinary one.

    Args:
        module: changed in place, and returned.
        tensor_name: the tensor.
        leave_parametrized: with its value as it is now; else with that of the original.

    Raises:
        ValueError: it is not parametrized, or its original is not one tensor and was asked for.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    parametrizations = module.parametrizations[tensor_name]
    if not parametrizations.is_tensor and not leave_parametrized:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in terms of a "
            "sequence of tensors."
        )
    value: Any = getattr(module, tensor_name) if leave_parametrized else None
    if parametrizations.is_tensor:
        value = parametrizations.original if value is None else _write(parametrizations.original, value)
    else:
        value = Parameter(value.detach()) if value.requires_grad else value
    base = type_before_parametrizations(module)
    del module.parametrizations[tensor_name]
    _set_computed(module, base, tuple(module.parametrizations))
    if not len(module.parametrizations):
        del module.parametrizations
    register(module, tensor_name, value)
    return module


def type_before_parametrizations(module: Module) -> type:
    """The module's class, without the parametrized tensors."""
    kind = type(module)
    return kind.__bases__[0] if "_computed" in vars(kind) else kind


def transfer_parametrizations_and_params(
    from_module: Module, to_module: Module, tensor_name: str | None = None
) -> Module:
    """Share the parametrizations and originals of one module, or of one of its tensors, with another module.

    Args:
        from_module: nothing happens if it is not parametrized.
        to_module: changed in place, and returned; tensors that it lacks are made.
        tensor_name: default: all parametrized tensors.
    """
    if not is_parametrized(from_module):
        return to_module
    for name in from_module.parametrizations if tensor_name is None else [tensor_name]:
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name).detach()))
        source = from_module.parametrizations[name]
        for parametrization in source:
            register_parametrization(to_module, name, parametrization)
        for key in (*source._parameters, *source._buffers):
            setattr(to_module.parametrizations[name], key, getattr(source, key))
    return to_module


def register(module: Module, name: str, tensor: Tensor) -> None:
    """Add a tensor to a module: a parameter if it is one, a buffer else."""
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


# -- the attribute that is computed ------------------------------------------------------------------------------------


def _set_computed(module: Module, base: type, names: tuple[str, ...]) -> None:
    """Make these attributes of the module computed ones."""
    module.__class__ = _with_computed(base, names) if names else base


@functools.cache  # classes are never changed: a copy of a module shares the class, and keeps it if the module changes
def _with_computed(base: type, names: tuple[str, ...]) -> type:
    """A subclass whose attributes `names` are what `self.parametrizations[name]` computes."""

    def set_attribute(self: Module, name: str, value: Any) -> None:
        if name in names:
            self.parametrizations[name].right_inverse(value)
        else:
            base.__setattr__(self, name, value)  # type: ignore[call-arg, arg-type]

    computed = {name: property(functools.partial(_value, name=name)) for name in names}
    body = {**computed, "__setattr__": set_attribute, "__module__": base.__module__, "_computed": names}
    return type(f"Parametrized{base.__name__}", (base,), body)


def _value(module: Module, name: str) -> Any:
    """The parametrized tensor, from the cache within a `cached` block."""
    cache = _cache.get()
    if cache is None:
        return module.parametrizations[name]()
    key = id(module), name
    if key not in cache:
        cache[key] = module.parametrizations[name]()
    return cache[key]


# -- values ------------------------------------------------------------------------------------------------------------


def _inverted(parametrizations: Any, value: Any) -> Any:
    """The original for a value, where parametrizations without an inverse are taken for the identity."""
    for module in reversed(parametrizations):
        if hasattr(module, "right_inverse"):
            with contextlib.suppress(NotImplementedError):
                value = module.right_inverse(value)
    return value


def _write(target: Tensor, value: Tensor) -> Tensor:
    """Give a tensor another value, in the memory at hand if it fits: an optimizer's arena may own it."""
    with no_grad():
        if (target.shape, target.dtype) == (value.shape, value.dtype):
            target.copy_(value)
        else:
            target.data = value.detach()
    return target


def _check_next(parametrization: Any, before: Tensor) -> None:
    """Refuse a further parametrization that changes dtype or shape, or whose inverse does."""
    after = parametrization(before)
    _check_kept("Registering a parametrization", after, before.shape, before.dtype)
    if hasattr(parametrization, "right_inverse"):
        with contextlib.suppress(NotImplementedError):
            _check_kept(
                "parametrization.right_inverse", parametrization.right_inverse(after), before.shape, before.dtype
            )


def _check_kept(what: str, value: Any, shape: Any, dtype: Any) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} must return a tensor. Got {type(value).__name__}.")
    if (value.dtype, value.shape) != (dtype, shape):
        raise ValueError(
            f"{what} may not change the dtype and shape of the tensor, unless the `unsafe` flag is enabled: "
            f"{dtype} {list(shape)} became {value.dtype} {list(value.shape)}"
        )

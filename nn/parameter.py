"""Tensors that a module owns: parameters, which are trained, and buffers, which are not."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import counter_of
from ..tensor import Tensor
from ..tensor.creation import empty


class Parameter(Tensor):
    """A tensor that a Module trains: assigned as an attribute, it appears in `module.parameters()`.

    Args:
        data: the values, any shape, floating unless requires_grad is False; the memory is shared, not copied.
        requires_grad: whether backward computes its gradient.

    Raises:
        TypeError: data is not a tensor.
        RuntimeError: a gradient was asked for, of a dtype that has none.

    Example:
        >>> import paceline as torch
        >>> torch.nn.Parameter(torch.zeros(2))
        Parameter containing:
        tensor([0., 0.], requires_grad=True)
    """

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        _share(self, data)
        self.requires_grad = requires_grad

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict) -> Parameter:
        """A copy of the values; the gradient is not copied, as in PyTorch."""
        result = memo[id(self)] = type(self)(self.data.clone(), self.requires_grad)
        return result


class Buffer(Tensor):
    """A tensor that belongs to a Module's state but is not trained, such as a running mean.

    Args:
        data: the values; the memory is shared, not copied.
        persistent: whether it is part of the module's `state_dict()`.

    Example:
        >>> import paceline as torch
        >>> module = torch.nn.Module()
        >>> module.count = torch.nn.Buffer(torch.zeros(1))
        >>> list(module.state_dict())
        ['count']
    """

    persistent = True

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        _share(self, data)
        self.persistent = persistent


class _Uninitialized:
    """Mixed into Parameter or Buffer: a tensor of a dtype and on a device whose shape is not known yet."""

    array: Any
    cls_to_become: type

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Take a shape, with undefined values, and become an ordinary parameter or buffer."""
        current = self.data  # type: ignore[attr-defined]
        self.array = empty(*shape, device=device or current.device, dtype=dtype or current.dtype).array
        self.__class__ = self.cls_to_become  # type: ignore[assignment]

    @property
    def shape(self) -> Any:
        raise RuntimeError(
            "Can't access the shape of an uninitialized parameter or buffer. Call the module once, so that it sees the "
            "size of its input, before using its parameters or loading them into another module"
        )

    def numel(self) -> int:
        raise ValueError(
            f"Attempted to use an uninitialized {type(self).__name__}: call the module with a dummy batch first"
        )

    def detach(self) -> Any:
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter whose shape its module learns from its first input; see `LazyLinear`."""

    cls_to_become = Parameter

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        Parameter.__init__(self, empty(0, device=device, dtype=dtype), requires_grad)

    def __deepcopy__(self, memo: dict) -> UninitializedParameter:
        result = memo[id(self)] = type(self)(self.requires_grad, self.device, self.dtype)
        return result


class UninitializedBuffer(_Uninitialized, Buffer):
    """A buffer whose shape its module learns from its first input; see `LazyBatchNorm1d`."""

    cls_to_become = Buffer

    def __init__(
        self, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> None:
        Buffer.__init__(self, empty(0, device=device, dtype=dtype), persistent=persistent)

    def __deepcopy__(self, memo: dict) -> UninitializedBuffer:
        result = memo[id(self)] = type(self)(False, self.device, self.dtype, self.persistent)
        return result


def is_lazy(tensor: Any) -> bool:
    """Whether a parameter or buffer has no shape yet."""
    return isinstance(tensor, _Uninitialized)


def _share(tensor: Tensor, data: Any) -> None:
    """Make `tensor` another name for the memory of `data`."""
    if data is None:
        data = empty(0)
    if not isinstance(data, Tensor):
        raise TypeError(f"{type(tensor).__name__}(): data should be a Tensor, got {type(data).__name__}")
    tensor.array = data.array
    tensor.view_of = None  # reading the default from the class takes longer
    tensor.counter = counter_of(data)  # so that backward notices changes made through either name

"""What a tensor is: its memory, its place on the tape, and its way to Python, NumPy and other libraries."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, SupportsIndex

import numpy
from numpy import ndarray

from ..autograd import api
from ..autograd.engine import backward_of_loss
from ..autograd.mode import recorders, recording_now, refuse_if_recording
from ..autograd.plan import FLOATING
from ..autograd.variable import LEAF, HookHandle, Node, Variable, any_leaf, box, counter_of, fresh_node
from ..runtime import device as devices
from ..runtime import dtypes
from ..runtime.arrays import address_of, memory_of, to_host
from . import printing
from .layout import channels_last, channels_last_3d, strided
from .ops.shaping import one_dim


class Size(tuple):
    """The shape of a tensor."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements of a tensor of this size."""
        count = 1
        for n in self:
            count *= n
        return count

    def __getitem__(self, key: Any) -> Any:
        part = tuple.__getitem__(self, key)
        return Size(part) if isinstance(key, slice) else part

    def __add__(self, other: Any) -> Size:  # type: ignore[override]
        return Size(tuple(self) + tuple(other))

    def __radd__(self, other: Any) -> Size:
        return Size(tuple(other) + tuple(self))

    def __mul__(self, count: Any) -> Size:
        return Size(tuple(self) * count)

    def __repr__(self) -> str:
        return f"paceline.Size({list(self)})"


class TensorBase(Variable):
    """A tensor without operations."""

    # -- what a tensor is --------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """The lengths of all dimensions."""
        return Size(self.array.shape)

    @property
    def dtype(self) -> dtypes.dtype:
        """The type of the elements."""
        return dtypes.of(self.array.dtype)

    @property
    def device(self) -> devices.device:
        """Where the memory is."""
        return devices.device_of(self.array)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.array.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.array.nbytes

    @property
    def is_cuda(self) -> bool:
        """Whether the memory is on a CUDA device."""
        return self.device.type == "cuda"

    @property
    def is_cpu(self) -> bool:
        """Whether the memory is the host's."""
        return self.device.type == "cpu"

    @property
    def is_sparse(self) -> bool:
        """Whether only nonzero elements are kept: never."""
        return False

    @property
    def layout(self) -> Any:
        """How the elements are kept: always `strided`."""
        return strided

    def pin_memory(self, device: Any = None) -> Any:
        """The tensor itself: copies to a GPU are made from any memory."""
        return self

    def is_pinned(self, device: Any = None) -> bool:
        """Whether the host's memory is locked for copies to a GPU: never."""
        return False

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one dimension."""
        return self.shape if dim is None else self.array.shape[one_dim(dim, self.array.ndim)]

    def dim(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    ndimension = dim

    def numel(self) -> int:
        """The number of elements."""
        return int(self.array.size)

    nelement = numel

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.array.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Elements to skip in memory from one index to the next, for all dimensions or one."""
        steps = tuple(s // self.array.itemsize for s in self.array.strides)
        return steps if dim is None else steps[dim]

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Whether the elements lie without gaps in row-major order, or with the channels last."""
        array = self.array
        if memory_format in (channels_last, channels_last_3d):
            if array.ndim != (4 if memory_format is channels_last else 5):
                return False
            array = array.transpose((0, *range(2, array.ndim), 1))
        return bool(array.flags.c_contiguous)

    def storage_offset(self) -> int:
        """Elements in the memory under this tensor before its first one."""
        return (address_of(self.array) - address_of(memory_of(self.array))) // self.array.itemsize

    def is_floating_point(self) -> bool:
        """Whether the elements are real floating numbers."""
        return self.dtype.is_floating_point

    def is_complex(self) -> bool:
        """Whether the elements are complex."""
        return self.dtype.is_complex

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self.array.ctypes.data if isinstance(self.array, ndarray) else self.array.data.ptr

    def get_device(self) -> int:
        """The number of the CUDA device, -1 on the CPU."""
        index = self.device.index
        return -1 if index is None else index

    # -- the tape ----------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded."""
        return fresh_node(self) is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.array.dtype not in FLOATING:
            raise RuntimeError(
                f"only Tensors of floating point and complex dtype can require gradients, this one is {self.dtype!r}"
            )
        if isinstance(self.node, Node):
            if not value:
                raise RuntimeError(
                    "you can only change requires_grad flags of leaf variables. If you want to use a computed variable "
                    "in a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
                )
            return
        self.node = LEAF if value else None
        self.view_of = None

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Set `requires_grad`; returns the tensor."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad(self) -> Any:
        """The gradient that backward has accumulated, None before."""
        refuse_if_recording("it takes the gradient of a tensor")
        gradient = self.gradient
        if gradient is not None:
            gradient.array  # noqa: B018  # where gradients are computed when they are read, they are now
        return gradient

    @grad.setter
    def grad(self, value: Any) -> None:
        recording = recording_now.get()
        if recording is not None:
            if value is not None:
                recording.refuse("it sets the gradient of a tensor")
            recording.later(_forget_gradient, self)
            return
        if value is not None:
            if not isinstance(value, TensorBase):
                kind = type(value).__name__
                raise TypeError(f"assigned grad expected to be a Tensor or None but got grad of type {kind}")
            if value.array.shape != self.array.shape:
                raise RuntimeError(
                    f"assigned grad has data of a different size: {list(value.array.shape)} instead of "
                    f"{list(self.array.shape)}"
                )
            if value.array.dtype != self.array.dtype:
                raise RuntimeError(
                    f"assigned grad has data of a different type: {value.dtype!r} instead of {self.dtype!r}"
                )
        self.gradient = value

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    @property
    def grad_fn(self) -> Node | None:
        """The node of the operation that computed this tensor; None for leaves."""
        node = fresh_node(self)
        return node if isinstance(node, Node) else None

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was made by the user rather than computed from tensors that require gradients."""
        return not isinstance(fresh_node(self), Node)

    @property
    def data(self) -> Any:
        """The same memory off the tape; assigning replaces the memory."""
        if self.array.__class__ is ndarray:
            refuse_if_recording("it takes .data of a tensor made outside")
        return box(self.array)

    @data.setter
    def data(self, value: Any) -> None:
        if not isinstance(value, TensorBase):
            raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        refuse_if_recording("it replaces the memory of a tensor")
        old, new = self.array, value.array
        if (new.shape, new.dtype, value.device) != (old.shape, old.dtype, self.device):
            self.grad_slot = None  # gradients will not fit there any more
        self.array = value.array
        self.counter = self.view_of = None

    @property
    def _version(self) -> int:
        """How often this memory was changed in place."""
        return counter_of(self)[0]

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Add the gradients of this tensor to `.grad` of the leaves it was computed from; see `autograd.backward`."""
        if create_graph or gradient is not None or inputs is not None or not backward_of_loss(self, bool(retain_graph)):
            api.backward(self, gradient, retain_graph, create_graph, inputs)

    def detach(self) -> Any:
        """The same memory off the tape."""
        if self.array.__class__ is ndarray:
            refuse_if_recording("it detaches a tensor made outside")
        result = box(self.array)
        result.counter = counter_of(self)
        return result

    def detach_(self) -> Any:
        """Take this tensor off the tape."""
        if self.view_of is not None:
            raise RuntimeError("Can't detach views in-place. Use detach() instead")
        self.node = None
        return self

    def retain_grad(self) -> None:
        """Keep the gradient of this computed tensor in `.grad` as well."""
        node = self.grad_fn
        if node is None:
            if not self.requires_grad:
                raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
            return
        owner = weakref.ref(self)

        def keep(g: Any) -> None:
            tensor = owner()
            if tensor is not None:
                g = g if g.node is not None else box(g.array.copy())
                tensor.gradient = g if tensor.gradient is None else tensor.gradient + g

        node.register_hook(keep)

    def register_hook(self, hook: Callable[[Any], Any]) -> HookHandle:
        """Call `hook(gradient)` when the gradient of this tensor is computed; what it returns replaces it.

        Example:
            >>> import paceline as torch
            >>> x = torch.tensor(1.0, requires_grad=True)
            >>> handle = x.register_hook(lambda g: g * 2)
            >>> (3 * x).backward(); x.grad
            tensor(6.)
        """
        node = fresh_node(self)
        if node is None:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if isinstance(node, Node):
            return node.register_hook(hook)
        any_leaf.hooked = True
        if self.hooks is None:
            self.hooks = {}
        return HookHandle(self.hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Any], None]) -> HookHandle:
        """Call `hook(tensor)` once the gradient of this leaf has been added to `.grad`."""
        if self.node is not LEAF:
            raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        any_leaf.hooked = True
        if self.grad_ready_hooks is None:
            self.grad_ready_hooks = {}
        return HookHandle(self.grad_ready_hooks, hook)

    # -- to Python, NumPy and other libraries ------------------------------------------------------------------------

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        recording = recording_now.get() if recorders else None
        if recording is not None:
            return recording.number(self)
        if self.array.size != 1:
            raise RuntimeError(f"a Tensor with {self.array.size} elements cannot be converted to Scalar")
        return self.array.item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        refuse_if_recording("it reads the values of a tensor")
        return self.array.tolist()

    def numpy(self, *, force: bool = False) -> ndarray:
        """A NumPy array over the same memory; force=True detaches and copies to the host where needed."""
        refuse_if_recording("it reads the values of a tensor")
        if self.requires_grad and not force:
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
            )
        if self.is_cuda and not force:
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
                "memory first."
            )
        return to_host(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> ndarray:
        array = self.numpy()
        return numpy.array(array, dtype, copy=copy) if dtype is not None or copy else array

    def __dlpack__(self, **kwargs: Any) -> Any:
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple:
        return self.array.__dlpack_device__()

    def __bool__(self) -> bool:
        refuse_if_recording("it reads the values of a tensor")
        if self.array.size != 1:
            raise RuntimeError(
                "Boolean value of Tensor with "
                f"{'no values' if self.array.size == 0 else 'more than one value'} is ambiguous"
            )
        return bool(self.array.item())

    def __float__(self) -> float:
        return float(self._only_element())

    def __int__(self) -> int:
        return int(self._only_element())

    def __complex__(self) -> complex:
        return complex(self._only_element())

    def _only_element(self) -> Any:
        refuse_if_recording("it reads the values of a tensor")
        if self.array.size != 1:
            raise ValueError(f"only one element tensors can be converted to Python scalars, this has {self.array.size}")
        return self.array.item()

    def __index__(self) -> int:
        refuse_if_recording("it reads the values of a tensor")
        if self.array.size != 1 or self.array.dtype.kind not in "iub":
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.array.item())

    def __len__(self) -> int:
        if self.array.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.array.shape[0]

    def __repr__(self) -> str:
        refuse_if_recording("it reads the values of a tensor")
        return printing.tensor_text(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.array.ndim == 0 else object.__format__(self, spec)

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict) -> Any:
        if isinstance(self.node, Node):
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment"
            )
        result = object.__new__(type(self))
        memo[id(self)] = result
        result.array = self.array.copy()
        result.node = self.node
        if self.gradient is not None:
            result.gradient = self.gradient.__deepcopy__(memo)  # type: ignore[attr-defined]
        return result

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple:
        if isinstance(self.node, Node):
            raise RuntimeError("a computed tensor that requires a gradient cannot be pickled; detach() it first")
        return _rebuild, (type(self), to_host(self.array), str(self.device), self.node is LEAF)


def _rebuild(kind: type, array: ndarray, device: str, leaf: bool) -> Any:
    result: Any = object.__new__(kind)
    result.array = devices.move(array, devices.resolve(device))
    if leaf:
        result.node = LEAF
    return result


def _forget_gradient(tensor: TensorBase) -> None:
    tensor.gradient = None

"""Normalization layers."""

from __future__ import annotations

import warnings
from typing import Any

from ..autograd.mode import later
from ..autograd.variable import changed
from ..runtime import dtypes
from ..runtime.comm import world_comm
from ..tensor import creation
from ..tensor.ops import shaping
from . import functional as F
from . import init
from .functional.normalization import sync_batch_norm
from .linear import empty_parameter
from .module import Module
from .parameter import Parameter

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "CrossMapLRN2d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
    "SyncBatchNorm",
]


class _Norm(Module):
    """Normalization of channels, with running statistics if wanted: what batch and instance normalization share."""

    ndims: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.register_parameter("weight", empty_parameter(affine, (num_features,), device, dtype))
        self.register_parameter("bias", empty_parameter(affine and bias, (num_features,), device, dtype))
        for name in ("running_mean", "running_var"):
            value = creation.empty(num_features, device=device, dtype=dtype) if track_running_stats else None
            self.register_buffer(name, value)
        self.register_buffer("num_batches_tracked", self._no_batches(device) if track_running_stats else None)
        self.reset_parameters()

    @staticmethod
    def _no_batches(device: Any) -> Any:
        return creation.tensor(0, dtype=dtypes.int64, device=device)

    def reset_running_stats(self) -> None:
        """Forget all batches."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Start anew."""
        self.reset_running_stats()
        _reset(self.weight, self.bias)

    def _checked(self, input: Any) -> Any:
        shape = input.array.shape
        if len(shape) not in self.ndims:
            expected = " or ".join(f"{n}D" for n in self.ndims)
            raise ValueError(f"expected {expected} input (got {len(shape)}D input of shape {list(shape)})")
        return input

    def _channels(self, input: Any) -> int:
        """The number of channels of an input."""
        return self._checked(input).array.shape[1]

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Norm):
    """What batch normalization of any number of dimensions shares."""

    def forward(self, input: Any) -> Any:
        self._checked(input)
        momentum = self._counted_momentum()
        update = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if update else None,
            self.running_var if update else None,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
        )

    def _counted_momentum(self) -> float:
        """The weight of this batch in the running statistics; in training it is counted."""
        momentum = self.momentum
        if self.training and self.track_running_stats:
            _count_one(self.num_batches_tracked)
            if momentum is None:
                momentum = 1 / int(self.num_batches_tracked)
        return 0.0 if momentum is None else momentum


@later
def _count_one(batches: Any) -> None:
    """Add 1 to a tensor; a tenth of what its add_() takes, which asks for dtypes, devices and the tape."""
    batches.array += 1
    changed(batches, "batch_norm")


def _reset(weight: Parameter | None, bias: Parameter | None) -> None:
    """Start from the identity."""
    if weight is not None:
        init.ones_(weight)
    if bias is not None:
        init.zeros_(bias)


class BatchNorm1d(_BatchNorm):
    """(input - mean) / sqrt(variance + eps) * weight + bias for each channel.

    In training mean and variance are the batch's, and the running ones move towards them; in evaluation they are the
    running ones.

    Args:
        num_features: channels.
        eps: added to the variance.
        momentum: weight of a new batch in the running statistics; None for their plain average.
        affine: whether there are weight (at first 1) and bias (at first 0).
        track_running_stats: whether there are running statistics; without them evaluation uses the batch's own.
        device, dtype: of parameters and statistics.
        bias: whether there is a bias beside the weight.

    Attributes:
        weight, bias: [num_features], or None.
        running_mean, running_var: [num_features], or None; at first 0 and 1.
        num_batches_tracked: how many batches the running statistics have seen.

    Source: Ioffe and Szegedy, Batch Normalization, 2015.

    Shape:
        input and output [n, num_features] or [n, num_features, length].

    Example:
        >>> import paceline as torch
        >>> torch.nn.BatchNorm1d(1, affine=False)(torch.tensor([[1.0], [3.0]]))
        tensor([[-1.0000],
                [ 1.0000]])
    """

    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalization of images [n, num_features, height, width]; everything else as for `BatchNorm1d`.

    Example:
        >>> import paceline as torch
        >>> torch.nn.BatchNorm2d(3)(torch.randn(2, 3, 4, 4)).shape
        paceline.Size([2, 3, 4, 4])
    """

    ndims = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalization of volumes [n, num_features, depth, height, width]; see `BatchNorm1d`."""

    ndims = (5,)


class SyncBatchNorm(_BatchNorm):
    """Batch normalization over the batches of all processes together; in evaluation as `BatchNorm1d`.

    Args:
        process_group: the communicator whose ranks take part; the world if None.
        Everything else as for `BatchNorm1d`.

    Shape:
        input and output [n, num_features, ...]; n may differ from rank to rank.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _checked(self, input: Any) -> Any:
        if input.array.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.array.ndim}D input)")
        return input

    def forward(self, input: Any) -> Any:
        comm = self.process_group or world_comm()
        if comm.size == 1 or not (self.training or self.running_mean is None):
            return super().forward(input)
        self._checked(input)
        momentum = self._counted_momentum()
        update = self.training and self.track_running_stats
        return sync_batch_norm(
            input,
            self.running_mean if update else None,
            self.running_var if update else None,
            self.weight,
            self.bias,
            momentum,
            self.eps,
            comm,
        )

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """The module with every BatchNorm in it replaced by a SyncBatchNorm with the same parameters and statistics.

        Example:
            >>> import paceline as torch
            >>> torch.nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.Sequential(torch.nn.BatchNorm1d(2)))
            Sequential(
              (0): SyncBatchNorm(2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
            )
        """
        result = module
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
            options = (module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
            result = cls(*options, process_group, bias=module.bias is not None)
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                setattr(result, name, getattr(module, name))
            result.training = module.training
        for name, child in module.named_children():
            result.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return result


class _InstanceNorm(_Norm):
    """What instance normalization of any number of dimensions shares."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def _channels(self, input: Any) -> int:
        return self._checked(input).array.shape[1 - self.ndims[1]]

    def forward(self, input: Any) -> Any:
        channels = self._channels(input)
        if channels != self.num_features:
            if self.affine:
                raise ValueError(
                    f"expected input's size at dim=1 to match num_features ({self.num_features}), got: {channels}"
                )
            warnings.warn(
                f"input's size at dim=1 does not match num_features ({self.num_features}), got: {channels}; "
                "num_features is not used, since affine=False",
                stacklevel=2,
            )
        batch = input if input.array.ndim == self.ndims[1] else shaping.unsqueeze(input, 0)
        out = F.instance_norm(
            batch,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )
        return out if batch is input else shaping.squeeze(out, 0)


class InstanceNorm1d(_InstanceNorm):
    """(input - mean) / sqrt(variance + eps) * weight + bias for each channel of each sample.

    Args:
        num_features: channels.
        eps: added to the variance.
        momentum: weight of a new batch in the running statistics.
        affine: whether there are weight (at first 1) and bias (at first 0).
        track_running_stats: whether evaluation uses running statistics instead of each sample's own.
        device, dtype: of parameters and statistics.
        bias: whether there is a bias beside the weight.

    Shape:
        input and output [n, num_features, length], or without n.

    Source: Ulyanov et al., Instance Normalization, 2016.
    """

    ndims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalization of images [n, num_features, height, width], or without n; see `InstanceNorm1d`."""

    ndims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Instance normalization of volumes [n, num_features, depth, height, width], or without n; see `InstanceNorm1d`."""

    ndims = (4, 5)


class LayerNorm(Module):
    """(input - mean) / sqrt(variance + eps) * weight + bias, with mean and biased variance over the last dimensions.

    Args:
        normalized_shape: the sizes of the dimensions to normalize over, or the size of the last one.
        eps: added to the variance.
        elementwise_affine: whether there are weight (at first 1) and bias (at first 0).
        bias: whether there is a bias beside the weight.
        device, dtype: of the parameters.

    Shape:
        input and output [..., *normalized_shape].

    Source: Ba, Kiros and Hinton, Layer Normalization, 2016.

    Example:
        >>> import paceline as torch
        >>> torch.nn.LayerNorm(2, elementwise_affine=False)(torch.tensor([1.0, 3.0]))
        tensor([-1.0000,  1.0000])
    """

    def __init__(
        self,
        normalized_shape: int | list[int] | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = shape
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", empty_parameter(elementwise_affine, shape, device, dtype))
        self.register_parameter("bias", empty_parameter(elementwise_affine and bias, shape, device, dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew."""
        _reset(self.weight, self.bias)

    def forward(self, input: Any) -> Any:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class GroupNorm(Module):
    """(input - mean) / sqrt(variance + eps) * weight + bias, with mean and variance over groups of channels.

    Args:
        num_groups: how many groups the channels form.
        num_channels: channels.
        eps: added to the variance.
        affine: whether there are weight (at first 1) and bias (at first 0), one for each channel.
        device, dtype: of the parameters.
        bias: whether there is a bias beside the weight.

    Shape:
        input and output [n, num_channels, ...].

    Source: Wu and He, Group Normalization, 2018.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.register_parameter("weight", empty_parameter(affine, (num_channels,), device, dtype))
        self.register_parameter("bias", empty_parameter(affine and bias, (num_channels,), device, dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew."""
        _reset(self.weight, self.bias)

    def forward(self, input: Any) -> Any:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(Module):
    """input / sqrt(mean(input**2) + eps) * weight, with the mean over the last dimensions.

    Args:
        normalized_shape: the sizes of the dimensions to normalize over, or the size of the last one.
        eps: added to the mean; the smallest number that changes 1 in the input's dtype if None.
        elementwise_affine: whether there is a weight, at first 1.
        device, dtype: of the weight.

    Shape:
        input and output [..., *normalized_shape].

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
    """

    def __init__(
        self,
        normalized_shape: int | list[int] | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        weight = empty_parameter(elementwise_affine, self.normalized_shape, device, dtype)
        self.register_parameter("weight", weight)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew."""
        _reset(self.weight, None)

    def forward(self, input: Any) -> Any:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """input / (k + alpha * mean of input**2 over size neighbouring channels) ** beta.

    Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Any) -> Any:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(LocalResponseNorm):
    """`LocalResponseNorm` under the name that it has for images."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        super().__init__(size, alpha, beta, k)

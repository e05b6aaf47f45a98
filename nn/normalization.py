"""Normalization layers."""

from __future__ import annotations

from typing import Any

from ..runtime import dtypes
from ..tensor import creation
from . import functional as F
from . import init
from .linear import empty_parameter
from .module import Module
from .parameter import Parameter

__all__ = ["BatchNorm1d", "BatchNorm2d", "GroupNorm", "LayerNorm"]


class _BatchNorm(Module):
    """What batch normalization of any number of dimensions shares."""

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
        count = creation.tensor(0, dtype=dtypes.int64, device=device) if track_running_stats else None
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

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

    def forward(self, input: Any) -> Any:
        shape = input.array.shape
        if len(shape) not in self.ndims:
            expected = " or ".join(f"{n}D" for n in self.ndims)
            raise ValueError(f"expected {expected} input (got {len(shape)}D input of shape {list(shape)})")
        momentum = self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)
            if momentum is None:
                momentum = 1 / int(self.num_batches_tracked)
        update = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if update else None,
            self.running_var if update else None,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            0.0 if momentum is None else momentum,
            self.eps,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


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

"""Losses as modules."""

from __future__ import annotations

import math
from typing import Any

from . import functional as F
from .linear import Linear
from .module import Module

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "LinearCrossEntropyLoss",
    "MSELoss",
    "NLLLoss",
    "SmoothL1Loss",
]


class _Loss(Module):
    """A function of input and target, reduced to their mean or sum, or not."""

    function: Any

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, input: Any, target: Any) -> Any:
        return self.function(input, target, reduction=self.reduction)


class MSELoss(_Loss):
    """(input - target)**2.

    Args:
        reduction: "mean", "sum" or "none".

    Example:
        >>> import paceline as torch
        >>> torch.nn.MSELoss()(torch.zeros(2), torch.tensor([1.0, 3.0]))
        tensor(5.)
    """

    def forward(self, input: Any, target: Any) -> Any:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|input - target|.

    Args:
        reduction: "mean", "sum" or "none".
    """

    function = staticmethod(F.l1_loss)


class SmoothL1Loss(_Loss):
    """0.5 * d**2 / beta where d = |input - target| < beta, d - 0.5 * beta elsewhere.

    Args:
        reduction: "mean", "sum" or "none".
        beta: where the square becomes a line.
    """

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.beta = beta

    def forward(self, input: Any, target: Any) -> Any:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """0.5 * d**2 where d = |input - target| <= delta, delta * (d - 0.5 * delta) elsewhere.

    Args:
        reduction: "mean", "sum" or "none".
        delta: where the square becomes a line.
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Any, target: Any) -> Any:
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class KLDivLoss(_Loss):
    """target * (log(target) - input), input holding logarithms; see `functional.kl_div`.

    Args:
        reduction: "batchmean", "mean", "sum" or "none".
        log_target: whether target holds logarithms too.
    """

    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.log_target = log_target

    def forward(self, input: Any, target: Any) -> Any:
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class _WeightedLoss(_Loss):
    """A loss with a weight that moves with the module, and is saved with it."""

    def __init__(self, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)


class CrossEntropyLoss(_WeightedLoss):
    """-log(softmax(input)) at the target class, weighted; see `functional.cross_entropy`.

    Args:
        weight: a factor [classes] for each class.
        ignore_index: a target that counts for nothing.
        reduction: "mean" (weighted over the targets that count), "sum" or "none".
        label_smoothing: the part of the target spread evenly over all classes.

    Shape:
        input [n, classes], [n, classes, d1, ...] or [classes]; target without the dimension of the classes (indices),
        or of the same shape (probabilities).

    Example:
        >>> import paceline as torch
        >>> torch.nn.CrossEntropyLoss()(torch.zeros(1, 4), torch.tensor([2]))
        tensor(1.3863)
    """

    def __init__(
        self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(weight, reduction=reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Any, target: Any) -> Any:
        return F.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class LinearCrossEntropyLoss(_WeightedLoss):
    """The cross-entropy of a linear layer's output; see `functional.linear_cross_entropy`.

    Args:
        in_features: size of the input's last dimension.
        num_classes: number of classes.
        out_features: the sizes d1, ... of logits [n, num_classes, d1, ...].
        bias: whether the layer adds one.
        device, dtype: of the layer's parameters.
        reduction, weight, ignore_index, label_smoothing, options: as for the function.

    Attributes:
        linear: the layer, of in_features and num_classes * d1 * ... features.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Any = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: None = None,
    ) -> None:
        if weight is not None and tuple(weight.shape) != (num_classes,):
            raise RuntimeError(f"expected weight shape to be {(num_classes,)}, got {tuple(weight.shape)}")
        if not 0 <= label_smoothing <= 1:
            raise RuntimeError(f"expected label_smoothing to be in range [0, 1], got {label_smoothing}")
        super().__init__(weight, reduction=reduction)
        self.num_classes = num_classes
        self.out_features = out_features
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.options = options
        self.linear = Linear(in_features, num_classes * math.prod(out_features), bias, device, dtype)

    def forward(self, input: Any, target: Any) -> Any:
        linear, shape = self.linear, (self.num_classes, *self.out_features)
        return F.linear_cross_entropy(
            input,
            linear.weight.reshape(*shape, linear.in_features),
            target,
            linear_bias=None if linear.bias is None else linear.bias.reshape(shape),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )

    def extra_repr(self) -> str:
        return (
            f"in_features={self.linear.in_features}, num_classes={self.num_classes}, out_features={self.out_features}, "
            f"bias={self.linear.bias is not None}, reduction={self.reduction}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing}, options={self.options}"
        )


class NLLLoss(_WeightedLoss):
    """-input at the target class, weighted, input holding log-probabilities; see `functional.nll_loss`.

    Args:
        weight: a factor [classes] for each class.
        ignore_index: a target that counts for nothing.
        reduction: "mean" (weighted over the targets that count), "sum" or "none".
    """

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(weight, reduction=reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Any, target: Any) -> Any:
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class BCELoss(_WeightedLoss):
    """-(target * log(input) + (1 - target) * log(1 - input)) * weight, input holding probabilities.

    Args:
        weight: a factor for each element, broadcast.
        reduction: "mean", "sum" or "none".
    """

    def forward(self, input: Any, target: Any) -> Any:
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """BCELoss(sigmoid(input), target) without overflow.

    Args:
        weight: a factor for each element, broadcast.
        reduction: "mean", "sum" or "none".
        pos_weight: a factor for the positive part, broadcast.
    """

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(weight, reduction=reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Any:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )

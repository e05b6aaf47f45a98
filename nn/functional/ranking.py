"""Losses with margins, on pairs and triplets, and on the parameters of distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...autograd.variable import box
from ...runtime.arrays import module_of
from ...tensor.ops import activation, shaping
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import pointwise as pw
from .loss import _check_reduction, _check_same_size, _reduced


def margin_ranking_loss(input1: Any, input2: Any, target: Any, margin: float = 0, *, reduction: str = "mean") -> Any:
    """max(0, -target * (input1 - input2) + margin): target is 1 where input1 should be the larger one, else -1.

    Args:
        input1, input2, target: of one shape, or broadcast.
        margin: by how much.
        reduction: "mean", "sum" or "none".

    Example:
        >>> import paceline as torch
        >>> one = torch.ones(1)
        >>> torch.nn.functional.margin_ranking_loss(one, 3 * one, one)
        tensor(2.)
    """
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {list(input1.shape)}, input2: {list(input2.shape)}, target: {list(target.shape)}"
        )
    return _reduced(pw.clamp(target * (input2 - input1) + margin, 0), reduction)


def hinge_embedding_loss(input: Any, target: Any, margin: float = 1.0, *, reduction: str = "mean") -> Any:
    """input where target is 1, max(0, margin - input) where it is -1; input holds distances."""
    similar = ar.where(ar.ne(target, -1), input, 0.0)
    different = ar.where(ar.ne(target, 1), pw.clamp(margin - input, 0), 0.0)
    return _reduced(similar + different, reduction)


def soft_margin_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """log(1 + exp(-target * input)), target being 1 or -1."""
    _check_same_size("soft_margin_loss", input, target)
    return _reduced(activation.softplus(-target * input, 1.0, math.inf), reduction)


def cosine_embedding_loss(input1: Any, input2: Any, target: Any, margin: float = 0, *, reduction: str = "mean") -> Any:
    """1 - cos(input1, input2) where target is 1, max(0, cos - margin) where it is -1.

    Args:
        input1, input2: [n, d] or [d].
        target: [n] or [].
        margin: from -1 to 1.
        reduction: "mean", "sum" or "none".
    """
    if target.ndim not in (0, 1) or input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        raise RuntimeError(
            "cosine_embedding_loss: expected inputs [n, d] with a target [n], or [d] with [], got "
            f"{list(input1.shape)}, {list(input2.shape)} and {list(target.shape)}"
        )
    eps = 1e-12
    product = _last_sum(input1 * input2)
    sizes = (_last_sum(input1 * input1) + eps) * (_last_sum(input2 * input2) + eps)
    cosine = product / pw.sqrt(sizes)
    similar = ar.where(ar.eq(target, 1), 1 - cosine, 0.0)
    different = ar.where(ar.eq(target, -1), pw.clamp(cosine - margin, 0), 0.0)
    return _reduced(similar + different, reduction)


def _last_sum(x: Any) -> Any:
    """The sum over the last dimension."""
    return x.sum(-1)


def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> Any:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d being the p-norm of the difference.

    Args:
        anchor, positive, negative: [n, d] or [d].
        margin: by how much the negative should be farther away.
        p: of the norm.
        eps: added to differences, so that the norm has a derivative.
        swap: use the smaller of the negative's distances to anchor and positive.
        reduction: "mean", "sum" or "none".

    Source: Balntas et al., Learning shallow convolutional feature descriptors with triplet losses, 2016.
    """

    def distance(a: Any, b: Any) -> Any:
        return (a - b + eps).norm(float(p), -1)

    return triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=distance, margin=margin, swap=swap, reduction=reduction
    )


def triplet_margin_with_distance_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    *,
    distance_function: Callable[[Any, Any], Any] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """`triplet_margin_loss` with any distance; the Euclidean one if none is given."""
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {anchor.ndim}D, positive {positive.ndim}D, and negative {negative.ndim}D inputs"
        )
    distance = distance_function or _euclidean
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = ar.minimum(far, distance(positive, negative))
    return _reduced(pw.clamp(near - far + margin, 0), reduction)


def _euclidean(a: Any, b: Any) -> Any:
    return (a - b + 1e-6).norm(2.0, -1)


def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None, *, reduction: str = "mean"
) -> Any:
    """sum over classes j other than y of max(0, margin - input[y] + input[j])**p / classes, y being the target.

    Args:
        input: scores [n, classes] or [classes].
        target: class indices [n] or [].
        p: 1 or 2.
        margin: by how much the target's score should be the largest.
        weight: a factor [classes] by the target's class.
        reduction: "mean", "sum" or "none".
    """
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    rows = shaping.reshape_sizes(input, -1, input.shape[-1] if input.ndim else 1)
    classes = shaping.reshape_sizes(target, -1, 1)
    if classes.shape[0] != rows.shape[0]:
        raise RuntimeError(f"inconsistent target size, expected {rows.shape[0]} but got {list(target.shape)}")
    gaps = pw.clamp(margin - rows.gather(1, classes) + rows, 0)
    gaps = gaps if p == 1 else gaps * gaps
    if weight is not None:
        gaps = gaps * shaping.unsqueeze(weight[classes.reshape(-1)], 1)
    gaps = gaps.scatter(1, classes, 0.0)
    losses = _last_sum(gaps) / rows.shape[1]
    return _reduced(losses if target.ndim or reduction != "none" else losses.reshape(()), reduction)


def multilabel_margin_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """sum over targets y and other classes j of max(0, 1 - (input[y] - input[j])) / classes.

    Args:
        input: scores [n, classes] or [classes].
        target: in each row class indices, ended by -1; of the input's shape.
        reduction: "mean", "sum" or "none".
    """
    if input.shape != target.shape:
        raise RuntimeError(
            f"inconsistent target size: {list(target.shape)} for multi-label margin loss of input {list(input.shape)}"
        )
    classes = input.shape[-1] if input.ndim else 1
    rows, labels = shaping.reshape_sizes(input, -1, classes), target.array.reshape(-1, classes)
    xp = module_of(labels)
    listed = xp.cumsum(labels < 0, 1) == 0  # the labels before the first -1
    chosen = xp.where(listed, labels, 0)
    is_target = xp.zeros((labels.shape[0], classes + 1), bool)
    xp.put_along_axis(is_target, xp.where(listed, labels, classes), True, 1)
    scores = rows.gather(1, box(chosen))
    gaps = pw.clamp(1 - (shaping.unsqueeze(scores, 2) - shaping.unsqueeze(rows, 1)), 0)  # [n, labels, classes]
    counted = listed[:, :, None] & ~is_target[:, None, :classes]
    losses = gaps.masked_fill(box(~counted), 0.0).sum((1, 2)) / classes
    return _reduced(losses if input.ndim > 1 else losses.reshape(()), reduction)


def multilabel_soft_margin_loss(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> Any:
    """Mean over classes of -(target * log(sigmoid(input)) + (1 - target) * log(sigmoid(-input))).

    Args:
        input: logits [..., classes].
        target: 0 or 1, of the input's shape.
        weight: a factor [classes].
        reduction: "mean", "sum" or "none".
    """
    losses = -(target * activation.logsigmoid(input) + (1 - target) * activation.logsigmoid(-input))
    if weight is not None:
        losses = losses * weight
    return _reduced(_last_sum(losses) / input.shape[-1], reduction)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Any:
    """0.5 * (log(var) + (input - target)**2 / var), var being at least eps; plus 0.5 * log(2 pi) if full.

    Args:
        input: means.
        target: samples.
        var: variances of the input's shape, without its last dimension, or with one dimension of size 1; or a number.
        full: include the constant.
        eps: lower bound of the variance, to which no gradient belongs.
        reduction: "mean", "sum" or "none".

    Source: Nix and Weigend, Estimating the mean and variance of the target probability distribution, 1994.
    """
    _check_reduction(reduction)
    if isinstance(var, int | float):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        var = input.new_full(input.shape, float(var))
    elif bool((var.array < 0).any()):
        raise ValueError("var has negative entry/entries")
    if var.shape != input.shape:
        if tuple(input.shape[:-1]) == tuple(var.shape):
            var = shaping.unsqueeze(var, -1)
        elif input.ndim != var.ndim or [m for n, m in zip(input.shape, var.shape, strict=True) if n != m] != [1]:
            raise ValueError(f"var is of incorrect size: {list(var.shape)} for an input of {list(input.shape)}")
    bound = box(module_of(var.array).asarray(eps, var.array.dtype))
    var = ar.where(ar.lt(var, bound), bound + (var - var.detach()), var)  # the value of the bound, the slope of var
    losses = 0.5 * (pw.log(var) + pw.square(input - target) / var)
    return _reduced(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)


def poisson_nll_loss(
    input: Any,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    *,
    reduction: str = "mean",
) -> Any:
    """exp(input) - target * input, or without log_input: input - target * log(input + eps).

    Args:
        input: the logarithm of the expected count, or the count itself.
        target: counts.
        log_input: which of the two.
        full: add Stirling's approximation target * log(target) - target + 0.5 * log(2 pi target) where target > 1.
        eps: keeps the logarithm finite.
        reduction: "mean", "sum" or "none".
    """
    losses = pw.exp(input) - target * input if log_input else input - target * pw.log(input + eps)
    if full:
        stirling = target * pw.log(target) - target + 0.5 * pw.log(2 * math.pi * target)
        losses = losses + stirling.masked_fill(ar.le(target, 1), 0.0)
    return _reduced(losses, reduction)

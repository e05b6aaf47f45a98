"""Losses."""

from __future__ import annotations

import warnings
from typing import Any

from ...autograd.variable import box
from ...runtime import dtypes
from ...runtime.arrays import Array, module_of
from ...tensor.ops import activation, indexing, linalg, reduction, shaping
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import loss as ops
from ...tensor.ops import pointwise as pw
from ...tensor.ops.softmax import log_softmax, softmax_cross_entropy

_REDUCTIONS = ("none", "mean", "sum")


def _reduced(losses: Any, reduction_: str) -> Any:
    """All losses, their mean or their sum."""
    _check_reduction(reduction_)
    if reduction_ == "mean":
        return reduction.mean(losses)
    return losses if reduction_ == "none" else reduction.sum(losses)


def _check_reduction(name: str) -> None:
    if name not in _REDUCTIONS:
        raise ValueError(f"{name} is not a valid value for reduction; expected one of {', '.join(_REDUCTIONS)}")


def _check_same_size(function: str, input: Any, target: Any) -> None:
    if input.array.shape != target.array.shape:
        raise ValueError(
            f"{function}(): target size ({list(target.array.shape)}) must be the same as input size "
            f"({list(input.array.shape)})"
        )


# -- classes -----------------------------------------------------------------------------------------------------------


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """-log(softmax(input)) at the target class, weighted.

    Args:
        input: logits [n, classes], [n, classes, d1, ...] or [classes].
        target: class indices [n], [n, d1, ...] or [], or probabilities of the input's shape.
        weight: a factor [classes] for each class.
        ignore_index: a target that counts for nothing.
        reduction: "mean" (weighted over the targets that count), "sum" or "none".
        label_smoothing: the part of the target spread evenly over all classes, 0 to 1.

    Raises:
        IndexError: a target is no class.
        ValueError: the sizes of input and target differ.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.cross_entropy(torch.zeros(1, 4), torch.tensor([2]))
        tensor(1.3863)
    """
    _check_reduction(reduction)
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if target.array.ndim == input.array.ndim and target.is_floating_point():
        return _soft_cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing)
    rows, classes = _by_row("cross_entropy", input, target)
    plain = _is_plain(rows, classes, weight, ignore_index)
    if plain and not label_smoothing:
        chosen = target if classes is target.array else box(classes)
        return _in_shape(softmax_cross_entropy(rows, chosen, reduction), target, reduction)
    log_p = log_softmax(rows, 1)
    if plain:
        losses = ops.negative_log_likelihood(log_p, box(classes), reduction) * (1 - label_smoothing)
        spread = _reduced(_row_sums(log_p), reduction) * (label_smoothing / log_p.array.shape[1])
        return _in_shape(ar.sub(losses, spread), target, reduction)
    losses, factors = _picked(log_p, classes, weight, ignore_index)
    if label_smoothing:
        smooth = pw.neg(_row_sums(log_p if weight is None else ar.mul(log_p, weight)))
        smooth = ar.mul(smooth, box((classes != ignore_index).astype(log_p.array.dtype)))
        losses = ar.add(losses * (1 - label_smoothing), smooth * (label_smoothing / log_p.array.shape[1]))
    return _in_shape(_weighted(losses, factors, reduction), target, reduction)


def linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    weight: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: None = None,
) -> Any:
    """The cross-entropy of `linear(input, linear_weight, linear_bias)`.

    Args:
        input: [n, in_features] or [in_features].
        linear_weight: [classes, in_features], or [classes, d1, ..., in_features] for logits [n, classes, d1, ...].
        target: class indices or probabilities, as for `cross_entropy` of those logits.
        linear_bias: [classes, d1, ...].
        weight, reduction, label_smoothing: as for `cross_entropy`.
        ignore_index: a target that counts for nothing, for class indices only; default: -100.
        options: PyTorch's computation by chunks is absent; only None.

    Raises:
        RuntimeError: the sizes do not fit, or ignore_index comes with probabilities.
        NotImplementedError: options were given.
    """
    if options is not None:
        raise NotImplementedError("linear_cross_entropy(): computing the logits by chunks is absent; use options=None")
    shape, (classes, *places, features) = input.shape, _checked_weight(input, linear_weight)
    if linear_bias is not None and tuple(linear_bias.shape) != (classes, *places):
        raise RuntimeError(f"expected linear_bias shape {(classes, *places)}, got {tuple(linear_bias.shape)}")
    logits_shape = (*shape[:-1], classes, *places)
    if tuple(target.shape) == logits_shape and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    bias = None if linear_bias is None else shaping.reshape(linear_bias, (-1,))
    logits = linalg.linear(input, shaping.reshape(linear_weight, (-1, features)), bias)
    return cross_entropy(
        shaping.reshape(logits, logits_shape),
        target,
        weight,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def _checked_weight(input: Any, weight: Any) -> tuple:
    """The weight's shape, if it fits the input."""
    given, shape = tuple(input.shape), tuple(weight.shape)
    if not 1 <= len(given) <= 2:
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {len(given)}")
    if len(shape) < 2:
        raise RuntimeError(f"expected linear_weight with dimensionality at least 2, got {len(shape)}")
    if given[-1] != shape[-1]:
        raise RuntimeError(
            f"expected equal input and linear_weight last dimensions (in_features), got {given[-1]} and {shape[-1]}, "
            "respectively"
        )
    if len(shape) > 2 and len(given) == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {shape} requires batched input, (N, {shape[-1]}), got "
            f"unbatched input with shape {given}"
        )
    return shape


def nll_loss(input: Any, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """-input at the target class, weighted: the cross-entropy of log-probabilities.

    Args:
        input: log-probabilities [n, classes], [n, classes, d1, ...] or [classes].
        target, weight, ignore_index, reduction: as for `cross_entropy`, targets class indices only.
    """
    _check_reduction(reduction)
    rows, classes = _by_row("nll_loss", input, target)
    if _is_plain(rows, classes, weight, ignore_index):
        return _in_shape(ops.negative_log_likelihood(rows, box(classes), reduction), target, reduction)
    losses, factors = _picked(rows, classes, weight, ignore_index)
    return _in_shape(_weighted(losses, factors, reduction), target, reduction)


def _is_plain(rows: Any, classes: Array, weight: Any, ignore_index: int) -> bool:
    """Whether all targets are classes that count as much as each other."""
    return weight is None and ignore_index < 0 and indexing.all_within(classes, rows.array.shape[1])


def _by_row(function: str, input: Any, target: Any) -> tuple[Any, Array]:
    """Logits as [n, classes] and class indices as [n], whatever other dimensions they have."""
    shape, classes = input.array.shape, target.array
    if len(shape) == 2 and classes.ndim == 1 and shape[0] == classes.shape[0] and classes.dtype.kind in "iu":
        return input, classes
    if classes.dtype.kind not in "iu":
        raise RuntimeError(
            f"{function}(): expected class indices as target, of dtype int64, got {dtypes.of(classes.dtype).name} of "
            f"shape {list(classes.shape)}; target.long() makes them"
        )
    if not shape or shape[:1] * (len(shape) > 1) + shape[2:] != classes.shape:
        raise ValueError(
            f"{function}(): expected input [n, classes, ...] and target [n, ...], got input {list(shape)} and target "
            f"{list(classes.shape)}"
        )
    rows = shaping.movedim(input, 1, -1) if len(shape) > 2 else input
    return shaping.reshape(rows, (classes.size, shape[min(1, len(shape) - 1)])), classes.reshape(-1)


def _in_shape(losses: Any, target: Any, reduction: str) -> Any:
    """Losses by row in the target's shape, if they have not been reduced to one number."""
    if reduction != "none" or target.array.ndim == 1:
        return losses
    return shaping.reshape(losses, target.array.shape)


def _picked(log_p: Any, classes: Array, weight: Any, ignore_index: int) -> tuple[Any, Array]:
    """For log-probabilities [n, classes] the weighted losses [n], and the factors [n] that they were weighted with."""
    xp = module_of(classes)
    count = log_p.array.shape[1]
    if weight is not None and weight.array.shape != (count,):
        raise RuntimeError(
            f"weight tensor should be defined either for all {count} classes or no classes but got weight tensor of "
            f"shape: {list(weight.array.shape)}"
        )
    valid = classes != ignore_index
    safe = xp.where(valid, classes, 0)
    if not indexing.all_within(safe, count):
        wrong = safe[(safe < 0) | (safe >= count)]
        raise IndexError(f"Target {int(wrong[0])} is out of bounds: there are {count} classes")
    factors = valid.astype(log_p.array.dtype)
    if weight is not None:
        factors *= weight.array[safe]
    chosen = indexing.gather_along(log_p, box(safe[:, None]), 1)
    return ar.mul(shaping.reshape(chosen, classes.shape), box(-factors)), factors


def _weighted(losses: Any, factors: Array, reduction_: str) -> Any:
    """The mean of losses by the weights of their targets, or another reduction."""
    if reduction_ != "mean":
        return _reduced(losses, reduction_)
    xp = module_of(factors)
    total = xp.asarray(factors.sum())
    # where no target counts the mean is nan, but no gradient is: dividing by the total would give 0 * inf
    mean = ar.true_divide(reduction.sum(losses), box(xp.where(total == 0, 1, total).astype(total.dtype)))
    return ar.add(mean, box(xp.where(total == 0, xp.nan, 0).astype(total.dtype)))


def _row_sums(x: Any) -> Any:
    return reduction.sum(x, 1)


def _soft_cross_entropy(
    input: Any, target: Any, weight: Any, ignore_index: int, reduction_: str, label_smoothing: float
) -> Any:
    """Cross-entropy with class probabilities."""
    _check_same_size("cross_entropy", input, target)
    if ignore_index >= 0:
        raise RuntimeError("ignore_index is not supported for floating point target")
    shape = input.array.shape
    dim = min(1, len(shape) - 1)
    if label_smoothing:
        target = ar.add(target * (1 - label_smoothing), label_smoothing / shape[dim])
    terms = ar.mul(log_softmax(input, dim), target)
    if weight is not None:
        terms = ar.mul(terms, shaping.reshape(weight, (shape[dim],) + (1,) * (len(shape) - dim - 1)))
    return _reduced(pw.neg(reduction.sum(terms, dim)), reduction_)


# -- numbers -----------------------------------------------------------------------------------------------------------


def _warn_of_broadcast(function: str, input: Any, target: Any) -> None:
    """Predictions [n, 1] and targets [n] give n * n differences, and a model that learns the mean."""
    warnings.warn(
        f"{function}(): target size {list(target.array.shape)} is not the input size {list(input.array.shape)}, so "
        "they are broadcast, which is seldom what is meant; reshape one of them",
        stacklevel=3,
    )


def mse_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """(input - target)**2, elementwise and reduced.

    Args:
        input, target: of one shape (or broadcast).
        reduction: "mean", "sum" or "none".

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.mse_loss(torch.zeros(2), torch.tensor([1.0, 3.0]))
        tensor(5.)
    """
    if input.array.shape != target.array.shape:
        _warn_of_broadcast("mse_loss", input, target)
    if reduction == "mean":
        return ops.mean_squared_error(input, target)
    return _reduced(pw.square(ar.sub(input, target)), reduction)


def l1_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """|input - target|, elementwise and reduced as for `mse_loss`."""
    if input.array.shape != target.array.shape:
        _warn_of_broadcast("l1_loss", input, target)
    return _reduced(pw.abs(ar.sub(input, target)), reduction)


def smooth_l1_loss(input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Any:
    """0.5 * d**2 / beta where d = |input - target| < beta, d - 0.5 * beta elsewhere.

    Source: Girshick, Fast R-CNN, 2015.
    """
    if input.array.shape != target.array.shape:
        _warn_of_broadcast("smooth_l1_loss", input, target)
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss does not support negative values for beta, got {beta}")
    if beta == 0:
        return _reduced(pw.abs(ar.sub(input, target)), reduction)
    losses = ops.huber(input, target, beta)
    return _reduced(losses if beta == 1 else losses * (1 / beta), reduction)


def huber_loss(input: Any, target: Any, *, reduction: str = "mean", delta: float = 1.0) -> Any:
    """0.5 * d**2 where d = |input - target| <= delta, delta * (d - 0.5 * delta) elsewhere."""
    if input.array.shape != target.array.shape:
        _warn_of_broadcast("huber_loss", input, target)
    if delta <= 0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta, got {delta}")
    return _reduced(ops.huber(input, target, delta), reduction)


# -- probabilities -----------------------------------------------------------------------------------------------------


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> Any:
    """-(target * log(input) + (1 - target) * log(1 - input)) * weight; logarithms are at least -100.

    Args:
        input: probabilities in [0, 1].
        target: of the same shape, in [0, 1].
        weight: a factor for each element, broadcast.
        reduction: "mean", "sum" or "none".

    Raises:
        RuntimeError: an input is not in [0, 1]; for logits use binary_cross_entropy_with_logits.
    """
    _check_same_size("binary_cross_entropy", input, target)
    p = input.array
    if p.size and not (float(p.min()) >= 0 and float(p.max()) <= 1):
        raise RuntimeError(
            "all elements of input should be between 0 and 1; for logits use binary_cross_entropy_with_logits"
        )
    losses = ops.bernoulli_cross_entropy(input, target)
    return _reduced(losses if weight is None else ar.mul(losses, weight), reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """-(pos_weight * target * log(sigmoid(input)) + (1 - target) * log(1 - sigmoid(input))) * weight, without overflow.

    Args:
        input: logits.
        target: of the same shape, in [0, 1].
        weight: a factor for each element, broadcast.
        reduction: "mean", "sum" or "none".
        pos_weight: a factor for the positive part, broadcast.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.binary_cross_entropy_with_logits(torch.zeros(1), torch.ones(1))
        tensor(0.6931)
    """
    _check_same_size("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        losses = ops.logistic_cross_entropy(input, target)
    else:
        factor = ar.add(ar.mul(ar.sub(pos_weight, 1), target), 1)
        log_p = activation.logsigmoid(input)  # log(1 - p) is log_p - input
        losses = ar.sub(ar.mul(ar.sub(1, target), input), ar.mul(log_p, factor))
    return _reduced(losses if weight is None else ar.mul(losses, weight), reduction)


def kl_div(input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Any:
    """target * (log(target) - input): the Kullback-Leibler divergence, input holding logarithms.

    Args:
        input: log-probabilities.
        target: probabilities, or log-probabilities if log_target.
        reduction: "batchmean" (the sum over the first dimension's size, which is the mathematical definition), "mean",
            "sum" or "none".
        log_target: whether target holds logarithms.
    """
    if log_target:
        losses = ar.mul(pw.exp(target), ar.sub(target, input))
    else:
        safe = ar.where(ar.eq(target, 0), 1.0, target)  # 0 * log(0) is 0
        losses = ar.sub(ar.mul(target, pw.log(safe)), ar.mul(target, input))
    if reduction == "batchmean":
        return _reduced(losses, "sum") / max(input.array.shape[0] if input.array.ndim else 1, 1)
    return _reduced(losses, reduction)

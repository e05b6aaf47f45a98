"""Connectionist temporal classification: the loss of sequences whose alignment with their labels is not known."""

from __future__ import annotations

from typing import Any

import numpy

from ...autograd.variable import box
from ...runtime import dtypes
from ...tensor.ops import arithmetic as ar
from ...tensor.ops import pointwise as pw
from ...tensor.ops import reduction as reductions
from ...tensor.ops import shaping
from ...tensor.ops.binary import logaddexp
from ...tensor.ops.indexing import gather_along
from .loss import _check_reduction, _reduced

_NEVER = -1e30  # the logarithm of 0: unlike -inf it has differences, and so gradients


def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:
    """-log of the probability of the labels, summed over all alignments of labels and steps.

    The gradient takes log_probs for normalised, as PyTorch's does: it is that for the input of their log_softmax.

    Source: Graves, Fernandez, Gomez and Schmidhuber, Connectionist temporal classification, 2006.

    Args:
        log_probs: logarithms of probabilities [steps, n, classes] or [steps, classes], float32 or float64.
        targets: labels other than blank [n, longest] padded, [sum of target_lengths] one after the other, or [length].
        input_lengths, target_lengths: the steps and labels that count, [n] (a tensor or numbers).
        blank: the class of a step without label.
        reduction: "mean" (of each loss over its number of labels), "sum" or "none".
        zero_infinity: losses and gradients of sequences too short for their labels are 0 instead of inf and nan.

    Raises:
        RuntimeError: lengths or blank do not fit.
        IndexError: a label is no class.

    Example:
        >>> import paceline as torch
        >>> torch.nn.functional.ctc_loss(torch.full((2, 1, 2), 0.5).log(), torch.tensor([[1]]), [2], [1])
        tensor(0.2877)
    """
    _check_reduction(reduction)
    if log_probs.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(f'"ctc_loss" not implemented for {log_probs.dtype}: expected float32 or float64')
    batched = log_probs.ndim == 3
    if not batched:
        log_probs = shaping.unsqueeze(log_probs, 1)
    steps, n, classes = log_probs.shape
    if not 0 <= blank < classes:
        raise RuntimeError(f"blank must be in label range: it is {blank} with {classes} classes")
    lengths = _lengths("input_lengths", input_lengths, n, steps)
    labels, sizes = _labels(targets, target_lengths, n, classes, batched)
    alive = _index(numpy.arange(steps)[:, None, None] < lengths[:, None], log_probs)
    log_probs = ar.where(alive, log_probs, 0.0)  # no gradient, not even nan, beyond the lengths
    losses = pw.neg(_log_likelihood(log_probs, lengths, labels, sizes, blank))
    impossible = box(losses.array > -_NEVER / 2)
    # adds nothing but the gradient that log_softmax would
    total = reductions.sum(pw.exp(log_probs), (0, 2))
    losses = ar.add(losses, ar.sub(total, total.detach()))
    certain = ar.where(impossible, 0.0, losses)
    if not zero_infinity:
        # the logarithm of 0 times the loss: inf, and its gradient nan
        certain = ar.sub(certain, pw.log(ar.where(impossible, ar.mul(losses, 0.0), 1.0)))
    if reduction == "mean":
        certain = ar.true_divide(certain, _constant(numpy.maximum(sizes, 1), log_probs))
    elif reduction == "none" and not batched:
        return shaping.squeeze(certain, 0)
    return _reduced(certain, reduction)


def _log_likelihood(log_probs: Any, lengths: Any, labels: Any, sizes: Any, blank: int) -> Any:
    """The forward recursion over the states blank, label 1, blank, label 2, ..., blank of each sequence."""
    n, longest = labels.shape
    states = numpy.full((n, 2 * longest + 1), blank)
    states[:, 1::2] = labels
    steps = int(lengths.max(initial=0))
    index = numpy.broadcast_to(states, (steps, *states.shape))
    emitted = gather_along(shaping.narrow(log_probs, 0, 0, steps), _index(index.copy(), log_probs), 2)
    # a label follows another one without a blank between them only if they differ
    skips = numpy.zeros(states.shape, bool)
    skips[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    no_skip = _constant(numpy.where(skips, 0.0, _NEVER), log_probs)
    border = _constant(numpy.full((n, 2), _NEVER), log_probs)
    before_all = numpy.full(states.shape, _NEVER)
    before_all[:, 0] = 0.0  # the first step goes from here to the first blank or the first label
    alphas = [_constant(before_all, log_probs)]
    width = states.shape[1]
    for emission in shaping.unbind(pw.clamp(emitted, _NEVER), 0):
        padded = shaping.cat([border, alphas[-1]], 1)
        stayed_or_next = logaddexp(alphas[-1], shaping.narrow(padded, 1, 1, width))
        skipped = ar.add(shaping.narrow(padded, 1, 0, width), no_skip)
        alphas.append(ar.add(logaddexp(stayed_or_next, skipped), emission))
    rows = _index(numpy.arange(n), log_probs)
    last = shaping.stack(alphas)[_index(lengths, log_probs), rows]
    on_blank = last[rows, _index(2 * sizes, log_probs)]
    on_label = last[rows, _index(numpy.maximum(2 * sizes - 1, 0), log_probs)]
    without_labels = _index(sizes == 0, log_probs)
    return logaddexp(on_blank, ar.where(without_labels, _NEVER, on_label))


def _constant(array: Any, like: Any) -> Any:
    """A host array with the dtype and on the device of a tensor."""
    return _index(array.astype(like.dtype.name), like)


def _index(array: Any, like: Any) -> Any:
    """A host array on the device of a tensor."""
    return box(array).to(like.device)


def _lengths(name: str, values: Any, n: int, limit: int) -> Any:
    """Lengths as [n] integers on the host."""
    lengths = numpy.asarray(values.cpu().numpy() if hasattr(values, "cpu") else values).reshape(-1)
    if lengths.size and lengths.dtype.kind not in "iu":
        raise RuntimeError(f"{name} must be integral, got {lengths.dtype}")
    if lengths.size != n:
        raise RuntimeError(f"{name} must be of size batch_size: got {lengths.size} lengths for {n} sequences")
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= limit:
        wrong = lengths[(lengths < 0) | (lengths > limit)][0]
        raise RuntimeError(f"Expected {name} to have values from 0 to {limit}, but got value {wrong}")
    return lengths.astype(numpy.int64)


def _labels(targets: Any, target_lengths: Any, n: int, classes: int, batched: bool) -> tuple[Any, Any]:
    """Labels as [n, longest] on the host, and how many of each row count."""
    given = targets.cpu().numpy()
    if given.dtype.kind not in "iu":
        raise RuntimeError(f"targets must be of an integer dtype, got {targets.dtype}")
    if not batched:
        given = given.reshape(1, -1)
    packed = given.ndim == 1
    sizes = _lengths("target_lengths", target_lengths, n, given.size if packed else given.shape[1])
    if packed and sizes.sum() != given.size:
        raise RuntimeError(f"Expected 1-D targets of {sizes.sum()} labels, the sum of target_lengths, got {given.size}")
    counts = numpy.arange(sizes.max(initial=0)) < sizes[:, None]
    labels = numpy.zeros(counts.shape, numpy.int64)
    labels[counts] = given if packed else given[:, : counts.shape[1]][counts]
    if ((labels < 0) | (labels >= classes)).any():
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise IndexError(f"ctc_loss: target {wrong} is out of bounds: there are {classes} classes")
    return labels, sizes

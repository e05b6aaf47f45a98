"""Gradient norms and clipping, in one pass where the gradients are neighbours in an arena."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy

from ..autograd.mode import recording_now
from ..autograd.variable import Variable, box, changed
from ..runtime import device as devices
from ..runtime.arrays import Array, module_of
from .arena import flat_gradients, values_to_sum
from .kernels import sources, takes
from .ops.summing import sum_of_squares


def get_total_norm(
    tensors: Variable | Iterable[Variable],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Any:
    """The norm of tensors, as of one vector with all their elements.

    Args:
        tensors: a tensor or an iterable of them.
        norm_type: p of the p-norm; may be `inf`.
        error_if_nonfinite: raise if the norm is NaN or infinite.
        foreach: no effect, here for PyTorch's scripts.

    Returns:
        A tensor of one element, of the dtype and on the device of the first tensor.

    Raises:
        RuntimeError: the norm is not finite and error_if_nonfinite is set.

    Example:
        >>> import paceline as torch
        >>> get_total_norm([torch.tensor([3.0]), torch.tensor([4.0])])
        tensor(5.)
    """
    return _norm_of_all(flat_gradients(_as_list(tensors)), float(norm_type), error_if_nonfinite)


def _norm_of_all(arrays: list[Array], norm_type: float, error_if_nonfinite: bool) -> Any:
    """The norm of arrays, as a tensor of the dtype and on the device of the first."""
    if not arrays:
        return box(numpy.zeros((), numpy.float32))
    where = devices.device_of(arrays[0])
    with devices.using(where) as xp:
        norms = [devices.move(_norm(array, norm_type), where) for array in arrays]
        norm = norms[0] if len(norms) == 1 else _norm(xp.stack(norms), norm_type)
        norm = xp.asarray(norm, arrays[0].dtype)
    if error_if_nonfinite and not numpy.isfinite(float(norm)):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it cannot be "
            "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return box(norm)


def clip_grads_with_norm_(
    parameters: Variable | Iterable[Variable], max_norm: float, total_norm: Any, foreach: bool | None = None
) -> None:
    """Multiply the gradients by min(1, max_norm / (total_norm + 1e-6)), in place.

    Args:
        parameters: a tensor or an iterable of them; those without gradient are left out.
        max_norm: what the norm of all gradients should be at most.
        total_norm: tensor with the norm that they have, from `get_total_norm`.
        foreach: no effect, here for PyTorch's scripts.
    """
    gradients = [p.gradient for p in _as_list(parameters) if p.gradient is not None]
    factor = float(max_norm) / (total_norm.array + 1e-6)
    on_host = isinstance(total_norm.array, numpy.ndarray)
    if on_host and factor >= 1:
        return
    for array in flat_gradients(gradients):
        xp = module_of(array)
        least = xp.minimum(devices.move(xp.asarray(factor), devices.device_of(array)), 1).astype(array.dtype)
        if _compiled(array):
            sources.optimizer.scale(array.reshape(-1), least[()])
        else:
            array *= least
    for gradient in gradients:
        changed(gradient, "clip_grad_norm_")
    if not on_host or numpy.isnan(factor):  # asking a device whether it is NaN would wait for it
        for arena in {gradient.home[0] for gradient in gradients if gradient.home is not None}:
            arena.clear_gaps()


def clip_grad_norm_(
    parameters: Variable | Iterable[Variable],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Any:
    """Scale the gradients down so that their norm, as of one vector, is at most max_norm, in place.

    Args:
        parameters: a tensor or an iterable of them; those without gradient are left out.
        max_norm: the largest norm.
        norm_type: p of the p-norm; may be `inf`.
        error_if_nonfinite: raise if the norm is NaN or infinite, instead of multiplying by it.
        foreach: no effect, here for PyTorch's scripts.

    Returns:
        The norm before, as a tensor of one element.

    Raises:
        RuntimeError: the norm is not finite and error_if_nonfinite is set.

    Pascanu et al., On the difficulty of training recurrent neural networks, 2013.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> (w * w / 2).sum().backward()
        >>> clip_grad_norm_([w], max_norm=1.0), w.grad
        (tensor(5.), tensor([0.6000, 0.8000]))
    """
    parameters = _as_list(parameters)
    recording = recording_now.get()
    if recording is not None:
        return recording.later(clip_grad_norm_, parameters, max_norm, norm_type, error_if_nonfinite)
    arrays = values_to_sum([p for p in parameters if p.gradient is not None])
    norm = _norm_of_all(arrays, float(norm_type), error_if_nonfinite)
    clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def clip_grad_value_(parameters: Variable | Iterable[Variable], clip_value: float, foreach: bool | None = None) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value], in place.

    Args:
        parameters: a tensor or an iterable of them; those without gradient are left out.
        clip_value: the largest absolute value.
        foreach: no effect, here for PyTorch's scripts.

    Example:
        >>> import paceline as torch
        >>> w = torch.tensor([3.0, -0.5], requires_grad=True)
        >>> (w * w / 2).sum().backward()
        >>> clip_grad_value_([w], 1.0)
        >>> w.grad
        tensor([ 1.0000, -0.5000])
    """
    parameters = _as_list(parameters)
    recording = recording_now.get()
    if recording is not None:
        recording.later(clip_grad_value_, parameters, clip_value)
        return
    limit = float(clip_value)
    gradients = [p.gradient for p in parameters if p.gradient is not None]
    for array in flat_gradients(gradients):
        if _compiled(array):
            sources.optimizer.clamp(array.reshape(-1), array.dtype.type(-limit), array.dtype.type(limit))
        else:
            module_of(array).clip(array, -limit, limit, out=array)
    for gradient in gradients:
        changed(gradient, "clip_grad_value_")


def _as_list(tensors: Variable | Iterable[Variable]) -> list:
    return [tensors] if isinstance(tensors, Variable) else list(tensors)


def _compiled(array: Array) -> bool:
    """Whether a compiled kernel computes on a gradient, as one flat array."""
    return isinstance(array, numpy.ndarray) and array.flags.c_contiguous and takes(array)


def _norm(array: Array, norm_type: float) -> Array:
    """The p-norm of all elements as a 0-d array; 16-bit elements are summed in float32."""
    if norm_type == 2 and _compiled(array):  # BLAS would sum in an order that depends on the number of threads
        return numpy.asarray(numpy.sqrt(sum_of_squares(array)))
    xp = module_of(array)
    if array.itemsize == 2:
        array = array.astype(numpy.float32)
    if array.size == 0:
        return xp.zeros((), array.dtype)
    return xp.asarray(xp.linalg.norm(array.reshape(-1), None if norm_type == 2 else norm_type))

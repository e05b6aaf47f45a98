"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from ...autograd.mode import no_grad
from ...tensor import Tensor
from ...tensor.ops.shaping import cat


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of the parameters in one vector, recorded.

    Args:
        parameters: of one dtype and device, any shapes.

    Example:
        >>> import paceline as torch
        >>> torch.nn.utils.parameters_to_vector(torch.nn.Linear(2, 1).parameters()).shape
        paceline.Size([3])
    """
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the elements of a vector into the parameters.

    Args:
        vec: [total number of elements].
        parameters: any shapes.

    Raises:
        TypeError: vec is not a tensor.
        RuntimeError: vec has not as many elements as the parameters together.

    Example:
        >>> import paceline as torch
        >>> net = torch.nn.Linear(2, 1)
        >>> torch.nn.utils.vector_to_parameters(torch.tensor([1.0, 2.0, 3.0]), net.parameters())
        >>> net.bias
        Parameter containing:
        tensor([3.], requires_grad=True)
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {type(vec).__name__}")
    targets = list(parameters)
    sizes = [parameter.numel() for parameter in targets]
    if vec.numel() != sum(sizes):
        raise RuntimeError(
            f"vector_to_parameters(): vec has {vec.numel()} elements, the {len(sizes)} parameters have {sum(sizes)}"
        )
    with no_grad():
        for parameter, part in zip(targets, vec.split(sizes), strict=True):
            parameter.copy_(part.reshape(parameter.shape))

"""torch.distributed.nn.functional: collectives that gradients flow through.

The convention of the loss is the same for all: the gradient is that of the sum of all ranks' losses, whatever each rank
computes its own from. A rank that uses a tensor of another one thus adds to that one's gradient; a loss that every rank
computes in full from the same reduced tensor counts `size` times, so divide it by `size`, or let one rank only have it.
What the rest of the ranks get from `reduce` and `gather` are zeros, on which nothing depends.

Going backward is a collective too: all ranks of the group do it, in the same order. So the tensors that ranks pass
require a gradient on all of them or on none, and a rank without a use for a result adds `0 * result.sum()` to its loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd.variable import changed
from ..runtime.comm import Comm, ReduceOp
from .distributed import array_of, check_length, peer_of, rows_of_parts
from .ops import arithmetic, reduction, shaping
from .ops import collective as ops
from .process_group import Group, resolve
from .tensor import Tensor

# What has no transpose among the collectives is computed by every rank from all the tensors.
_LOCAL = {ReduceOp.PRODUCT: reduction.prod, ReduceOp.MIN: reduction.amin, ReduceOp.MAX: reduction.amax}


def all_reduce(tensor: Tensor, op: ReduceOp = ReduceOp.SUM, group: Group = None) -> Tensor:
    """The elementwise sum, or what `op` says, of the ranks' tensors, on every rank.

    Args:
        tensor: same shape and dtype on every rank.
        op: ReduceOp.SUM, AVG, PRODUCT, MIN or MAX. Its own gradient is used, unlike in PyTorch: that of MAX goes to the
            ranks with the largest element, equally.
        group: the ranks; default: all of the job.

    Returns:
        With loss_r of the rank r: d(loss_0 + loss_1 + ...)/d tensor is, for SUM, the sum over ranks of the gradients of
        their results.

    Example:
        >>> import paceline as torch
        >>> from paceline.distributed.nn.functional import all_reduce
        >>> x = torch.ones(2, requires_grad=True)
        >>> all_reduce(x * x).sum().backward()
        >>> x.grad
        tensor([2., 2.])
    """
    comm = _checked("all_reduce", group, op, tensor)
    if op in _LOCAL:
        return _LOCAL[op](ops.all_gather_rows(tensor, comm), 0)
    return _scaled(ops.all_reduce_sum(tensor, comm), op, comm)


def reduce(tensor: Tensor, dst: int, op: ReduceOp = ReduceOp.SUM, group: Group = None) -> Tensor:
    """The same as `all_reduce` on rank `dst`, zeros on the others.

    The gradient, for SUM, is that of rank `dst`'s result, on every rank.
    """
    comm = _checked("reduce", group, op, tensor)
    root = peer_of("reduce", "dst", comm, dst, None)
    if op in _LOCAL:
        return _LOCAL[op](ops.gather_rows(tensor, comm, root), 0)
    return _scaled(ops.reduce_to(tensor, comm, root), op, comm)


def broadcast(tensor: Tensor, src: int, group: Group = None) -> Tensor:
    """The tensor of rank `src`, on every rank.

    The gradient is, on rank `src`, the sum over ranks of the gradients of their results; zeros on the others.

    Args:
        tensor: same shape and dtype on every rank, also where its values do not matter.
        src: the rank, in the job.
        group: the ranks; default: all of the job.
    """
    comm = _checked("broadcast", group, None, tensor)
    return ops.broadcast_from(tensor, comm, peer_of("broadcast", "src", comm, src, None))


def all_gather(tensor: Tensor, group: Group = None) -> tuple[Tensor, ...]:
    """All ranks' tensors, of the same shape and dtype, in rank order.

    The gradient of the tensor of rank r is the sum over ranks of the gradients of their r-th results.
    """
    comm = _checked("all_gather", group, None, tensor)
    return _rows(ops.all_gather_rows(tensor, comm))


def gather(tensor: Tensor, dst: int = 0, group: Group = None) -> tuple[Tensor, ...]:
    """All ranks' tensors, of the same shape and dtype, on rank `dst`; on the others as many of zeros.

    The gradient of the tensor of rank r is that of rank `dst`'s r-th result.
    """
    comm = _checked("gather", group, None, tensor)
    return _rows(ops.gather_rows(tensor, comm, peer_of("gather", "dst", comm, dst, None)))


def scatter(tensors: Sequence[Tensor], src: int = 0, group: Group = None) -> Tensor:
    """On rank r the r-th tensor of rank `src`.

    The gradient of rank `src`'s r-th tensor is that of rank r's result; zeros on the other ranks.

    Args:
        tensors: one for each rank, all of the same shape and dtype, on every rank: where their values do not matter,
            they are what the gradients go to.
        src: the rank, in the job.
        group: the ranks; default: all of the job.
    """
    comm = _checked("scatter", group, None, *tensors)
    check_length("scatter", "tensors", tensors, comm.size)
    return ops.scatter_rows(shaping.stack(list(tensors)), comm, peer_of("scatter", "src", comm, src, None))


def reduce_scatter(
    output: Tensor, input_list: Sequence[Tensor], op: ReduceOp = ReduceOp.SUM, group: Group = None
) -> Tensor:
    """On rank r the elementwise sum, or what `op` says, of the ranks' r-th tensors; sizes in a list may differ.

    The gradient of the r-th tensor, for SUM, is that of rank r's result, on every rank.

    Args:
        output: of the result's shape; gets its values, without a gradient.
        input_list: one tensor for each rank, of the shapes that it has on every rank.
        op: as in `all_reduce`.
        group: the ranks; default: all of the job.
    """
    comm = _checked("reduce_scatter", group, op, output, *input_list)
    check_length("reduce_scatter", "input_list", input_list, comm.size)
    if op not in _LOCAL and len({tensor.shape for tensor in input_list}) == 1:
        result = _scaled(ops.reduce_scatter_rows(shaping.stack(list(input_list)), comm), op, comm)
    else:
        parts = _exchange(comm, input_list, [output.shape] * comm.size)
        result = _LOCAL.get(op, reduction.sum)(shaping.stack(parts), 0)
        result = result if op in _LOCAL else _scaled(result, op, comm)
    return _filled(output, result, "reduce_scatter")


def all_to_all(
    output_tensor_list: Sequence[Tensor], input_tensor_list: Sequence[Tensor], group: Group = None
) -> tuple[Tensor, ...]:
    """The tensors that the ranks have for this one: the r-th of rank q's list becomes the q-th result of rank r.

    The gradient of a tensor is that of the result which it becomes, on the other rank.

    Args:
        output_tensor_list: of the results' shapes; get their values, without a gradient.
        input_tensor_list: one tensor for each rank, of any shapes.
        group: the ranks; default: all of the job.
    """
    comm = _checked("all_to_all", group, None, *output_tensor_list, *input_tensor_list)
    check_length("all_to_all", "output_tensor_list", output_tensor_list, comm.size)
    check_length("all_to_all", "input_tensor_list", input_tensor_list, comm.size)
    results = _exchange(comm, input_tensor_list, [output.shape for output in output_tensor_list])
    return tuple(_filled(*pair, "all_to_all") for pair in zip(output_tensor_list, results, strict=True))


def all_to_all_single(
    output: Tensor,
    input: Tensor,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: Group = None,
) -> Tensor:
    """The parts along the first dim that the ranks have for this one, one above the other.

    The gradient of a part is that of where it goes, on the other rank.

    Args:
        output: of the result's shape; gets its values, without a gradient.
        input: one part for each rank.
        output_split_sizes, input_split_sizes: rows of the parts; None: equal parts.
        group: the ranks; default: all of the job.
    """
    comm = _checked("all_to_all_single", group, None, output, input)
    received = _sizes("output", output, output_split_sizes, comm)
    sent = _sizes("input", input, input_split_sizes, comm)
    result = ops.exchange(shaping.reshape(input, (-1,)), comm, sent, received)
    return _filled(output, shaping.reshape(result, tuple(output.shape)), "all_to_all_single")


def _checked(function: str, group: Group, op: Any, *tensors: Tensor) -> Comm:
    """The group's communicator; refuse what are no tensors, and operations without a gradient."""
    for tensor in tensors:
        array_of(function, "each argument", tensor)
    if op is not None and op not in (ReduceOp.SUM, ReduceOp.AVG, *_LOCAL):
        raise ValueError(f"{function}(): op should be one that has a gradient: SUM, AVG, PRODUCT, MIN or MAX, got {op}")
    return resolve(function, group)


def _scaled(total: Tensor, op: ReduceOp, comm: Comm) -> Tensor:
    """The sum, or the mean."""
    return total if op == ReduceOp.SUM else arithmetic.true_divide(total, comm.size)


def _rows(tensor: Tensor) -> tuple[Tensor, ...]:
    return tuple(shaping.select(tensor, 0, row) for row in range(tensor.shape[0]))


def _exchange(comm: Comm, tensors: Sequence[Tensor], shapes: Sequence[Any]) -> list[Tensor]:
    """Send each rank its tensor; those that come have these shapes."""
    sent, received = (tuple(math.prod(shape) for shape in each) for each in ([t.shape for t in tensors], shapes))
    flat = ops.exchange(shaping.cat([shaping.reshape(tensor, (-1,)) for tensor in tensors]), comm, sent, received)
    starts = [sum(received[:rank]) for rank in range(comm.size)]
    return [
        shaping.reshape(shaping.narrow(flat, 0, start, size), tuple(shape))
        for start, size, shape in zip(starts, received, shapes, strict=True)
    ]


def _sizes(name: str, tensor: Tensor, rows: Sequence[int] | None, comm: Comm) -> tuple[int, ...]:
    """Elements of the parts of a tensor along its first dim."""
    width = math.prod(tensor.shape[1:])
    return tuple(count * width for count in rows_of_parts(name, tensor.shape[0], rows, comm))


def _filled(output: Tensor, result: Tensor, function: str) -> Tensor:
    """The result, whose values the tensor that PyTorch would have filled gets as well."""
    if output.shape != result.shape:
        raise ValueError(f"{function}(): output {list(output.shape)} should have the shape {list(result.shape)}")
    output.array[...] = result.array
    changed(output, function)
    return result

"""torch.distributed's collectives on Tensors, over the communicator of a group.

`src` and `dst` are ranks of the job, also where a group is given; `group_src` and `group_dst` are ranks of the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd.variable import changed
from ..runtime.arrays import Array, module_of
from ..runtime.comm import Comm, ReduceOp, Work
from .process_group import Group, get_group_rank, members_of
from .tensor import Tensor


def barrier(group: Group = None, async_op: bool = False, device_ids: Any = None) -> Work | None:
    """Return when every rank of the group has called it."""
    comm = members_of("barrier", group)
    return None if comm is None else comm.barrier(async_op)


def all_reduce(tensor: Tensor, op: ReduceOp = ReduceOp.SUM, group: Group = None, async_op: bool = False) -> Work | None:
    """Combine `tensor` elementwise over all ranks, in place, on every rank.

    Args:
        tensor: same shape and dtype on every rank.
        op: ReduceOp.SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR or BXOR.
        group: the ranks; default: all of the job.
        async_op: return a Work to wait for, instead of None.

    Raises:
        CollectiveMismatchError: the ranks' calls differ.

    Example:
        >>> import paceline as torch
        >>> mine = torch.tensor([1.0, torch.distributed.get_rank()])
        >>> torch.distributed.all_reduce(mine)
        >>> mine  # on one rank; on each of four ranks tensor([4., 6.])
        tensor([1., 0.])
    """
    comm = members_of("all_reduce", group)
    if comm is None:
        return None
    return _handle(comm.all_reduce(array_of("all_reduce", "tensor", tensor), op, async_op), "all_reduce", tensor)


def reduce(
    tensor: Tensor,
    dst: int | None = None,
    op: ReduceOp = ReduceOp.SUM,
    group: Group = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """Combine `tensor` elementwise over all ranks, in place on rank `dst`; the other ranks keep theirs."""
    comm = members_of("reduce", group)
    if comm is None:
        return None
    root = peer_of("reduce", "dst", comm, dst, group_dst)
    return _handle(comm.reduce(array_of("reduce", "tensor", tensor), root, op, async_op), "reduce", tensor)


def broadcast(
    tensor: Tensor,
    src: int | None = None,
    group: Group = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """Overwrite `tensor` on every rank by that of rank `src`; same shape and dtype everywhere.

    Example:
        >>> import paceline as torch
        >>> seed = torch.tensor(7 + torch.distributed.get_rank())
        >>> torch.distributed.broadcast(seed, src=0)
        >>> seed  # on every rank
        tensor(7)
    """
    comm = members_of("broadcast", group)
    if comm is None:
        return None
    root = peer_of("broadcast", "src", comm, src, group_src)
    return _handle(comm.broadcast(array_of("broadcast", "tensor", tensor), root, async_op), "broadcast", tensor)


def all_gather(
    tensor_list: Sequence[Tensor], tensor: Tensor, group: Group = None, async_op: bool = False
) -> Work | None:
    """Fill `tensor_list` on every rank by all ranks' tensors in rank order.

    Args:
        tensor_list: one tensor per rank, each of the shape and dtype of that rank's `tensor`.
        tensor: same dtype on every rank; shapes may differ, as those in the list.
        group: the ranks; default: all of the job.
        async_op: return a Work to wait for, instead of None.

    Example:
        >>> import paceline as torch
        >>> parts = [torch.zeros(2) for _ in range(torch.distributed.get_world_size())]
        >>> torch.distributed.all_gather(parts, torch.full((2,), torch.distributed.get_rank() + 1.0))
        >>> parts  # on one rank; on two ranks tensor([2., 2.]) follows
        [tensor([1., 1.])]
    """
    comm = members_of("all_gather", group)
    if comm is None:
        return None
    outputs = _arrays("all_gather", "tensor_list", tensor_list, comm)
    array = array_of("all_gather", "tensor", tensor)
    _check_own_part("all_gather", "tensor_list", outputs, "tensor", array, comm)
    return _handle(comm.all_gather(outputs, array, async_op), "all_gather", *tensor_list)


def all_gather_into_tensor(
    output_tensor: Tensor, input_tensor: Tensor, group: Group = None, async_op: bool = False
) -> Work | None:
    """Fill `output_tensor` by all ranks' equal tensors in rank order, one behind or above the other.

    Example:
        >>> import paceline as torch
        >>> whole = torch.zeros(torch.distributed.get_world_size(), 2)
        >>> torch.distributed.all_gather_into_tensor(whole, torch.ones(2))
        >>> whole  # on one rank; with a row for each rank
        tensor([[1., 1.]])
    """
    comm = members_of("all_gather_into_tensor", group)
    if comm is None:
        return None
    output = array_of("all_gather_into_tensor", "output_tensor", output_tensor)
    array = array_of("all_gather_into_tensor", "input_tensor", input_tensor)
    return _handle(comm.all_gather(output, array, async_op), "all_gather_into_tensor", output_tensor)


def reduce_scatter(
    output: Tensor,
    input_list: Sequence[Tensor],
    op: ReduceOp = ReduceOp.SUM,
    group: Group = None,
    async_op: bool = False,
) -> Work | None:
    """Combine the ranks' lists elementwise; rank r gets the r-th tensor in `output`. Sizes in a list may differ."""
    comm = members_of("reduce_scatter", group)
    if comm is None:
        return None
    arrays = _arrays("reduce_scatter", "input_list", input_list, comm)
    array = array_of("reduce_scatter", "output", output)
    _check_own_part("reduce_scatter", "input_list", arrays, "output", array, comm)
    return _handle(comm.reduce_scatter(array, arrays, op, async_op), "reduce_scatter", output)


def reduce_scatter_tensor(
    output: Tensor, input: Tensor, op: ReduceOp = ReduceOp.SUM, group: Group = None, async_op: bool = False
) -> Work | None:
    """Combine `input` elementwise over the ranks; rank r gets the r-th of its equal parts in `output`.

    Example:
        >>> import paceline as torch
        >>> total = torch.zeros(2)
        >>> torch.distributed.reduce_scatter_tensor(total, torch.ones(2 * torch.distributed.get_world_size()))
        >>> total  # on one rank; on each of four ranks tensor([4., 4.])
        tensor([1., 1.])
    """
    comm = members_of("reduce_scatter_tensor", group)
    if comm is None:
        return None
    into = array_of("reduce_scatter_tensor", "output", output)
    array = array_of("reduce_scatter_tensor", "input", input)
    return _handle(comm.reduce_scatter(into, array, op, async_op), "reduce_scatter_tensor", output)


def all_to_all(
    output_tensor_list: Sequence[Tensor],
    input_tensor_list: Sequence[Tensor],
    group: Group = None,
    async_op: bool = False,
) -> Work | None:
    """Send the r-th tensor of the list to rank r, and get one from each; sizes may differ."""
    comm = members_of("all_to_all", group)
    if comm is None:
        return None
    outputs = _arrays("all_to_all", "output_tensor_list", output_tensor_list, comm)
    arrays = _arrays("all_to_all", "input_tensor_list", input_tensor_list, comm)
    return _handle(comm.all_to_all(outputs, arrays, async_op), "all_to_all", *output_tensor_list)


def all_to_all_single(
    output: Tensor,
    input: Tensor,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: Group = None,
    async_op: bool = False,
) -> Work | None:
    """Send the r-th part of `input` along its first dim to rank r; `output` gets one part from each rank.

    Args:
        output, input: of one dtype, contiguous.
        output_split_sizes, input_split_sizes: rows of the parts; None: equal parts.
        group: the ranks; default: all of the job.
        async_op: return a Work to wait for, instead of None.
    """
    comm = members_of("all_to_all_single", group)
    if comm is None:
        return None
    into = array_of("all_to_all_single", "output", output)
    array = array_of("all_to_all_single", "input", input)
    if output_split_sizes is None and input_split_sizes is None:
        return _handle(comm.all_to_all(into, array, async_op), "all_to_all_single", output)
    outputs = _parts("output", into, output_split_sizes, comm)
    arrays = _parts("input", array, input_split_sizes, comm)
    return _handle(comm.all_to_all(outputs, arrays, async_op), "all_to_all_single", output)


def gather(
    tensor: Tensor,
    gather_list: Sequence[Tensor] | None = None,
    dst: int | None = None,
    group: Group = None,
    async_op: bool = False,
    group_dst: int | None = None,
) -> Work | None:
    """Fill `gather_list` on rank `dst` (default: the first) by all ranks' equal tensors; the others pass None.

    Example:
        >>> import paceline as torch
        >>> rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        >>> found = [torch.zeros(1) for _ in range(size)] if rank == 0 else None
        >>> torch.distributed.gather(torch.tensor([rank + 0.5]), found)
        >>> found  # on one rank; on rank 0 of two tensor([1.5000]) follows
        [tensor([0.5000])]
    """
    comm = members_of("gather", group)
    if comm is None:
        return None
    root = peer_of("gather", "dst", comm, dst, group_dst, default=0)
    outputs = None if gather_list is None else _arrays("gather", "gather_list", gather_list, comm)
    work = comm.gather(outputs, array_of("gather", "tensor", tensor), root, async_op)
    return _handle(work, "gather", *(gather_list or ()))


def scatter(
    tensor: Tensor,
    scatter_list: Sequence[Tensor] | None = None,
    src: int | None = None,
    group: Group = None,
    async_op: bool = False,
    group_src: int | None = None,
) -> Work | None:
    """Overwrite `tensor` on rank r by the r-th of rank `src`'s list (default: the first rank's); others pass None.

    Example:
        >>> import paceline as torch
        >>> rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        >>> mine = torch.zeros(1)
        >>> torch.distributed.scatter(mine, [torch.full((1,), i + 5.0) for i in range(size)] if rank == 0 else None)
        >>> mine  # on rank 0
        tensor([5.])
    """
    comm = members_of("scatter", group)
    if comm is None:
        return None
    root = peer_of("scatter", "src", comm, src, group_src, default=0)
    arrays = None if scatter_list is None else _arrays("scatter", "scatter_list", scatter_list, comm)
    return _handle(comm.scatter(array_of("scatter", "tensor", tensor), arrays, root, async_op), "scatter", tensor)


def array_of(function: str, name: str, tensor: Tensor) -> Array:
    """The memory of a Tensor."""
    try:
        return tensor.array
    except AttributeError:
        raise TypeError(f"{function}(): {name} should be a Tensor, got {type(tensor).__name__}") from None


def _arrays(function: str, name: str, tensors: Sequence[Tensor], comm: Comm) -> list[Array]:
    """The memory of a list of one Tensor per rank."""
    check_length(function, name, tensors, comm.size)
    return [array_of(function, f"{name}[{index}]", tensor) for index, tensor in enumerate(tensors)]


def check_length(function: str, name: str, items: Sequence[Any], size: int) -> None:
    """Check that a list has one entry per rank."""
    if len(items) != size:
        raise ValueError(f"{function}(): {name} has {len(items)} entries, expected one for each of the {size} ranks")


def _check_own_part(function: str, list_name: str, parts: list[Array], name: str, array: Array, comm: Comm) -> None:
    own = parts[comm.rank]
    if own.shape != array.shape or own.dtype != array.dtype:
        raise ValueError(
            f"{function}(): {list_name}[{comm.rank}] is {own.dtype} {list(own.shape)}, but {name} is {array.dtype} "
            f"{list(array.shape)}"
        )


def _parts(name: str, array: Array, rows: Sequence[int] | None, comm: Comm) -> list[Array]:
    """The parts of an array along its first dim."""
    rows = rows_of_parts(name, array.shape[0], rows, comm)
    bounds = [sum(rows[:index]) for index in range(1, comm.size)]
    return module_of(array).split(array, bounds)


def rows_of_parts(name: str, count: int, rows: Sequence[int] | None, comm: Comm) -> Sequence[int]:
    """How many of `count` rows go to or come from each rank: those given, checked, or as many each."""
    if rows is None:
        rows = [count // comm.size] * comm.size
    check_length("all_to_all_single", f"{name}_split_sizes", rows, comm.size)
    if sum(rows) != count:
        raise ValueError(
            f"all_to_all_single(): {name}_split_sizes {list(rows)} should add up to the {count} rows of {name}"
        )
    return rows


def peer_of(
    function: str,
    name: str,
    comm: Comm,
    global_rank: int | None,
    group_rank: int | None,
    default: int | None = None,
) -> int:
    """The rank in the group that one of two arguments names."""
    if global_rank is not None and group_rank is not None:
        raise ValueError(f"{function}(): give {name} or group_{name}, not both")
    if global_rank is not None:
        if global_rank not in comm.ranks:
            raise ValueError(
                f"{function}(): {name} should be one of the ranks {_list_of(comm.ranks)}, got {global_rank}"
            )
        return get_group_rank(comm, global_rank)
    rank = default if group_rank is None else group_rank
    if rank is None:
        raise ValueError(f"{function}(): {name} is missing")
    return rank


def _list_of(ranks: Sequence[int]) -> str:
    """Ranks for a message, however many."""
    return str(list(ranks)) if len(ranks) <= 8 else f"{ranks[0]} ... {ranks[-1]}"


def _handle(work: Work | None, function: str, *filled: Tensor) -> Work | None:
    """Note that tensors are changed in place; the Work, if there is one, now speaks of Tensors."""
    for tensor in filled:
        changed(tensor, function)
    if work is not None:
        work.outputs = list(filled)
    return work

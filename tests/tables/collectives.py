"""Collectives that gradients flow through: what each computes on all ranks, written for a single process.

As a script (`mpiexec -n 3 python tests/tables/collectives.py`) it checks them on the communicator of its world.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import paceline as torch
from paceline import Tensor
from paceline.distributed.nn import functional as F
from paceline.runtime.comm import ReduceOp, world_comm


class Row(NamedTuple):
    """One call.

    Attributes:
        name: what the test is called.
        shapes: function of rank and size that gives the shapes of the tensors which the rank brings.
        call: the call on one rank, given its tensors, rank and size; it returns the rank's results.
        model: the same for all ranks in one process, given the ranks' lists of tensors; a list of each rank's results.
    """

    name: str
    shapes: Callable[[int, int], list[tuple[int, ...]]]
    call: Callable[[list[Tensor], int, int], list[Tensor]]
    model: Callable[[list[list[Tensor]]], list[list[Tensor]]]


def one(rank: int, size: int) -> list[tuple[int, ...]]:
    return [(2, 3)]


def one_each(rank: int, size: int) -> list[tuple[int, ...]]:
    return [(2, 3)] * size


def like_rank(rank: int, size: int) -> list[tuple[int, ...]]:
    return [(each + 1, 2) for each in range(size)]


def like_both(rank: int, size: int) -> list[tuple[int, ...]]:
    return [(rank + 2 * each + 1, 2) for each in range(size)]


def rows_for(rank: int, size: int) -> list[int]:
    return [shape[0] for shape in like_both(rank, size)]


COMBINE = {
    ReduceOp.SUM: lambda parts: torch.stack(parts).sum(0),
    ReduceOp.AVG: lambda parts: torch.stack(parts).mean(0),
    ReduceOp.PRODUCT: lambda parts: torch.stack(parts).prod(0),
    ReduceOp.MIN: lambda parts: torch.stack(parts).amin(0),
    ReduceOp.MAX: lambda parts: torch.stack(parts).amax(0),
}


def at(root: int, results: list[Tensor], size: int) -> list[list[Tensor]]:
    """The results on one rank, zeros on the others."""
    return [results if rank == root else [torch.zeros_like(each) for each in results] for rank in range(size)]


def column(parts: list[list[Tensor]], index: int) -> list[Tensor]:
    return [each[index] for each in parts]


def transposed(parts: list[list[Tensor]]) -> list[list[Tensor]]:
    return [column(parts, rank) for rank in range(len(parts))]


def empty(shapes: list[tuple[int, ...]], like: Tensor) -> list[Tensor]:
    return [torch.zeros(shape, dtype=like.dtype, device=like.device) for shape in shapes]


def reductions(op: ReduceOp) -> list[Row]:
    combine = COMBINE[op]
    rows = [
        Row(
            f"all_reduce {op}",
            one,
            lambda x, rank, size: [F.all_reduce(x[0], op)],
            lambda x: [[combine(column(x, 0))]] * len(x),
        ),
        Row(
            f"reduce {op}",
            one,
            lambda x, rank, size: [F.reduce(x[0], size - 1, op)],
            lambda x: at(len(x) - 1, [combine(column(x, 0))], len(x)),
        ),
    ]
    for shapes in (one_each, like_rank):
        rows.append(
            Row(
                f"reduce_scatter {op} {shapes.__name__}",
                shapes,
                lambda x, rank, size: [F.reduce_scatter(torch.zeros_like(x[rank]), x, op)],
                lambda x: [[combine(column(x, rank))] for rank in range(len(x))],
            )
        )
    return rows


ROWS = [
    *(row for op in COMBINE for row in reductions(op)),
    Row(
        "broadcast",
        one,
        lambda x, rank, size: [F.broadcast(x[0], size - 1)],
        lambda x: [[x[-1][0]]] * len(x),
    ),
    Row("all_gather", one, lambda x, rank, size: list(F.all_gather(x[0])), lambda x: [column(x, 0)] * len(x)),
    Row(
        "gather",
        one,
        lambda x, rank, size: list(F.gather(x[0], size - 1)),
        lambda x: at(len(x) - 1, column(x, 0), len(x)),
    ),
    Row("scatter", one_each, lambda x, rank, size: [F.scatter(x, 0)], lambda x: [[each] for each in x[0]]),
    Row(
        "all_to_all",
        like_both,
        lambda x, rank, size: list(F.all_to_all(empty([like_both(q, size)[rank] for q in range(size)], x[0]), x)),
        transposed,
    ),
    Row(
        "all_to_all_single equal",
        one_each,
        lambda x, rank, size: [F.all_to_all_single(empty([(2 * size, 3)], x[0])[0], torch.cat(x))],
        lambda x: [[torch.cat(parts)] for parts in transposed(x)],
    ),
    Row(
        "all_to_all_single uneven",
        like_both,
        lambda x, rank, size: [
            F.all_to_all_single(
                empty([(sum(rows_for(q, size)[rank] for q in range(size)), 2)], x[0])[0],
                torch.cat(x),
                [rows_for(q, size)[rank] for q in range(size)],
                rows_for(rank, size),
            )
        ],
        lambda x: [[torch.cat(parts)] for parts in transposed(x)],
    ),
]


def values(shapes: list[tuple[int, ...]], dtype: torch.dtype, seed: int) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    numbers = [draw.normal(size=shape) + 1j * draw.normal(size=shape) for shape in shapes]
    return numbers if dtype.is_complex else [each.real for each in numbers]


def loss_of(results: list[Tensor], rank: int) -> Tensor:
    """Not linear, so that it has a second derivative; other weights on every rank."""
    total = 0.0
    for i, result in enumerate(results):
        square = (result * result.conj()).real if result.is_complex() else result * result * result
        total = total + ((rank + i + 1) * square).sum()
    return total


def check(row: Row, dtype: torch.dtype, device: str = "cpu") -> None:
    """Results, gradients and the gradients of gradients are those of one process that has all ranks' tensors."""
    comm = world_comm()
    rank, size = comm.rank, comm.size

    def leaves(which: int) -> list[Tensor]:
        arrays = values(row.shapes(which, size), dtype, 10 * which)
        return [torch.tensor(each, dtype=dtype, device=device, requires_grad=True) for each in arrays]

    def directions(which: int) -> list[Tensor]:
        arrays = values(row.shapes(which, size), dtype, 10 * which + 1)
        return [torch.tensor(each, dtype=dtype, device=device) for each in arrays]

    def projected(gradients, along) -> Tensor:
        parts = [(g * v).sum() for g, v in zip(gradients, along, strict=True)]
        return sum(part.real if dtype.is_complex else part for part in parts)

    mine = leaves(rank)
    results = row.call(mine, rank, size)
    first = torch.autograd.grad(loss_of(results, rank), mine, create_graph=True)
    second = torch.autograd.grad(projected(first, directions(rank)), mine)

    everybody = [leaves(each) for each in range(size)]
    flat = [x for each in everybody for x in each]
    expected = row.model(everybody)
    loss = sum(loss_of(each, which) for which, each in enumerate(expected))
    all_first = torch.autograd.grad(loss, flat, create_graph=True, allow_unused=True, materialize_grads=True)
    along = [v for each in range(size) for v in directions(each)]
    all_second = torch.autograd.grad(projected(all_first, along), flat, allow_unused=True, materialize_grads=True)
    start = sum(len(row.shapes(each, size)) for each in range(rank))
    part = slice(start, start + len(mine))
    pairs = [*zip(results, expected[rank], strict=True), *zip(first, all_first[part], strict=True)]
    for a, b in [*pairs, *zip(second, all_second[part], strict=True)]:
        np.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy(), 1e-10, 1e-10, err_msg=row.name)


def check_by_differences(row: Row) -> None:
    """The gradient on this rank is how the sum of all ranks' losses changes with its tensors."""
    comm = world_comm()
    rank, size, step = comm.rank, comm.size, 1e-6
    arrays = values(row.shapes(rank, size), torch.float64, 10 * rank)

    def total(moved: int, sign: int, index: tuple[int, int]) -> float:
        tensors = [torch.tensor(array) for array in arrays]
        if moved == rank:
            tensors[index[0]].view(-1)[index[1]] += sign * step
        loss = loss_of(row.call(tensors, rank, size), rank).numpy().reshape(1).copy()
        comm.all_reduce(loss)
        return loss[0]

    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    gradients = torch.autograd.grad(loss_of(row.call(leaves, rank, size), rank), leaves)
    for moved in range(size):
        for i, shape in enumerate(row.shapes(moved, size)):
            last = int(np.prod(shape)) - 1
            slope = (total(moved, 1, (i, last)) - total(moved, -1, (i, last))) / (2 * step)
            if moved == rank:
                np.testing.assert_allclose(gradients[i].view(-1)[last].item(), slope, 1e-6, 1e-6, err_msg=row.name)


def has(row: Row, dtype: torch.dtype) -> bool:
    """Whether numbers of this kind have the operation."""
    return not (dtype.is_complex and row.name.endswith((" min", " max", " min one_each", " max like_rank")))


if __name__ == "__main__":
    for each in ROWS:
        check(each, torch.float64)
        check_by_differences(each)
    print("all checks passed", len(ROWS))

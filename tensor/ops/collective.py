"""Communication as operations on the tape. A gradient is that of the sum of all ranks' losses.

They are linear, and come in pairs that are each other's transposes: the rule of one is the other. All ranks of the
communicator call them, and go backward through them, in the same order.
"""

from __future__ import annotations

import itertools

from ...autograd.primitive import primitive
from ...runtime.arrays import Array
from ...runtime.comm import Comm


@primitive
def all_reduce_sum(xp, input: Array, comm: Comm):
    """The sum of the ranks' tensors, on every rank."""
    total = xp.array(input, order="C")
    comm.all_reduce(total)
    return total


all_reduce_sum.vjp(input=lambda F, g, comm: F.all_reduce_sum(g, comm))


@primitive
def broadcast_from(xp, input: Array, comm: Comm, src: int):
    """The tensor of rank `src`, on every rank."""
    out = xp.array(input, order="C")
    comm.broadcast(out, src)
    return out


@primitive
def reduce_to(xp, input: Array, comm: Comm, dst: int):
    """The sum of the ranks' tensors on rank `dst`, zeros on the others."""
    total = xp.array(input, order="C")
    comm.reduce(total, dst)
    return total if comm.rank == dst else xp.zeros_like(total)


broadcast_from.vjp(input=lambda F, g, comm, src: F.reduce_to(g, comm, src))
reduce_to.vjp(input=lambda F, g, comm, dst: F.broadcast_from(g, comm, dst))


@primitive
def all_gather_rows(xp, input: Array, comm: Comm):
    """The ranks' tensors [...] as the rows of one [size, ...], on every rank."""
    rows = xp.empty((comm.size, *input.shape), input.dtype)
    comm.all_gather(rows, input)
    return rows


@primitive
def reduce_scatter_rows(xp, input: Array, comm: Comm):
    """Row r of the sum of the ranks' tensors [size, ...], on rank r."""
    row = xp.empty(input.shape[1:], input.dtype)
    comm.reduce_scatter(row, input)
    return row


all_gather_rows.vjp(input=lambda F, g, comm: F.reduce_scatter_rows(g, comm))
reduce_scatter_rows.vjp(input=lambda F, g, comm: F.all_gather_rows(g, comm))


@primitive
def gather_rows(xp, input: Array, comm: Comm, dst: int):
    """The ranks' tensors [...] as the rows of one [size, ...] on rank `dst`, zeros on the others."""
    rows = xp.zeros((comm.size, *input.shape), input.dtype)
    comm.gather(rows if comm.rank == dst else None, input, dst)
    return rows


@primitive
def scatter_rows(xp, input: Array, comm: Comm, src: int):
    """Row r of rank `src`'s tensor [size, ...], on rank r."""
    row = xp.empty(input.shape[1:], input.dtype)
    comm.scatter(row, input if comm.rank == src else None, src)
    return row


gather_rows.vjp(input=lambda F, g, comm, dst: F.scatter_rows(g, comm, dst))
scatter_rows.vjp(input=lambda F, g, comm, src: F.gather_rows(g, comm, src))


@primitive
def exchange(xp, input: Array, comm: Comm, sent: tuple, received: tuple):
    """A vector of one part for each rank, from a vector of one part from each; `sent` and `received` are the sizes."""
    output = xp.empty(sum(received), input.dtype)
    comm.all_to_all(_parts(output, received), _parts(input, sent))
    return output


exchange.vjp(input=lambda F, g, comm, sent, received: F.exchange(g, comm, received, sent))


def _parts(vector: Array, sizes: tuple) -> list[Array]:
    bounds = itertools.pairwise(itertools.accumulate(sizes, initial=0))
    return [vector[start:stop] for start, stop in bounds]

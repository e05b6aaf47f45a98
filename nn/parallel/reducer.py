"""Averaging gradients in buckets while backward still runs."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy

from ...autograd.engine import queue_callback
from ...runtime.arrays import Array
from ...runtime.comm import Comm, ReduceOp
from ...tensor import Tensor
from ...tensor.arena import flat_gradients
from ...tensor.creation import zeros_like
from ..parameter import Parameter
from .flat import cut, pack, places_of, unpack

MiB = 1 << 20
_FIRST_BUCKET = MiB  # bytes; small, so that the first all-reduce starts early in backward


class _Bucket:
    """Gradients that travel together.

    Attributes:
        number: its place in the order of sending.
        members: indices of the parameters, ascending as in an arena.
        pending: how many gradients are not complete yet in this backward.
    """

    def __init__(self, number: int, members: list[int]) -> None:
        self.number = number
        self.members = sorted(members)
        self.pending = len(members)


class Reducer:
    """Averages gradients bucket by bucket from hooks in backward."""

    def __init__(self, comm: Comm, parameters: list[Parameter], cap: int) -> None:
        self.comm = comm
        self.enabled = True
        self.cap = cap
        self.parameters = parameters
        self.buckets: list[_Bucket] = []  # planned in the first backward, when the optimizer has made its arenas
        self.order_agreed = False
        self.reset()
        if comm.size > 1:
            for index, parameter in enumerate(self.parameters):
                parameter.register_post_accumulate_grad_hook(functools.partial(self.on_ready, index))

    def plan(self, order: Iterable[int]) -> None:
        """Cut the parameters into buckets in this order."""
        groups = cut(self.parameters, order, min(_FIRST_BUCKET, self.cap), self.cap)
        self.buckets = [_Bucket(number, members) for number, members in enumerate(groups)]
        self.bucket_of = {i: bucket for bucket in self.buckets for i in bucket.members}

    def reset(self) -> None:
        """Be ready for the next backward pass."""
        self.started = False
        self.sent = 0
        self.ready: list[int] = []  # parameters, as their gradients became complete
        self.completed: list[int] = []  # buckets, likewise
        self.used = numpy.zeros(len(self.parameters), numpy.uint8)
        for bucket in self.buckets:
            bucket.pending = len(bucket.members)

    def on_ready(self, index: int, parameter: Tensor) -> None:
        """A gradient is complete: if it was its bucket's last one, send what can be sent in order."""
        if not self.enabled:
            return
        if not self.started:
            self.start()
        self.ready.append(index)
        bucket = self.bucket_of[index]
        bucket.pending -= 1
        if bucket.pending == 0:
            self.completed.append(bucket.number)
        while self.sent < len(self.buckets) and self.buckets[self.sent].pending == 0:
            self.send()

    def start(self) -> None:
        """The first gradient of a backward pass is complete."""
        self.started = True
        queue_callback(self.finish)
        if not self.buckets:
            self.plan(reversed(range(len(self.parameters))))  # as backward goes through the layers

    def send(self) -> None:
        """Average the gradients of the next bucket."""
        bucket = self.buckets[self.sent]
        self.sent += 1
        parameters = [self.parameters[i] for i in bucket.members]
        for i, parameter in zip(bucket.members, parameters, strict=True):
            if parameter.grad is None:
                parameter.grad = zeros_like(parameter)
            else:
                self.used[i] = 1
        gradients = [parameter.grad for parameter in parameters]
        pieces = flat_gradients(gradients)
        if len(pieces) == 1 and pieces[0].flags.c_contiguous:
            self.average(pieces[0].reshape(-1))  # flat, as from those ranks that have to pack
            return
        arrays = [gradient.array for gradient in gradients]
        places = places_of(parameters)
        flat = pack(arrays, places)
        self.average(flat)
        unpack(flat, arrays, places)

    def average(self, array: Array) -> None:
        self.comm.all_reduce(array)
        array /= self.comm.size

    def finish(self) -> None:
        """At the end of backward: send what is left, and take back the gradients of what no rank has used."""
        while self.sent < len(self.buckets):
            self.send()
        self.comm.all_reduce(self.used, ReduceOp.MAX)
        for i in numpy.flatnonzero(self.used == 0):
            self.parameters[i].grad = None
        if not self.order_agreed:
            self.agree_on_order()
        self.reset()

    def agree_on_order(self) -> None:
        """Take over the order in which gradients became complete on rank 0, if a bucket there waited for another."""
        in_order = self.completed == list(range(len(self.completed)))
        unused_last = list(dict.fromkeys([*self.ready, *self.bucket_of]))
        order = self.comm.broadcast_object(None if in_order else unused_last)
        if order is not None:
            self.plan(order)
        self.order_agreed = True

"""How long a data-parallel training step takes on a network that is only described.

Buckets of gradients are sent in order, each when it is ready and the one before has arrived; a message of B bytes costs
latency + B / bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

TOPOLOGIES = ("ring", "tree", "fat-tree")


@dataclass(frozen=True)
class Bucket:
    """Gradients that travel together.

    Attributes:
        size: bytes.
        ready: seconds from the beginning of backward until the last of them is computed.
    """

    size: float
    ready: float


@dataclass(frozen=True)
class Step:
    """A training step of one rank alone.

    Attributes:
        forward, backward, optimizer: seconds of its parts.
        buckets: in the order of sending.
    """

    forward: float
    backward: float
    optimizer: float
    buckets: tuple[Bucket, ...]

    @property
    def compute(self) -> float:
        """Seconds of the step without communication."""
        return self.forward + self.backward + self.optimizer

    def slowed(self, factor: float) -> Step:
        """The same step on a processor that takes `factor` times as long."""
        buckets = tuple(Bucket(bucket.size, bucket.ready * factor) for bucket in self.buckets)
        return Step(self.forward * factor, self.backward * factor, self.optimizer * factor, buckets)


@dataclass(frozen=True)
class Network:
    """What connects the ranks.

    Attributes:
        latency: seconds that a message takes however short it is.
        bandwidth: bytes a second of a machine's link in each direction; the ranks of the machine share it.
        topology: how the sum is formed: "ring"; "tree" (two binary trees, each for half of the bytes); or "fat-tree"
            (within machines a ring, between them the quicker of ring and tree).
        per_node: ranks on a machine.
        local_latency, local_bandwidth: the same between two ranks of one machine.
    """

    latency: float
    bandwidth: float
    topology: str = "ring"
    per_node: int = 1
    local_latency: float = 0.0
    local_bandwidth: float = math.inf

    def all_reduce(self, size: float, ranks: int) -> float:
        """Seconds of an all-reduce of `size` bytes."""
        if ranks <= self.per_node:
            return _ring(size, ranks, self.local_latency, self.local_bandwidth)
        if self.topology == "fat-tree":
            # Each rank of a machine carries its part between the machines, and all parts share the link.
            nodes = math.ceil(ranks / self.per_node)
            within = _ring(size, self.per_node, self.local_latency, self.local_bandwidth)
            return within + min(sum_up(size, nodes, self.latency, self.bandwidth) for sum_up in (_ring, _tree))
        latency = max(self.latency, self.local_latency if self.per_node > 1 else 0.0)
        bandwidth = min(self.bandwidth, self.local_bandwidth if self.per_node > 1 else math.inf)
        return (_tree if self.topology == "tree" else _ring)(size, ranks, latency, bandwidth)


@dataclass(frozen=True)
class Prediction:
    """A training step on several ranks; times in seconds.

    Attributes:
        ranks: their number.
        seconds: the whole step.
        communication: what the all-reduces take together.
        exposed: the part of it during which nothing is computed.
        efficiency: the step of one rank alone over this step, the work per rank being the same.
    """

    ranks: int
    seconds: float
    communication: float
    exposed: float
    efficiency: float

    @property
    def hidden(self) -> float:
        """The share of the communication that goes on beside computation; 1 if there is none."""
        return 1 - self.exposed / self.communication if self.communication else 1.0


def _ring(size: float, ranks: int, latency: float, bandwidth: float) -> float:
    """2 (n - 1) messages of size / n one after the other."""
    return 2 * (ranks - 1) * (latency + size / ranks / bandwidth)


def _tree(size: float, ranks: int, latency: float, bandwidth: float) -> float:
    """Up and down two binary trees; each rank is a leaf of one, and receives `size` bytes in both directions.

    Sanders, Speck, Traeff: Two-tree algorithms for full bandwidth broadcast, reduction and scan (2009).
    """
    return 2 * math.ceil(math.log2(ranks)) * latency + (2 * size / bandwidth if ranks > 1 else 0.0)


def simulate(step: Step, ranks: int, network: Network, overlap: bool = True, noise: float = 0.0) -> Prediction:
    """A step on so many ranks.

    Args:
        step: of one rank alone.
        ranks: how many there are.
        network: what connects them.
        overlap: whether a rank goes on with backward while a bucket travels; without a core or a stream to spare for
            communication it does not.
        noise: standard deviation of a rank's computing time, as a share of it. All wait for the slowest one.
    """
    slowed = step.slowed(1 + noise * slowest(ranks))
    arrived = waited = communication = 0.0
    for bucket in slowed.buckets:
        cost = network.all_reduce(bucket.size, ranks)
        communication += cost
        if overlap:
            arrived = max(arrived, bucket.ready) + cost
        else:
            waited += cost
    exposed = max(0.0, arrived - slowed.backward) + waited
    seconds = slowed.compute + exposed
    return Prediction(ranks, seconds, communication, exposed, step.compute / seconds if seconds else 1.0)


def slowest(ranks: int) -> float:
    """About the expected largest of so many standard normal numbers (Blom 1958)."""
    return NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))


def cut_buckets(gradients: Iterable[Sequence[float]], first: float, cap: float) -> tuple[Bucket, ...]:
    """Gradients, (bytes, ready) each, in the buckets of `DistributedDataParallel`: full from `first`, then `cap` bytes.

    The order is that in which they become ready.
    """
    buckets: list[Bucket] = []
    size = 0.0
    ready = 0.0
    for more, ready in sorted(gradients, key=lambda gradient: gradient[1]):
        size += more
        if size >= (cap if buckets else first):
            buckets.append(Bucket(size, ready))
            size = 0.0
    return (*buckets, Bucket(size, ready)) if size else tuple(buckets)

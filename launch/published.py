"""Scaling that others have published, and what has to be assumed to predict it.

Nothing here is fitted: sizes of models are those of their papers, throughputs of one GPU those of published tables
where there is one, and the rest is what the hardware promises.
"""

from __future__ import annotations

from dataclasses import dataclass

from .simulation import Network, Prediction, Step, cut_buckets, simulate

_PIECES = 100
_FUSED = 64 << 20  # bytes that Horovod sends at once


@dataclass(frozen=True)
class Published:
    """An efficiency of weak scaling.

    Attributes:
        name, ranks, efficiency, source: what was published.
        parameters: of the model, in millions; four bytes each.
        early: the share of their gradients that is there when backward begins; the rest comes evenly.
        step: seconds of one GPU alone, forward taking a third of it.
        network: between the machines.
        overlap: whether gradients travelled during backward.
        assumed: what the source does not say.
    """

    name: str
    ranks: int
    efficiency: float
    source: str
    parameters: float
    early: float
    step: float
    network: Network
    overlap: bool
    assumed: str

    def predict(self, noise: float) -> Prediction:
        size, backward = self.parameters * 4e6, self.step * 2 / 3
        pieces = [(size * (1 - self.early) / _PIECES, backward * (i + 1) / _PIECES) for i in range(_PIECES)]
        buckets = cut_buckets([(size * self.early, 0.0), *pieces], _FUSED, _FUSED)
        step = Step(self.step - backward, backward, 0.0, buckets)
        return simulate(step, self.ranks, self.network, self.overlap, noise)


_HOROVOD = Network(1e-5, 25e9 / 8, per_node=4, local_latency=5e-6, local_bandwidth=1e10)
_FDR = Network(1e-5, 56e9 / 8, per_node=4, local_latency=5e-6, local_bandwidth=1e10)
_HOROVOD_DOCS = "Horovod, docs/benchmarks.rst: 128 machines of 4 Pascal GPUs, 25 Gbit/s RoCE"
_TENSORFLOW = "TensorFlow's own benchmarks of 2017, P100"
_RATE = "64 samples at {} a second per GPU ({}), ring, 10 us a message, 64 MiB buckets"

PUBLISHED = (
    Published(
        "Inception V3", 512, 0.90, _HOROVOD_DOCS, 23.8, 0.08, 64 / 142, _HOROVOD, True,
        _RATE.format(142, _TENSORFLOW),
    ),
    Published(
        "ResNet-101", 512, 0.90, _HOROVOD_DOCS, 44.5, 0.05, 64 / 103.6, _HOROVOD, True,
        _RATE.format(103.6, "Horovod's page: 1656.82 on 16"),
    ),
    Published(
        "VGG-16", 512, 0.68, _HOROVOD_DOCS, 138.4, 0.89, 64 / 154, _HOROVOD, True,
        _RATE.format(154, _TENSORFLOW),
    ),
    Published(
        "ResNet-50", 128, 0.90, "ChainerMN, arXiv 1710.11351: 128 GPUs", 25.6, 0.08, 32 / 100, _FDR, False,
        "32 samples at 100 a second per GPU, 4 GPUs a machine, 56 Gbit/s, no overlap: all guessed, so no evidence",
    ),
)  # fmt: skip

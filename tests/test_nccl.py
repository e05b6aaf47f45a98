"""NCCL: the same checks as every communicator, over a stand-in for CuPy's binding, with ranks that are threads.

Without a device, on NumPy's memory; on one, which may be emulated, also what has to do with streams.
"""

import threading

import nccl_stand_in
import pytest
from tables import comms

from paceline.runtime import arrays
from paceline.runtime.comm import nccl, world_comm
from paceline.runtime.comm.threads import ThreadsComm, run_threads


@pytest.fixture
def stand_in(monkeypatch):
    """Each rank, a thread, has a GPU of its own."""
    monkeypatch.setattr(arrays, "nccl", lambda: nccl_stand_in)
    monkeypatch.setattr(nccl, "gpu_name", lambda: f"gpu {threading.get_ident()}")


class OverNccl(ThreadsComm):
    """A communicator that moves host arrays as those of devices are moved."""

    nccl: nccl.NcclMover

    def _mover(self, call):
        native = call.dtype is None or call.dtype.isnative  # as all arrays on devices are
        return self.nccl if native and self.nccl.takes(call) else self

    def _agree_and_all_reduce(self, tag, flat, op):
        if not self._same_everywhere(tag):
            return False
        by = self._mover(self._call)
        return (
            by._agree_and_all_reduce(tag, flat, op) if by is not self else super()._agree_and_all_reduce(tag, flat, op)
        )


def on_numpy(size, body, monkeypatch):
    """Run `body(comm)` on ranks whose communicator moves NumPy's arrays by NCCL."""
    monkeypatch.setattr(nccl, "_stream", lambda: 0)

    def program():
        plain = world_comm()
        comm = OverNccl(plain._group, plain.rank)
        comm.nccl = nccl.connect(comm)
        return body(comm)

    return run_threads(size, program, timeout=30)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("check", comms.CHECKS, ids=lambda check: check.__name__)
def test_numpy_memory(check, size, stand_in, monkeypatch):
    on_numpy(size, check, monkeypatch)


needs_device = pytest.mark.skipif(not arrays.device_count(), reason="no CUDA device")


@needs_device
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("check", comms.CHECKS, ids=lambda check: check.__name__)
def test_cuda_arrays(check, size, stand_in):
    run_threads(size, lambda: check(world_comm()), timeout=60)

"""NCCL: the same checks as every communicator, over a stand-in for CuPy's binding, with ranks that are threads.

Without a device, on NumPy's memory; on one, which may be emulated, also what has to do with streams.
"""

import re
import threading
import types

import nccl_stand_in
import numpy as np
import pytest
from tables import comms

import paceline as torch
from paceline import distributed as dist
from paceline.runtime import arrays, recorder
from paceline.runtime.arrays import cupy
from paceline.runtime.comm import CollectiveMismatchError, ReduceOp, device_calls, nccl, world_comm
from paceline.runtime.comm.threads import ThreadsComm, run_threads
from paceline.runtime.world import World
from paceline.utils.data import DataLoader, LaneSampler, TensorDataset


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


CALLS = {
    "all_reduce": (lambda comm, a: comm.all_reduce(a), ["allReduce"]),
    "reduce": (lambda comm, a: comm.reduce(a, 1), ["reduce"]),
    "broadcast": (lambda comm, a: comm.broadcast(a, 1), ["broadcast"]),
    "all_gather": (lambda comm, a: comm.all_gather(cupy().zeros((2, 4), "f"), a), ["allGather"]),
    "reduce_scatter": (lambda comm, a: comm.reduce_scatter(a[:2].copy(), a), ["reduceScatter"]),
    "all_to_all": (lambda comm, a: comm.all_to_all(a.copy(), a), ["send", "send", "recv", "recv"]),
    "lists": (lambda comm, a: comm.all_to_all([a.copy(), a.copy()], [a, a]), ["send", "send", "recv", "recv"]),
    "half": (lambda comm, a: comm.all_reduce(a.astype("e")), ["send", "send", "recv", "recv", "allGather"]),
    "bool": (lambda comm, a: comm.all_reduce(a > 1), ["allReduce"]),
    "pairs": (lambda comm, a: comm.all_reduce(a.astype("F")), ["allReduce"]),
    "what NCCL lacks": (lambda comm, a: comm.all_reduce(a.astype("i2")), []),
}


@needs_device
@pytest.mark.parametrize("kind", CALLS)
def test_what_cuda_arrays_are_moved_by(kind, stand_in):
    call, names = CALLS[kind]

    def body():
        comm, array = world_comm(), cupy().arange(4.0, dtype="f")
        comm.all_reduce(array)
        call(comm, array)
        communicator = comm._devices.nccl._communicator
        assert [name for name, _ in communicator.calls] == ["allReduce", *names]
        # on a stream of its own
        assert {stream for _, stream in communicator.calls} == {comm._devices._stream.ptr}
        comm.close()
        assert communicator.destroyed

    run_threads(2, body, timeout=30)


@needs_device
def test_asynchronous_cuda_calls(stand_in):
    def body():
        comm = world_comm()
        arrays_ = [cupy().full(3, float(each)) for each in range(4)]
        works = [comm.all_reduce(array, ReduceOp.AVG, async_op=True) for array in arrays_]
        for work in reversed(works):
            assert work.wait() and work.wait(timeout=1.0) and work.is_completed() and work.is_success()
        assert [array.tolist() for array in arrays_] == [[float(each)] * 3 for each in range(4)]
        assert works[0].get_future().value() == [arrays_[0]]

    run_threads(2, body, timeout=30)


@needs_device
def test_cuda_calls_that_differ_are_refused(stand_in):
    def body():
        comm = world_comm()
        comm.all_reduce(cupy().zeros(3) if comm.rank else np.zeros(3))

    with pytest.raises(CollectiveMismatchError, match=r"rank 1: call 1: all_reduce\(cuda float64 \[3\], op=sum\)"):
        run_threads(2, body, timeout=30)


@needs_device
def test_a_late_cuda_call_stands_in_the_flight_recorder(stand_in, monkeypatch, tmp_path):
    monkeypatch.setattr(device_calls, "LATE_SECONDS", 0.0)
    monkeypatch.setattr(device_calls.Launched, "is_completed", lambda self: not hanging.is_set())
    hanging = threading.Event()

    def body():
        comm = world_comm()
        comm._recorder = own = recorder.Recorder(recorder.path_of(str(tmp_path), comm.rank), comm.rank)
        comm._group_name = "0-1"
        hanging.set()
        work = comm.all_reduce(cupy().zeros(3), async_op=True)  # here
        with pytest.raises(TimeoutError, match=r"has not ended on the device after 0\.01 s"):
            work.wait(0.01)
        comm._devices.look()
        late = own.record().running()
        assert late.call == "all_reduce(cuda float64 [3], op=sum), on the device"
        assert late.number == 1 and late.members == [0, 1]
        line = int(late.place.rpartition(":")[2])
        assert open(__file__).read().splitlines()[line - 1].endswith("# here")
        comm.barrier()
        hanging.clear()
        comm._devices.look()
        assert own.record().running() is None

    run_threads(2, body, timeout=30)


@needs_device
def test_an_error_between_cuda_devices_aborts_the_communicator_and_is_raised(stand_in):
    def body():
        comm, array = world_comm(), cupy().zeros(3)
        work = comm.all_reduce(array, async_op=True)
        communicator = comm._devices.nccl._communicator
        communicator.error = nccl_stand_in.NcclError("NCCL_ERROR_SYSTEM_ERROR: unhandled system error")
        comm._devices.look()
        assert communicator.aborted and isinstance(work.exception(), nccl_stand_in.NcclError)
        for call in (work.wait, lambda: comm.broadcast(array)):
            with pytest.raises(RuntimeError, match=f"NCCL has failed on rank {comm.rank}: NCCL_ERROR_SYSTEM_ERROR"):
                call()
        comm.all_reduce(np.zeros(3))  # the host's way is another one

    run_threads(2, body, timeout=30)


@needs_device
@pytest.mark.parametrize("reason", ["there is no NCCL on ranks [0, 1]", "several ranks use the same GPU (gpu)"])
def test_cuda_arrays_travel_through_the_host_where_nccl_cannot(reason, stand_in, monkeypatch):
    if reason.startswith("there"):
        monkeypatch.setattr(arrays, "nccl", lambda: None)
    monkeypatch.setattr(nccl, "gpu_name", lambda: "gpu")

    def body():
        array = cupy().full(3, world_comm().rank + 1.0)
        world_comm().all_reduce(array)
        return array.tolist()

    with pytest.warns(UserWarning, match=re.escape(f"arrays on GPUs travel through host memory: {reason}")):
        assert run_threads(2, body, timeout=30) == [[3.0] * 3] * 2


@needs_device
def test_a_rank_uses_one_cuda_device(stand_in):
    def body():
        comm, array = world_comm(), cupy().zeros(3)
        comm.all_reduce(array)
        comm._devices._device = types.SimpleNamespace(id=7)
        with pytest.raises(ValueError, match=r"the array is on cuda:0, but this communicator's calls .* on cuda:7"):
            comm.all_reduce(array)
        comm._devices._device = array.device

    run_threads(2, body, timeout=30)


def initialized(net, device):
    """Other values on every rank; rank 0's count."""
    stream = torch.Generator().manual_seed(world_comm().rank)  # threads share the global one
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, generator=stream)
    return net.to(device)


def train(device):
    """Two steps on this rank's part of each batch; the weights of rank 0."""
    comm = world_comm()
    model = initialized(torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)), device)
    ddp = torch.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=1e-4)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    draw = np.random.default_rng(0)
    for _ in range(3):
        x, y = (torch.tensor(draw.normal(size=(6, n)), dtype=torch.float32) for n in (3, 2))
        part = slice(comm.rank * 6 // comm.size, (comm.rank + 1) * 6 // comm.size)
        optimizer.zero_grad()
        ((ddp(x[part].to(device)) - y[part].to(device)) ** 2).mean().backward()
        optimizer.step()
    return np.concatenate([p.detach().cpu().numpy().ravel() for p in ddp.parameters()])


@needs_device
def test_data_parallel_training_of_cuda_tensors(stand_in):
    (expected,) = run_threads(1, lambda: train("cpu"))
    for size in (1, 2, 3):
        for weights in run_threads(size, lambda: train("cuda"), timeout=60):
            np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)


@needs_device
def test_lanes_of_cuda_tensors_have_the_same_bits_on_any_number_of_ranks(stand_in):
    def body():
        comm = world_comm()
        net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
        model = torch.nn.DataParallel(initialized(net, "cuda"), lanes=4)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        samples = TensorDataset(torch.tensor(np.random.default_rng(0).normal(size=(16, 3)), dtype=torch.float32))
        sampler = LaneSampler(samples, 8, 4, num_replicas=comm.size, rank=comm.rank, shuffle=False)
        for (x,) in DataLoader(samples, batch_sampler=sampler):
            optimizer.zero_grad()
            for part in model.lanes(x.to("cuda")):
                (model(part) ** 2).mean().backward()
            optimizer.step()
        return b"".join(t.cpu().numpy().tobytes() for t in model.state_dict().values())

    assert len({bits for size in (1, 2, 3) for bits in run_threads(size, body, timeout=60)}) == 1


def test_each_rank_of_a_machine_takes_another_device(monkeypatch):
    used = []
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        runtime=types.SimpleNamespace(getDeviceCount=lambda: 4),
        Device=lambda index: types.SimpleNamespace(use=lambda: used.append(index)),
    )
    monkeypatch.setattr(arrays, "cupy", lambda: types.SimpleNamespace(cuda=cuda))
    for local_rank, local_size in ((3, 4), (5, 8), (0, 1)):
        monkeypatch.setattr(arrays, "get_world", lambda r=local_rank, n=local_size: World(r, n, r, n, "hydra", 1))
        assert arrays.device_count.__wrapped__() == 4
    assert used == [3, 1]  # alone, a process goes on with the one that is current


@needs_device
@pytest.mark.parametrize("joined", [True, False], ids=["joined", "not yet"])
def test_a_batch_of_messages_between_cuda_devices(joined, stand_in):
    def body():
        comm = world_comm()
        if joined:
            comm.all_reduce(cupy().zeros(1))
        sent = torch.full((2, 3), float(comm.rank), device="cuda")
        received = torch.zeros(3, 2, device="cuda").t()
        ops = [
            dist.P2POp(dist.isend, sent, (comm.rank + 1) % comm.size),
            dist.P2POp(dist.irecv, received, (comm.rank - 1) % comm.size),
        ]
        works = dist.batch_isend_irecv(ops)
        for work in works:
            work.wait()
        assert works[-1].outputs[0] is received
        assert received.tolist() == [[float((comm.rank - 1) % comm.size)] * 3] * 2
        names = [name for name, _ in comm._devices.nccl._communicator.calls] if joined else []
        assert names == ["allReduce", "send", "recv"][: 3 * joined]

    for size in (2, 3):
        run_threads(size, body, timeout=30)


@needs_device
def test_batches_of_cuda_tensors_that_do_not_fit_are_refused(stand_in):
    def body():
        comm = world_comm()
        comm.all_reduce(cupy().zeros(1))
        tensor = torch.zeros(2 + comm.rank, device="cuda")
        dist.batch_isend_irecv([dist.P2POp([dist.isend, dist.irecv][comm.rank], tensor, 1 - comm.rank)])
        comm.barrier()

    with pytest.raises(CollectiveMismatchError, match=r"rank 0 sent 2 elements of float32, but array has 3 of float32"):
        run_threads(2, body, timeout=30)


@needs_device
@pytest.mark.parametrize(("dtype", "large"), [("float16", 2048.0), ("bfloat16", 256.0)])
def test_half_precision_between_cuda_devices_is_summed_in_float32(dtype, large, stand_in):
    """large + 1 is large, and large + 2 is not."""

    def body():
        comm = world_comm()
        terms = [large, 1.0, 1.0]
        results = []
        for act in (lambda x: comm.all_reduce(x), lambda x: comm.reduce(x, 0)):
            tensor = torch.full((5,), terms[comm.rank], device="cuda").to(getattr(torch, dtype))
            act(tensor.array)
            results.append(tensor.float().tolist())
        return results

    found = run_threads(3, body, timeout=30)
    expected = [large + 2] * 5
    assert found[0] == [expected] * 2 and found[1][0] == expected

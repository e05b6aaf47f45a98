"""The sharded optimizer: the same results as the ordinary one on every rank, at any number of ranks."""

import contextlib
import copy
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tables import comms

import paceline as torch
from paceline import nn
from paceline.distributed.optim import ZeroRedundancyOptimizer
from paceline.launch.mpi import LaunchError, find_mpiexec
from paceline.nn.parallel import DistributedDataParallel
from paceline.optim import sharded as sharded_module
from paceline.runtime.comm import world_comm
from paceline.runtime.comm.threads import run_threads

OPTIMIZERS = {
    "adam": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "amsgrad": True}),
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "plain sgd": (torch.optim.SGD, {"lr": 0.1}),
    "nadam": (torch.optim.NAdam, {"lr": 0.01}),  # keeps a number for each parameter besides its steps
}

STAGES = [{}, {"reduce_gradients": True}, {"shard_gradients": True}]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        stream = torch.Generator().manual_seed(4)
        self.embedding = nn.Embedding(50, 7)  # most of the model
        self.hidden = nn.Linear(7, 9)
        self.double = nn.Linear(9, 3, dtype=torch.float64)
        self.unused = nn.Linear(3, 3)
        self.rare = nn.Parameter(torch.zeros(9))
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.5, generator=stream)

    def forward(self, x, rare=False):
        h = self.hidden(self.embedding(x)).tanh()
        h = h + self.rare if rare else h
        return self.double(h.double())


def batch(step, comm):
    whole = torch.randint(0, 50, (12,), generator=torch.Generator().manual_seed(step))
    return whole, whole.chunk(comm.size)[comm.rank]


def loss(module, x, step):
    return module(x, rare=step % 3 == 2).square().mean()


def groups(module):
    return [
        {"params": [*module.embedding.parameters(), *module.double.parameters()]},
        {"params": [*module.hidden.parameters(), *module.unused.parameters(), module.rare], "lr": 0.02},
    ]


def check_equal(module, reference, tolerance=1e-6):
    for (name, a), b in zip(module.named_parameters(), reference.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 1e-5, tolerance, err_msg=name)


@pytest.fixture
def many_shards(monkeypatch):
    monkeypatch.setattr(sharded_module, "_SHARD_BYTES", 512)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("stage", STAGES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_the_ordinary_optimizer(name, stage, size, many_shards):
    kind, options = OPTIMIZERS[name]

    def body():
        comm = world_comm()
        net, alone = Net(), Net()
        model = net if stage else DistributedDataParallel(net)
        sharded = ZeroRedundancyOptimizer(groups(net), kind, **stage, **options)
        plain = kind(groups(alone), **options)
        schedules = [torch.optim.lr_scheduler.ExponentialLR(each, 0.9) for each in (sharded, plain)]
        for step in range(6):
            whole, part = batch(step, comm)
            for optimizer, module, x in ((sharded, model, part), (plain, alone, whole)):
                optimizer.zero_grad()
                loss(module, x, step).backward()
            if step > 3:
                norm = sharded.clip_grad_norm_(0.1)
                expected = nn.utils.clip_grad_norm_(alone.parameters(), 0.1)
                assert norm == pytest.approx(float(expected), rel=1e-4)
                for p, q in zip(net.parameters(), () if stage else alone.parameters(), strict=not stage):
                    assert (p.grad is None) == (q.grad is None)
                    assert p.grad is None or np.allclose(p.grad.numpy(), q.grad.numpy(), 1e-4, 1e-7)
            for optimizer, schedule in zip((sharded, plain), schedules, strict=True):
                optimizer.step()
                schedule.step()
            check_equal(net, alone)
        return [p.detach().numpy().tobytes() for p in net.parameters()]

    assert len({tuple(result) for result in run_threads(size, body, timeout=60)}) == 1


def check_bits(name, stage):
    """Those of data-parallel training on as many ranks, also with accumulated gradients, and with parameters that
    arrive during the next forward."""
    kind, options = OPTIMIZERS[name]
    comm = world_comm()
    net, other = Net(), Net()
    plain = DistributedDataParallel(other)
    model = net if stage else DistributedDataParallel(net)
    optimizers = [ZeroRedundancyOptimizer(groups(net), kind, **stage, **options), kind(groups(other), **options)]
    optimizers[0].asynchronous = True
    for step in range(6):
        for optimizer, module in zip(optimizers, (model, plain), strict=True):
            optimizer.zero_grad()
            if step % 2 and "shard_gradients" not in stage:  # which adds up averages in another order
                with contextlib.nullcontext() if module is net else module.no_sync():
                    loss(module, batch(step + 10, comm)[1], step).backward()
            loss(module, batch(step, comm)[1], step).backward()
            optimizer.step()
        if stage:
            assert all(p.grad is None for p in net.parameters())
        if step == 3:  # while parameters are arriving
            net.load_state_dict(copy.deepcopy(net).state_dict())
        for (key, a), b in zip(net.named_parameters(), other.parameters(), strict=True):
            assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes(), key
            assert type(a) is nn.Parameter


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("stage", STAGES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_has_the_bits_of_data_parallel_training(name, stage, size, many_shards):
    run_threads(size, lambda: check_bits(name, stage), timeout=60)


def test_mpi():
    try:
        mpiexec = find_mpiexec()
    except LaunchError as error:
        pytest.skip(str(error))
    job = comms.finish_job(mpiexec.command(3, [sys.executable, str(Path(__file__))]), timeout=120)
    assert job.returncode == 0, job.stderr
    assert job.stdout.count("all bits are equal") == 3


def test_divided_gradients_accumulate(many_shards):
    def body():
        comm = world_comm()
        net, alone = Net(), Net()
        sharded = ZeroRedundancyOptimizer(groups(net), torch.optim.SGD, lr=0.1, shard_gradients=True)
        plain = torch.optim.SGD(groups(alone), lr=0.1)
        for step in range(4):
            for optimizer, module, part in ((sharded, net, 1), (plain, alone, 0)):
                if step % 2 == 0:
                    optimizer.zero_grad()
                loss(module, batch(step, comm)[part], step).backward()
                if step % 2:
                    optimizer.step()
            check_equal(net, alone)

    run_threads(2, body)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("stage", STAGES, ids=str)
@pytest.mark.parametrize("clips", [False, True])
def test_all_ranks_leave_out_a_step_in_which_one_overflows(clips, stage, size, many_shards):
    def body():
        comm = world_comm()
        net, alone = Net(), Net()
        model = net if stage else DistributedDataParallel(net)
        sharded = ZeroRedundancyOptimizer(groups(net), torch.optim.Adam, lr=0.01, **stage)
        plain = torch.optim.Adam(groups(alone), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(4):
            sharded.zero_grad()
            whole, part = batch(step, comm)
            huge = float("inf") if step == 1 and comm.rank == comm.size - 1 else 1.0
            scaler.scale(loss(model, part, step) * huge).backward()
            if clips:
                scaler.unscale_(sharded)
                sharded.clip_grad_norm_(0.1)
            scaler.step(sharded)
            scaler.update()
            if step != 1:
                plain.zero_grad()
                loss(alone, whole, step).backward()
                if clips:
                    nn.utils.clip_grad_norm_(alone.parameters(), 0.1)
                plain.step()
            check_equal(net, alone)
            assert scaler.get_scale() == (1024 if step < 1 else 512)

    run_threads(size, body, timeout=60)


@pytest.mark.parametrize("name", ["adam", "sgd", "nadam"])
def test_state_goes_on_with_any_number_of_ranks_and_in_the_ordinary_optimizer(name):
    kind, options = OPTIMIZERS[name]

    def train(start, stop, make, state=None, weights=None):
        comm = world_comm()
        net = Net()
        if weights is not None:
            net.load_state_dict(weights)
        optimizer = make(net)
        if state is not None:
            optimizer.load_state_dict(state)
        for step in range(start, stop):
            optimizer.zero_grad()
            loss(net, batch(step, comm)[0], step).backward()  # every rank has the whole batch
            optimizer.step()
        if isinstance(optimizer, ZeroRedundancyOptimizer):
            if comm.size > 1 and comm.rank == 0:
                with pytest.raises(RuntimeError, match=r"consolidate_state_dict\(to=0\)"):
                    optimizer.state_dict()
            comm.barrier()
            optimizer.consolidate_state_dict(to=comm.size - 1)
        saved = optimizer.state_dict() if comm.rank == comm.size - 1 else None
        return net.state_dict(), copy.deepcopy(saved)

    def sharded(net):
        return ZeroRedundancyOptimizer(groups(net), kind, **options)

    def ordinary(net):
        return kind(groups(net), **options)

    expected = train(0, 9, ordinary)[0]
    weights, state = run_threads(3, lambda: train(0, 3, sharded))[-1]
    for size, stop in ((2, 5), (4, 7)):
        now = weights, state
        weights, state = run_threads(size, lambda: train(stop - 2, stop, sharded, now[1], now[0]))[-1]  # noqa: B023
    weights, state = train(7, 9, ordinary, state, weights)
    for key, value in weights.items():
        np.testing.assert_allclose(value.numpy(), expected[key].numpy(), 1e-5, 1e-7)


def test_memory_is_divided():
    """Also where one parameter is most of the model."""

    def body():
        net = nn.Sequential(nn.Embedding(1000, 64), nn.Linear(64, 10))
        optimizer = ZeroRedundancyOptimizer(net.parameters(), torch.optim.Adam)
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        return sum(v.nbytes for entry in optimizer.optim.state.values() for v in entry.values() if v.numel() > 1)

    (whole,) = run_threads(1, body)
    parts = run_threads(4, body)
    assert sum(parts) == whole
    assert max(parts) < whole / 4 + 2000


@pytest.mark.parametrize("stage", STAGES[:2], ids=str)
def test_nothing_is_kept_twice(stage):
    """A rank has parameters, gradients, and its part of two states."""
    values = 400_000

    def body():
        w = torch.ones(values, requires_grad=True)
        optimizer = ZeroRedundancyOptimizer([w], torch.optim.Adam, **stage)
        for _ in range(2):
            optimizer.zero_grad()
            w.sum().backward()
            optimizer.step()
        world_comm().barrier()
        return optimizer, tracemalloc.get_traced_memory()[0]

    run_threads(1, body)  # what is made once
    tracemalloc.start()
    try:
        most = max(nbytes for _, nbytes in run_threads(4, body))
    finally:
        tracemalloc.stop()
    assert most / (4 * values * 4) == pytest.approx(2 + 2 / 4, rel=0.1)


def test_parameters_may_change_between_steps():
    """By loading a checkpoint, or by getting other memory."""

    def body():
        net, alone = nn.Linear(5, 5), nn.Linear(5, 5)
        optimizers = [ZeroRedundancyOptimizer(net.parameters(), torch.optim.SGD, lr=1.0)]
        optimizers.append(torch.optim.SGD(alone.parameters(), lr=1.0))
        for module in (net, alone):
            module.load_state_dict({"weight": torch.ones(5, 5), "bias": torch.ones(5)})
            module.bias.data = torch.full((5,), 2.0)
            module(torch.ones(1, 5)).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        check_equal(net, alone)

    run_threads(2, body)


def test_groups_are_added_later():
    def body():
        net, alone = Net(), Net()
        optimizers = []
        for module, make in ((net, ZeroRedundancyOptimizer), (alone, None)):
            first = [*module.embedding.parameters()]
            kind = torch.optim.SGD
            optimizer = kind(first, lr=0.1) if make is None else make(first, kind, lr=0.1)
            optimizer.add_param_group({"params": list(module.hidden.parameters()), "lr": 0.5})
            optimizers.append(optimizer)
            loss(module, torch.arange(5), 0).backward()
            optimizer.step()
        check_equal(net, alone)

    run_threads(3, body)


def test_bad_input():
    w = torch.ones(3, requires_grad=True)
    with pytest.raises(TypeError, match="the update of Muon depends on whole parameters"):
        ZeroRedundancyOptimizer([w], torch.optim.Muon)
    with pytest.raises(NotImplementedError, match="overlap_with_ddp"):
        ZeroRedundancyOptimizer([w], torch.optim.SGD, overlap_with_ddp=True)

    def averaged_twice():
        ddp = DistributedDataParallel(nn.Linear(2, 2))
        ZeroRedundancyOptimizer(ddp.parameters(), torch.optim.SGD, lr=1.0, shard_gradients=True)

    with pytest.raises(RuntimeError, match="DistributedDataParallel averages these parameters"):
        run_threads(2, averaged_twice)

    def different():
        rank = world_comm().rank
        ZeroRedundancyOptimizer([torch.ones(3, requires_grad=True)], torch.optim.SGD, lr=0.1 + rank)

    with pytest.raises(RuntimeError, match=r"group 0: lr=1.1 on rank 1, group 0: lr=0.1 on rank 0"):
        run_threads(2, different)


if __name__ == "__main__":
    sharded_module._SHARD_BYTES = 512
    for name in OPTIMIZERS:
        for stage in STAGES:
            check_bits(name, stage)
    print("all bits are equal")

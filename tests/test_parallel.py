"""Data-parallel training: one list of checks for every communicator.

As a script (`mpiexec -n 2 python tests/test_parallel.py`) it runs the checks on the communicator of its world.
"""

import contextlib
import copy
import sys

import numpy as np
import pytest
from tables import comms

import paceline as torch
import paceline.distributed as dist
from paceline import nn
from paceline.nn.parallel import DistributedDataParallel, average_gradients
from paceline.nn.parallel import comm_hooks as hooks
from paceline.nn.parallel.join import Join
from paceline.optim import SGD
from paceline.runtime.comm import world_comm
from paceline.runtime.comm.threads import run_threads
from paceline.tensor.arena import settle

TINY = 1e-4  # MiB: every parameter has a bucket of its own, or shares one with its bias


class Net(nn.Module):
    """A small network; `branch` chooses which of two layers is used, the third is never used."""

    def __init__(self, seed=0, norm=False):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.branches = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)])
        self.last = nn.Linear(8, 2)
        stream = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=stream)

    def forward(self, x, branch=0):
        return self.last(self.branches[branch](self.norm(self.first(x)).tanh()))


def batch(comm, seed=0):
    """The whole batch and this rank's part of it."""
    whole = torch.randn(12, 4, generator=torch.Generator().manual_seed(seed))
    return whole, whole.chunk(comm.size)[comm.rank]


def loss(outputs):
    return outputs.square().mean()


def gradients(module):
    return [None if p.grad is None else p.grad.numpy() for p in module.parameters()]


def assert_same(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        if a is None or b is None:
            assert a is b
        elif tolerance:
            np.testing.assert_allclose(a, b, **tolerance)
        else:
            np.testing.assert_array_equal(a, b)


def check_a_step_equals_that_of_one_rank_on_the_whole_batch(comm):
    ddp = DistributedDataParallel(Net(seed=comm.rank).double(), bucket_cap_mb=TINY)
    alone = Net(seed=0).double()
    optimizers = [SGD(each.parameters(), lr=0.1, momentum=0.9) for each in (ddp, alone)]
    for step in range(4):
        whole, part = batch(comm, step)
        for optimizer, module, x in zip(optimizers, (ddp, alone), (part, whole), strict=True):
            optimizer.zero_grad()
            loss(module(x.double())).backward()
            optimizer.step()
        parameters = [[p.detach().numpy() for p in module.parameters()] for module in (ddp, alone)]
        assert_same(*parameters, rtol=1e-10)


def check_buckets_equal_the_simple_average_bit_for_bit(comm):
    """Where every sum has the same order on both ways, which MPI promises for two ranks only."""
    for cap in (None, TINY):
        for in_arena in (False, True):
            ddp, plain = DistributedDataParallel(Net(), bucket_cap_mb=cap), Net()
            if in_arena:
                settle(ddp.parameters())
            for step in range(3):
                ddp.zero_grad()
                plain.zero_grad()
                _, part = batch(comm, step)
                loss(ddp(part)).backward()
                loss(plain(part)).backward()
                average_gradients(plain)
                for name, parameter in ddp.module.named_parameters():
                    expected = plain.get_parameter(name).grad
                    if name.startswith(("branches.1", "branches.2")):
                        assert parameter.grad is None and not expected.any()
                    else:
                        np.testing.assert_array_equal(parameter.grad.numpy(), expected.numpy())
                        assert not in_arena or parameter.grad is parameter.grad_slot


def check_unused_parameters(comm):
    """Each rank uses another branch in some steps: absent gradients count as zeros, and no rank waits for another."""
    for in_arena in (False, True):
        ddp, plain = DistributedDataParallel(Net(), bucket_cap_mb=TINY), Net()
        if in_arena:
            settle(ddp.parameters())
        for step in range(4):
            _, part = batch(comm, step)
            branch = (comm.rank + step) % 2 if step != 2 else 0
            for module in (ddp, plain):
                module.zero_grad()
                loss(module(part, branch)).backward()
            average_gradients(plain)
            used = {(rank + step) % 2 if step != 2 else 0 for rank in range(comm.size)}
            for name, parameter in ddp.module.named_parameters():
                if name.startswith("branches") and int(name[9]) not in used:
                    assert parameter.grad is None, name
                else:
                    np.testing.assert_array_equal(parameter.grad.numpy(), plain.get_parameter(name).grad.numpy())


def check_clipped_replicas_stay_equal(comm):
    """Whatever each rank has used, and although one of them keeps gradients of the step before."""
    torch.manual_seed(0)
    branches = nn.ModuleList([nn.Linear(4, 99) for _ in range(3)])
    ddp = DistributedDataParallel(branches)
    optimizer = SGD(ddp.parameters(), lr=0.1)
    kept = []
    for step in range(12):
        optimizer.zero_grad()
        x = batch(comm, step)[1]
        sum(loss(branches[i](x)) for i in {comm.rank % 3, (comm.rank + step) % 3}).backward()
        nn.utils.clip_grad_norm_(ddp.parameters(), 0.01)
        optimizer.step()
        kept = [p.grad for p in ddp.parameters()][:3] if comm.rank == step % 3 else []
    del kept
    ddp.check_replicas(optimizer)


def check_accumulation(comm):
    """Sums over two backward passes, reduced in the second one: by no_sync(), and by setting the attribute."""
    whole, part = batch(comm)
    alone = Net()
    (loss(alone(whole)) + loss(alone(whole, 1))).backward()
    for by_attribute in (False, True):
        ddp = DistributedDataParallel(Net(), bucket_cap_mb=TINY)
        ddp.require_backward_grad_sync = not by_attribute
        with contextlib.nullcontext() if by_attribute else ddp.no_sync():
            loss(ddp(part)).backward()
        local = ddp.module.first.weight.grad.numpy().copy()
        own = Net()
        loss(own(part)).backward()
        np.testing.assert_array_equal(local, own.first.weight.grad.numpy())
        ddp.require_backward_grad_sync = True
        loss(ddp(part, 1)).backward()
        assert_same(gradients(ddp), gradients(alone), rtol=1e-5, atol=1e-6)


def check_two_reductions_without_zeroing(comm):
    whole, part = batch(comm)
    ddp, alone = DistributedDataParallel(Net()), Net()
    for branch in (0, 1):
        loss(ddp(part, branch)).backward()
        loss(alone(whole, branch)).backward()
    assert_same(gradients(ddp), gradients(alone), rtol=1e-5, atol=1e-6)


def check_several_forwards_before_one_backward(comm):
    whole, part = batch(comm)
    ddp, alone = DistributedDataParallel(Net()), Net()
    for module, x in ((ddp, part), (alone, whole)):
        (loss(module(x)) + loss(module(2 * x, 1))).backward()
    assert_same(gradients(ddp), gradients(alone), rtol=1e-5, atol=1e-6)


def check_start_from_rank_0(comm):
    net = Net(seed=comm.rank, norm=True)
    net.norm.running_mean.fill_(comm.rank)
    net.norm.num_batches_tracked.fill_(comm.rank)
    ddp = DistributedDataParallel(net)
    reference = Net(seed=0, norm=True).state_dict()
    for name, value in ddp.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), reference[name.removeprefix("module.")].numpy())
        assert name.startswith("module.")


def check_buffers_follow_rank_0(comm):
    for broadcast in (True, False):
        ddp = DistributedDataParallel(Net(norm=True), broadcast_buffers=broadcast)
        _, part = batch(comm)
        ddp(part + comm.rank)
        own = ddp.module.norm.running_mean.tolist()
        with ddp.no_sync():
            ddp(part)  # its forward starts from this rank's own
        ddp.module.norm.running_mean.fill_(comm.rank)
        ddp.module.norm.momentum = 0.0
        ddp(part)
        assert ddp.module.norm.running_mean.tolist() == [0.0 if broadcast else comm.rank] * 8
        everybody = comm.all_gather_object(own)
        assert len(set(map(tuple, everybody))) == comm.size


def check_buffers_are_averaged(comm):
    ddp = DistributedDataParallel(Net(norm=True), broadcast_buffers="average")
    ddp.module.register_buffer("assigned", torch.zeros(2))
    ddp = DistributedDataParallel(ddp.module, broadcast_buffers="average")
    for _ in range(2):
        ddp.module.norm.running_mean.fill_(comm.rank)
        ddp.module.norm.num_batches_tracked.fill_(comm.rank)
        ddp.module.assigned = torch.full((2,), 2.0 * comm.rank)
        ddp.module.norm.momentum = 0.0
        ddp(batch(comm)[1])
        mean = (comm.size - 1) / 2
        assert ddp.module.norm.running_mean.tolist() == [mean] * 8
        assert ddp.module.assigned.tolist() == [2 * mean] * 2
        assert ddp.module.norm.num_batches_tracked.item() == (1 if comm.size > 1 else comm.rank + 1)
    ddp.module.double()
    ddp(batch(comm)[1].double())
    assert ddp.module.norm.running_mean.dtype is torch.float64


def check_evaluation_does_not_communicate(comm):
    ddp = DistributedDataParallel(Net(norm=True)).eval()
    if comm.rank == 0:
        ddp(batch(comm)[1])
    comm.barrier()


def check_mixed_dtypes(comm):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            dtypes = [torch.float32, torch.float64, torch.bfloat16, torch.float32, torch.complex64]
            self.weights = nn.ParameterList(torch.ones(3, dtype=dtype) for dtype in dtypes)
            self.weights.append(nn.Parameter(torch.ones(()), requires_grad=False))
            self.weights.append(nn.Parameter(torch.ones(())))

        def forward(self, x):
            return sum((weight.abs() * x).double().sum() for weight in self.weights)

    ddp = DistributedDataParallel(Mixed())
    ddp(torch.tensor([1.0, 2.0, 4.0]) * (comm.rank + 1)).backward()
    mean = (comm.size + 1) / 2
    for parameter in list(ddp.module.weights)[:5]:
        assert parameter.grad.dtype is parameter.dtype
        np.testing.assert_allclose(parameter.grad.to(torch.complex64).numpy(), [mean, 2 * mean, 4 * mean], rtol=1e-2)
    assert ddp.module.weights[5].grad is None
    assert ddp.module.weights[6].grad.item() == 7 * mean


def check_ranks_that_run_layers_in_different_order(comm):
    """The order of sending is agreed, whatever order gradients get ready in."""

    class Parallel(Net):
        def forward(self, x, order):
            hidden = self.first(x).tanh()
            return self.last(sum(self.branches[i](hidden) for i in order))

    ddp, alone = DistributedDataParallel(Parallel(), bucket_cap_mb=TINY), Parallel()
    whole, part = batch(comm)
    order = [0, 1, 2] if comm.rank % 2 else [2, 0, 1]
    for _ in range(3):
        for module, x in ((ddp, part), (alone, whole)):
            module.zero_grad()
            loss(module(x, order)).backward()
        assert_same(gradients(ddp), gradients(alone), rtol=1e-5, atol=1e-6)


def check_buckets_travel_while_backward_runs(comm):
    """And in the order in which rank 0 got them ready, from the second step on."""
    if comm.size == 1:
        return

    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(3))

        def forward(self, x):
            return self.layers[0](self.layers[1](self.layers[2](x)))

    events = []
    net = Reversed()
    for i, layer in enumerate(net.layers):
        layer.weight.register_post_accumulate_grad_hook(lambda p, i=i: events.append(f"ready {i}"))
    ddp = DistributedDataParallel(net, process_group=comm, bucket_cap_mb=TINY / 10)
    reduce = comm.all_reduce
    comm.all_reduce = lambda array, *op, **options: events.append(f"sent {array.size}") or reduce(array, *op)
    for _ in range(2):
        events.append("step")
        loss(ddp(batch(comm)[1])).backward()
    del comm.all_reduce
    first, second = (" ".join(events).split("step")[1:])
    assert first.split() == "ready 0 ready 1 ready 2 sent 16 sent 16 sent 16 sent 4".split()
    assert second.split() == "ready 0 sent 16 ready 1 sent 16 ready 2 sent 16 sent 4".split()


def check_a_failed_backward_leaves_nothing_behind(comm):
    ddp, plain = DistributedDataParallel(Net(), bucket_cap_mb=TINY), Net()

    def fail(parameter):
        raise ZeroDivisionError

    _, part = batch(comm)
    with ddp.module.last.weight.register_post_accumulate_grad_hook(fail):
        with contextlib.suppress(ZeroDivisionError):
            loss(ddp(part)).backward()
    for module in (ddp, plain):
        module.zero_grad()
        loss(module(part)).backward()
    average_gradients(plain)
    assert_same([ddp.module.first.weight.grad.numpy()], [plain.first.weight.grad.numpy()])


def check_ranks_that_run_out_of_batches(comm):
    """Each rank has one batch more than the one before; rank 0, whose buffers count, has the fewest."""
    for by_all in (True, False):
        ddp, plain = DistributedDataParallel(Net(norm=True).double(), bucket_cap_mb=TINY), Net(norm=True).double()
        optimizers = [SGD(each.parameters(), lr=0.01) for each in (ddp, plain)]
        with ddp.join(divide_by_initial_world_size=by_all):
            for step in range(comm.rank + 1):
                ddp.zero_grad()
                loss(ddp(batch(comm, step)[1].double())).backward()
                optimizers[0].step()
        for step in range(comm.size):  # every rank goes through all steps
            trains = [rank for rank in range(comm.size) if rank >= step]
            plain.zero_grad()
            for rank in trains:
                x = batch(comm, step)[0].chunk(comm.size)[rank].double()
                (loss(plain(x)) / (comm.size if by_all else len(trains))).backward()
            optimizers[1].step()
        parameters = [[p.detach().numpy() for p in module.parameters()] for module in (ddp, plain)]
        assert_same(*parameters, rtol=1e-9, atol=1e-12)
        buffers = [tuple(b.numpy().tobytes() for b in ddp.buffers())]
        assert comm.all_gather_object(buffers) == [buffers] * comm.size


def check_statistics_over_all_ranks_need_batches_on_all(comm):
    ddp = DistributedDataParallel(nn.Sequential(nn.Linear(4, 2), nn.SyncBatchNorm(2)))
    with pytest.raises(RuntimeError, match="a rank without batches has none; use BatchNorm"):
        ddp.join()
    with ddp.join(throw_on_early_termination=True):
        loss(ddp(batch(comm)[0])).backward()


def check_a_rank_without_batches_can_end_all(comm):
    ddp = DistributedDataParallel(Net())
    if comm.size == 1:
        return
    with pytest.raises(RuntimeError, match="at least one rank that exhausted inputs"):
        with ddp.join(throw_on_early_termination=True):
            for _ in range(comm.rank + 1):
                loss(ddp(batch(comm)[1])).backward()


def check_division_by_the_number_of_samples(comm):
    """Sums over uneven parts, one rank without any, accumulated in two passes, are the mean over all samples."""
    alone = Net()
    x = torch.randn(comm.size * 3 + 1, 4, generator=torch.Generator().manual_seed(1))
    bounds = [0, 1, *(3 * rank + 4 for rank in range(1, comm.size))]
    bounds[-1] = len(x)
    part = x[bounds[comm.rank] : bounds[comm.rank + 1]]
    alone(x).square().sum(1).mean().backward()
    for hook in (None, hooks.allreduce_hook):
        ddp = DistributedDataParallel(Net(), bucket_cap_mb=TINY, check_nan=hook is None)
        if hook is not None:
            ddp.register_comm_hook(None, hook)
        with ddp.no_sync():
            ddp(part[:1]).square().sum().backward()
        with ddp.divide_by(len(part)):
            ddp(part[1:]).square().sum().backward()
        assert_same(gradients(ddp), gradients(alone), rtol=1e-5, atol=1e-6)


def check_narrow_wires(comm):
    """Near the mean; with error feedback the sum over many steps is, too."""
    tolerances = {hooks.allreduce_hook: 0, hooks.fp16_compress_hook: 1e-3, hooks.bf16_compress_hook: 1e-2}
    for hook, tolerance in tolerances.items():
        for state in (None, hooks.ErrorFeedbackState()):
            if hook is hooks.allreduce_hook and state is not None:
                continue
            ddp, plain = DistributedDataParallel(Net(), bucket_cap_mb=TINY), Net()
            ddp.register_comm_hook(state, hook)
            sums = [0, 0]
            for _ in range(9):
                for i, module in enumerate((ddp, plain)):
                    module.zero_grad()
                    loss(module(batch(comm)[1])).backward()
                    if i:
                        average_gradients(module)
                    found = module.first.weight.grad if i else module.module.first.weight.grad
                    sums[i] = sums[i] + found.numpy() / 9
                largest = np.abs(plain.first.weight.grad.numpy()).max()
                np.testing.assert_allclose(
                    ddp.module.first.weight.grad.numpy(), plain.first.weight.grad.numpy(), 0, tolerance * largest + 1e-9
                )
            error = np.abs(sums[0] - sums[1]).max() / largest
            assert error <= (tolerance / 4 if state else tolerance) + 1e-7


def check_low_rank_gradients(comm):
    """A gradient of rank 1 arrives whole; with error feedback, so do the sums of others over many steps."""
    for hook in (hooks.powerSGD_hook, hooks.batched_powerSGD_hook):
        net = nn.Linear(40, 30, bias=hook is hooks.powerSGD_hook)
        ddp, plain = DistributedDataParallel(net), copy.deepcopy(net)
        ddp.register_comm_hook(hooks.PowerSGDState(None, 2, start_powerSGD_iter=2), hook)
        total = [0, 0]
        stream = torch.Generator().manual_seed(comm.rank)
        x = [torch.randn(4, 40, generator=stream) for _ in range(3)]
        for step in range(60):
            for i, module in enumerate((ddp, plain)):
                module.zero_grad()
                loss(module(x[step % 3])).backward()
                if i:
                    average_gradients(module)
            total[0] = total[0] + ddp.module.weight.grad.numpy()
            total[1] = total[1] + plain.weight.grad.numpy()
            if step < 2 or step == 59:
                tolerance = 1e-6 if step < 2 else 0.3
                norm = np.linalg.norm(total[1])
                assert np.linalg.norm(total[0] - total[1]) <= tolerance * norm
        if net.bias is not None:
            np.testing.assert_allclose(ddp.module.bias.grad.numpy(), plain.bias.grad.numpy(), 1e-5, 1e-6)
        everybody = comm.all_gather_object(ddp.module.weight.grad.numpy().tobytes())
        assert len(set(everybody)) == 1


def check_hooks_of_users(comm):
    """One that returns a tensor of its own, and what a bucket shows."""
    seen = []

    def hook(state, bucket):
        assert state == "state"
        seen.append((bucket.index(), bucket.is_last(), len(bucket.parameters())))
        for gradient, parameter in zip(bucket.gradients(), bucket.parameters(), strict=True):
            assert gradient.shape == parameter.shape
        total = bucket.buffer().clone()
        comm.all_reduce(total.array)
        return total * 2

    ddp, plain = DistributedDataParallel(Net(), bucket_cap_mb=TINY), Net()
    ddp.register_comm_hook("state", hook)
    for module in (ddp, plain):
        loss(module(batch(comm)[1])).backward()
    average_gradients(plain)
    if comm.size > 1:
        expected = 2 * comm.size * plain.first.weight.grad.numpy()
        np.testing.assert_allclose(ddp.module.first.weight.grad.numpy(), expected, 1e-5)
        assert [index for index, _, _ in seen] == list(range(len(seen)))
        assert [last for _, last, _ in seen] == [False] * (len(seen) - 1) + [True]
    with pytest.raises(RuntimeError, match="there is one"):
        ddp.register_comm_hook(None, hook)

    def as_in_pytorchs_manual(state: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer() * 3)
        return future.then(lambda future: future.value() + 1)

    ddp, plain = DistributedDataParallel(Net().first), Net().first
    ddp.register_comm_hook(None, as_in_pytorchs_manual)
    for module in (ddp, plain):
        loss(module(batch(comm)[1])).backward()
    if comm.size > 1:
        np.testing.assert_array_equal(ddp.module.weight.grad.numpy(), plain.weight.grad.numpy() * 3 + 1)
    with pytest.raises(RuntimeError, match="nobody has called set_result"):
        torch.futures.Future().wait()

    def noisy(state, bucket):
        bucket.buffer().add_(1000)
        return hooks.allreduce_hook(None, bucket)

    ddp = DistributedDataParallel(nn.Linear(4, 3))
    optimizer = SGD(ddp.parameters(), lr=0.1)
    ddp.register_comm_hook(None, noisy)
    for _ in range(2):
        optimizer.zero_grad()
        loss(ddp(batch(comm)[1])).backward()
        squares = sum((g.astype(float) ** 2).sum() for g in gradients(ddp) if g is not None)
        assert float(nn.utils.clip_grad_norm_(ddp.parameters(), 1.0)) == pytest.approx(squares**0.5, rel=1e-4)
    bad = DistributedDataParallel(Net())
    bad.register_comm_hook(None, lambda state, bucket: bucket.buffer()[:1])
    if comm.size > 1:
        with pytest.raises(RuntimeError, match=r"should return a tensor of .* elements like bucket\.buffer"):
            loss(bad(batch(comm)[1])).backward()


def check_sizes_of_buckets_are_tried(comm):
    """All ranks change them in the same steps, whatever times they measure, and the results stay right."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*[nn.Linear(600, 600) for _ in range(4)])  # 5.5 MiB

        def forward(self, x):
            return self.layers(x)

    ddp, plain = DistributedDataParallel(Wide(), bucket_cap_mb="auto"), Wide()
    plain.load_state_dict(ddp.module.state_dict())
    x = torch.randn(2, 600, generator=torch.Generator().manual_seed(comm.rank))
    numbers = set()
    for step in range(18):
        for module in (ddp, plain) if step % 8 == 0 else (ddp,):
            module.zero_grad()
            loss(module(x)).backward()
        if step % 8 == 0:
            average_gradients(plain)
            assert_same(gradients(ddp), gradients(plain), rtol=1e-5, atol=1e-7)
        numbers.add(len(ddp._reducer.buckets))
    if comm.size > 1:
        assert ddp._reducer._tuner.done and numbers == {2, 4}


def check_nan_on_one_rank_is_told_on_all(comm):
    ddp = DistributedDataParallel(Net(), check_nan=True)
    loss(ddp(batch(comm)[1])).backward()
    x = batch(comm)[1]
    if comm.rank == comm.size - 1:
        x[0, 0] = float("nan")
    with pytest.raises(RuntimeError) as caught:
        value = loss(ddp(x))
        line = sys._getframe().f_lineno + 1
        value.backward()
    message = str(caught.value)
    assert message.startswith(f"DistributedDataParallel: there is NaN in the gradients of:\n  rank {comm.size - 1}: ")
    assert "last.weight" in message and message.count("rank") == 1
    assert f"of backward() at {__file__}:{line}; NaN is first in the values of LinearBackward0 of " in message
    assert comm.all_gather_object(message) == [message] * comm.size


class NanNet(nn.Module):
    """Two layers, between which NaN may come up; `marks` are the lines where it does."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.what, self.marks = "", {}

    def mark(self, name):
        frame = sys._getframe(1)
        self.marks[name] = f"{frame.f_code.co_filename}:{frame.f_lineno + 1}"

    def forward(self, x):
        self.mark("input")
        h = self.first(x).relu()
        if self.what == "log":
            self.mark("log")
            h = h + (h - 100).log()
        if self.what == "sqrt":
            self.mark("sqrt")
            h = h * (h * 0).sqrt()
        return self.last(h)

    def loss(self, y):
        if self.what == "loss":
            self.mark("loss")
            return ((y * 0) ** 0.5).sum()
        return y.square().mean()


NAN = {
    "input": "NaN is first in the values of LinearBackward0 of {}",
    "log": " or comes from AddBackward0 of {}",
    "sqrt": "backward makes NaN first in SqrtBackward0 of {}",
    "loss": "backward makes NaN first in MulBackward0 of {}",
}


def check_where_nan_comes_from(comm):
    if comm.size == 1:
        return
    for what, words in NAN.items():
        net = NanNet()
        ddp = DistributedDataParallel(net, check_nan=True)
        ones = torch.ones(3, 4)
        net.loss(ddp(ones)).backward()
        assert not any(parameter.grad.isnan().any() for parameter in net.parameters())
        if comm.rank == 1:
            net.what = what
            ones = ones * float("nan") if what == "input" else ones
        with pytest.raises(RuntimeError) as caught:
            net.loss(ddp(ones)).backward()
        marks = comm.broadcast_object(net.marks, src=1)
        assert "\n  rank 1: " in str(caught.value)
        assert str(caught.value).endswith(words.format(marks[what])), caught.value
    if comm.rank == 1:
        with torch.no_grad():
            net.first.weight[0, 0] = float("nan")
    with pytest.raises(RuntimeError, match=r"NaN in the parameters themselves: first\.weight"):
        net.loss(ddp(torch.ones(3, 4))).backward()


def check_replicas_that_differ(comm):
    if comm.size == 1:
        return
    ddp = DistributedDataParallel(Net())
    optimizer = SGD(ddp.parameters(), lr=0.1, momentum=0.9)
    loss(ddp(batch(comm)[1])).backward()
    optimizer.step()
    ddp.check_replicas(optimizer)
    if comm.rank == 1:
        optimizer.param_groups[0]["lr"] = 0.2
        with torch.no_grad():
            ddp.module.last.bias += 1e-6
    with pytest.raises(RuntimeError) as caught:
        ddp.check_replicas(optimizer)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("  last.bias: values") and lines[1].endswith("on rank 0")
    assert lines[2] == "  optimizer, group 0, lr: 0.2 on rank 1, 0.1 on rank 0"
    assert comm.all_gather_object(lines) == [lines] * comm.size


def check_optimizers_that_differ(comm):
    """They are compared at the first step after gradients were averaged, and only then."""
    if comm.size == 1:
        return
    for kind, options, line in (
        (torch.optim.Adam, {"betas": (0.5 + 0.1 * comm.rank, 0.9)}, "group 0, betas: (0.6, 0.9) on rank 1, (0.5, 0.9)"),
        (torch.optim.Adam if comm.rank else SGD, {"lr": 0.1}, "optimizer: Adam on rank 1, SGD on rank 0"),
    ):
        ddp = DistributedDataParallel(Net())
        optimizer = kind(ddp.parameters(), **options)
        with ddp.no_sync():
            loss(ddp(batch(comm)[1])).backward()
        optimizer.step()
        loss(ddp(batch(comm)[1])).backward()
        with pytest.raises(RuntimeError) as caught:
            optimizer.step()
        assert line in str(caught.value)
        assert len(set(comm.all_gather_object(str(caught.value)))) == 1
    ddp = DistributedDataParallel(Net())
    optimizer = SGD(ddp.parameters(), lr=0.1)
    for _ in range(2):
        loss(ddp(batch(comm)[1])).backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = comm.rank  # which is found by check_replicas() only


def check_options_that_differ(comm):
    if comm.size == 1:
        return
    with pytest.raises(RuntimeError, match="bucket_cap_mb=: 2 on rank 1, 1 on rank 0"):
        DistributedDataParallel(Net(), bucket_cap_mb=1 + comm.rank)


def check_a_copy_is_data_parallel_too(comm):
    ddp = DistributedDataParallel(Net())
    other = copy.deepcopy(ddp)
    _, part = batch(comm)
    for module in (ddp, other):
        loss(module(part)).backward()
    assert_same(gradients(other), gradients(ddp))
    assert other.module is not ddp.module and other.process_group is comm


def check_kept_gradients_stay_as_they_were(comm):
    """A user may keep last step's gradient: then this rank packs its bucket, and the others need not."""
    ddp = DistributedDataParallel(Net())
    settle(ddp.parameters())
    alone = Net()
    whole, part = batch(comm)
    loss(ddp(part)).backward()
    kept = ddp.module.first.weight.grad if comm.rank == 0 else None
    before = None if kept is None else kept.numpy().copy()
    ddp.zero_grad()
    loss(ddp(2 * part)).backward()
    loss(alone(2 * whole)).backward()
    assert_same(gradients(ddp), gradients(alone), rtol=1e-5, atol=1e-6)
    if kept is not None:
        np.testing.assert_array_equal(kept.numpy(), before)


def check_different_modules_are_refused(comm):
    if comm.size == 1:
        return
    net = Net()
    if comm.rank == 1:
        net.last = nn.Linear(8, 3, dtype=torch.float64)
        net.more = nn.Linear(1, 1)
        net.first.bias.requires_grad_(False)
    try:
        DistributedDataParallel(net)
    except RuntimeError as error:
        message = str(error)
    assert message == (
        "DistributedDataParallel(): every rank must build the same module, but these differ:\n"
        "  first.bias: float32 [8] (frozen) on rank 1, float32 [8] (trained) on rank 0\n"
        "  last.weight: float64 [3, 8] (trained) on rank 1, float32 [2, 8] (trained) on rank 0\n"
        "  last.bias: float64 [3] (trained) on rank 1, float32 [2] (trained) on rank 0\n"
        "  more.weight: float32 [1, 1] (trained) on rank 1, missing on rank 0\n"
        "  more.bias: float32 [1] (trained) on rank 1, missing on rank 0"
    )
    assert comm.all_gather_object(message) == [message] * comm.size


def check_modules_that_differ_in_order_or_in_much(comm):
    if comm.size == 1:
        return
    layers = [("a", nn.ReLU()), ("b", nn.Linear(1, 1)), ("c", nn.Linear(1, 1))]
    for differ, words in (
        (lambda: nn.ModuleDict(layers[:: -1 if comm.rank else 1]), "order of names on rank 1 is not that on rank 0"),
        (lambda: nn.ModuleList(nn.Linear(1, 1 + comm.rank) for _ in range(20)), "\n  and "),
    ):
        try:
            DistributedDataParallel(differ())
        except RuntimeError as error:
            assert words in str(error) and str(error).count("\n") <= 11
        else:
            raise AssertionError(words)


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_threads(check, size):
    run_threads(size, lambda: check(world_comm()), timeout=60)


def test_mpi():
    comms.run_script_of_checks(__file__, 2)


def test_a_world_of_one_needs_no_hooks():
    net = DistributedDataParallel(nn.Linear(2, 1))
    assert net.process_group.backend == "solo"
    assert all(not p.grad_ready_hooks for p in net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    assert net.module.bias.grad.item() == 1


def test_devices(device):
    def body():
        comm = world_comm()
        ddp, plain = DistributedDataParallel(Net(norm=True).to(device), bucket_cap_mb=TINY), Net(norm=True).to(device)
        _, part = batch(comm)
        for _ in range(2):
            for module in (ddp, plain):
                module.zero_grad()
                loss(module(part.to(device))).backward()
            average_gradients(plain)
            assert_same([ddp.module.first.weight.grad.cpu().numpy()], [plain.first.weight.grad.cpu().numpy()])

    for size in (1, 2):
        run_threads(size, body, timeout=60)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: DistributedDataParallel(3), TypeError, "module should be an nn.Module, got int"),
        (lambda: DistributedDataParallel(nn.ReLU()), RuntimeError, "is not needed when a module doesn't have any"),
        (lambda: DistributedDataParallel(Net(), process_group=3), TypeError, "process_group should be a communicator"),
        (lambda: DistributedDataParallel(Net(), bucket_cap_mb=0), ValueError, "positive number .* or .auto., got 0"),
        (lambda: DistributedDataParallel(Net(), broadcast_buffers="mean"), ValueError, 'or "average", got .mean'),
        (lambda: DistributedDataParallel(Net(), device_ids=[0, 1]), ValueError, "one process per device"),
        (lambda: DistributedDataParallel(Net(), delay=1), TypeError, "unexpected keyword argument 'delay'"),
        (lambda: Join([]), ValueError, "requires at least one joinable"),
        (lambda: Join([SGD(Net().parameters())]), TypeError, "expected Joinables, .*, got SGD: it cannot go on"),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


if __name__ == "__main__":
    for check in CHECKS:
        check(world_comm())
    print("all checks passed", len(CHECKS))

"""Means of gradients that are computed only where somebody wants them: nobody can tell, bit by bit.

As a script (`mpiexec -n 2 python tests/test_deferred_means.py`) it runs the checks on the communicator of its world.
"""

import contextlib
import copy
import importlib
import pickle
import threading
import time

import numpy as np
import pytest
from tables import comms
from tables.nets import Net

import paceline as torch
from paceline import nn
from paceline.nn.parallel import DistributedDataParallel
from paceline.optim import flat
from paceline.runtime.comm import world_comm
from paceline.tensor.arena import values_to_sum

STEPS = 6
BUCKET_MB = 0.03  # so that there are three buckets


class Training:
    """A few steps of a model, and what is seen of its gradients meanwhile.

    Args:
        deferred: whether ranks shall divide steps and defer means; the oracle is that they do neither.
    """

    def __init__(self, comm, deferred, optimizer="SGD", **options):
        flat._JOINT_BYTES = 0 if deferred else 1 << 60
        torch.manual_seed(3)
        self.comm = comm
        self.ddp = DistributedDataParallel(Net(), bucket_cap_mb=BUCKET_MB)
        options = options or {"lr": 0.1, "momentum": 0.9}
        self.optimizer = getattr(torch.optim, optimizer)(self.ddp.parameters(), **options)
        self.stream = torch.Generator().manual_seed(comm.rank)
        self.seen = []
        self.kept = None  # what a check holds of gradients
        self.hooked = [{}]  # and what its hooks do

    @property
    def parameters(self):
        return list(self.ddp.module.parameters())

    @property
    def replicas(self):
        return self.parameters[0].group.replicas()

    def see(self):
        """Note the gradients."""
        self.seen += [np.array(p.grad.numpy()) for p in self.parameters if p.grad is not None]

    def backward(self, **options):
        self.ddp(torch.randn(8, 101, generator=self.stream), **options).backward()

    def step(self):
        self.optimizer.zero_grad()
        self.backward()
        self.optimizer.step()

    def values(self):
        return [p.detach().numpy().copy() for p in self.parameters] + self.seen


def plain(training, step):
    training.step()


def check_same(comm, work, deferred=None, steps=STEPS, **options):
    """`work(training, step)` for each step gives the same bits with deferred means as without any of it.

    Args:
        deferred: for each step, whether the mean is to be pending after it.
    """
    expected = Training(comm, False, **options)
    for step in range(steps):
        work(expected, step)
        assert step == 0 or expected.replicas is None or not expected.replicas.deferred.pending
    training = Training(comm, True, **options)
    pending = []
    for step in range(steps):
        work(training, step)
        pending.append(training.replicas is not None and training.replicas.deferred.pending)
    if deferred is not None:
        assert pending == deferred, pending
    for a, b in zip(training.values(), expected.values(), strict=True):
        np.testing.assert_array_equal(a, b)
    for theirs in comm.all_gather_object(training.values()[: len(training.parameters)]):
        for a, b in zip(training.values(), theirs, strict=False):
            np.testing.assert_array_equal(a, b)
    training.kept, training.hooked[0] = None, {}
    training.step()
    if not training.replicas.deferred.pending:  # gradients are back in the arenas, where they can be summed in place
        for p in training.parameters:
            assert p.grad.array is p.home[0].slots[p.home[1]]()
    return training


ALWAYS = [False] + [True] * (STEPS - 1)  # the first step is the one in which ranks find out that they are replicas


def until(step):
    return [0 < each < step for each in range(STEPS)]


def check_nobody_reads_a_gradient(comm):
    for optimizer, options in (
        ("SGD", {"lr": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("Adam", {"lr": 0.01}),
        ("AdamW", {"lr": 0.01, "amsgrad": True}),
        ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
        ("Adagrad", {"lr": 0.01}),
    ):
        check_same(comm, plain, ALWAYS, optimizer=optimizer, **options)


def check_pieces_of_any_width(comm):
    before = flat._JOINT_CHUNK, flat._CHUNK_CPU
    flat._JOINT_CHUNK = flat._CHUNK_CPU = 4096
    check_same(comm, plain, ALWAYS)
    flat._JOINT_CHUNK, flat._CHUNK_CPU = before


def check_no_mean_is_written(comm):
    """The arena has this rank's own gradients still: that is what it is for."""
    training = Training(comm, True)
    for _ in range(3):
        training.step()
    p = training.parameters[0]
    own = np.array(p.home[0].grad[:100])
    everybody = comm.all_gather_object(own)
    assert all((a != b).all() for i, a in enumerate(everybody) for b in everybody[:i])
    mean = np.mean(everybody, 0, dtype=np.float64)
    np.testing.assert_allclose(p.grad.numpy().reshape(-1)[:100], mean, 1e-5, 1e-8)
    np.testing.assert_array_equal(p.home[0].grad[:100], own)  # others may still have to read it


def looking(when, only=None, after=False):
    """Steps in one of which a rank, or all, read the gradients: before the optimizer's step or after it."""

    def work(training, step):
        training.optimizer.zero_grad()
        training.backward()
        look = step == when and only in (None, training.comm.rank)
        if look and not after:
            training.see()
        training.optimizer.step()
        if look and after:
            training.see()

    return work


def check_gradients_that_are_read(comm):
    for after in (False, True):
        for only in (None, 0, comm.size - 1):
            check_same(comm, looking(3, only, after), until(4 if after else 3))


def check_who_reads_waits_for_nobody(comm):
    """One rank reads while the others are in a collective that it comes to later."""

    def work(training, step):
        training.optimizer.zero_grad()
        training.backward()
        if step == 3:
            if comm.rank == 0:
                training.see()
            comm.barrier()
        training.optimizer.step()

    check_same(comm, work)


def check_nobody_hurries_on_while_others_may_read(comm):
    for after in (False, True):

        def work(training, step, after=after):
            training.optimizer.zero_grad()
            training.backward()
            if after or step == 3:
                training.optimizer.step()
            if step == 3 and comm.rank == 0:
                time.sleep(0.1)
                training.see()
            if not after and step != 3:
                training.optimizer.step()

        check_same(comm, work)


def check_gradients_read_after_the_last_step(comm):
    training = check_same(comm, plain, ALWAYS)
    comm.barrier()
    if comm.rank == 0:
        training.see()
    comm.barrier()


def check_ranks_read_at_different_times(comm):
    def work(training, step):
        training.optimizer.zero_grad()
        training.backward()
        if step == 3 and comm.rank == 0:
            training.see()
        training.optimizer.step()
        if step == 3 and comm.rank:
            training.see()

    check_same(comm, work, until(3))


def check_gradients_that_are_clipped(comm):
    def work(training, step):
        training.optimizer.zero_grad()
        training.backward()
        if step == 3:
            for p in training.parameters:
                p.grad.clamp_(-1e-3, 1e-3)
        training.see() if step == 3 else None
        training.optimizer.step()

    check_same(comm, work, until(3))


def check_clipping_by_the_norm(comm):
    """The norm is summed in the same pieces wherever gradients lie, also if one was replaced by its copy."""
    for only in (None, 0):

        def work(training, step, only=only):
            training.optimizer.zero_grad()
            training.backward()
            if step >= 2:
                if comm.rank == only:
                    p = training.parameters[1]
                    p.grad = p.grad.clone()
                training.seen.append(np.array(nn.utils.clip_grad_norm_(training.ddp.parameters(), 1e-2).item()))
            training.optimizer.step()

        check_same(comm, work)
    sums = []
    for deferred in (False, True):
        training = Training(comm, deferred)
        for _ in range(3):
            training.step()
        sums.append(values_to_sum([p for p in training.parameters if p.grad is not None]))
    for a, b in zip(*sums, strict=True):
        np.testing.assert_array_equal(a, b)


def check_gradients_that_add_up(comm):
    """A second backward adds to the mean of the first one."""

    def work(training, step):
        training.step()
        if step == 2:
            training.backward()
            training.see()
            training.optimizer.step()

    check_same(comm, work)


def check_gradients_that_add_up_on_each_rank(comm):
    for when in (2, 3):  # once after means were averaged at once, and once after they were deferred

        def work(training, step, when=when):
            training.optimizer.zero_grad()
            if step == when:
                with training.ddp.no_sync():
                    training.backward()
                    training.backward()
                if training.comm.rank == 0:
                    training.see()
            training.backward()
            training.optimizer.step()

        check_same(comm, work, ALWAYS[:when] + [False] * (STEPS - when))


def check_one_rank_alone_computes_gradients_in_between(comm):
    def work(training, step):
        if step == 3 and comm.rank == 0:
            training.optimizer.zero_grad()
            with training.ddp.no_sync():
                training.ddp(torch.ones(8, 101)).backward()
            training.see()
        if step == 3 and comm.rank:
            training.see()
        training.step()

    check_same(comm, work)


def check_a_gradient_that_is_kept(comm):
    for read in (False, True):

        def work(training, step, read=read):
            training.step()
            if step == 2:
                training.kept = training.parameters[0].grad, training.parameters[2].grad
                if read:
                    training.seen.append(np.array(training.kept[0].numpy()))
            if step == 4:
                training.seen += [np.array(kept.numpy()) for kept in training.kept]
                training.kept = None

        check_same(comm, work, until(3))


def check_other_names_of_the_same_memory(comm):
    """Whoever has one, taken before the mean was deferred, sees the mean: then it is not."""

    def rebound(training, step):
        training.optimizer.zero_grad()
        with training.ddp.no_sync():
            training.backward()
        for p in training.parameters:
            p.grad = p.grad.detach()
        training.backward()
        training.optimizer.step()

    def kept_from_the_first_step(training, step, take):
        training.backward()
        if step == 0:
            training.kept = [take(p.grad) for p in training.parameters]
        training.seen += [np.array(kept) for kept in training.kept]
        for kept in training.kept:
            kept *= 0.5
        training.optimizer.step()
        for kept in training.kept:
            kept *= 0

    def kept_within_a_step(training, step):
        training.optimizer.zero_grad()
        with training.ddp.no_sync():
            training.backward()
        kept = [p.grad.detach() for p in training.parameters]
        training.backward()
        training.seen += [np.array(each.numpy()) for each in kept]
        training.optimizer.step()

    def kept_by_hooks(training, step):
        kept = {}
        if step == 0:
            for i, p in enumerate(training.parameters):
                p.register_post_accumulate_grad_hook(
                    lambda p, i=i: training.hooked[0].__setitem__(i, p.grad.detach())
                )
        training.hooked[0] = kept
        training.optimizer.zero_grad()
        training.backward()
        training.seen += [np.array(kept[i].numpy()) for i in sorted(kept)]
        training.optimizer.step()

    check_same(comm, rebound, [False] * STEPS)
    check_same(comm, kept_within_a_step, [False] * STEPS)
    for take in (
        lambda gradient: gradient.numpy(),
        lambda gradient: gradient.numpy()[:1],
        lambda gradient: gradient.detach(),
        lambda gradient: gradient[:1],
    ):
        check_same(comm, lambda training, step, take=take: kept_from_the_first_step(training, step, take))
    check_same(comm, kept_by_hooks, [False] * STEPS)


def check_names_taken_while_the_mean_was_deferred(comm):
    """They stay names of the same gradient, also when gradients live in the arenas again."""
    for take in (lambda gradient: gradient.numpy(), lambda gradient: gradient.detach(), lambda gradient: gradient):
        for after in (False, True):

            def work(training, step, take=take, after=after):
                if step != 3:
                    training.optimizer.zero_grad()
                training.backward()
                if step == 2 and not after:
                    training.kept = [take(p.grad) for p in training.parameters]
                training.optimizer.step()
                if step == 2 and after:
                    training.kept = [take(p.grad) for p in training.parameters]
                if step == 2:
                    for kept in training.kept:
                        kept *= 0.5
                    training.see()
                if step == 3:
                    training.see()
                    training.seen += [np.array(kept) for kept in training.kept]
                    training.kept = None

            check_same(comm, work, until(3 if after else 2))


def check_a_gradient_kept_from_another_arena(comm):
    def work(training, step):
        if step == 3:
            kept = [p.grad for p in training.parameters]
            training.optimizer.zero_grad()
            for p in training.parameters:
                p.data = p.data.clone()
            training.optimizer = torch.optim.SGD(training.parameters, lr=0.1)
        training.step()
        if step == 3:
            training.seen += [np.array(each.numpy()) for each in kept]

    training = Training(comm, True)
    expected = Training(comm, False)
    for step in range(STEPS):
        work(training, step)
        work(expected, step)
    for a, b in zip(training.values(), expected.values(), strict=True):
        np.testing.assert_array_equal(a, b)


def check_a_gradient_whose_parameter_is_gone(comm):
    """Its bucket joins in with it still."""

    def work(training, step):
        if step == 2:
            p = training.parameters[-1]
            p.requires_grad_(False)
            p.data = torch.zeros(0, dtype=torch.float64)
            net = training.ddp.module
            net.forward = lambda x: net.second(net.first(x)).square().mean()
        for p in training.parameters[:-2]:
            p.grad = None
        training.backward()
        if step < 2:
            training.optimizer.step()
        training.see()

    found = []
    for deferred in (False, True):
        training = Training(comm, deferred)
        training.ddp = DistributedDataParallel(training.ddp.module, bucket_cap_mb=1e-6)
        for step in range(4):
            work(training, step)
        found.append(training.seen)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def check_changes_of_shape(comm):
    for name in ("squeeze_", "t_", "unsqueeze_"):

        def work(training, step, name=name):
            training.step()
            if step == 2:
                gradient = training.parameters[2].grad
                getattr(gradient, name)(*[0] * (name == "unsqueeze_"))
                training.seen.append(np.array(gradient.numpy()))

        check_same(comm, work)


def check_what_a_gradient_is(comm):
    training = Training(comm, True)
    for _ in range(3):
        training.step()
    assert training.replicas.deferred.pending
    assert type(training.parameters[0].grad) is torch.Tensor
    assert type(training.parameters[1].gradient) is torch.Tensor  # all of them are read at once


def check_threads_that_read_at_once(comm):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(500, 500) for _ in range(4))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x).tanh()
            return x.square().mean()

    found = {}
    for deferred in (False, True):
        flat._JOINT_BYTES = 0 if deferred else 1 << 60
        torch.manual_seed(3)
        model = DistributedDataParallel(Wide())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        stream = torch.Generator().manual_seed(comm.rank)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 500, generator=stream)).backward()
            optimizer.step()
        sums = found[deferred] = {}

        def read(i, p, sums=sums):
            sums[i] = p.grad.sum().item()

        threads = [threading.Thread(target=read, args=each) for each in enumerate(model.parameters())]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found[True] == found[False]
    assert len(found[True]) == 8


def check_gradients_that_others_wait_for(comm):
    """A rank whose backward another rank waits for before it begins its own goes on, soon."""
    deferred = importlib.import_module("paceline.nn.parallel.deferred")
    before, deferred._PATIENCE_SECONDS = deferred._PATIENCE_SECONDS, 0.2

    def work(training, step):
        training.optimizer.zero_grad()
        out = training.ddp(torch.randn(8, 101, generator=training.stream))
        if comm.rank == 0:
            out.register_hook(lambda g: [torch.distributed.send(g, other) for other in range(1, comm.size)] and None)
            out.backward()
        else:
            g = torch.zeros((), dtype=torch.float64)
            torch.distributed.recv(g, 0)
            out.backward(g)
        if step == STEPS - 1:
            training.see()
        training.optimizer.step()

    check_same(comm, work, until(2))
    deferred._PATIENCE_SECONDS = before


def check_two_models_whose_order_differs(comm):
    """In one backward pass, where the sums of the losses were built in other orders."""
    found = []
    for deferred in (False, True):
        flat._JOINT_BYTES = 0 if deferred else 1 << 60
        torch.manual_seed(3)
        models = [DistributedDataParallel(nn.Linear(20, 30)) for _ in range(2)]
        optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
        stream = torch.Generator().manual_seed(comm.rank)
        for step in range(12):
            losses = [model(torch.randn(2, 20, generator=stream)).square().mean() for model in models]
            for optimizer in optimizers:
                optimizer.zero_grad()
            (losses[0] + losses[1] if comm.rank == 0 else losses[1] + losses[0]).backward()
            for optimizer in optimizers:
                optimizer.step()
            if step == 5 and comm.rank == 0:
                models[0].module.weight.grad.sum()
        found.append([p.detach().numpy().copy() for model in models for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def check_a_parameter_without_elements(comm):
    flat._JOINT_BYTES = 0
    model = nn.Linear(20, 30)
    model.empty = nn.Parameter(torch.zeros(0, dtype=torch.float16))
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (ddp(torch.ones(2, 20)).sum() + model.empty.sum()).backward()
        optimizer.step()


def check_gradients_that_are_made_zero(comm):
    def work(training, step):
        training.optimizer.zero_grad(set_to_none=step != 3)
        training.backward()
        training.optimizer.step()

    check_same(comm, work)


def check_steps_that_are_left_out(comm):
    def work(training, step):
        training.optimizer.zero_grad()
        training.backward()
        if step not in (2, 4):
            training.optimizer.step()

    check_same(comm, work, ALWAYS)


def check_a_gradient_that_a_user_replaces(comm):
    for only in (None, 0):

        def work(training, step, only=only):
            training.optimizer.zero_grad()
            training.backward()
            if step == 3 and only in (None, training.comm.rank):
                p = training.parameters[0]
                p.grad = p.grad * 1.0
            training.optimizer.step()

        check_same(comm, work, until(3))


def check_a_gradient_of_the_users_own(comm):
    """It is set without reading what was there."""

    def work(training, step):
        training.optimizer.zero_grad()
        training.backward()
        if step == 3:
            training.parameters[0].grad = torch.ones(257, 101)
        training.optimizer.step()

    check_same(comm, work)


def check_parameters_that_are_not_used(comm):
    def work(training, step):
        training.optimizer.zero_grad()
        training.backward(whole=step != 3)
        assert (training.parameters[-1].grad is None) == (step == 3)
        training.optimizer.step()

    check_same(comm, work)


def check_parameters_that_one_rank_uses(comm):
    def work(training, step):
        training.optimizer.zero_grad()
        training.backward(whole=step != 3 or training.comm.rank == 0)
        training.optimizer.step()

    check_same(comm, work, ALWAYS)


def check_copies(comm):
    def work(training, step):
        training.step()
        if step == 3:
            training.seen += [copy.deepcopy(p.grad).numpy() for p in training.parameters]
            training.seen += [pickle.loads(pickle.dumps(p.grad)).numpy() for p in training.parameters]

    check_same(comm, work)
    for copied in (copy.deepcopy, lambda gradient: pickle.loads(pickle.dumps(gradient))):
        training = Training(comm, True)
        for _ in range(3):
            training.step()
        assert training.replicas.deferred.pending
        assert type(copied(training.parameters[0].grad)) is torch.Tensor


def check_two_optimizers(comm):
    def work(training, step):
        if step == 0:
            training.optimizer = torch.optim.SGD(training.parameters[:2], lr=0.1, momentum=0.9)
            training.other = torch.optim.Adam(training.parameters[2:])
        training.optimizer.zero_grad()
        training.other.zero_grad()
        training.backward()
        training.optimizer.step()
        training.other.step()

    check_same(comm, work)


def check_an_optimizer_that_steps_alone(comm):
    def work(training, step):
        training.optimizer.zero_grad()
        training.backward()
        if step == 3:
            training.optimizer.state[training.parameters[0]]["momentum_buffer"].mul_(0.5)
        training.optimizer.step()

    check_same(comm, work, until(4))  # the mean of step 3 was deferred when the state was looked at


def check_a_gradient_of_the_users_own_that_backward_adds_to(comm):
    for only in (None, 0):

        def work(training, step, only=only):
            training.optimizer.zero_grad()
            if step == 3 and only in (None, comm.rank):
                training.parameters[0].grad = torch.ones(257, 101)
            training.backward()
            training.see() if step == 3 else None
            training.optimizer.step()

        check_same(comm, work, until(3))


def check_other_ways_to_average(comm):
    @contextlib.contextmanager
    def hook(ddp):
        def twice(state, bucket):
            comm.all_reduce(bucket.buffer().array, "avg")
            return bucket.buffer() * 2.0

        ddp.register_comm_hook(None, twice)
        yield

    for change in (hook, lambda ddp: ddp.divide_by(3.0)):

        def work(training, step, change=change):
            training.optimizer.zero_grad()
            with change(training.ddp) if step == 3 else contextlib.nullcontext():
                training.backward()
            training.see() if step == 3 else None
            training.optimizer.step()

        check_same(comm, work)


def check_uneven_batches(comm):
    """Without momentum, of which ranks that make more steps have another one afterwards."""

    def work(training, step):
        if step != 3:
            training.step()
            return
        with training.ddp.join():
            for _ in range(comm.rank):
                training.step()

    check_same(comm, work, lr=0.1)


def check_a_model_that_is_wrapped_anew(comm):
    def work(training, step):
        training.step()
        if step == 3:
            training.ddp = DistributedDataParallel(training.ddp.module, bucket_cap_mb=BUCKET_MB)

    check_same(comm, work, until(3))  # the parameters were broadcast, so that ranks step alone


def check_lanes_afterwards(comm):
    """They add up in the arena if gradients are there again: not if another rank is late."""
    module = importlib.import_module("paceline.nn.parallel.deferred")
    before = module._PATIENCE_SECONDS
    for read, module._PATIENCE_SECONDS in ((False, before), (True, before), (True, -1)):
        found = []
        for deferred in (False, True):
            training = Training(comm, deferred)
            for _ in range(3):
                training.step()
            if read:
                training.see()
            if comm.rank == 0:
                time.sleep(0.05)
            model = DistributedDataParallel(training.ddp.module, lanes=2 * comm.size)
            for _ in range(3):
                training.optimizer.zero_grad()
                for part in model.lanes(torch.ones(8 * comm.size, 101)):
                    model(part).backward()
                training.see()
                training.optimizer.step()
            found.append(training.values())
        for a, b in zip(*found, strict=True):
            np.testing.assert_array_equal(a, b)
    module._PATIENCE_SECONDS = before


def check_an_exception_in_backward(comm):
    def work(training, step):
        if step == 3:
            training.optimizer.zero_grad()
            with contextlib.suppress(ZeroDivisionError):
                x = torch.randn(8, 101, generator=training.stream)
                loss = training.ddp(x)
                loss.register_hook(lambda g: 1 / 0)
                loss.backward()
        training.step()

    check_same(comm, work)


def check_means_that_cannot_be_deferred(comm):
    """Where they are looked at for NaN, and where they travel for free."""
    for options, asynchronous in (({"check_nan": True}, False), ({}, True)):
        training = Training(comm, True)
        training.ddp = DistributedDataParallel(Net(), bucket_cap_mb=BUCKET_MB, **options)
        training.ddp._reducer.asynchronous = asynchronous
        training.optimizer = torch.optim.SGD(training.ddp.parameters(), lr=0.1)
        for _ in range(4):
            training.step()
        assert not training.replicas.deferred.pending


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_") and name != "check_same"]


@pytest.mark.parametrize("size", [2, 3])
def test_mpi(size):
    comms.run_script_of_checks(__file__, size)


if __name__ == "__main__":
    for check in CHECKS:
        check(world_comm())
    print("all checks passed")

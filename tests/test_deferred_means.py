"""Means of gradients that are computed only where somebody wants them: nobody can tell, bit by bit.

As a script (`mpiexec -n 2 python tests/test_deferred_means.py`) it runs the checks on the communicator of its world.
"""

import contextlib
import copy
import pickle
import time

import numpy as np
import pytest
from tables import comms

import paceline as torch
from paceline import nn
from paceline.nn.parallel import DistributedDataParallel
from paceline.optim import flat
from paceline.runtime.comm import world_comm

STEPS = 6
BUCKET_MB = 0.03  # so that there are three buckets


class Net(nn.Module):
    """With arrays of two dtypes; one is so small that some ranks own nothing of it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(101, 257)
        self.second = nn.Linear(257, 3)
        self.last = nn.Linear(3, 1, dtype=torch.float64)

    def forward(self, x, whole=True):
        h = self.first(x).tanh()
        return self.last(self.second(h).double()).square().mean() if whole else h.square().mean()


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
    """The norm of the step in which it begins is summed in other pieces; all ranks have the same one."""
    norms = []

    def work(training, step):
        training.optimizer.zero_grad()
        training.backward()
        if step >= 2:
            norms.append(float(nn.utils.clip_grad_norm_(training.ddp.parameters(), 1e-2)))
        training.optimizer.step()

    training = Training(comm, True)
    for step in range(STEPS):
        work(training, step)
    found, norms = norms, []
    expected = Training(comm, False)
    for step in range(STEPS):
        work(expected, step)
    np.testing.assert_allclose(found, norms, 1e-5)
    for a, b in zip(training.values(), expected.values(), strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-6)
    for theirs in comm.all_gather_object(training.values()):
        for a, b in zip(training.values(), theirs, strict=True):
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

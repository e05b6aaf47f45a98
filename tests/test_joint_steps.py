"""Steps that the ranks of a machine divide among themselves: the same bits as where each makes the whole step.

As a script (`mpiexec -n 2 python tests/test_joint_steps.py`) it runs the checks on the communicator of its world.
"""

import copy

import numpy as np
import pytest
from tables import comms
from tables.nets import Net

import paceline as torch
from paceline.nn.parallel import DistributedDataParallel
from paceline.optim import flat
from paceline.runtime.comm import CollectiveMismatchError, world_comm

STEPS = 6
OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "amsgrad": True}),
    ("NAdam", {"lr": 0.01}),  # keeps a number for each parameter besides its steps
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    ("Adagrad", {"lr": 0.01}),
    ("Adadelta", {}),
    ("Rprop", {}),
]
SGD = OPTIMIZERS[1]


def nothing(model, optimizer, step):
    pass


def train(comm, joint, optimizer=SGD, before=nothing, forward=None, steps=STEPS):
    """What this rank has after some steps: its parameters and state, and whether it still steps with the others.

    Args:
        joint: whether the ranks shall divide the steps; the oracle is that they do not.
        before: called before every optimizer step.
        forward: computes the gradients of a step in another way.
    """
    flat._JOINT_BYTES = 0 if joint else 1 << 60
    torch.manual_seed(3)
    model = DistributedDataParallel(Net())
    name, options = optimizer
    optimizer = getattr(torch.optim, name)(model.parameters(), **options)
    stream = torch.Generator().manual_seed(comm.rank)
    for step in range(steps):
        x = torch.randn(8, 101, generator=stream)
        optimizer.zero_grad()
        if forward is None:
            model(x).backward()
        else:
            forward(model, x, step)
        before(model, optimizer, step)
        optimizer.step()
    together = [run.divided for plan in optimizer._plans for run in plan.runs]
    state = optimizer.state_dict()
    values = [p.detach().numpy().copy() for p in model.parameters()]
    values += [np.array(value.numpy()) for entry in state["state"].values() for value in entry.values()]
    return values, together


def check_same(comm, together, **options):
    """Bit by bit the same as without dividing steps; `together` says whether they are divided at the end."""
    expected, alone = train(comm, False, **options)
    found, divided = train(comm, True, **options)
    assert not any(alone)
    assert divided == [together] * len(divided)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    return found


def check_every_optimizer(comm):
    for optimizer in OPTIMIZERS:
        values = check_same(comm, True, optimizer=optimizer)
        for theirs in comm.all_gather_object(values):
            for a, b in zip(values, theirs, strict=True):
                np.testing.assert_array_equal(a, b)


def check_the_mean_gradient_on_one_rank(comm):
    """The same training in one process, with the samples of all ranks."""
    found, _ = train(comm, True, optimizer=("SGD", {"lr": 0.1, "momentum": 0.9}))
    torch.manual_seed(3)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    streams = [torch.Generator().manual_seed(rank) for rank in range(comm.size)]
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(torch.cat([torch.randn(8, 101, generator=stream) for stream in streams])).backward()
        optimizer.step()
    for a, p in zip(found, model.parameters(), strict=False):
        np.testing.assert_allclose(a, p.detach().numpy(), 1e-4, 1e-6)


def check_one_state_in_memory(comm):
    flat._JOINT_BYTES = 0
    model = DistributedDataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 101)).backward()
    optimizer.step()
    momentum = optimizer._plans[0].runs[0].state["momentum_buffer"]
    comm.barrier()
    if comm.rank == comm.size - 1:
        momentum[0] = 77
    comm.barrier()
    assert momentum[0] == 77


def check_options_that_change(comm):
    def schedule(model, optimizer, step):
        optimizer.param_groups[0].update(lr=0.1 / (step + 1), momentum=0.9 if step > 1 else 0)

    check_same(comm, True, optimizer=("SGD", {"lr": 0.1}), before=schedule)


def check_a_state_that_is_loaded(comm):
    def save_and_load(model, optimizer, step):
        if step == 3:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    check_same(comm, True, before=save_and_load)


def check_a_copied_optimizer(comm):
    def use_copy(model, optimizer, step):
        if step == 3:
            other = copy.deepcopy(optimizer)
            for mine, its in zip(optimizer.state_to_save().values(), other.state.values(), strict=True):
                np.testing.assert_array_equal(mine["momentum_buffer"].numpy(), its["momentum_buffer"].numpy())
            other.step()

    check_same(comm, True, before=use_copy)


def check_a_state_that_one_rank_looks_at(comm):
    """What it gets stays its own, and goes on being what the optimizer uses there."""
    seen = []

    def look(model, optimizer, step):
        if comm.rank == 0 and step == 2:
            seen.append(optimizer.state[model.module.first.weight]["momentum_buffer"])

    found = check_same(comm, False, before=look)
    if comm.rank == 0:
        np.testing.assert_array_equal(seen[-1].numpy(), found[6])  # of the first parameter, behind six parameters


def check_a_state_that_was_looked_at_before_the_first_step(comm):
    def look(model, optimizer, step):
        assert step or not optimizer.state

    check_same(comm, False, before=look)


def check_a_state_that_is_changed(comm):
    def correct(model, optimizer, step):
        if step == 3:
            for entry in optimizer.state.values():
                entry["momentum_buffer"].mul_(0.5)

    check_same(comm, False, before=correct)


def check_options_that_differ(comm):
    """Each rank goes its own way, as it would with an optimizer of its own."""

    def differ(model, optimizer, step):
        optimizer.param_groups[0]["lr"] = 0.1 if step < 2 else 0.01 * (1 + comm.rank)

    check_same(comm, False, before=differ)


def check_options_that_differ_in_their_last_bits(comm):
    def differ(model, optimizer, step):
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1 + 1e-6 * comm.rank)

    check_same(comm, False, before=differ)


def check_gradients_that_are_not_averaged(comm):
    for when in (0, 2):

        def local(model, x, step, when=when):
            if step == when:
                with model.no_sync():
                    model(x).backward()
            else:
                model(x).backward()

        check_same(comm, False, forward=local)


def check_parameters_that_one_rank_changes(comm):
    for when in (0, 3):

        def change(model, optimizer, step, when=when):
            if comm.rank == 0 and step == when:
                with torch.no_grad():
                    model.module.second.weight.mul_(0.5)

        check_same(comm, False, before=change)


def check_states_that_differ(comm):
    def load(model, optimizer, step):
        if step == 3:
            state = copy.deepcopy(optimizer.state_dict())
            state["state"][0]["momentum_buffer"][0, 0] += comm.rank
            optimizer.load_state_dict(state)

    check_same(comm, False, before=load)


def check_parameters_that_are_not_used(comm):
    def part(model, x, step):
        model(x, whole=step != 3).backward()

    check_same(comm, False, forward=part)


def check_a_gradient_that_a_user_replaced(comm):
    def replace(model, optimizer, step):
        if comm.rank == 0 and step == 2:
            p = model.module.first.weight
            p.grad = p.grad * 1.0

    check_same(comm, False, before=replace)


def check_a_hook_that_averages_nothing(comm):
    def with_hook(model, x, step):
        if step == 0:
            model.register_comm_hook(None, lambda state, bucket: bucket.buffer())
        model(x).backward()

    check_same(comm, False, forward=with_hook)


def check_a_rank_that_makes_no_step(comm):
    flat._JOINT_BYTES = 0
    model = DistributedDataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(1, 101)).backward()
    optimizer.step()
    model(torch.ones(1, 101)).backward()
    try:
        if comm.rank != 1:
            optimizer.step()
        comm.all_reduce(np.zeros(3))
    except CollectiveMismatchError as error:
        assert "rank 0" in str(error) and "test_joint_steps.py" in str(error), error
        assert f"rank 1: call {comm._calls}: all_reduce(float64 [3], op=sum)" in str(error), error
    else:
        raise AssertionError("a step that one rank left out went unnoticed")


def check_a_state_that_one_rank_saves(comm):
    """It is a copy, and the ranks go on together."""
    saved = []

    def save(model, optimizer, step):
        if comm.rank == 0 and step == 3:
            saved.append(optimizer.state_dict()["state"][0]["momentum_buffer"])
            saved.append(saved[-1].numpy().copy())

    check_same(comm, True, before=save)
    if comm.rank == 0:
        _, alone, kept, joint = saved
        np.testing.assert_array_equal(joint, alone)
        np.testing.assert_array_equal(kept.numpy(), joint)  # later steps do not show in it


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_") and name != "check_same"]


@pytest.mark.parametrize("size", [2, 3])
def test_mpi(size):
    comms.run_script_of_checks(__file__, size)


if __name__ == "__main__":
    for check in CHECKS:
        check(world_comm())
    print("all checks passed")

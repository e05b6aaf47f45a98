"""Collectives that gradients flow through, against one process that has all ranks' tensors and against differences."""


import pytest
from tables import collectives, comms

import paceline as torch
from paceline.distributed.nn import functional as F
from paceline.runtime.arrays import device_count
from paceline.runtime.comm import CollectiveMismatchError, ReduceOp, world_comm
from paceline.runtime.comm.threads import run_threads

rows = pytest.mark.parametrize("row", collectives.ROWS, ids=lambda row: row.name)


@rows
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
def test_as_in_one_process(row, dtype, size):
    if collectives.has(row, dtype):
        run_threads(size, lambda: collectives.check(row, dtype), timeout=30)


@rows
def test_finite_differences(row):
    run_threads(2, lambda: collectives.check_by_differences(row), timeout=30)


@pytest.mark.skipif(not device_count(), reason="no CUDA device")
@rows
def test_cuda_tensors(row):
    run_threads(2, lambda: collectives.check(row, torch.float64, "cuda"), timeout=30)


@pytest.mark.parametrize("size", [2, 3])
def test_mpi(size):
    comms.run_script_of_checks(collectives.__file__, size)


def on_ranks(body):
    return run_threads(2, body, timeout=30)


def test_a_loss_that_every_rank_has_in_full_counts_for_each():
    def body():
        x = torch.tensor([1.0 + world_comm().rank], requires_grad=True)
        (F.all_reduce(x) ** 2).backward()
        return x.grad.item()

    assert on_ranks(body) == [2 * 2 * 3.0] * 2  # two ranks with the loss (1 + 2) ** 2


def test_equal_extremes_share_the_gradient():
    def body():
        x = torch.tensor([4.0, world_comm().rank], requires_grad=True)
        F.reduce(x, 0, ReduceOp.MAX).sum().backward()
        return x.grad.tolist()

    assert on_ranks(body) == [[0.5, 0.0], [0.5, 1.0]]


def test_the_tensors_that_pytorch_fills_are_filled():
    def body():
        rank = world_comm().rank
        single, part, lists = torch.zeros(2), torch.zeros(1), [torch.zeros(1), torch.zeros(2)]
        F.all_to_all_single(single, torch.tensor([rank, rank + 10.0]))
        F.reduce_scatter(part, [torch.tensor([rank + 1.0])] * 2)
        shapes = ((1,), (2,))
        F.all_to_all(lists, [torch.full(shapes[rank], float(rank))] * 2)
        return single.tolist(), part.tolist(), [each.tolist() for each in lists]

    assert on_ranks(body)[0] == ([0.0, 1.0], [3.0], [[0.0], [1.0, 1.0]])


def test_going_backward_on_one_rank_only_is_found():
    def body():
        total = F.all_reduce(torch.ones(2, requires_grad=True))
        if world_comm().rank == 0:
            total.sum().backward()
        world_comm().barrier()

    with pytest.raises(CollectiveMismatchError, match=r"rank 1: call 2: barrier\(\)"):
        on_ranks(body)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda x: F.all_reduce(x, ReduceOp.BAND), ValueError, "op should be one that has a gradient"),
        (lambda x: F.all_reduce(x.numpy()), TypeError, "should be a Tensor, got ndarray"),
        (lambda x: F.scatter([x]), ValueError, "tensors has 1 entries, expected one for each of the 2 ranks"),
        (lambda x: F.all_to_all([x], [x, x]), ValueError, "output_tensor_list has 1 entries"),
        (lambda x: F.broadcast(x, 7), ValueError, "src should be one of the ranks"),
        (
            lambda x: F.all_to_all_single(x, x, [1, 0]),
            ValueError,
            "output_split_sizes .* add up to the 2",
        ),
        (lambda x: F.reduce_scatter(torch.ones(3), [x, x]), ValueError, r"output \[3\] should have the shape \[2\]"),
    ],
)
def test_bad_arguments(call, kind, words):
    with pytest.raises(kind, match=words):
        on_ranks(lambda: call(torch.ones(2)))

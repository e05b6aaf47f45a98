"""torch.distributed's functions on Tensors: what they mean at every number of ranks, their groups and their errors."""

import datetime
import importlib
import weakref

import pytest

import paceline as torch
from paceline import distributed as dist
from paceline import multiprocessing
from paceline.runtime.comm import world_comm
from paceline.runtime.comm.threads import run_threads

SIZES = [1, 2, 3]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float32)


def on_ranks(size, body):
    return run_threads(size, body, timeout=30)


def check_whole_tensors():
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    ranks = list(range(size))
    summed, mean, highest, bits = tensor(1, rank), tensor(rank), tensor(rank), torch.tensor([1 << rank])
    assert dist.all_reduce(summed) is None
    dist.all_reduce(mean, dist.ReduceOp.AVG)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX, async_op=True).wait()
    dist.all_reduce(bits, dist.ReduceOp.BOR)
    assert summed.tolist() == [size, sum(ranks)] and mean.tolist() == [sum(ranks) / size]
    assert highest.tolist() == [size - 1] and bits.tolist() == [(1 << size) - 1]
    sent, reduced = tensor(rank), tensor(rank)
    dist.broadcast(sent, src=size - 1)
    dist.reduce(reduced, dst=0)
    assert sent.tolist() == [size - 1] and reduced.tolist() == [rank if rank else sum(ranks)]
    dist.barrier()


def check_parts():
    rank, size = dist.get_rank(), dist.get_world_size()
    ranks = list(range(size))
    gathered = [tensor(0) for _ in ranks]
    dist.all_gather(gathered, tensor(rank))
    assert [each.item() for each in gathered] == ranks
    uneven = [torch.zeros(each + 1) for each in ranks]
    dist.all_gather(uneven, torch.full((rank + 1,), float(rank)))
    assert [each.tolist() for each in uneven] == [[each] * (each + 1) for each in ranks]
    into = torch.zeros(size, 2)
    dist.all_gather_into_tensor(into, tensor(rank, -rank))
    assert into.tolist() == [[each, -each] for each in ranks]
    part = tensor(0)
    dist.reduce_scatter(part, [tensor(rank + each) for each in ranks])
    assert part.item() == sum(ranks) + size * rank
    uneven_part = torch.zeros(rank + 1)
    dist.reduce_scatter(uneven_part, [torch.full((each + 1,), float(rank)) for each in ranks])
    assert uneven_part.tolist() == [sum(ranks)] * (rank + 1)
    dist.reduce_scatter_tensor(part, tensor(*(rank + each for each in ranks)), dist.ReduceOp.MAX)
    assert part.item() == size - 1 + rank
    on_root = [tensor(0) for _ in ranks] if rank == size - 1 else None
    dist.gather(tensor(rank), on_root, dst=size - 1)
    assert on_root is None or [each.item() for each in on_root] == ranks
    dist.scatter(part, [tensor(10 + each) for each in ranks] if rank == 0 else None)
    assert part.item() == 10 + rank


def check_all_to_all():
    rank, size = dist.get_rank(), dist.get_world_size()
    ranks = range(size)
    output = torch.zeros(size)
    dist.all_to_all_single(output, tensor(*(10 * rank + each for each in ranks)))
    assert output.tolist() == [10 * each + rank for each in ranks]
    # Rank r sends each other rank as many rows as that one's number and its own make.
    rows = [rank + each for each in ranks]
    output, sent = torch.zeros(sum(rows), 2), torch.full((sum(rows), 2), float(rank))
    dist.all_to_all_single(output, sent, rows, rows)
    assert output[:, 1].tolist() == [each for each in ranks for _ in range(rank + each)]
    lists = [torch.zeros(each + 1) for each in ranks]
    dist.all_to_all(lists, [torch.full((rank + 1,), float(each)) for each in ranks])
    assert [each.tolist() for each in lists] == [[rank] * (each + 1) for each in ranks]


def check_messages():
    rank, size = dist.get_rank(), dist.get_world_size()
    if size == 1:
        return
    following, previous = (rank + 1) % size, (rank - 1) % size
    received = tensor(-1)
    ops = [dist.P2POp(dist.isend, tensor(rank), following), dist.P2POp(dist.irecv, received, previous)]
    for work in dist.batch_isend_irecv(ops):
        work.wait()
    assert received.item() == previous
    first, second = tensor(0), tensor(0)
    works = [dist.irecv(first, previous), dist.irecv(second, previous)]
    dist.send(tensor(1), following)
    dist.send(tensor(2), following)
    for work in reversed(works):  # messages are dealt out in the order of the calls, whichever is waited for first
        work.wait()
    assert (first.item(), second.item()) == (1, 2)
    if rank == 0:
        found = [dist.recv(received) for _ in range(size - 1)]
        assert sorted(found) == list(range(1, size))
    else:
        dist.send(tensor(rank), 0)
    dist.monitored_barrier(timeout=datetime.timedelta(seconds=20))


def check_objects():
    rank, size = dist.get_rank(), dist.get_world_size()
    ranks = list(range(size))
    objects = [None] * size
    dist.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": each} for each in ranks]
    shared = ["from", rank]
    dist.broadcast_object_list(shared, src=size - 1)
    assert shared == ["from", size - 1]
    gathered = [None] * size
    dist.gather_object(rank, gathered if rank == 0 else None)
    assert gathered == (ranks if rank == 0 else [None] * size)
    mine = [None]
    dist.scatter_object_list(mine, [str(each) for each in ranks] if rank == 0 else None)
    assert mine == [str(rank)]
    if rank == 0 and size > 1:
        dist.send_object_list([1, "two"], 1)
    elif rank == 1:
        received = [None, None]
        assert dist.recv_object_list(received) == 0 and received == [1, "two"]


def check_groups():
    rank, size = dist.get_rank(), dist.get_world_size()
    assert dist.get_process_group_ranks() == list(range(size))
    last = dist.new_group([size - 1])
    assert dist.get_world_size(last) == (1 if rank == size - 1 else -1)
    if size == 1:
        return
    # Ranks in calls on a group are those of the job.
    upper = dist.new_group(range(1, size))
    if rank == 0:
        assert upper is dist.GroupMember.NON_GROUP_MEMBER and dist.get_rank(upper) == -1
        return
    assert dist.get_rank(upper) == rank - 1 and dist.get_process_group_ranks(upper) == list(range(1, size))
    assert dist.get_global_rank(upper, 0) == 1 and dist.get_group_rank(upper, size - 1) == size - 2
    total, root = tensor(rank), tensor(rank)
    dist.all_reduce(total, group=upper)
    dist.broadcast(root, src=1, group=upper)
    assert total.item() == sum(range(1, size)) and root.item() == 1
    root = tensor(rank)
    dist.broadcast(root, group_src=size - 2, group=upper)
    assert root.item() == size - 1
    with pytest.raises(ValueError, match=r"src should be one of the ranks \[1.*got 0"):
        dist.broadcast(root, src=0, group=upper)
    dist.destroy_process_group(upper)


def check_pending_work():
    size = dist.get_world_size()
    many = [tensor(each) for each in range(8)]
    works = [dist.all_reduce(each, async_op=True) for each in many]
    assert works[7].result() == [many[7]] and many[7].item() == 7 * size
    for work in works:
        work.wait()
        assert work.is_completed() and work.is_success() and work.exception() is None
    assert [each.item() for each in many] == [each * size for each in range(8)]
    halved = dist.all_reduce(many[2], async_op=True).get_future().then(lambda future: future.value()[0] / 2)
    assert halved.wait().item() == size * size
    # A call without async_op comes after those that are pending.
    first = tensor(1)
    work = dist.all_reduce(first, async_op=True)
    dist.all_reduce(first)
    assert first.item() == size * size and work.is_completed()


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_means_what_it_means_in_pytorch(check, size):
    on_ranks(size, check)


def test_pending_work_lets_its_rank_go_on():
    """Rank 0 posts a reduction that rank 1 joins only after a message from rank 0."""

    def body():
        array, sign = tensor(1), tensor(0)
        if dist.get_rank() == 0:
            work = dist.all_reduce(array, async_op=True)
            assert not work.is_completed()
            dist.send(sign, 1)
            work.wait()
        else:
            dist.recv(sign, 0)
            dist.all_reduce(array)
        return array.item()

    assert on_ranks(2, body) == [2, 2]


def test_a_mismatch_of_pending_work_is_raised_by_wait_and_names_the_line_of_the_call():
    def body():
        work = dist.all_reduce(torch.zeros(2 + dist.get_rank()), async_op=True)
        with pytest.raises(dist.CollectiveMismatchError) as caught:
            work.wait()
        return str(caught.value)

    first, second = on_ranks(2, body)
    assert first == second and first.count("test_distributed.py:") == 2 and "float32 [2]" in first


def test_an_error_of_pending_work_that_nobody_waits_for_is_raised_by_the_next_call():
    def body():
        dist.all_reduce(torch.zeros(2 + dist.get_rank()), async_op=True)
        with pytest.raises(dist.CollectiveMismatchError, match=r"\[3\]"):
            dist.barrier()

    on_ranks(2, body)


def test_finished_work_that_nobody_waits_for_is_not_kept():
    def body():
        works = [weakref.ref(dist.all_reduce(torch.zeros(1), async_op=True)) for _ in range(20)]
        last = dist.all_reduce(torch.zeros(1), async_op=True)
        last.wait()
        dist.all_reduce(torch.zeros(1), async_op=True)  # looks through the others
        assert not any(work() for work in works)
        dist.barrier()

    on_ranks(2, body)


def test_uneven_parts_that_do_not_fit_are_refused_on_all_ranks():
    def body():
        rank = dist.get_rank()
        outputs, inputs = [torch.zeros(1), torch.zeros(1)], [torch.zeros(1), torch.zeros(1 + rank)]
        with pytest.raises(dist.CollectiveMismatchError) as caught:
            dist.all_to_all(outputs if rank else [torch.zeros(1), torch.zeros(3)], inputs)
        return str(caught.value)

    messages = on_ranks(2, body)
    assert messages[0] == messages[1] and "rank 1 sends 1 elements to rank 0, which expects 3" in messages[0]


def test_a_rank_outside_a_group_is_told_so():
    def body():
        part = dist.new_group([0])
        if dist.get_rank() == 1:
            with pytest.warns(RuntimeWarning, match=r"all_reduce\(\) does nothing on rank 1"):
                assert dist.all_reduce(tensor(1), group=part) is None

    # Warnings are recorded for the whole process, so one rank after the other.
    on_ranks(2, body)


def test_monitored_barrier_names_who_is_missing():
    def body():
        if dist.get_rank() == 0:
            with pytest.raises(RuntimeError, match=r"ranks \[1, 2\] did not come in 0.1 s"):
                dist.monitored_barrier(timeout=0.1, wait_all_ranks=True)

    on_ranks(3, body)


def test_subgroups():
    def body():
        mine, everything = dist.new_subgroups(2)
        assert (len(everything) == 2 and dist.get_process_group_ranks(mine) == [0, 1][:]) or dist.get_rank() > 1
        return dist.get_process_group_ranks(mine)

    assert on_ranks(4, body) == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_collectives_change_tensors_in_place():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    z = y * y
    dist.all_reduce(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("size", SIZES)
def test_a_script_of_pytorchs_that_spawns_its_ranks(size):
    def train(rank, world_size, results):
        dist.init_process_group("gloo", init_method="tcp://127.0.0.1:29500", rank=rank, world_size=world_size)
        total = tensor(rank)
        dist.all_reduce(total)
        results[rank] = float(total)
        dist.destroy_process_group()

    results = {}
    on_ranks(size, lambda: multiprocessing.spawn(train, args=(size, results), nprocs=size, join=True))
    assert results == dict.fromkeys(range(size), sum(range(size)))


def test_it_needs_no_initialisation():
    assert dist.is_available() and dist.is_initialized() and not dist.is_torchelastic_launched()
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, "solo")
    assert dist.group.WORLD is world_comm() is dist.GroupMember.WORLD
    assert dist.is_mpi_available() == (importlib.util.find_spec("mpi4py") is not None)


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("kind", "words", "call"),
    [
        (ValueError, "backend should be one of mpi, gloo, nccl.*got 'smoke'", lambda: dist.init_process_group("smoke")),
        (ValueError, "world_size is 4, but this process was", lambda: dist.init_process_group(world_size=4)),
        (ValueError, "rank is 1, but this process", lambda: dist.init_process_group(rank=1)),
        (ValueError, "init_method 'tcp://a:1' needs", lambda: dist.init_process_group(init_method="tcp://a:1")),
        (RuntimeError, "paceline run -n 3 script.py", lambda: multiprocessing.spawn(print, nprocs=3)),
        (ValueError, "join=False", lambda: multiprocessing.spawn(print, join=False)),
        (TypeError, "tensor should be a Tensor, got list", lambda: dist.all_reduce([1.0])),
        (TypeError, "group should be what new_group", lambda: dist.all_reduce(ONE, group=[0])),
        (ValueError, r"dst should be one of the ranks \[0\], got 1", lambda: dist.reduce(ONE, 1)),
        (ValueError, "dst is missing", lambda: dist.reduce(ONE)),
        (ValueError, "give src or group_src, not both", lambda: dist.broadcast(ONE, 0, group_src=0)),
        (ValueError, "tensor_list has 2 entries", lambda: dist.all_gather([ONE] * 2, ONE)),
        (ValueError, r"tensor_list\[0\] is float32 \[2\], but tensor is float32 \[1\]",
         lambda: dist.all_gather([torch.ones(2)], ONE)),
        (ValueError, "object_list has 0 entries", lambda: dist.all_gather_object([], 1)),
        (ValueError, r"output_split_sizes \[2\] should add up to the 1 rows",
         lambda: dist.all_to_all_single(ONE, ONE, [2], [1])),
        (ValueError, "is this rank itself", lambda: dist.send(ONE, 0)),
        (RuntimeError, "no other rank", lambda: dist.recv(ONE)),
        (RuntimeError, "op should be paceline.distributed.isend", lambda: dist.P2POp(dist.send, ONE, 0)),
        (ValueError, "cannot be cut into groups of 2", lambda: dist.new_subgroups(2)),
        (ValueError, "a rank is in several groups", lambda: dist.new_subgroups_by_enumeration([[0], [0]])),
        (TypeError, "op avg is not defined for dtype int64", lambda: dist.all_reduce(torch.tensor([1]), "avg")),
    ],
)  # fmt: skip
def test_it_refuses(kind, words, call):
    with pytest.raises(kind, match=words):
        call()

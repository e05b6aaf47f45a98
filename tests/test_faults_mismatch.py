"""Ranks that do not do the same get the same exception, which says what each of them has called and where."""

import json
import re
import sys

import pytest
from tables.comms import finish_job

from paceline.launch.mpi import LaunchError, find_mpiexec

# In each of these functions rank 1 does something else than the others. A comment marks its line.
PROGRAM = """
import json
import numpy as np
import paceline as torch
import paceline.distributed as dist
import paceline.distributed.nn.functional
from paceline import nn
from paceline.nn.parallel import DistributedDataParallel
from paceline.runtime.comm import world_comm

comm = world_comm()
odd = comm.rank == 1
x = np.ones(4, np.float32)

def shape():
    comm.all_reduce(x[:3] if odd else x)  # shape

def dtype():
    comm.all_reduce(x.astype(np.int32) if odd else x)  # dtype

def op():
    comm.all_reduce(x, "max" if odd else "sum")  # op

def root():
    comm.broadcast(x, int(odd))  # root

def kind():
    comm.broadcast(x) if odd else comm.all_reduce(x)  # kind

def order():
    if odd:
        comm.barrier()  # order
    comm.all_reduce(x)
    comm.barrier()

def missing():
    if not odd:
        comm.all_reduce(x)
    comm.barrier()  # missing

def extra():
    if odd:
        comm.all_reduce(x)  # extra
    comm.barrier()

def group():
    comm.group([0, 1] if odd else [0, 2])  # group

def new_group():
    dist.new_group([0, 1] if odd else [0, 1, 2])  # new_group

def asynchronous():
    comm.all_reduce(x[:3] if odd else x, async_op=True).wait()  # asynchronous

def objects():
    comm.broadcast_object("a", int(odd))  # objects

def tensors():
    dist.all_reduce(torch.ones(3 if odd else 4))  # tensors

def recorded():
    dist.nn.functional.all_reduce(torch.ones(3 if odd else 4, requires_grad=True))  # recorded

def derivative():
    x = torch.ones(3, requires_grad=True)
    total = dist.nn.functional.all_reduce(x).sum()
    dist.barrier() if odd else total.backward()  # derivative

def within():
    model = DistributedDataParallel(nn.Linear(4, 2))
    if odd:
        with model.divide_by(3):  # within
            pass
    comm.barrier()

def models():
    DistributedDataParallel(nn.Linear(4, 3 if odd else 2))

def bucket_plans():
    DistributedDataParallel(nn.Linear(4, 2), bucket_cap_mb=1 if odd else 25)

def optimizers():
    model = DistributedDataParallel(nn.Linear(4, 2))
    model.check_replicas(torch.optim.SGD(model.parameters(), lr=0.1 if odd else 0.2))

def nan():
    model = DistributedDataParallel(nn.Linear(4, 2), check_nan=True)
    model(torch.full((1, 4), float("nan") if odd else 1.0)).sum().backward()

found = {}
for case in (CASES):
    try:
        globals()[case]()
    except Exception as error:
        found[case] = [type(error).__name__, str(error)]
messages = comm.all_gather_object(found)
if comm.rank == 0:
    print(json.dumps(messages))
"""

MISMATCHES = {
    "shape": ("all_reduce(float32 [4], op=sum)", "all_reduce(float32 [3], op=sum)"),
    "dtype": ("all_reduce(float32 [4], op=sum)", "all_reduce(int32 [4], op=sum)"),
    "op": ("all_reduce(float32 [4], op=sum)", "all_reduce(float32 [4], op=max)"),
    "root": ("broadcast(float32 [4], root=0)", "broadcast(float32 [4], root=1)"),
    "kind": ("all_reduce(float32 [4], op=sum)", "broadcast(float32 [4], root=0)"),
    "order": ("all_reduce(float32 [4], op=sum)", "barrier()"),
    "missing": ("all_reduce(float32 [4], op=sum)", "barrier()"),
    "extra": ("barrier()", "all_reduce(float32 [4], op=sum)"),
    "group": ("group([0, 2])", "group([0, 1])"),
    "new_group": ("group([0, 1, 2])", "group([0, 1])"),
    "asynchronous": ("all_reduce(float32 [4], op=sum)", "all_reduce(float32 [3], op=sum)"),
    "objects": ("broadcast_object(root=0)", "broadcast_object(root=1)"),
    "tensors": ("all_reduce(float32 [4], op=sum)", "all_reduce(float32 [3], op=sum)"),
    "recorded": ("all_reduce(float32 [4], op=sum)", "all_reduce(float32 [3], op=sum)"),
    "within": ("barrier()", "all_reduce(float64 [1], op=sum)"),
    "derivative": ("all_reduce(float32 [3], op=sum)", "barrier()"),
}
DIFFERENCES = {
    "models": "weight: float32 [3, 4] (trained) on rank 1, float32 [2, 4] (trained) on rank 0",
    "bucket_plans": "bucket_cap_mb=: 1 on rank 1, 25 on rank 0",
    "optimizers": "optimizer, group 0, lr: 0.1 on rank 1, 0.2 on rank 0",
    "nan": "there is NaN in the gradients of:\n  rank 1: weight",
}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The source of a job that makes all these mistakes, one after the other, and each rank's exceptions."""
    path = tmp_path_factory.mktemp("job") / "train.py"
    cases = [*MISMATCHES, *DIFFERENCES]
    path.write_text(PROGRAM.replace("(CASES)", repr(cases)))
    try:
        command = find_mpiexec().command(3, [sys.executable, str(path)])
    except LaunchError as error:
        pytest.skip(str(error))
    done = finish_job(command, timeout=60)
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", MISMATCHES)
def test_calls_that_differ(case, job):
    path, (first, *others) = job
    kind, message = first[case]
    assert kind == "CollectiveMismatchError"
    assert [each[case] for each in others] == [first[case]] * 2
    right, wrong = (re.escape(text) for text in MISMATCHES[case])
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text.endswith(f"# {case}"))
    place = re.escape(str(path))
    assert re.fullmatch(
        r"the ranks do not make the same collective call; no data was moved:\n"
        rf"  rank 0: call (\d+): {right} at {place}:\d+\n"
        rf"  rank 1: call \1: {wrong} at {place}:{line}\n"
        rf"  rank 2: call \1: {right} at {place}:\d+",
        message,
    ), message


@pytest.mark.parametrize("case", DIFFERENCES)
def test_models_that_differ(case, job):
    _, (first, *others) = job
    kind, message = first[case]
    assert kind == "RuntimeError"
    assert DIFFERENCES[case] in message
    assert [each[case] for each in others] == [first[case]] * 2

"""A rank that dies, wherever it is: the job ends at once, says which and where, and nothing is left of it."""

import glob
import os
import signal
import subprocess
import sys
import time

import pytest
from tables.comms import finish_job

from paceline.launch import leftovers
from paceline.launch.mpi import LaunchError, find_mpiexec

try:
    MPIEXEC = find_mpiexec()
except LaunchError as error:
    pytest.skip(str(error), allow_module_level=True)

RUN = [sys.executable, "-m", "paceline", "run", "-n", "3"]
# One step of training after the other, until rank 1 does something in the third.
PROGRAM = """
import os, signal, subprocess, sys, threading, time
import paceline as torch
from paceline import nn
from paceline.nn.parallel import DistributedDataParallel
from paceline.runtime.comm import world_comm
from paceline.utils.data import DataLoader, Dataset

comm = world_comm()
step = 0

def act(where):
    if (where, step, comm.rank) == ("{where}", 2, 1):
        {action}  # here

class Samples(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 8:
            act("loader")
        return torch.ones(4)

class Net(nn.Linear):
    def forward(self, x):
        act("forward")
        return super().forward(x)

model = Net(4, 2)
model.weight.register_hook(lambda gradient: act("hook"))
model = DistributedDataParallel(model)
model.register_comm_hook(None, lambda state, bucket: act("communication hook") or average(bucket))
def average(bucket):
    comm.all_reduce(bucket.buffer().numpy(), "avg")
    return bucket.buffer()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    for x in DataLoader(Samples(), batch_size=12, num_workers={workers}):
        model(x).sum().backward()
        optimizer.step()
    step += 1
    comm.barrier()
"""


def run(command, where, action, tmp_path, workers=0, **variables):
    """Run the job; give how it ended and the marked line."""
    path = tmp_path / "train.py"
    path.write_text(PROGRAM.format(where=where, action=action, workers=workers))
    done = finish_job([*command, str(path)], timeout=30, env=os.environ | variables)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if text.endswith("# here"))
    return done, f"{path}:{line}", path


# With the number of loader workers.
PLACES = [("forward", 0), ("hook", 0), ("communication hook", 0), ("loader", 0), ("loader", 1)]


@pytest.mark.parametrize(("where", "workers"), PLACES)
def test_an_exception(where, workers, tmp_path):
    done, _, _ = run(RUN, where, "raise ValueError('no such file')", tmp_path, workers)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "[1] rank 1 of 3 on " in done.stderr
    assert done.stderr.endswith("paceline run: rank 1 failed with exit code 1: ValueError: no such file\n")


@pytest.mark.parametrize(("where", "workers"), PLACES)
def test_a_kill(where, workers, tmp_path):
    done, _, path = run(RUN, where, "os.kill(os.getpid(), signal.SIGKILL)", tmp_path, workers)
    assert done.returncode == 128 + signal.SIGKILL
    last = done.stderr.splitlines()[-1]
    assert last.startswith("paceline run: rank 1 died of SIGKILL, after #"), last
    assert f" at {path}:" in last


@pytest.mark.parametrize(("where", "workers"), PLACES)
def test_an_infinite_loop(where, workers, tmp_path):
    done, here, _ = run([*RUN, "--timeout", "0.5"], where, "while True: pass", tmp_path, workers)
    assert done.returncode == 124
    (report,) = [line for line in done.stderr.splitlines() if line.startswith("paceline run: ")]
    assert "rank 1 has not entered #" in report
    assert f"it is in {'the data loader' if where == 'loader' else 'user code'} at {here} in act, after #" in report


def test_ranks_beside_others_that_take_the_cores(tmp_path):
    """Slow is not stuck: no timeout ends the job."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        done, _, _ = run([*RUN, "--timeout", "10"], "nowhere", "pass", tmp_path)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert (done.returncode, done.stderr) == (0, "")


WAITING_ALONE = """
import os, sys, threading, time
from paceline.runtime.comm import world_comm
comm = world_comm()
if comm.rank == 1:
    threading.Timer(0.1, os.kill, (os.getpid(), 9)).start()
    comm.barrier()
time.sleep(60)
"""


def test_a_kill_within_a_collective(tmp_path):
    """The others are not there yet: none of those whom MPI kills in consequence is blamed."""
    path = tmp_path / "train.py"
    path.write_text(WAITING_ALONE)
    done = finish_job([*RUN, str(path)], timeout=30)
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stderr.endswith(f"paceline run: rank 1 died of SIGKILL, in #1 barrier() at {path}:7\n")


# What a rank has started itself: a child, and a child that has left the session.
CHILDREN = (
    "pids = [subprocess.Popen(['sleep', '60'], start_new_session=new).pid for new in (False, True)]; "
    "print('children', *pids, flush=True); time.sleep(0.2); "
)


def children_in(text):
    words = next(line for line in text.splitlines() if "children" in line).split("children")[1].split()
    return [pid for pid in words if os.path.exists(f"/proc/{pid}")]


ENDINGS = [
    "os.kill(os.getpid(), 9)",
    "os.kill(os.getppid(), 9); time.sleep(60)",  # a process of mpiexec
    "raise ValueError",
    "os._exit(5)",
    "while True: pass",
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_process_is_left(ending, tmp_path):
    done, _, _ = run([*RUN, "--timeout", "0.5"], "forward", CHILDREN + f"\n        {ending}", tmp_path)
    assert done.returncode != 0
    assert children_in(done.stdout) == []


@pytest.mark.parametrize("where", ["loader", "communication hook"])
def test_nothing_is_left_where_no_launcher_of_ours_sweeps(where, tmp_path):
    """Plain mpiexec."""
    before = leftovers.shared_memory()
    folder = tmp_path / "tmp"
    folder.mkdir()
    command = MPIEXEC.command(3, [sys.executable])
    for _ in range(3):
        done, _, _ = run(command, where, "os.kill(os.getpid(), 9)", tmp_path, TMPDIR=str(folder))
        assert done.returncode != 0
    left = leftovers.shared_memory() - before
    assert left == leftovers._mapped(left)  # by other jobs
    # The record of a job that was killed stays for those who want to read it, and goes when the next one starts.
    assert len(glob.glob(f"{folder}/paceline-*")) <= 1
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("paceline")]


WAITING = """
import time
from paceline.runtime.comm import world_comm
world_comm().barrier()
if world_comm().rank == 0:
    print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("command", [RUN, MPIEXEC.command(3, [sys.executable])], ids=["run", "mpiexec"])
def test_an_interrupt_from_the_keyboard(command, tmp_path):
    """The terminal sends it to all processes of the job's group."""
    path = tmp_path / "train.py"
    path.write_text(WAITING)
    job = subprocess.Popen(
        [*command, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert "ready" in job.stdout.readline()
        os.killpg(job.pid, signal.SIGINT)
        _, errors = job.communicate(timeout=20)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
            job.communicate()
    assert job.returncode != 0
    if command is RUN:
        assert job.returncode == 128 + signal.SIGINT
        assert errors.splitlines()[-1] == "paceline run: stopped by SIGINT"
        assert "runpy" not in errors
    deadline = time.monotonic() + 5
    while left := [pid for pid in filter(str.isdigit, os.listdir("/proc")) if mentions(pid, str(path))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def mentions(pid, text):
    """Whether a process has this in its command line."""
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return text in file.read()
    except OSError:
        return False

"""A job that gets stuck ends in one report that names the rank, its line and the collective."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tables.comms import finish_job

from paceline.launch.mpi import LaunchError, find_mpiexec

try:
    MPIEXEC = find_mpiexec()
except LaunchError as error:
    pytest.skip(str(error), allow_module_level=True)

RUN = [sys.executable, "-m", "paceline", "run"]
PROGRAM = """
import os, signal, sys, time
import numpy as np
import paceline as torch
from paceline.runtime.comm import world_comm
from paceline.runtime.data import DataLoader
class Slow:
    def __len__(self): return 4
    def __getitem__(self, index):
        if index == 2 and comm.rank == 1:
            time.sleep(60)  # read
        return np.ones(3)
comm = world_comm()
for _ in range(3):
    comm.all_reduce(np.ones(10))
if comm.rank == 1:
    {action}
comm.all_reduce(np.ones(5, np.float32), "max")  # wait
"""


def run(arguments, action, tmp_path, command=(), **variables):
    path = tmp_path / "train.py"
    path.write_text(PROGRAM.format(action=action))
    done = finish_job([*command, *arguments, str(path)], timeout=30, env=os.environ | variables)
    lines = path.read_text().splitlines()
    places = {word: f"{path}:{number}" for number, line in enumerate(lines, 1) for word in line.split("# ")[1:]}
    return done, places


@pytest.mark.parametrize(
    ("action", "doing"),
    [
        (
            "while True: pass  # here",
            "it is in user code at {here} in <module>, after #3 all_reduce(float64 [10], op=sum)",
        ),
        ("time.sleep(60)  # here", "it is in user code at {here}"),
        ("x = torch.ones(2000, 2000); [x.tan() for _ in range(9**9)]  # here", "it is in user code at {here}"),
        (
            "os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60)  # here",
            "it was stopped by a signal; it is in user code at {here}",
        ),
        ("[_ for _ in DataLoader(Slow())]", "it is in the data loader at {read} in __getitem__"),
        ("[_ for _ in DataLoader(Slow(), num_workers=1)]", "it is in the data loader at {read} in __getitem__"),
        ("comm.recv(np.ones(3), 0)  # here", "recv(rank 0, tag=0) at {here}"),
        ("comm.split(0).barrier(); time.sleep(60)", None),
    ],
    ids=["loop", "sleep", "operation", "SIGSTOP", "loader", "loader thread", "recv", "other call"],
)
def test_a_rank_that_does_not_come(action, doing, tmp_path):
    done, places = run(["--timeout", "0.5", "-n", "3"], action, tmp_path, RUN)
    if doing is None:
        assert done.returncode == 1
        assert "CollectiveMismatchError" in done.stderr
        return
    assert done.returncode == 124, done.stderr
    (report,) = [line for line in done.stderr.splitlines() if line.startswith("paceline run: ")]
    assert doing.format(**places) in report
    assert f"#4 all_reduce(float32 [5], op=max) at {places['wait']}" in report
    assert report.endswith(" (timeout of 0.5 s)")
    for rank in (0, 2):
        assert f"\n  rank {rank} waits since " in done.stderr


def test_under_plain_mpiexec(tmp_path):
    command = MPIEXEC.command(3, [sys.executable])
    done, places = run([], "time.sleep(60)  # here", tmp_path, command, PACELINE_TIMEOUT="0.5")
    assert done.returncode == 124, done.stderr
    assert done.stderr.count("paceline: rank 1 has not entered #4") == 1
    assert f"it is in user code at {places['here']}" in done.stderr


def test_a_rank_that_has_ended_is_not_waited_for(tmp_path):
    """It ends before it has made a communicator, so that no call of the others can meet its end."""
    path = tmp_path / "train.py"
    path.write_text(
        "import paceline.runtime\n"
        "from paceline.runtime.world import get_world\n"
        "from paceline.runtime.comm import world_comm\n"
        "if get_world().rank == 0: world_comm().barrier()\n"
    )
    done = finish_job([*RUN, "-n", "2", str(path)], timeout=30)
    assert done.returncode == 124, done.stderr
    assert "rank 1 has not entered the start of MPI" in done.stderr
    assert "it has come to the end of its program" in done.stderr


SLOW = """
import time
import numpy as np
from paceline.runtime import watchdog
from paceline.runtime.comm import world_comm
watchdog.STRAGGLER_SECONDS = 0.1
comm = world_comm()
for _ in range(30):
    time.sleep(0.04 if comm.rank == 2 else 0.004)
    comm.all_reduce(np.ones(5))
"""


def test_a_rank_that_is_ten_times_slower_is_reported_and_nothing_fails(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(SLOW)
    done = finish_job([*RUN, "-n", "3", str(path)], timeout=30)
    assert done.returncode == 0, done.stderr
    assert "paceline: rank 2 is slow: the other ranks spend " in done.stderr
    assert f"all_reduce(float64 [5], op=sum) at {path}:10; it waits" in done.stderr


def test_a_long_wait_is_reported_before_it_is_too_long(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(
        "import time\n"
        "from paceline.runtime import watchdog\n"
        "from paceline.runtime.comm import world_comm\n"
        "watchdog.WARN_SECONDS = 0.1\n"
        "comm = world_comm()\n"
        "if comm.rank == 1: time.sleep(0.8)\n"
        "comm.barrier()\n"
    )
    done = finish_job([*RUN, "-n", "3", str(path)], timeout=30)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "#1 barrier()" in line]
    assert line.endswith(
        f"paceline: rank 1 has not entered #1 barrier() at {path}:7; "
        f"it is in user code at {path}:6 in <module>, after the start of MPI at {path}:5"
    )


def test_usr2_shows_what_the_ranks_are_doing(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(PROGRAM.format(action="print('ready', flush=True); time.sleep(60)  # here"))
    job = subprocess.Popen(
        [*RUN, "-n", "2", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert "ready" in job.stdout.readline()
        time.sleep(0.2)
        job.send_signal(signal.SIGUSR2)
        seen = []
        while not any("stacks of rank 1" in line for line in seen):
            seen.append(job.stderr.readline())
        text = "".join(seen)
        assert "rank 0 waits since" in text
        assert "rank 1 is in user code at" in text
        assert job.poll() is None
    finally:
        os.killpg(job.pid, signal.SIGTERM)
        job.communicate(timeout=20)
    assert job.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("value", ["soon", "0", "-1"])
def test_an_unusable_timeout_is_refused(value, tmp_path):
    done, _ = run(["-n", "2"], "pass", tmp_path, RUN, PACELINE_TIMEOUT=value)
    assert done.returncode == 1
    assert f"PACELINE_TIMEOUT should be a positive number of seconds, got {value!r}" in done.stderr

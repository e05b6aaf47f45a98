"""Signals to the launcher reach the ranks, output goes where it should, and a job can be started again."""

import os
import signal
import subprocess
import sys

import pytest
from tables.comms import finish_job

from paceline.launch.mpi import LaunchError, find_mpiexec

try:
    find_mpiexec()
except LaunchError as error:
    pytest.skip(str(error), allow_module_level=True)

RUN = [sys.executable, "-m", "paceline", "run", "-n", "2"]
# Each rank writes what it gets into a file, agrees with the other one to stop, and leaves with the code for "go on".
PREEMPTIBLE = """
import os, signal, sys, time
import numpy as np
from paceline.runtime.comm import world_comm
comm = world_comm()
got = []
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, lambda number, frame: got.append(number))
comm.barrier()
if comm.rank == 0:
    print("ready", flush=True)
stop = np.zeros(1)
while not stop:
    time.sleep(0.01)
    stop[:] = bool(got)
    comm.all_reduce(stop, "min")
open(f"{sys.argv[1]}/rank-{comm.rank}", "w").write(str(int(got[0])))
comm.barrier()
sys.exit(75)
"""
STUBBORN = """
import signal, time
from paceline.runtime.comm import world_comm
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
world_comm().barrier()
print("ready", flush=True)
time.sleep(60)
"""


def start(program, tmp_path, *arguments):
    path = tmp_path / "train.py"
    path.write_text(program)
    job = subprocess.Popen(
        [*RUN, str(path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert "ready" in job.stdout.readline()
    return job


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT])
def test_ranks_may_save_and_leave_with_a_code_of_their_own(number, tmp_path):
    job = start(PREEMPTIBLE, tmp_path, str(tmp_path))
    job.send_signal(number)
    _, errors = job.communicate(timeout=20)
    assert job.returncode == 75, errors
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == [str(int(number))] * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_one_ends_the_job_at_once(number, tmp_path):
    job = start(STUBBORN, tmp_path)
    job.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(timeout=0.5)
    job.send_signal(number)
    _, errors = job.communicate(timeout=20)
    assert job.returncode == 128 + number
    assert errors.splitlines()[-1] == f"paceline run: stopped by {number.name}"


FLAKY = """
import os, sys
from paceline.runtime.comm import world_comm
comm = world_comm()
attempt = int(os.environ["PACELINE_RESTARTS"])
comm.barrier()
print("attempt", attempt, flush=True)
if comm.rank == 1 and attempt < int(sys.argv[1]):
    os.kill(os.getpid(), 9)
comm.barrier()
"""


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (2, 0), (3, 137)])
def test_restarts(failures, code, tmp_path):
    path = tmp_path / "train.py"
    path.write_text(FLAKY)
    logs = tmp_path / "logs"
    done = finish_job([*RUN, "--max-restarts", "2", "--log-dir", str(logs), str(path), str(failures)], timeout=30)
    assert done.returncode == code, done.stderr
    attempts = min(failures, 2) + 1
    own = [line for line in done.stdout.splitlines() if line.startswith("attempt")]
    assert own == [f"attempt {attempt}" for attempt in range(attempts)]
    assert (logs / "rank-1.out").read_text().splitlines() == own
    assert [line for line in done.stderr.splitlines() if line.startswith("paceline run: restart")] == [
        f"paceline run: restart {attempt} of 2" for attempt in range(1, attempts)
    ]
    assert done.stderr.count("rank 1 died of SIGKILL, after #1 barrier()") == min(failures, 3)


LOGGING = """
import os, sys
from paceline.runtime.comm import world_comm
comm = world_comm()
print("line of", comm.rank)
print("error of", comm.rank, file=sys.stderr)
print("no newline", end="")
sys.stdout.flush()
os.write(1, b" from C\\n")
sys.stdout.buffer.write(b"bytes\\n")
"""


def test_a_log_file_for_each_rank_and_stream(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(LOGGING)
    logs = tmp_path / "new" / "logs"
    done = finish_job([*RUN, "--log-dir", str(logs), str(path)], timeout=30)
    assert done.returncode == 0, done.stderr
    assert "[1] line of 1\n" in done.stdout
    assert "\n[1] error of 1\n" in "\n" + done.stderr
    for rank in (0, 1):
        assert (logs / f"rank-{rank}.out").read_text() == f"line of {rank}\nno newline from C\nbytes\n"
        assert (logs / f"rank-{rank}.err").read_text() == f"error of {rank}\n"


MUCH = """
import os, sys
from paceline.runtime.comm import world_comm
rank = world_comm().rank
for number in range(2000):
    print(f"<{rank} {number} {'x' * (number % 700)}>", file=(sys.stdout, sys.stderr)[number % 2])
os.system(f"echo '<{rank} from a child>'")
print("<0 " + "y" * 100_000 if rank == 0 else "z" * 100_000)
"""


def test_lines_of_ranks_do_not_mix(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(MUCH)
    done = finish_job([*RUN, str(path)], timeout=30)
    assert done.returncode == 0
    for output, parity in ((done.stdout, 0), (done.stderr, 1)):
        lines = output.splitlines()
        expected = [f"<{{0}} {number} {'x' * (number % 700)}>" for number in range(parity, 2000, 2)]
        if parity == 0:
            expected.append("<{0} from a child>")
            assert {lines.pop(lines.index(line)) for line in ("<0 " + "y" * 100_000, "[1] " + "z" * 100_000)}
        assert [line for line in lines if line.startswith("<")] == [line.format(0) for line in expected]
        assert [line for line in lines if not line.startswith("<")] == ["[1] " + line.format(1) for line in expected]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"SLURM_JOB_ID": "9", "SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "2"}, "there is no srun"),
        ({"PBS_NODEFILE": "/nowhere"}, "PBS_NODEFILE=/nowhere: No such file or directory"),
    ],
)
def test_a_stale_environment_is_refused(variables, words, tmp_path):
    path = tmp_path / "train.py"
    path.write_text("")
    done = finish_job([*RUN, str(path)], timeout=30, env=os.environ | variables | {"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert words in done.stderr

"""A rank that fails ends the job, under plain mpiexec: with its traceback, its exit code, and no hang."""

import sys

import pytest
from tables.comms import finish_job

from paceline.launch.mpi import LaunchError, find_mpiexec

# Rank 1 does something; the others wait for it in a collective for ever.
JOB = """
import ctypes, os, sys, threading, time
import paceline.runtime
from paceline.runtime.comm import world_comm
from paceline.runtime.world import get_world
comm = world_comm()
if comm.rank == 1:
    {action}
comm.barrier()
"""
# The same before anyone has started MPI.
EARLY_JOB = """
import sys, time
import paceline
if paceline.runtime.world.get_world().rank == 1:
    {action}
time.sleep(60)
"""


def mpiexec(size, program, tmp_path):
    script = tmp_path / "job.py"
    script.write_text(program)
    try:
        found = find_mpiexec()
    except LaunchError as error:
        pytest.skip(str(error))
    return finish_job(found.command(size, [sys.executable, str(script)]), timeout=30)


@pytest.mark.parametrize("job", [JOB, EARLY_JOB], ids=["in a collective", "before MPI"])
@pytest.mark.parametrize(
    ("action", "code", "words"),
    [
        ("raise ValueError('step 3')", 1, ["rank 1 of 2 on ", "Traceback", "ValueError: step 3"]),
        ("sys.exit(3)", 3, []),
        ("sys.exit('no data')", 1, ["no data"]),
    ],
)
def test_a_failing_rank_ends_the_job(job, action, code, words, tmp_path):
    done = mpiexec(2, job.format(action=action), tmp_path)
    assert done.returncode == code
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("action", "code", "words"),
    [
        # No hook sees it, but the others meet a rank that is at its end.
        ("raise SystemExit(3)", 1, ["CollectiveMismatchError", "rank 1: call 1: exit() at the end of the program"]),
        ("sys.exit()", 1, ["rank 0: call 1: barrier() at ", "rank 1: call 1: exit() at the end of the program"]),
        ("os._exit(5)", 5, []),
        ("os._exit(0)", 1, ["rank 0: call 1: barrier() at ", "rank 1: call 1: exit() at the end of the program"]),
        ("ctypes.string_at(0)", None, ["Segmentation fault", "string_at"]),
        ("os.abort()", None, ["Aborted", 'job.py", line 8']),
        ("comm.mpi4py.Abort(7)", 7, []),
        ("comm.split(0).barrier()", 1, ["rank 0: call 1: barrier()", "rank 1: call 1: split()"]),
        ("comm.barrier(); comm.barrier()", 1, ["rank 0: call 2: exit()", "rank 1: call 2: barrier()"]),
    ],
)
def test_other_ways_to_leave_the_others_alone(action, code, words, tmp_path):
    done = mpiexec(2, JOB.format(action=action), tmp_path)
    assert done.returncode == code or (code is None and done.returncode != 0)
    for word in words:
        assert word in done.stderr


def test_a_failing_thread_ends_the_job(tmp_path):
    action = "threading.Thread(target=lambda: 1 / 0).start(); time.sleep(60)"
    done = mpiexec(3, JOB.format(action=action), tmp_path)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    "action",
    [
        "comm.barrier(); sys.exit()",
        "comm.barrier(); sys.exit(0)",
        "comm.barrier(); os._exit(0)",
        "threading.Thread(target=sys.exit, args=[3]).start()",
    ],
)
def test_an_exit_without_an_error_ends_nothing(action, tmp_path):
    done = mpiexec(2, JOB.format(action=action), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_caught_exit_ends_nothing(tmp_path):
    program = JOB.format(action="pass") + """
try:
    sys.exit(3)
except SystemExit as error:
    assert error.code == 3
comm.barrier()
"""
    done = mpiexec(2, program, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_world_of_one_is_left_alone():
    program = "import sys, paceline.runtime; assert sys.excepthook is sys.__excepthook__; sys.exit(3)"
    assert finish_job([sys.executable, "-c", program]).returncode == 3

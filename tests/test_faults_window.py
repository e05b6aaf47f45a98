"""The memory that ranks of a machine share: if things go wrong, nobody waits there for ever, and nothing is left."""

import os
import signal
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

LAUNCHERS = {
    "paceline run": [sys.executable, "-m", "paceline", "run", "-n", "3"],
    "mpiexec": MPIEXEC.command(3, [sys.executable]),
}
every_launcher = pytest.mark.parametrize("command", LAUNCHERS.values(), ids=LAUNCHERS.keys())


def run(command, program, tmp_path):
    """Run the job; give how it ended, and the lines of its program by the words that mark them."""
    path = tmp_path / "train.py"
    path.write_text(program)
    done = finish_job([*command, str(path)], timeout=30)
    lines = program.splitlines()
    return done, {line.split("# ")[1]: f"{path}:{n}" for n, line in enumerate(lines, 1) if "# " in line}


KILLED = """
import os, threading
from paceline.runtime.comm import world_comm
import numpy as np
comm = world_comm()
array = np.ones({size}, np.float32)
if comm.rank == 1:
    threading.Timer({seconds}, os.kill, (os.getpid(), 9)).start()
while True:
    comm.all_reduce(array, "max")
"""


@every_launcher
@pytest.mark.parametrize(("size", "seconds"), [(10, 0.11), (2_000_000, 0.13)], ids=["small", "large"])
def test_a_kill_amid_the_windows_traffic(command, size, seconds, tmp_path):
    before = leftovers.shared_memory()
    done, _ = run(command, KILLED.format(size=size, seconds=seconds), tmp_path)
    assert done.returncode != 0
    if "paceline" in command:
        assert done.returncode == 128 + signal.SIGKILL
        assert "paceline run: rank 1 died of SIGKILL, " in done.stderr
    left = leftovers.shared_memory() - before
    assert left == leftovers._mapped(left)  # by other jobs
    assert not [name for name in os.listdir("/dev/shm") if name.startswith("paceline")]


NO_MEMORY = """
import resource
from paceline.runtime.comm import world_comm
import numpy as np
from paceline.runtime.shareable import shareable_zeros
comm = world_comm()
if comm.rank == 0:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1))  # less than a window
part = comm.split(0)
for size in (10, 100_000):
    array = np.full(size, part.rank + 1.0)
    part.all_reduce(array)
    assert (array == 6).all()
assert part.share(array) is None
memory = shareable_zeros(2 << 20)
assert memory.size == 2 << 20 and not memory.any()
assert comm.share(memory) is None
memory += 1
comm.all_reduce(memory)
assert (memory == 3).all()
print("summed without")
"""


def test_ranks_that_cannot_share_memory_use_mpi_and_say_so(tmp_path):
    done, _ = run(LAUNCHERS["mpiexec"], NO_MEMORY, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("summed without") == 3
    assert done.stderr.count("UserWarning: the ranks of this machine cannot share memory (") == 1
    assert done.stderr.count("UserWarning: 2097152 bytes cannot be had as memory that other ranks map (") == 1


OUT_OF_REACH = """
import ctypes, mmap, os, struct
from paceline.runtime.comm import peers, world_comm
import numpy as np
comm = world_comm()

def check(comm, array):
    for _ in range(2):
        array[:] = np.arange(array.size) + comm.rank
        comm.all_reduce(array)
        assert (array == 3 * np.arange(array.size) + 3).all()

def forbid():  # process_vm_readv and process_vm_writev, as a sandbox does
    program = [(0x20, 0, 0, 0), (0x15, 1, 0, 310), (0x15, 0, 1, 311), (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    described = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None).prctl
    assert prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, described) == 0

memory = np.frombuffer(mmap.mmap(-1, 1 << 20), np.float32)
if comm.rank == 1:  # as memory of a device
    peers.Peer.lends = lambda self, address: False
check(comm, memory if comm.rank else np.empty_like(memory))
getpid = os.getpid
if comm.rank == 2:
    {change}
part = comm.split(0)
os.getpid = getpid
check(part, memory)
assert part._window._peers is None
print("summed without")
"""


@pytest.mark.parametrize("change", ["forbid()", "os.getpid = os.getppid"], ids=["forbidden", "another process"])
def test_ranks_that_cannot_reach_each_others_memory_go_without(change, tmp_path):
    done, _ = run(LAUNCHERS["mpiexec"], OUT_OF_REACH.format(change=change), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("summed without") == 3
    assert not done.stderr


INTERRUPTED = """
import os, signal, time
from paceline.runtime.comm import window, world_comm
import numpy as np
comm = world_comm()
size = 10_000_000
array = np.ones(size, np.float32)
address = array.ctypes.data
if comm.rank == 1:  # comes late to its last piece
    combine, left = window.combine, [size // 3 // (comm._window._piece_bytes // 4)]
    def late(op, parts, out):
        combine(op, parts, out)
        left[0] -= 1
        if left[0] == 0:
            time.sleep(1)
    window.combine = late
    comm.all_reduce(array)
elif comm.rank == 0:
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        comm.all_reduce(array)
    except KeyboardInterrupt:
        del array
        others = [np.full(size, 7, np.float32) for _ in range(3)]
        time.sleep(1)
        assert all((each == 7).all() for each in others)
        print("untouched", flush=True)
        os._exit(9)
else:
    comm.all_reduce(array)
time.sleep(5)
"""


def test_what_is_written_after_an_interrupt_hits_the_array_alone(tmp_path):
    done, _ = run(LAUNCHERS["mpiexec"], INTERRUPTED, tmp_path)
    assert "untouched" in done.stdout, done.stderr


CROSSED = """
import threading, time
from paceline.runtime.comm import CollectiveMismatchError, window, world_comm
import numpy as np
world = world_comm()
if world.rank < 2 or not {late}:  # one that is late looks only when the others have seen it and left
    window.FIRST_LOOK_SECONDS = 0.2
part = world.group([0, 1])
try:
    if world.rank == 0:
        part.all_reduce(np.ones(3))  # part
    elif world.rank == 1:
        world.all_reduce(np.ones(4))  # world
    else:
        time.sleep({late})
        world.broadcast(np.ones(5))  # late
except CollectiveMismatchError as error:
    print(error)
"""


@every_launcher
@pytest.mark.parametrize("late", [0, 0.8], ids=["waiting", "late"])
def test_ranks_in_different_groups_get_the_same_exception(command, late, tmp_path):
    start = time.monotonic()
    done, places = run(command, CROSSED.format(late=late), tmp_path)
    assert time.monotonic() - start < 20  # of a timeout of ten minutes
    expected = [
        "the ranks wait for each other in different groups, and would for ever:",
        f"  rank 0: #1 all_reduce(float64 [3], op=sum) at {places['part']} in the group of ranks 0-1",
        f"  rank 1: #2 all_reduce(float64 [4], op=sum) at {places['world']} in the group of ranks 0-2",
        f"  rank 2: #2 broadcast(float64 [5], root=0) at {places['late']} in the group of ranks 0-2",
    ]
    for line in expected[:-1] if late else expected:
        assert done.stdout.count(line) == 3, done.stdout + done.stderr


PATIENT = """
import threading, time
from paceline.runtime.comm import deadlock, window, world_comm
import numpy as np
window.FIRST_LOOK_SECONDS = window._LOOK_SECONDS = 0.1
world = world_comm()
part = world.group([0, 1])
if world.rank == 0:
    part.barrier()
    world.barrier()
else:
    if world.rank == 1:  # the call comes from a thread of the user's
        threading.Thread(target=lambda: (time.sleep(1), part.barrier())).start()
    world.barrier()
print("through")
"""


def test_a_call_that_may_come_from_another_thread_is_waited_for(tmp_path):
    done, _ = run(LAUNCHERS["mpiexec"], PATIENT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("through") == 3


HOMELESS = """
import shutil, time
from paceline.runtime import recorder
from paceline.runtime.comm import window, world_comm
import numpy as np
window.FIRST_LOOK_SECONDS = window._LOOK_SECONDS = 0.1
world = world_comm()
if world.rank == 1:
    shutil.rmtree(world._recorder.folder)
    time.sleep(1)
world.all_reduce(np.ones(3))
print("through")
"""


def test_who_waits_needs_no_folder(tmp_path):
    """The launcher removes it at the end of a job, in which a rank may be a little longer."""
    done, _ = run(LAUNCHERS["mpiexec"], HOMELESS, tmp_path)
    assert done.stdout.count("through") == 3, done.stderr

"""Jobs on two machines, which are made of this one: see machines.py."""

import json
import re
import sys
from pathlib import Path

import machines
import numpy as np
import pytest
from tables import comms

from paceline.launch import trace
from paceline.launch.mpi import LaunchError, find_mpiexec

TRAIN = """
import hashlib, json, socket
import paceline as torch
import numpy as np
from paceline import nn
from paceline.runtime.comm import window, world_comm

torch.manual_seed(0)
comm = world_comm()
net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 4))
laned = nn.DataParallel(net, lanes=4)
optimizer = torch.optim.Adam(net.parameters())
for step in range(3):
    whole = torch.randn(16, 32, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    for part in laned.lanes(whole.chunk(comm.size)[comm.rank]):
        laned(part).square().mean().backward()
    optimizer.step()
digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest()

# Enough for shared memory within a machine, and MPI between them, in place and through buffers.
# On one of the machines they may not be reached where they are.
right = True
for lends in (True, comm.rank < 2):
    if not lends:
        window.Window.lends = lambda self, flat: False
    array = np.empty(1 << 17, np.int64)
    array[:] = np.arange(array.size) * (comm.rank + 1)
    comm.all_reduce(array)
    right = right and bool((array == np.arange(array.size) * sum(range(1, comm.size + 1))).all())
print(json.dumps({"digest": digest, "right": right, "machine": socket.gethostname()}), flush=True)
"""

FAULT = """
import os, signal, subprocess, sys, time
import paceline as torch

def fail(what):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if what == "exception":
        raise ValueError("image 17 is empty")
    if what == "loop":
        while True:
            pass
    if what == "leave":
        sys.exit(3)
    os.kill(os.getpid(), getattr(signal, what))
    time.sleep(60)  # another thread may take the signal, and this one go on for a moment

dist = torch.distributed
dist.init_process_group()
dist.all_reduce(torch.ones(5))
if dist.get_rank() == 3:
    fail(sys.argv[1])
dist.all_reduce(torch.ones(5))
"""

FAULTS = {
    "exception": (1, "rank 3 on b failed with exit code 1: ValueError: image 17 is empty"),
    "leave": (3, "rank 3 on b failed with exit code 3"),
    "SIGKILL": (137, r"rank 3 on b died of SIGKILL, after #1 all_reduce\(float32 \[5\], op=sum\) at .*:\d+"),
    "loop": (124, r"rank 3 has not entered #2 .*; it is in user code at .*fault\.py:1\d in fail, after #1 .*"),
    "SIGSTOP": (124, r"rank 3 has not entered #2 .*; it was stopped by a signal; it is in user code at .* in fail.*"),
}

SAVE = """
import signal, sys, time
import paceline as torch

stop = []
signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
dist = torch.distributed
dist.init_process_group()
print("ready", flush=True)
while not stop:
    time.sleep(0.01)
print("stopped", flush=True)
dist.barrier()
time.sleep(0.2)  # mpiexec passes on what was printed
sys.exit(75)
"""


@pytest.fixture(scope="module", autouse=True)
def _two_machines():
    try:
        find_mpiexec()
    except LaunchError as error:
        pytest.skip(str(error))
    try:
        tried = comms.finish_job(machines.command("ssh", "b", "true"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if tried.returncode:
        pytest.skip(f"no machines can be made of this one: {tried.stderr.strip().splitlines()[-1:]}")


def run(folder, program, *arguments, options=()):
    """The end of a job of four ranks on two machines."""
    script = folder / "fault.py"
    script.write_text(program)
    launch = [sys.executable, "-m", "paceline", "run", "--hosts", "a:2,b:2", *options, str(script), *arguments]
    job = comms.finish_job(machines.command(*launch), timeout=60, cwd=folder)
    assert not re.search("^left ", job.stderr, re.MULTILINE), job.stderr
    return job


def test_training(tmp_path):
    """With the weights that one rank gets, and sums in shared memory on each machine and over MPI between them."""
    trace_path, logs = tmp_path / "trace.json", tmp_path / "logs"
    job = run(tmp_path, TRAIN, options=["--timeline", str(trace_path), "--log-dir", str(logs)])
    assert job.returncode == 0, job.stderr
    said = [json.loads((logs / f"rank-{rank}.out").read_text()) for rank in range(4)]
    alone = comms.finish_job([sys.executable, str(tmp_path / "fault.py")])
    assert {each["digest"] for each in said} == {json.loads(alone.stdout)["digest"]}
    assert [each["machine"] for each in said] == ["a", "a", "b", "b"]
    assert all(each["right"] for each in said)
    # The clock of the other machine is a quarter of an hour ahead. The same collective ends everywhere at one time.
    ends = [
        [span.end for span in track.spans if span.category == "collective"] for track in trace.read_trace(trace_path)
    ]
    assert len(ends) == 4
    assert np.ptp(np.array(ends), axis=0).max() < 1e9


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_on_the_other_machine(what, tmp_path):
    """Is told with rank, machine and place as here, and leaves nothing behind, also not what ranks have started."""
    code, summary = FAULTS[what]
    job = run(tmp_path, FAULT, what, options=["--timeout", "2"])
    assert re.search(f"paceline run: {summary}$", job.stderr, re.MULTILINE), job.stderr
    assert job.returncode == code
    if code == 124:
        assert re.search(r"^  rank 0 waits since \d\.\d s in #2 all_reduce", job.stderr, re.MULTILINE)
        assert re.search(r"^stacks of rank 3:\n .*\n    .*fault\.py:\d+ in fail", job.stderr, re.MULTILINE)


def test_signals(tmp_path):
    """Reach the ranks on both machines, which may save and leave with a code of their own."""
    script = tmp_path / "save.py"
    script.write_text(SAVE)
    launch = f"{sys.executable} -m paceline run --hosts a:1,b:1 {script} > {tmp_path}/said & "
    wait = f"until [ $(grep -c ready {tmp_path}/said) = 2 ]; do sleep 0.05; done; kill -USR2 $!; sleep 0.5; "
    command = machines.command("sh", "-c", f"{launch}{wait}kill -TERM $!; wait $!")
    job = comms.finish_job(command, timeout=60, cwd=tmp_path)
    assert job.returncode == 75, job.stderr
    assert re.search(rf"^  rank 1 is in user code at {script}:\d+ in <module>", job.stderr, re.MULTILINE)
    assert Path(tmp_path, "said").read_text().count("stopped") == 2


@pytest.mark.parametrize(
    ("hosts", "names", "state"),
    [("a:2,b:1", ["a", "b", "Network", "All ranks"], "ok"), ("a:1,nobody:1", ["nobody", "All ranks"], "broken")],
)
def test_doctor(hosts, names, state, tmp_path):
    """It runs a job on both machines, or says which one cannot be reached."""
    doctor = [sys.executable, "-m", "paceline", "doctor", "--hosts", hosts]
    job = comms.finish_job(machines.command(*doctor, "--json"), timeout=100, cwd=tmp_path)
    found = json.loads(job.stdout)["checks"]
    about = found[[check["name"] for check in found].index("NCCL") + 1 :]
    assert [check["name"] for check in about] == names
    assert {check["state"] for check in about} == {state}, about
    assert job.returncode == (state == "broken")

"""Break many jobs in many ways, and see that each ends as it should and that nothing of it is left.

    python benchmarks/fault_soak.py --jobs 100

Each job is a small data-parallel training under `paceline run`. A random rank fails in a random way at a random time.
Then no process, no shared memory, no directory may be left. Prints how long the jobs took from the fault to their end.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMEOUT = 1.0
# name -> exit code that the job should have, or None where it depends on what the other ranks are at
FAULTS = {
    "raise": 1,
    "exit": 3,
    "bare exit": 3,
    "_exit": 5,
    "thread": 1,
    "kill": 137,
    "segv": 139,
    "abort": 7,
    "end": 1,
    "mismatch": 1,
    "stop": 124,
    "loop": 124,
    "sleep": 124,
    "kill from outside": 137,
    "term to the launcher": 143,
}
PROGRAM = """
import ctypes, os, signal, sys, threading, time
import numpy as np
from paceline.runtime.comm import world_comm
fault, victim, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
comm = world_comm()
def fail():
    print("FAULT", time.time(), os.getpid(), flush=True)
    match fault:
        case "raise": raise ValueError("bad batch")
        case "exit": sys.exit(3)
        case "bare exit": raise SystemExit(3)
        case "_exit": os._exit(5)
        case "thread": threading.Thread(target=lambda: 1 / 0).start(); time.sleep(60)
        case "kill": os.kill(os.getpid(), 9)
        case "segv": ctypes.string_at(0)
        case "abort": comm.mpi4py.Abort(7)
        case "end": sys.exit()
        case "mismatch": comm.barrier()
        case "stop": os.kill(os.getpid(), signal.SIGSTOP); time.sleep(60)
        case "loop":
            while True: pass
        case "sleep": time.sleep(60)
        case _: pass
gradient = np.ones(200_000, np.float32)
for now in range(10**9):
    if now == step and comm.rank == victim:
        fail()
    gradient @ gradient
    comm.all_reduce(gradient, "max")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    choice = random.Random(options.seed)
    shared_before = set(os.listdir("/dev/shm"))
    seconds: dict[str, list[float]] = {}
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "soak.py")
        script.write_text(PROGRAM)
        environment = os.environ | {"TMPDIR": folder, "OMP_NUM_THREADS": "1"}
        for job in range(options.jobs):
            fault = list(FAULTS)[job % len(FAULTS)]
            size = choice.choice([2, 3, 4])
            arguments = [fault, str(choice.randrange(size)), str(choice.randrange(1, 60))]
            ended_after, problem = run(script, size, arguments, environment, choice)
            seconds.setdefault(fault, []).append(ended_after)
            problem += [f"process {each} is left" for each in processes_of(str(script))]
            problem += [f"{name} is left" for name in os.listdir(folder) if name != script.name]
            problem += [f"/dev/shm/{name} is left" for name in set(os.listdir("/dev/shm")) - shared_before]
            shared_before |= set(os.listdir("/dev/shm"))
            problems += [f"job {job}, {size} ranks, {' '.join(arguments)}: {each}" for each in problem]
    for fault, times in seconds.items():
        waited = f" (timeout {TIMEOUT:g} s included)" if FAULTS[fault] == 124 else ""
        print(f"{fault:22} {len(times):3} jobs, from fault to end {statistics.median(times):.2f} s, ", end="")
        print(f"at most {max(times):.2f} s{waited}")
    print("\n".join(problems) or f"{options.jobs} jobs: all ended as they should, and nothing is left")
    sys.exit(bool(problems))


def run(
    script: Path, size: int, arguments: list[str], environment: dict[str, str], choice: random.Random
) -> tuple[float, list[str]]:
    """Seconds from the fault to the job's end, and what was wrong."""
    command = [sys.executable, "-m", "paceline", "run", "--timeout", str(TIMEOUT), "-n", str(size), str(script)]
    job = subprocess.Popen(
        [*command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        line = job.stdout.readline()
        while line and "FAULT" not in line:
            line = job.stdout.readline()
        if not line:
            return 0.0, ["it ended before the fault"]
        when, pid = line.partition("FAULT")[2].split()
        begin = float(when)
        if "from outside" in arguments[0] or "launcher" in arguments[0]:
            time.sleep(choice.random() * 0.1)
            begin = time.time()
            os.kill(job.pid, signal.SIGTERM) if "launcher" in arguments[0] else os.kill(int(pid), signal.SIGKILL)
        output, _ = job.communicate(timeout=20)
        seconds = time.time() - begin
    except subprocess.TimeoutExpired:
        job.kill()
        job.communicate()
        return 20.0, ["it hung"]
    expected = FAULTS[arguments[0]]
    if job.returncode != expected:
        return seconds, [f"exit code {job.returncode}, expected {expected}\n{output[-2000:]}"]
    return seconds, []


def processes_of(script: str) -> list[str]:
    """Process ids with this path in their command line."""
    left = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if script in Path("/proc", pid, "cmdline").read_text():
                left.append(pid)
        except OSError:
            pass
    return left


if __name__ == "__main__":
    main()

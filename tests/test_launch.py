"""The `paceline` command as its users meet it: real processes, their output and exit codes."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from tables.comms import finish_job

from paceline.launch import cli, doctor, leftovers, mpi, network

PACELINE = [sys.executable, "-m", "paceline"]
RUN = [*PACELINE, "run"]

try:
    mpi.find_mpiexec()
    needs_mpi = pytest.mark.skipif(False, reason="")
except mpi.LaunchError as error:
    needs_mpi = pytest.mark.skip(reason=str(error))


@pytest.fixture
def script(tmp_path):
    """A function that writes a program and gives its path; no process of it may be left at the end."""
    path = tmp_path / "program.py"

    def write(text):
        path.write_text(text)
        return str(path)

    yield write
    deadline = time.monotonic() + 5
    while left := processes_of(str(path)):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)


def processes_of(path):
    """Ids of processes with this path in their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as command:
            if path in command.read():
                found.append(int(pid))
    return found


WORLD = """
import json, os, sys
from paceline.runtime.comm import world_comm
comm = world_comm()
ranks = comm.all_gather_object(comm.rank)
print("rank", comm.rank, "of", comm.size)
print("to stderr", file=sys.stderr)
if comm.rank == 0:
    print(json.dumps({"ranks": ranks, "arguments": sys.argv[1:], "threads": os.environ["OMP_NUM_THREADS"]}))
"""


@needs_mpi
@pytest.mark.parametrize("size", [2, 3])
def test_run_starts_ranks_and_tags_their_lines(script, size):
    done = finish_job([*RUN, "-n", str(size), script(WORLD), "--lr", "0.1", "-n", "5"])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    expected = ["rank 0 of {0}"] + [f"[{rank}] rank {rank} of {{0}}" for rank in range(1, size)]
    assert sorted(line for line in lines if "of" in line) == sorted(line.format(size) for line in expected)
    result = json.loads(next(line for line in lines if line.startswith("{")))
    assert result["ranks"] == list(range(size))
    assert result["arguments"] == ["--lr", "0.1", "-n", "5"]
    assert sorted(done.stderr.split("\n"))[1:] == sorted(["to stderr"] + [f"[{r}] to stderr" for r in range(1, size)])


def test_one_rank_needs_no_mpi(script):
    program = WORLD + "assert 'mpi4py' not in sys.modules"
    done = finish_job([*RUN, script(program)], env=os.environ | {"OMP_NUM_THREADS": "7"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "rank 0 of 1"
    assert json.loads(done.stdout.splitlines()[-1])["threads"] == "7"


@needs_mpi
def test_a_script_sees_what_python_would_give_it(script, tmp_path):
    (tmp_path / "neighbour.py").write_text("value = 5")
    program = "import sys, neighbour; assert __name__ == '__main__'; assert sys.argv[0] == __file__; print(sys.argv)"
    done = finish_job([*RUN, "-n", "2", script(program), "a b"])
    assert done.returncode == 0, done.stderr
    done = finish_job([*RUN, "-n", "2", "-m", "neighbour"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr


TORCHRUN = """
import os
import paceline.distributed as dist
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
rank, size, local_rank, local_size = (int(os.environ[name]) for name in names)
dist.init_process_group("gloo", rank=rank, world_size=size)
assert (local_rank, local_size) == (rank, size) == (dist.get_rank(), dist.get_world_size())
print(rank, size)
"""


@needs_mpi
@pytest.mark.parametrize("size", [1, 2])
def test_a_script_written_for_torchrun_finds_its_place(script, size):
    done = finish_job([*RUN, "-n", str(size), script(TORCHRUN)])
    assert done.returncode == 0, done.stderr
    assert sorted(line[-3:] for line in done.stdout.splitlines()) == [f"{rank} {size}" for rank in range(size)]


FAILING = """
import ctypes, os, sys, threading, time
from paceline.runtime.comm import world_comm
comm = world_comm()
for step in range(10):
    if step == 3 and comm.rank == {rank}:
        {action}
    comm.barrier()
time.sleep(60)
"""


@needs_mpi
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("action", "code", "summary"),
    [
        ("raise ValueError('bad batch')", 1, "failed with exit code 1: ValueError: bad batch"),
        ("e = ValueError('bad batch'); e.add_note('of day 2'); raise e", 1, "exit code 1: ValueError: bad batch"),
        ("sys.exit(3)", 3, "failed with exit code 3"),
        ("sys.exit('no data')", 1, "failed with exit code 1: no data"),
        ("os.execv('/bin/true', ['true'])", 1, "after #3 barrier() at {script}:8"),
        ("raise SystemExit(4)", 4, "failed with exit code 4"),
        ("threading.Thread(target=lambda: 1 / 0).start()", 1, "exit code 1: ZeroDivisionError: division by zero"),
        ("os._exit(5)", 5, "failed with exit code 5: called os._exit(5)"),
        ("os.kill(os.getpid(), 9)", 137, "died of SIGKILL, after #3 barrier() at {script}:8"),
        ("os.kill(os.getpid(), 11)", 139, "died of SIGSEGV, after #3 barrier() at {script}:8"),
        ("os.kill(os.getpid(), 7)", 135, "is full: see `paceline doctor`), after #3 barrier() at {script}:8"),
        ("os.kill(os.getpid(), 40)", 168, "died of signal 40, after #3 barrier() at {script}:8"),
    ],
)
def test_the_first_rank_that_fails_ends_the_job(script, action, code, summary, rank):
    path = script(FAILING.format(action=action, rank=rank))
    done = finish_job([*RUN, "-n", "2", path], timeout=30)
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"paceline run: rank {rank} "), done.stderr
    assert last.endswith(summary.format(script=path)), done.stderr
    assert done.stderr.count("Traceback") == ("Error" in summary)


@needs_mpi
def test_a_program_that_takes_the_ranks_place(script):
    done = finish_job([*RUN, "-n", "2", script("import os; os.execv('/bin/true', ['true'])")], timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


FORKING = r"""
import multiprocessing, os, sys
from paceline.runtime.comm import world_comm
comm = world_comm()
def fail():
    raise ValueError("only I")
for action in (lambda: None, lambda: sys.exit(3), fail):
    child = os.fork()
    if child == 0:
        action()
        sys.exit(0)
    os.write(1, b"code %d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
process = multiprocessing.get_context("fork").Process(target=fail)
process.start()
process.join()
os.write(1, b"code %d\n" % process.exitcode)
comm.barrier()
"""


@needs_mpi
def test_forked_children_end_for_themselves(script):
    path = script(FORKING)
    for command in ([*RUN, "-n", "2", path], mpi.find_mpiexec().command(2, [sys.executable, path])):
        done = finish_job(command, timeout=30)
        assert done.returncode == 0, done.stderr
        assert sorted(re.findall(r"code (\d)", done.stdout)) == list("00111133")
        assert "only I" in done.stderr  # without a launcher of ours, pieces of lines mix


@needs_mpi
def test_a_traceback_begins_in_the_script(script):
    done = finish_job([*RUN, "-n", "2", script("import paceline.nowhere")], timeout=30)
    assert done.returncode == 1
    tracebacks = done.stderr.replace("[1] ", "")
    assert "ModuleNotFoundError: No module named 'paceline.nowhere'" in tracebacks
    assert "runpy" not in tracebacks
    assert "worker.py" not in tracebacks


def test_a_single_rank_keeps_its_exit_code(script):
    assert finish_job([*RUN, script("import sys; sys.exit(4)")]).returncode == 4
    killed = finish_job([*RUN, script("import os; os.kill(os.getpid(), 9)")])
    assert (killed.returncode, killed.stderr) == (137, "paceline run: rank 0 died of SIGKILL\n")


@needs_mpi
@pytest.mark.parametrize(
    "program", ["import sys; sys.exit()", "import argparse; argparse.ArgumentParser().parse_args()"]
)
def test_ranks_that_leave_early_without_an_error_are_not_blamed(script, program):
    done = finish_job([*RUN, "-n", "2", script(program), "--help"], timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


SLEEPING = """
import time
from paceline.runtime.comm import world_comm
world_comm().barrier()
print("ready", flush=True)
time.sleep(60)
"""


@needs_mpi
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_the_ranks(script, number, tmp_path):
    """The fixture then checks that nothing is left, also where the launcher could not do anything about it."""
    segments = leftovers.shared_memory()
    job = subprocess.Popen(
        [*RUN, "-n", "2", script(SLEEPING)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        text=True,
        start_new_session=True,
    )
    try:
        assert "ready" in job.stdout.readline()
        job.send_signal(number)
        code = job.wait(timeout=20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.stdout.close()
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    deadline = time.monotonic() + 5
    while (left := leftovers.shared_memory() - segments) - leftovers._mapped(left):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    # A launcher that is killed leaves its records behind, until the next one starts.
    assert len(list(tmp_path.glob("paceline-*"))) == (number == signal.SIGKILL)
    assert finish_job([*RUN, script("")], env=os.environ | {"TMPDIR": str(tmp_path)}).returncode == 0
    assert not list(tmp_path.glob("paceline-*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "-n", "2", "nowhere.py"], "no such script: nowhere.py"),
        (["run", "-n", "2", "-m", "nowhere"], "no module named 'nowhere'"),
        (["run", "-n", "0", __file__], "'-n'"),
        (["run", "-n", "two", __file__], "'-n'"),
        (["run", "--nproc", "2", __file__], "--nproc"),
        (["run", os.path.dirname(__file__)], "not a script but a directory: "),
        (["run", "--log-dir", "/proc/nowhere", __file__], "--log-dir: cannot make /proc/nowhere: No such file"),
        (["run", "-n", "2", "--hosts", "a:1", __file__], "the machines take 1 ranks in all: a:1; name more"),
        (["run"], "PROGRAM"),
        (["train"], "train"),
        (["-n", "2", __file__], "Scripts are started by `paceline run`"),
        ([__file__], "Scripts are started by `paceline run`"),
    ],
)
def test_errors_are_one_line(arguments, words):
    done = finish_job([*PACELINE, *arguments])
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.parametrize("arguments", [[], ["bench"]])
def test_without_a_command_there_is_help(arguments):
    done = finish_job([*PACELINE, *arguments])
    assert done.returncode == 2
    assert done.stderr.startswith(f"Usage: {' '.join(['paceline', *arguments])} [OPTIONS] COMMAND")
    assert "--help" not in done.stderr.splitlines()[-1]  # no hint to what is shown already


def test_no_mpi_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(mpi.sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["paceline", "run", "-n", "2", __file__])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"paceline: {mpi.NOT_FOUND}\n"


@pytest.mark.parametrize(
    ("says", "family"),
    [
        ("HYDRA build details:\\n    Version:   4.3.2", "hydra"),
        ("mpiexec (OpenRTE) 4.1.6", "openmpi"),
        ("mpirun (Open MPI) 5.0.11", "openmpi"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.18", "hydra"),
    ],
)
def test_the_launcher_beside_the_interpreter_is_recognised(says, family, monkeypatch, tmp_path):
    program = tmp_path / "bin" / "mpiexec"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '{says}\\n'\n")
    program.chmod(0o755)
    monkeypatch.setattr(mpi.sys, "prefix", str(tmp_path))
    found = mpi.find_mpiexec()
    assert (found.path, found.family) == (str(program), family)
    assert found.command(3, ["python"])[-3:] == ["-n", "3", "python"] or family == "openmpi"


def test_an_unknown_launcher_is_refused(monkeypatch, tmp_path):
    program = tmp_path / "bin" / "mpirun"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho something else\n")
    program.chmod(0o755)
    monkeypatch.setattr(mpi.sys, "prefix", str(tmp_path))
    with pytest.raises(mpi.LaunchError, match=r"of no known MPI .*something else"):
        mpi.find_mpiexec()


def test_variables_of_a_job_that_is_no_more_are_refused():
    stale = {"PMI_RANK": "0", "PMI_SIZE": "4"}
    done = finish_job([sys.executable, "-c", "import paceline"], env=os.environ | stale)
    assert done.returncode == 1
    assert "PMI_RANK=0 and PMI_SIZE=4 say" in done.stderr.splitlines()[-1]


STALE = {
    "PMI": ({"PMI_RANK": "0", "PMI_SIZE": "4"}, "PMI_RANK=0 and PMI_SIZE=4 say"),
    "srun": ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, "use `srun --mpi=pmix` or"),
    "Open MPI": ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"}, "did not say its local size"),
}


@pytest.mark.parametrize(("variables", "words"), STALE.values(), ids=STALE)
def test_the_command_says_so_in_one_line(script, variables, words):
    done = finish_job([*RUN, "-n", "2", script("print('started')")], env=os.environ | variables)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("paceline: ") and words in done.stderr


def test_doctor_runs_where_variables_are_left_over():
    done = finish_job([*PACELINE, "doctor", "--json"], timeout=120, env=os.environ | STALE["PMI"][0])
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert checks["Machines"]["state"] == "broken" and "unset them" in checks["Machines"]["advice"]
    assert checks["NumPy"]["state"] == "ok"


def test_the_command_imports_nothing_heavy():
    program = "import sys, paceline.launch.cli; print([m for m in ('mpi4py', 'numba', 'cupy') if m in sys.modules])"
    assert finish_job([sys.executable, "-c", program]).stdout == "[]\n"


def test_doctor():
    done = finish_job([*PACELINE, "doctor", "--json"], timeout=120)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["Python"]["state"] == checks["NumPy"]["state"] == "ok"
    assert checks["Kernels"]["state"] == checks["Numba"]["state"], checks["Kernels"]
    assert done.returncode == any(check["state"] == "broken" for check in checks.values())
    for check in checks.values():
        assert check["state"] in ("ok", "missing", "broken")
        assert check["detail"]


def test_doctor_says_what_works():
    names = ["Machines", "NumPy", "mpi4py", "mpiexec", "2 ranks", "CUDA", "NCCL"]
    states = dict.fromkeys(names, "ok") | {"NCCL": "missing"}
    page = doctor.page([doctor.Check(name, states[name], "x", "do this" if name == "NCCL" else "") for name in names])
    assert page.splitlines()[-4:] == [
        f"{'':19}-> do this",
        "",
        "Ready: training on one rank, training on several, training on a GPU",
        "Not ready: training on several GPUs",
    ]


def test_doctor_in_a_container_and_in_a_batch_job(monkeypatch, tmp_path):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(doctor, "CPU_QUOTA", str(quota))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    quota.write_text("max 100000\n")
    assert doctor._cores().advice == ""
    quota.write_text("50000 100000\n")
    assert "the time of 0.5 cores: set OMP_NUM_THREADS" in doctor._cores().advice
    monkeypatch.setattr(doctor, "LEAST_SHARED_MIB", float("inf"))
    assert "--shm-size" in doctor._shared_memory().advice
    nodes = tmp_path / "nodes"
    nodes.write_text("a\na\nb\n")
    monkeypatch.setenv("PBS_NODEFILE", str(nodes))
    assert doctor._machines()[1] == doctor.Check("Machines", "ok", "those of the batch job: a:2, b:1")
    nodes.unlink()
    assert doctor._machines()[1].state == "broken"


def test_doctor_says_how_machines_differ():
    software = {"Python": "3.11.7", "NumPy": "2.4.6"}
    machine = {"name": "a", "ranks": 2, "cores": 4, "software": software}
    machine |= {"directory": True, "launcher": True, "clock": 0}
    machines = [
        machine,
        machine | {"name": "b", "clock": -0.25},
        machine | {"name": "c", "clock": 7},
        machine | {"name": "d", "software": software | {"NumPy": "2.3.1"}},
        machine | {"name": "e", "directory": False},
        machine | {"name": "f", "launcher": False},
    ]
    links = [{"machines": [i, (i + 1) % 6], "latency": 2e-6, "bandwidth": 4e9} for i in range(6)]
    links[1] |= {"latency": 9e-6, "bandwidth": 1e9}
    found = {"machines": machines, "links": links, "together": {"large": 2e-3, "small": 3e-5}}
    checks = {check.name: check for check in network.report(found)}
    states = [check.state for check in checks.values()]
    assert states == ["ok", "ok", "ok", "broken", "broken", "missing", "ok", "broken"]
    assert checks["a"].detail == "2 ranks on 4 cores; Python 3.11.7, NumPy 2.4.6"
    assert checks["b"].detail == "2 ranks on 4 cores; the same software; clock 250 ms behind that of a"
    assert "clock 7.0 s ahead of that of a" in checks["c"].detail and "NTP" in checks["c"].advice
    assert "NumPy 2.3.1, on a 2.4.6" in checks["d"].detail and not checks["b"].advice
    assert f"there is no {os.getcwd()}" in checks["e"].detail
    assert "TCP" in checks["f"].advice
    assert checks["Network"].detail == "one message takes 2 to 9 us, 1.00 to 4.00 GB/s"
    assert checks["Network"].advice.startswith("b - c is slow")
    assert checks["All ranks"].detail.startswith("12 ranks on 6 machines: all_reduce of 4 MiB in 2.00 ms")


OUT_OF_MEMORY = """
import os, sys
from paceline.runtime.comm import world_comm
comm = world_comm()
comm.barrier()
if comm.rank == 1:
    open(sys.argv[1], "w").write("pgfault 7\\noom_kill 3\\n")
    os.kill(os.getpid(), 9)
comm.barrier()
"""


@needs_mpi
@pytest.mark.parametrize(("before", "blamed"), [(2, True), (3, False)])
def test_a_rank_that_the_kernel_kills_for_lack_of_memory(script, tmp_path, before, blamed):
    """The counter of the kernel is played by a file."""
    counter = tmp_path / "vmstat"
    counter.write_text(f"pgfault 5\noom_kill {before}\n")
    launcher = f"from paceline.launch import cli, supervisor; supervisor.VMSTAT = {str(counter)!r}; cli.main()"
    done = finish_job(
        [sys.executable, "-c", launcher, "run", "-n", "2", script(OUT_OF_MEMORY), str(counter)], timeout=30
    )
    assert done.returncode == 137
    assert done.stderr.splitlines()[-1].startswith("paceline run: rank 1 died of SIGKILL")
    assert ("ran out of memory" in done.stderr) == blamed


def test_version():
    assert finish_job([*PACELINE, "--version"]).stdout.startswith("paceline, version ")

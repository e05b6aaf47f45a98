"""The machines of a job, as options, files and batch systems name them. Nothing here has a batch system."""

import contextlib
import socket
import stat

import pytest
from click.testing import CliRunner

from paceline.launch import cli, hosts, plan
from paceline.launch.hosts import Host
from paceline.launch.machines import Machines
from paceline.launch.mpi import LaunchError, Mpiexec

HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:8,b:8", [("a", 8), ("b", 8)]),
        ("a", [("a", 1)]),
        ("a, b:2 ,", [("a", 1), ("b", 2)]),
    ],
)
def test_hosts(text, expected):
    assert hosts.parse_hosts(text) == expected


@pytest.mark.parametrize("text", ["a:", "a:x", ":3", "a:0", ",", "a:-1"])
def test_hosts_that_make_no_sense(text):
    with pytest.raises(LaunchError, match="--hosts"):
        hosts.parse_hosts(text)


@pytest.mark.parametrize("option", ["--hosts", "--hostfile"])
def test_a_variable_that_is_not_set_names_no_machine(option):
    done = CliRunner().invoke(cli.cli, ["run", option, "", "train.py"])
    assert done.exit_code == 2
    assert "no machine named; leave the option out to run on this one" in done.output


def test_hostfiles(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# ours\na:8\nb slots=4 max_slots=8\n\nc  # one\n")
    assert hosts.parse_hostfile(str(path)) == [("a", 8), ("b", 4), ("c", 1)]
    path.write_text("a slots=many\n")
    with pytest.raises(LaunchError, match=r"hosts:1: expected NAME:RANKS or NAME slots=RANKS, got 'a slots=many'"):
        hosts.parse_hostfile(str(path))
    with pytest.raises(LaunchError, match="No such file"):
        hosts.parse_hostfile(str(tmp_path / "nowhere"))
    path.write_text("# nothing\n")
    with pytest.raises(LaunchError, match="no machine named"):
        hosts.parse_hostfile(str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n1", ["n1"]),
        ("n1,n2", ["n1", "n2"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-10,12],gpu1", ["n08", "n09", "n10", "n12", "gpu1"]),
        ("r[1-2]n[3-4].site", ["r1n3.site", "r1n4.site", "r2n3.site", "r2n4.site"]),
    ],
)
def test_slurm_names(text, expected):
    assert hosts.expand_nodes(text) == expected


@pytest.fixture
def slurm(tmp_path):
    """The variables of a Slurm allocation, and a program named srun."""
    program = tmp_path / "srun"
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {
        "PATH": str(tmp_path),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_TASKS_PER_NODE": "4(x2),2",
    }


def test_slurm(slurm):
    assert hosts.allocation(slurm) == [("n1", 4), ("n2", 4), ("n3", 2)]
    del slurm["SLURM_TASKS_PER_NODE"]
    assert hosts.allocation(slurm | {"SLURM_JOB_CPUS_PER_NODE": "16(x3)"}) == [("n1", 16), ("n2", 16), ("n3", 16)]


def test_pbs(tmp_path):
    path = tmp_path / "nodes"
    path.write_text("n1\nn1\nn2\n")
    assert hosts.allocation({"PBS_NODEFILE": str(path)}) == [("n1", 2), ("n2", 1)]


def test_lsf():
    assert hosts.allocation({"LSB_JOBID": "3", "LSB_MCPU_HOSTS": "n1 8 n2 4"}) == [("n1", 8), ("n2", 4)]


def test_no_batch_system():
    assert hosts.allocation({}) == []


def test_variables_left_over_from_another_job(slurm, tmp_path):
    with pytest.raises(LaunchError, match=r"SLURM_JOB_ID=17 .* no srun: .* left over .* unset \$\{!SLURM_@\}"):
        hosts.allocation(slurm | {"PATH": str(tmp_path / "nowhere")})
    with pytest.raises(LaunchError, match=r"PBS_NODEFILE=.*nowhere: .* left over"):
        hosts.allocation({"PBS_NODEFILE": str(tmp_path / "nowhere")})


HYDRA = Mpiexec("/bin/mpiexec", "hydra", "MPICH")
OPEN_MPI = Mpiexec("/bin/mpirun", "openmpi", "Open MPI")


@pytest.fixture
def mpiexec(monkeypatch):
    monkeypatch.setattr(plan, "find_mpiexec", lambda: HYDRA)


def test_a_plan_takes_all_that_the_machines_take(mpiexec, slurm):
    made = plan.make_plan(None, "", "", slurm)
    assert (made.size, made.per_host, made.hosts) == (10, 4, [Host("n1", 4), Host("n2", 4), Host("n3", 2)])
    assert plan.make_plan(None, "a:2,b:3", "", slurm).size == 5
    assert plan.make_plan(4, "a:2,b:3", "", {}).size == 4
    assert plan.make_plan(None, "", "", {}) == plan.Plan(1, [], None, 1)
    assert plan.make_plan(3, f"{HERE}:2,localhost:2", "", {}).hosts == []


def test_plans_that_cannot_be(mpiexec):
    with pytest.raises(LaunchError, match="-n 9: the machines take 5 ranks in all: a:2, b:3"):
        plan.make_plan(9, "a:2,b:3", "", {})
    with pytest.raises(LaunchError, match="give one of them"):
        plan.make_plan(1, "a", "file", {})
    rank = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}
    local = {"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    with pytest.raises(LaunchError, match="openmpi has started this command as process 1 of 4; either"):
        plan.make_plan(2, "", "", rank | local)


@pytest.mark.parametrize(("found", "line"), [(HYDRA, "a:2\n"), (OPEN_MPI, "a slots=2\n")])
def test_commands_for_several_machines(found, line, tmp_path):
    made = plan.Plan(3, [Host("a", 2), Host("b", 1)], found, 2)
    environment = made.environment({"PATH": "/bin", "HOME": "/root", "PMI_FD": "7", "PACELINE_RANK_PID": "5"})
    assert environment["PACELINE_WORLD_SIZE"] == "3"
    assert not environment.keys() & {"PMI_FD", "PACELINE_RANK_PID"}
    command = made.command(["python", "train.py"], str(tmp_path), environment)
    assert command[0] == found.path
    assert command[-4:] == ["-n", "3", "python", "train.py"]
    assert (tmp_path / "hosts").read_text().startswith(line)
    if found is OPEN_MPI:  # MPICH and Intel MPI take all variables along
        exported = [command[at + 1] for at, word in enumerate(command) if word == "-x"]
        assert {"PATH", "PACELINE_WORLD_SIZE", "OMP_NUM_THREADS"} <= set(exported)
        assert "HOME" not in exported


@pytest.mark.parametrize(
    "words", [b"GET / HTTP/1.1\r\n", b'["no secret", "host"]\n', b"[1, 2]\n", b"[]\n", b"7\n", b"without end" * 1000]
)
def test_the_launcher_lets_strangers_go(words):
    """Anybody may connect to the port that it opens for the other machines."""
    with contextlib.closing(Machines([])) as machines:
        port = int(machines.address.split(",")[1])
        with socket.create_connection(("127.0.0.1", port), 5) as stranger:
            stranger.sendall(words)
            stranger.setblocking(False)
            for _ in range(100):
                assert not list(machines.receive(0.05))
                with contextlib.suppress(BlockingIOError, ConnectionResetError):
                    if stranger.recv(1) == b"":
                        break
            else:
                pytest.fail("the launcher still listens")
        assert not machines.machines

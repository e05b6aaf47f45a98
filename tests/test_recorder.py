"""The flight recorder, what is read out of it, and who is called a straggler."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paceline.runtime import recorder, report, watchdog
from paceline.runtime.recorder import Entry, Record, Recorder
from paceline.runtime.world import World


@pytest.fixture
def own(tmp_path):
    return Recorder(recorder.path_of(str(tmp_path), 0), 0)


def test_a_full_disk_leaves_a_rank_without_a_recorder(tmp_path, monkeypatch):
    """A file with holes would end it by SIGBUS, at the first page that the disk has no room for."""

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    monkeypatch.setenv(recorder.FOLDER, str(tmp_path))
    assert recorder.start(World(0, 2, 0, 2, "hydra", 1)) is None
    assert os.listdir(tmp_path) == []


def test_a_prepared_call_is_over_unless_it_is_reopened(own):
    def collective(number):
        return note(number)

    note = own.prepare("0-1", "barrier()", depth=2)
    offsets = [collective(number) for number in (1, 2)]  # prepared
    assert own.record().running() is None
    own.reopen(offsets[1])
    running = own.record().running()
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("# prepared"))
    assert (str(running), running.group) == (f"#2 barrier() at {__file__}:{line}", "0-1")
    own.end(offsets[1])
    assert [entry.number for entry in own.record().entries if entry.end] == [1, 2]


def test_prepared_calls_tell_their_places_apart(own):
    def collective():
        note(1)

    note = own.prepare("0-1", "barrier()", depth=2)
    for _ in range(2):
        collective()  # one
        collective()  # two
    source = Path(__file__).read_text().splitlines()
    lines = [number for number, text in enumerate(source, 1) if text.endswith(("# one", "# two"))]
    assert [entry.place for entry in own.record().entries] == [f"{__file__}:{line}" for line in lines] * 2


def test_calls_and_their_lines(own):
    group = own.name_group([0, 1, 2, 5])
    first = own.begin(1, group, "all_reduce(float32 [3])")  # here
    own.end(first)
    own.begin(2, group, "barrier()", "train.py:7")
    record = recorder.read(own.path)
    assert (record.pid, record.rank, record.ended) == (os.getpid(), 0, False)
    done, running = record.entries
    source = Path(__file__).read_text().splitlines()
    line = next(number for number, text in enumerate(source, 1) if text.endswith("# here"))
    assert str(done) == f"#1 all_reduce(float32 [3]) at {__file__}:{line}"
    assert str(running) == "#2 barrier() at train.py:7"
    assert done.begin <= done.end <= running.begin <= time.monotonic_ns()
    assert done.inside == done.end - done.begin
    assert (done.members, running.end) == ([0, 1, 2, 5], 0)
    assert record.running() == running
    assert own.record() == record


def test_the_last_calls_are_kept(own):
    for number in range(1, 1001):
        own.end(own.begin(number, "0-1", "barrier()"))
    numbers = [entry.number for entry in recorder.read(own.path).entries]
    assert numbers == list(range(1001 - len(numbers), 1001))
    assert len(numbers) > 100


def test_a_program_that_never_repeats_a_call_fills_the_file_and_goes_on(own):
    for number in range(1, 3001):
        own.end(own.begin(number, "0-1", f"all_reduce(float32 [{number}])" + 100 * "x"))
    entries = recorder.read(own.path).entries
    assert [entry.number for entry in entries[-3:]] == [2998, 2999, 3000]
    assert {entry.call for entry in entries} == {"?"}
    own.begin(3001, "0-1", "y" * 5000, "z" * 5000)
    assert recorder.read(own.path).entries[-1].place == "?"


@pytest.mark.parametrize(
    ("ranks", "name"), [([0], "0"), ([0, 1], "0-1"), ([4, 2, 3, 7], "2-4,7"), (range(4096), "0-4095")]
)
def test_names_of_groups(own, ranks, name):
    assert own.name_group(ranks) == name
    assert own.name_group(ranks) == f"{name}#2"
    assert Entry(1, 0, 0, 1, f"{name}#2", "", "", -1).members == sorted(ranks)


def test_a_message_needs_its_other_rank(own):
    with own.waiting("0-3", "recv", 2, 5):
        entry = own.record().running()
        assert entry.members == [2]
        assert str(entry).startswith("recv(rank 2, tag=5) at ")
        assert __file__ in entry.place
    assert own.record().running() is None


def test_ranks_of_one_parent_share_a_directory_that_the_last_takes_away(tmp_path):
    program = (
        "import os, sys; from paceline.runtime import recorder; from paceline.runtime.world import World\n"
        "own = recorder.start(World(int(sys.argv[1]), 2, int(sys.argv[1]), 2, 'hydra', 1))\n"
        "print(own.folder, flush=True)\n"
        "input(); own.update(ended=True); own.remove_with_the_last()"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    left = tmp_path / f"paceline-{os.getuid()}-4194305"  # of a process that there cannot be
    left.mkdir()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in (0, 1)
    ]
    folders = {rank.stdout.readline() for rank in ranks}
    assert folders == {f"{tmp_path}/paceline-{os.getuid()}-{os.getpid()}\n"}
    assert not left.exists()
    for rank in ranks:
        assert list(tmp_path.iterdir())
        rank.communicate("\n", timeout=20)
    assert not list(tmp_path.iterdir())


def test_without_a_place_for_files_there_is_no_recorder(monkeypatch):
    monkeypatch.setattr(recorder.tempfile, "gettempdir", lambda: "/nowhere")
    assert recorder.start(World(0, 2, 0, 2, "hydra", 1)) is None


STACKS = """
Thread 0x00007f (most recent call first):
  File "{root}/runtime/data/prefetch.py", line 9 in next
  File "/home/me/data.py", line 61 in __getitem__
  File "{root}/runtime/data/prefetch.py", line 80 in _read_ahead

Thread 0x00007e (most recent call first):
  File "{root}/runtime/watchdog.py", line 75 in _watch

Current thread 0x00007d (most recent call first):
  File "{lib}/threading.py", line 320 in wait
{middle}  File "/home/me/train.py", line 12 in step
  File "/home/me/train.py", line 40 in <module>
"""


@pytest.mark.parametrize(
    ("middle", "where"),
    [
        ("", "in user code at /home/me/train.py:12 in step"),
        (
            '  File "{root}/runtime/data/loader.py", line 8 in __iter__\n',
            "in the data loader at /home/me/data.py:61 in",
        ),
    ],
)
def test_the_line_of_the_user_is_found_in_stacks(middle, where):
    root, lib = os.path.dirname(os.path.dirname(report.__file__)), os.path.dirname(os.__file__)
    assert where in report._where(STACKS.replace("{middle}", middle).format(root=root, lib=lib))


def test_stacks_begin_with_the_program():
    root = os.path.dirname(os.path.dirname(report.__file__))
    starters = f"""  File "<frozen runpy>", line 291 in run_path
  File "{root}/launch/worker.py", line 41 in main
  File "<frozen runpy>", line 198 in _run_module_as_main
"""
    main = list(report._parse_stacks(STACKS.format(root=root, lib="/lib", middle="") + starters).values())[-1]
    assert main[-1] == report.Frame("/home/me/train.py", "40", "<module>")


def records(now, inside):
    """Records of ranks that have spent these shares of the time in collectives since the second 0."""
    second = 10**9
    return {
        rank: Record(
            1, rank, False, 600.0, [Entry(1, now * second, int(share * now * second), now, "0-2", "x", "y", -1)]
        )
        for rank, share in enumerate(inside)
    }


def test_a_straggler_is_reported_when_it_stays_one():
    look = watchdog.Stragglers().compare
    assert [look(records(now, [0.9, 0.05, 0.9])) for now in (1, 2, 3)] == [None] * 3
    found = look(records(4, [0.9, 0.05, 0.9]))
    assert found.startswith("rank 1 is slow: the other ranks spend 90% of their time waiting for it in collectives")
    assert found.endswith("it waits 5%")
    assert look(records(5, [0.9, 0.05, 0.9])) is None  # not again so soon


@pytest.mark.parametrize("shares", [[0.1, 0.05, 0.1], [0.9, 0.8, 0.9], [0.9, 0.05, 0.05]])
def test_no_straggler(shares):
    look = watchdog.Stragglers().compare
    assert not any(look(records(now, shares)) for now in range(1, 20))


def test_ranks_that_take_turns_are_no_stragglers():
    look = watchdog.Stragglers().compare
    now = dict.fromkeys(range(3), 0.0)
    for second in range(1, 20):
        for rank in now:
            now[rank] += 0.05 if rank == second % 3 else 0.9
        assert look(records(second, [now[rank] / second for rank in range(3)])) is None


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_timeouts_are_positive(seconds):
    with pytest.raises(ValueError, match="timeout should be a positive number of seconds"):
        watchdog.set_timeout(seconds)

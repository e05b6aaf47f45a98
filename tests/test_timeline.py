"""One trace of all ranks: what is in it, on whose clock, and how much of the communication it finds hidden."""

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from tables.comms import finish_job

from paceline.launch import timeline as launch_timeline
from paceline.launch import trace
from paceline.launch.mpi import LaunchError, find_mpiexec
from paceline.launch.trace import Span, Track
from paceline.runtime import timeline

PACELINE = [sys.executable, "-m", "paceline"]
RUN = [*PACELINE, "run"]
CATEGORIES = ("forward", "backward", "optimizer")
MS = ("0.500", "0.400", "0.100")


def track(*spans):
    return Track(0, [Span(("main", "courier")[thread - 1], *others) for thread, *others in spans])


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([], None),
        ([(1, 0, 10, "forward", "")], None),
        ([(1, 0, 10, "collective", "")], 0.0),
        ([(2, 0, 10, "collective", "")], 1.0),
        ([(2, 0, 10, "collective", ""), (1, 5, 30, "wait", "")], 0.5),
        # Overlapping pieces count once; waiting for nothing does not count.
        (
            [(2, 0, 6, "collective", ""), (2, 4, 10, "collective", ""), (1, 8, 9, "wait", ""), (1, 20, 30, "wait", "")],
            0.9,
        ),
        ([(2, 0, 10, "collective", ""), (1, 20, 30, "collective", ""), (1, 0, 30, "backward", "")], 0.5),
        ([(2, 0, 10, "collective", ""), (1, 20, 90, "collective", "exit()")], 1.0),
        # While the program waits for a message it computes nothing either.
        ([(2, 0, 10, "collective", ""), (1, 0, 4, "message", "")], 0.6),
        ([(1, 0, 4, "message", "")], None),
    ],
)
def test_hidden_communication(spans, share):
    assert trace.hidden_share(track(*spans)) == (share if share is None else pytest.approx(share))


def test_tracks_on_one_clock(tmp_path):
    (tmp_path / "timeline-0").write_text("clock\t0\nthread\t7\tmain\nspan\t7\t1000\t3000\tforward\tLinear\n")
    (tmp_path / "timeline-1").write_text("clock\t500\nthread\t8\tmain\nspan\t8\t2500\t4500\tforward\tReLU\nspan\t8\t25")
    tracks = trace.read_tracks(str(tmp_path))
    trace.write_trace(str(tmp_path / "out.json"), tracks)
    events = [each for each in json.loads((tmp_path / "out.json").read_text())["traceEvents"] if each["ph"] == "X"]
    assert events == [
        {"ph": "X", "pid": 0, "tid": 1, "name": "Linear", "cat": "forward", "ts": 0.0, "dur": 2.0},
        {"ph": "X", "pid": 1, "tid": 1, "name": "ReLU", "cat": "forward", "ts": 1.0, "dur": 2.0},
    ]
    assert "no communication" in trace.summary("out.json", tracks)
    start = min(span.begin for span in tracks[0].spans)
    for written, read in zip(tracks, trace.read_trace(str(tmp_path / "out.json")), strict=True):
        assert (read.rank, [span._replace(begin=span.begin + start, end=span.end + start) for span in read.spans]) == (
            written
        )


def test_threads_of_one_name_are_one_track(tmp_path):
    """A loader has a new thread in every epoch."""
    (tmp_path / "timeline-0").write_text(
        "thread\t9\tpaceline-loader\nspan\t9\t0\t1\tloader\tread ahead\nthread\t7\tmain\n"
        "span\t7\t1\t2\tforward\tReLU\nthread\t8\tpaceline-loader\nspan\t8\t2\t3\tloader\tread ahead\n"
    )
    (track,) = trace.read_tracks(str(tmp_path))
    assert track.threads == ["main", "paceline-loader"]


def test_shares_of_time():
    spans = [
        (1, 0, 10, "loader", ""),
        (1, 10, 30, "forward", "Net"),
        (1, 12, 20, "forward", "Linear"),  # within Net
        (1, 14, 16, "message", ""),  # within Linear
        (1, 30, 70, "backward", ""),
        (1, 60, 70, "bucket", ""),
        (1, 62, 70, "collective", ""),
        (2, 70, 80, "collective", ""),  # hidden
        (1, 90, 100, "optimizer", ""),
        (1, 100, 900, "collective", "exit()"),
    ]
    assert trace.shares(track(*spans)) == pytest.approx(
        {"communication": 0.1, "loader": 0.1, "optimizer": 0.1, "backward": 0.32, "forward": 0.18, "other": 0.2}
    )
    assert trace.shares(track()) == {}


def test_without_a_timeline_nothing_is_wrapped():
    def function():
        pass

    assert timeline.traced("forward")(function) is function
    assert timeline.traced_items("loader", "next batch")(function) is function


TRAINING = """
import paceline as torch
from paceline.nn.parallel import DistributedDataParallel
from paceline.runtime.comm import world_comm
from paceline.utils.data import DataLoader, TensorDataset
import time
model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for (x,) in DataLoader(TensorDataset(torch.randn(12, 8)), batch_size=4):
    model(x).sum().backward()
    optimizer.step()
comm = world_comm()
if comm.rank == 1:
    time.sleep(0.2)
work = comm.all_reduce(torch.ones(8).numpy(), async_op=True)  # rank 0 computes meanwhile
time.sleep(0.3)
work.wait()
for _ in DataLoader(range(6), batch_size=2, num_workers=1):
    pass
one = torch.ones(1).numpy()
if comm.rank == 0:
    comm.recv(one, 1, tag=5)
else:
    time.sleep(0.1)
    comm.send(one, 0, tag=5)
"""


HANGING = """
import paceline as torch
model = torch.nn.DataParallel(torch.nn.Linear(2, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
while torch.distributed.get_rank() == 1:
    pass
torch.distributed.barrier()
"""


def test_the_trace_of_a_job_that_got_stuck(tmp_path):
    try:
        find_mpiexec()
    except LaunchError as error:
        pytest.skip(str(error))
    path, out = tmp_path / "train.py", tmp_path / "trace.json"
    path.write_text(HANGING)
    done = finish_job([*RUN, "-n", "2", "--timeout", "1", "--timeline", str(out), str(path)], timeout=60)
    assert done.returncode == 124, done.stderr
    steps = [each["pid"] for each in json.loads(out.read_text())["traceEvents"] if each.get("cat") == "optimizer"]
    assert sorted(steps) == [0, 0, 0, 1, 1, 1]


def test_a_trace_of_a_training(tmp_path):
    try:
        find_mpiexec()
    except LaunchError as error:
        pytest.skip(str(error))
    path, out = tmp_path / "train.py", tmp_path / "trace.json"
    path.write_text(TRAINING)
    done = finish_job([*RUN, "-n", "2", "--timeline", str(out), str(path)], timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"paceline run: timeline of 2 ranks in {out}; hidden behind computation: " in done.stderr
    events = [each for each in json.loads(out.read_text())["traceEvents"] if each["ph"] == "X"]
    for rank in (0, 1):
        names = [(each["cat"], each["name"]) for each in events if each["pid"] == rank]
        assert names.count(("forward", "ReLU")) == 3
        assert names.count(("forward", "DistributedDataParallel")) == 3
        assert names.count(("backward", "backward")) == 3
        assert names.count(("optimizer", "SGD")) == 3
        assert names.count(("loader", "next batch")) == 8  # the last ones find nothing
        assert names.count(("loader", "read ahead")) == 4
        assert names.count(("message", ("recv(rank 1, tag=5)", "send(rank 0, tag=5)")[rank])) == 1
        assert ("bucket", "bucket 0") in names
        assert ("collective", "all_reduce(float32 [8], op=sum)") in names
        assert any(category == "wait" for category, _ in names)
    # On one clock neither rank leaves a collective before the other has entered it.
    works = [each for each in events if each["name"] == "all_reduce(float32 [8], op=sum)"]
    assert max(each["ts"] for each in works) <= min(each["ts"] + each["dur"] for each in works)
    (main,) = {
        each["tid"] for each in events if each["cat"] in ("optimizer", "message") or each["name"] == "next batch"
    }
    readers = {each["tid"] for each in events if each["name"] == "read ahead"}
    assert len({main, *readers, *(each["tid"] for each in works)}) == 3
    # A receiver waits for its sender to wake up.
    (received,) = [each["dur"] for each in events if each["name"] == "recv(rank 1, tag=5)"]
    assert received > 0.05e6
    done = finish_job(
        [*PACELINE, "timeline", str(out), "--plot", str(tmp_path / "out.svg"), "--steps", "1"], timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    texts = [text for each in ElementTree.parse(tmp_path / "out.svg").iter() if (text := (each.text or "").strip())]
    assert {"rank 0: main", "rank 1: main", "forward", "communication", "0 ms"} <= set(texts)
    assert any(text.startswith("DistributedDataParallel: ") for text in texts)


def test_a_picture_of_two_steps():
    """Boxes lie below what they are within, and only those of the two steps in the middle are there."""
    steps = [
        (1, 1_000_000 * at + begin, 1_000_000 * at + end, category, f"{category} {at}")
        for at in range(6)
        for category, begin, end in (
            ("forward", 0, 500_000),
            ("backward", 500_000, 900_000),
            ("optimizer", 900_000, 10**6),
        )
    ]
    inner = (1, 3_600_000, 3_800_000, "collective", "all_reduce")
    picture = ElementTree.fromstring(launch_timeline.picture([track(*steps, inner)], 2))
    boxes = {
        group.find("{*}title").text: group.find("{*}rect") for group in picture.iter("{http://www.w3.org/2000/svg}g")
    }
    assert set(boxes) == {
        *(f"{category} {at}: {ms} ms" for at in (2, 3) for category, ms in zip(CATEGORIES, MS, strict=True)),
        "all_reduce: 0.200 ms",
    }
    outer, box = boxes["backward 3: 0.400 ms"], boxes["all_reduce: 0.200 ms"]
    assert float(box.get("y")) > float(outer.get("y")) == float(boxes["forward 2: 0.500 ms"].get("y"))
    assert float(box.get("width")) == pytest.approx(float(outer.get("width")) / 2, abs=0.2)
    assert float(boxes["forward 2: 0.500 ms"].get("x")) == 150
    assert len({each.get("fill") for each in boxes.values()}) == 4


def test_a_picture_of_nothing():
    ElementTree.fromstring(launch_timeline.picture([track()], 2))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"traceEvents": [{"ph": "X"}]}'])
def test_files_that_are_no_traces(content, tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(content)
    with pytest.raises(LaunchError, match="is no trace of `paceline run --timeline`"):
        trace.read_trace(str(path))
    with pytest.raises(LaunchError, match=r"cannot read .*: No such file"):
        trace.read_trace(str(tmp_path / "nowhere"))


def test_a_trace_of_one_rank_and_of_one_that_fails(tmp_path):
    path, out = tmp_path / "train.py", tmp_path / "trace.json"
    path.write_text("import paceline as torch\ntorch.nn.ReLU()(torch.ones(1))\nraise ValueError('bad batch')\n")
    done = finish_job([*RUN, "--timeline", str(out), str(path)], timeout=60)
    assert done.returncode == 1
    events = [each for each in json.loads(out.read_text())["traceEvents"] if each["ph"] == "X"]
    assert [each["name"] for each in events] == ["ReLU"]


def test_processes_that_a_rank_starts_are_not_on_the_timeline(tmp_path):
    program = "import os, paceline; print(os.environ.get('PACELINE_TIMELINE'))"
    environment = os.environ | {"PACELINE_TIMELINE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "None\n"


def test_children_that_a_rank_forks_are_not_on_the_timeline(tmp_path):
    path, out = tmp_path / "train.py", tmp_path / "trace.json"
    path.write_text(
        "import os, paceline as torch\n"
        "layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)\n"
        "layer(x)\n"
        "child = os.fork()\n"
        "layer(x)\n"
        "if child: os.waitpid(child, 0)\n"
    )
    done = finish_job([*RUN, "--timeline", str(out), str(path)], timeout=60)
    assert done.returncode == 0, done.stderr
    events = json.loads(out.read_text())["traceEvents"]
    assert [event["name"] for event in events if event["ph"] == "X"] == ["Linear"] * 2


def test_a_place_that_cannot_be_written_is_refused_before_the_job(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("print('started')")
    done = finish_job([*RUN, "--timeline", "/nowhere/trace.json", str(path)])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "paceline: --timeline: cannot write /nowhere/trace.json\n"

"""One trace of all ranks: what is in it, on whose clock, and how much of the communication it finds hidden."""

import json
import os
import subprocess
import sys

import pytest
from tables.comms import finish_job

from paceline.launch import trace
from paceline.launch.mpi import LaunchError, find_mpiexec
from paceline.launch.trace import Span, Track
from paceline.runtime import timeline

RUN = [sys.executable, "-m", "paceline", "run"]


def track(*spans):
    return Track(0, {1: "main", 2: "courier"}, [Span(*span) for span in spans])


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
        {"ph": "X", "pid": 0, "tid": 7, "name": "Linear", "cat": "forward", "ts": 0.0, "dur": 2.0},
        {"ph": "X", "pid": 1, "tid": 8, "name": "ReLU", "cat": "forward", "ts": 1.0, "dur": 2.0},
    ]
    assert "no communication" in trace.summary("out.json", tracks)


def test_without_a_timeline_nothing_is_wrapped():
    def function():
        pass

    assert timeline.traced("forward")(function) is function
    assert timeline.traced_items("loader")(function) is function


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
"""


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
        assert names.count(("loader", "loader")) == 4  # the last one finds nothing
        assert ("bucket", "bucket 0") in names
        assert ("collective", "all_reduce(float32 [8], op=sum)") in names
        assert any(category == "wait" for category, _ in names)
    # On one clock neither rank leaves a collective before the other has entered it.
    works = [each for each in events if each["name"] == "all_reduce(float32 [8], op=sum)"]
    assert max(each["ts"] for each in works) <= min(each["ts"] + each["dur"] for each in works)
    main = {each["tid"] for each in events if each["cat"] == "optimizer"}
    assert not main & {each["tid"] for each in works}


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


def test_a_place_that_cannot_be_written_is_refused_before_the_job(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("print('started')")
    done = finish_job([*RUN, "--timeline", "/nowhere/trace.json", str(path)])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "paceline: --timeline: cannot write /nowhere/trace.json\n"

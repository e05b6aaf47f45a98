"""`paceline bench train|scaling|predict`: the simulator against closed forms, and the commands as users meet them."""

import json
import math
import random
import sys
from xml.etree import ElementTree

import pytest
from tables.comms import finish_job

from paceline.launch import plot
from paceline.launch.mpi import LaunchError, find_mpiexec
from paceline.launch.published import PUBLISHED
from paceline.launch.recorded import read_step
from paceline.launch.simulation import TOPOLOGIES, Bucket, Network, Step, cut_buckets, simulate, slowest

BENCH = [sys.executable, "-m", "paceline", "bench"]
RANKS = (1, 2, 3, 8, 100, 4096)
FREE = Network(0.0, math.inf)


def step(*buckets, forward=1.0, backward=2.0, optimizer=0.5):
    return Step(forward, backward, optimizer, tuple(Bucket(*each) for each in buckets))


def random_steps(count):
    source = random.Random(0)
    for _ in range(count):
        ready = sorted(source.uniform(0, 2) for _ in range(source.randint(1, 6)))
        yield step(*((source.uniform(1, 1e9), each) for each in ready))


# -- the simulator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_network_that_takes_no_time_costs_nothing(topology, ranks):
    predicted = simulate(step((1e9, 0.5), (1e9, 2.0)), ranks, Network(0.0, math.inf, topology, per_node=4))
    assert (predicted.seconds, predicted.efficiency, predicted.hidden) == (3.5, 1.0, 1.0)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize(
    ("topology", "cost"),
    [
        ("ring", lambda n, a, b: 2 * (n - 1) * a + 2 * (n - 1) / n * b),
        ("tree", lambda n, a, b: 2 * math.ceil(math.log2(n)) * a + (2 * b if n > 1 else 0)),
    ],
)
def test_one_bucket_that_is_ready_last_is_computing_and_then_sending(topology, cost, overlap):
    network = Network(3e-6, 2e9, topology)
    for ranks in RANKS:
        predicted = simulate(step((1e8, 2.0)), ranks, network, overlap)
        assert predicted.seconds == pytest.approx(3.5 + cost(ranks, 3e-6, 1e8 / 2e9))
        assert predicted.hidden == pytest.approx(1.0 if ranks == 1 else 0.0)


def test_buckets_wait_for_the_link_and_for_their_gradients():
    # On two ranks a ring takes 1 s per 1e9 bytes here: sent at 0.5, 1.5 (the link is busy until then) and 2.0.
    predicted = simulate(step((1e9, 0.5), (4e8, 0.6), (1e9, 2.0)), 2, Network(0.0, 1e9))
    assert predicted.seconds == pytest.approx(1 + 2 + 1 + 0.5)
    assert predicted.communication == pytest.approx(2.4)
    assert predicted.hidden == pytest.approx(1.4 / 2.4)
    assert simulate(step((1e9, 0.5), (4e8, 0.6)), 2, Network(0.0, 1e9), overlap=False).seconds == pytest.approx(4.9)


def test_within_and_between_machines():
    network = Network(1e-5, 1e9, "fat-tree", per_node=4, local_latency=1e-6, local_bandwidth=1e10)
    within = 6 * 1e-6 + 2 * 3 / 4 * 1e8 / 1e10
    assert network.all_reduce(1e8, 4) == pytest.approx(within)
    assert network.all_reduce(1e8, 8) == pytest.approx(within + 2 * 1e-5 + 1e8 / 1e9)  # two machines: a ring of two
    # Small messages between many machines take the tree's few steps, large ones the ring's fewer bytes.
    tree = 2 * 10 * 1e-5 + 2 * 4 / 1e9
    assert network.all_reduce(4, 4096) == pytest.approx(6 * 1e-6 + 2 * 3 / 4 * 4 / 1e10 + tree)
    flat = Network(1e-5, 1e9, "ring", per_node=4, local_latency=1e-6, local_bandwidth=1e10)
    assert flat.all_reduce(1e8, 4) == pytest.approx(within)
    assert flat.all_reduce(1e8, 8) == pytest.approx(14 * 1e-5 + 2 * 7 / 8 * 1e8 / 1e9)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_never_better_than_computing_or_sending_alone(topology):
    for each in random_steps(50):
        before = 0.0
        for ranks in RANKS[:3] if topology == "tree" else RANKS:
            network = Network(1e-5, 2e9, topology)
            predicted = simulate(each, ranks, network)
            assert predicted.seconds >= max(each.compute, predicted.communication)
            assert predicted.seconds <= simulate(each, ranks, network, overlap=False).seconds * (1 + 1e-12)
            assert 0 <= predicted.efficiency <= 1 and 0 <= predicted.hidden <= 1
            assert predicted.seconds >= before  # more ranks, the same work for each
            before = predicted.seconds


def test_all_wait_for_the_slowest():
    source = random.Random(1)
    for ranks in (2, 16, 128):
        drawn = [max(source.gauss(0, 1) for _ in range(ranks)) for _ in range(2000)]
        assert slowest(ranks) == pytest.approx(sum(drawn) / len(drawn), abs=0.1)
    assert slowest(1) == pytest.approx(0, abs=1e-12)
    predicted = simulate(step((1e9, 2.0)), 16, FREE, noise=0.1)
    assert predicted.seconds == pytest.approx(3.5 * (1 + 0.1 * slowest(16)))


def test_buckets_are_cut_as_training_cuts_them():
    gradients = [(4, 0.1), (8, 0.2), (1, 0.3), (15, 0.4), (3, 0.5)]
    assert cut_buckets(gradients, 10, 16) == (Bucket(12, 0.2), Bucket(16, 0.4), Bucket(3, 0.5))
    assert cut_buckets(reversed(gradients), 1, 1) == tuple(Bucket(*each) for each in gradients)
    assert cut_buckets([], 1, 1) == ()


def test_published_figures_are_predicted_as_far_as_the_model_knows():
    """The model knows no stragglers and no lost bandwidth, so that it may only be too optimistic."""
    for each in PUBLISHED:
        assert each.efficiency - 0.05 < each.predict(0.0).efficiency <= 1, each.name


# -- recordings --------------------------------------------------------------------------------------------------------


def span(category, name, begin, end, thread=1):
    return {"ph": "X", "pid": 0, "tid": thread, "cat": category, "name": name, "ts": begin, "dur": end - begin}


def test_a_step_is_read_from_a_trace(tmp_path):
    """Times in microseconds; buckets of 32 and 6 bytes are ready after 10 and 30 of computing, 100 and 50 are waits."""
    events = [
        {"ph": "M", "pid": 0, "name": "process_name", "args": {"name": "rank 0"}},
        span("backward", "backward", 0, 5),  # of another kind
        span("forward", "Sequential", 10, 40),
        span("forward", "Linear", 12, 20),
        span("backward", "backward", 50, 240),
        span("bucket", "bucket 0", 60, 161),
        span("collective", "all_reduce(float32 [8], op=avg)", 60, 160),
        span("bucket", "last buckets", 170, 240),
        span("bucket", "bucket 1", 180, 231),
        span("collective", "all_reduce(bfloat16 [3], op=avg)", 180, 230),
        span("collective", "all_reduce(uint8 [5], op=max)", 231, 240),
        span("optimizer", "SGD", 250, 257),
    ]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": events + [dict(event, pid=1) for event in events]}))
    read = read_step(str(path))
    assert (read.forward, read.backward, read.optimizer) == pytest.approx((30e-6, (190 - 159) * 1e-6, 7e-6))
    assert [bucket.size for bucket in read.buckets] == [32, 6]
    assert [bucket.ready for bucket in read.buckets] == pytest.approx([10e-6, 30e-6])
    path.write_text(json.dumps({"traceEvents": events[:3]}))
    with pytest.raises(LaunchError, match="has no buckets"):
        read_step(str(path))


def test_bars():
    root = ElementTree.fromstring(plot.bars("a < b", {"1 ranks": 1.0, "2 ranks": 0.5}, 0.9))
    bars = list(root.iter("{http://www.w3.org/2000/svg}rect"))[1:]
    assert float(bars[0].get("width")) == pytest.approx(2 * float(bars[1].get("width")), abs=0.2)
    assert bars[0].get("fill") != bars[1].get("fill")


# -- the commands ------------------------------------------------------------------------------------------------------

FIGURES = {"forward": 0.01, "backward": 0.02, "optimizer": 0.0, "gradients": [[4000000, 0.005], [1000000, 0.02]]}


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(FIGURES))
    return str(path)


def test_predict(recording):
    options = ["--latency", "2us", "--bandwidth", "8Gbit/s", "--ranks", "2,8..32"]
    done = finish_job([*BENCH, "predict", recording, *options, "--json", "-"])
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["predictions"]
    assert [row["ranks"] for row in rows] == [2, 8, 16, 32]
    # On two ranks: 4 MB from 5 ms to 9.002 ms, then 1 MB from 20 ms to 21.002 ms, of which backward covers the first.
    ring = 2 * (2e-6 + 5e5 / 1e9)
    assert rows[0]["seconds"] == pytest.approx(0.03 + ring)
    page = finish_job([*BENCH, "predict", recording, *options])
    assert page.stdout.splitlines()[0] == "one rank alone: 30.000 ms, 2 buckets"
    assert len(page.stdout.splitlines()) == 6


NETWORK = ["--latency", "1us", "--bandwidth", "1GB/s"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict"], "give TIMELINE_OR_JSON, --latency and --bandwidth, or --check"),
        (["predict", "{file}", "--latency", "2", "--bandwidth", "1GB/s"], "'2' is no number with one of the units"),
        (["predict", "{file}", "--latency", "1us", "--bandwidth", "0GB/s"], "'0GB/s' is no positive number"),
        (["predict", "{file}", *NETWORK, "--ranks", "8..4"], "'8..4' is no list of numbers of ranks"),
        (["predict", "{file}", *NETWORK, "--ranks", "0"], "'0' is no list of numbers of ranks"),
        (["predict", "/nowhere.json", *NETWORK], "cannot read /nowhere.json: No such file"),
        (["predict", __file__, *NETWORK], "is neither figures of `paceline bench train --json` nor a trace"),
        (["predict", "{file}", "--check"], "leave out TIMELINE_OR_JSON"),
        (["train", "--model", "vgg"], "'vgg' is not one of"),
        (["train", "-n", "0"], "0 is not in the range x>=1"),
        (["train", "--json", "/nowhere/out.json"], "cannot write /nowhere/out.json"),
        (["scaling", "--strong", "--batch", "3"], "3 samples cannot be dealt evenly to 2 ranks"),
    ],
)
def test_bad_arguments_are_one_line(recording, arguments, message):
    done = finish_job([*BENCH, *(word.format(file=recording) for word in arguments)])
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_scaling_and_training_on_two_ranks(tmp_path):
    try:
        find_mpiexec()
    except LaunchError as error:
        pytest.skip(str(error))
    out, picture = tmp_path / "out.json", tmp_path / "out.svg"
    options = ["--model", "deep", "--batch", "4", "--steps", "2"]
    files = ["--json", str(out), "--plot", str(picture)]
    done = finish_job([*BENCH, "scaling", "--ranks", "1,2", *options, *files], timeout=60)
    assert done.returncode == 0, done.stderr
    one, two = json.loads(out.read_text())["runs"]
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert one["network"] is None and two["network"]["bandwidth"] > 0
    assert one["efficiency"] == 1 and two["efficiency"] > 0
    sizes = [size for size, _ in two["gradients"]]
    assert sum(sizes) == 4 * (64 * (96 * 96 + 96) + 96 * 10 + 10)
    assert "efficiency" in done.stdout and "2 ranks" in picture.read_text()
    assert read_step(str(out)).backward == one["backward"]

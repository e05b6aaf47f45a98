"""`paceline bench allreduce`: its figures against their definitions, and what it refuses."""

import json
import sys
from xml.etree import ElementTree

import click
import pytest
from tables.comms import finish_job

from paceline.launch.mpi import LaunchError, find_mpiexec
from paceline.launch.quantities import Sizes, size_text

ALLREDUCE = [sys.executable, "-m", "paceline", "bench", "allreduce"]


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_bandwidths_are_what_they_are_called(ranks, tmp_path):
    try:
        find_mpiexec()
    except LaunchError as error:
        pytest.skip(str(error))
    out, picture = tmp_path / "out.json", tmp_path / "out.svg"
    options = ["-n", str(ranks), "--sizes", "4B,1KiB..2KiB,1MiB", "--seconds", "0.02"]
    done = finish_job([*ALLREDUCE, *options, "--json", str(out), "--plot", str(picture)])
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert figures["ranks"] == ranks
    assert [row["bytes"] for row in figures["sizes"]] == [4, 1024, 2048, 1 << 20]
    for row in figures["sizes"]:
        assert row["algorithm_bandwidth"] == pytest.approx(row["bytes"] / row["latency"])
        # What a ring sends: n - 1 parts of n in each of its two rounds.
        assert row["bus_bandwidth"] == pytest.approx(row["algorithm_bandwidth"] * 2 * (ranks - 1) / ranks)
        assert row["speed_beside_mpi"] == pytest.approx(row["mpi_latency"] / row["latency"])
        assert row["memcpy_bandwidth"] > 0
    _, _, *lines = done.stdout.splitlines()
    assert [" ".join(line.split()[:2]) for line in lines] == ["4 B", "1 KiB", "2 KiB", "1 MiB"]
    bars = list(ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}rect"))[1:]
    assert len(bars) == 4


def test_the_help_explains_both_bandwidths():
    text = " ".join(finish_job([*ALLREDUCE, "--help"]).stdout.split())
    assert "The algorithm bandwidth is the size of the array by the time" in text
    assert "The bus bandwidth is the algorithm bandwidth times that factor" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "1MB"], "'1MB' is no list of sizes like 1KiB,1MiB or 1KiB..256MiB"),
        (["--sizes", "2KiB..1KiB"], "'2KiB..1KiB' is no list of sizes"),
        (["--sizes", "6B"], "float32 arrays have multiples of 4 bytes"),
        (["-n", "1"], "1 is not in the range x>=2"),
        (["--seconds", "0"], "0.0 is not in the range x>0.0"),
        (["--plot", "/nowhere/out.svg"], "cannot write /nowhere/out.svg"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    done = finish_job([*ALLREDUCE, *arguments])
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_sizes():
    assert Sizes().convert("1 MiB,1KiB..5KiB,4B", None, None) == [4, 1024, 2048, 4096, 1 << 20]
    assert [size_text(each) for each in (4, 1536, 1 << 10, 3 << 20)] == ["4 B", "1536 B", "1 KiB", "3 MiB"]
    for wrong in ("", "KiB", "0B", "1KiB..2KiB..3KiB", "-1B", "1KiB,"):
        with pytest.raises(click.BadParameter, match="is no list of sizes"):
            Sizes().convert(wrong, None, None)

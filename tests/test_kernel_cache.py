"""Compiled kernels are kept and found again, whoever starts when and may write where."""

import os
import subprocess
import sys

import pytest

from paceline.tensor import kernels

pytest.importorskip("numba")

# A step of SGD on 20,000 numbers, through the kernel; says what was compiled and what was found.
STEP = """
import paceline as torch
from paceline.tensor import kernels
weight = torch.nn.Parameter(torch.ones(20_000))
optimizer = torch.optim.SGD([weight], lr=0.5)
weight.grad = torch.ones(20_000)
optimizer.step()
assert weight.unique().tolist() == [0.5]
sgd = kernels.sources.optimizer.sgd
print("found" if sgd.stats.cache_hits else "compiled", flush=True)
"""


def environment(**changed):
    kept = {name: text for name, text in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    return kept | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in changed.items()}


def run(program, **changed):
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment(**changed), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_what_one_process_compiles_the_next_one_finds(tmp_path):
    assert run(STEP, NUMBA_CACHE_DIR=tmp_path) == ("compiled", "")
    assert run(STEP, NUMBA_CACHE_DIR=tmp_path) == ("found", "")


@pytest.mark.parametrize(
    ("before", "lines"), [("", 1), ("import logging; logging.getLogger('paceline').setLevel('ERROR')\n", 0)]
)
def test_who_waits_for_the_compiler_is_told_once(tmp_path, before, lines):
    patience = "from paceline.tensor.kernels import pipeline\npipeline.Kernel.waited = 2.0\n"
    compiled, told = run(before + patience + STEP + STEP, NUMBA_CACHE_DIR=tmp_path)
    assert compiled.startswith("compiled") and told.count("paceline warmup") == lines == len(told.splitlines())
    assert run(patience + STEP, NUMBA_CACHE_DIR=tmp_path) == ("found", "")


def test_processes_that_start_together_share_a_cache(tmp_path):
    command = [sys.executable, "-c", STEP]
    variables, pipe = environment(NUMBA_CACHE_DIR=tmp_path), subprocess.PIPE
    started = [subprocess.Popen(command, env=variables, stdout=pipe, stderr=pipe) for _ in range(3)]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0 and not errors, errors
    assert run(STEP, NUMBA_CACHE_DIR=tmp_path)[0] == "found"
    (folder,) = (tmp_path / "paceline").iterdir()
    assert all(len(path.name.split(".")) == 2 for path in folder.iterdir()), "half-written files are left"


def test_a_damaged_file_is_compiled_anew(tmp_path):
    run(STEP, NUMBA_CACHE_DIR=tmp_path)
    for path in tmp_path.rglob("optimizer.*"):
        path.write_bytes(path.read_bytes()[:100])
    assert run(STEP, NUMBA_CACHE_DIR=tmp_path) == ("compiled", "")
    assert run(STEP, NUMBA_CACHE_DIR=tmp_path)[0] == "found"


def test_without_a_place_to_write_to_there_is_one_warning(tmp_path):
    """Folders under a file cannot be made, by root neither."""
    file = tmp_path / "file"
    file.touch()
    compiled, warning = run(STEP, NUMBA_CACHE_DIR=file)
    assert compiled == "compiled"
    assert warning.count("UserWarning") == 1 and "set NUMBA_CACHE_DIR to a folder" in warning


def test_a_filled_cache_is_read_where_nobody_may_write(tmp_path, monkeypatch):
    """What root put beside the sources is found by users, whose own functions go to their cache."""
    cache, compiler = kernels.sources.cache, kernels.sources.compiler
    site, user = tmp_path / "site", tmp_path / "user"
    monkeypatch.setattr(cache, "folders", lambda: (site, user))

    def plus_one(x):
        return x + 1

    compiler.serial(plus_one)(1.0)
    write = cache._write

    def refuse(path, data):
        if path.is_relative_to(site):
            raise PermissionError(path)
        write(path, data)

    monkeypatch.setattr(cache, "_write", refuse)
    of_user = compiler.serial(plus_one)
    of_user(1.0)
    assert of_user.stats.cache_hits and not user.exists()
    of_user(1)
    assert len(list(site.iterdir())) == len(list(user.iterdir())) == 1

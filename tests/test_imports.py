"""`import paceline` needs and loads none of the heavy optional packages."""

import subprocess
import sys

import pytest

BLOCKED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"numba", "cupy", "mpi4py", "click", "safetensors", "tqdm", "torch"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Refuse())
"""
PROGRAM = """
import paceline as torch
x = torch.ones(3, requires_grad=True)
(x * x).sum().backward()
print(x.grad.tolist())
"""
HEAVY = "print(sorted({'numba', 'cupy', 'mpi4py', 'torch', 'scipy'} & {m.split('.')[0] for m in sys.modules}))"


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_import_works_where_the_heavy_packages_cannot_be_imported():
    result = run(BLOCKED + PROGRAM)
    assert result.stdout == "[2.0, 2.0, 2.0]\n", result.stderr


def test_import_does_not_load_the_heavy_packages():
    result = run(f"import sys\nimport paceline\n{HEAVY}")
    assert result.stdout == "[]\n", result.stdout + result.stderr


@pytest.mark.parametrize("module", ["autograd", "nn", "optim", "utils.data", "distributed"])
def test_submodules_are_there_after_a_plain_import(module):
    result = run(f"import paceline as torch\nprint(torch.{module}.__name__)")
    assert result.returncode == 0, result.stderr


def test_import_prints_nothing():
    result = run("import paceline")
    assert result.stdout == result.stderr == ""

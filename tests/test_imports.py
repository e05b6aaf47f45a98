"""What `import paceline` loads, and that its names are there however they are first asked for."""

import pickle
import subprocess
import sys

import pytest

import paceline

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
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)


def test_import_works_where_the_heavy_packages_cannot_be_imported():
    result = run(BLOCKED + PROGRAM)
    assert result.stdout == "[2.0, 2.0, 2.0]\n", result.stderr


def test_import_does_not_load_the_heavy_packages():
    result = run(f"import sys\nimport paceline\npaceline.nn\n{HEAVY}")
    assert result.stdout == "[]\n", result.stdout + result.stderr


@pytest.mark.parametrize("module", ["autograd", "nn", "optim", "utils.data", "distributed"])
def test_submodules_are_there_after_a_plain_import(module):
    result = run(f"import paceline as torch\nprint(torch.{module}.__name__)")
    assert result.returncode == 0, result.stderr


def test_import_prints_nothing():
    result = run("import paceline")
    assert result.stdout == result.stderr == ""


@pytest.mark.parametrize("module", ["paceline", "paceline.launch.cli", "paceline.launch.worker"])
def test_the_command_starts_without_numpy(module):
    result = run(f"import sys, {module}\nprint({{'numpy', 'numba', 'paceline.nn'}} & set(sys.modules))")
    assert result.stdout == "set()\n", result.stdout + result.stderr


FIRST_USES = {
    "a function": "import paceline; paceline.ones(2)",
    "the function whose name is a package's": "import paceline; paceline.tensor([1.0])",
    "that function after its package": "import paceline.tensor; paceline.tensor([1.0])",
    "that function after another package": "import paceline.nn; paceline.tensor([1.0]); import paceline.tensor.ops; "
    "paceline.tensor([1.0])",
    "a package under its own name": "import paceline.nn as nn; nn.Linear(1, 1)",
    "a package from the package": "from paceline import nn; nn.Linear(1, 1)",
    "a package in a package": "from paceline.nn import functional; functional.relu",
    "a module of names": "import paceline.utils.data; paceline.utils.data.DataLoader",
    "all names": "from paceline import *; tensor([1.0]); nn.Linear(1, 1); assert float is float32",
    "the list of names": "import paceline; assert {'nn', 'ones', 'float32', '__version__'} <= set(dir(paceline))",
    "averages": "import paceline; paceline.optim.swa_utils.AveragedModel",
    "averages after optim": "from paceline.optim import Adam; import paceline; paceline.optim.swa_utils.AveragedModel",
    "averages from optim": "from paceline.optim import swa_utils; swa_utils.AveragedModel",
    "averages from their module": "from paceline.optim.swa_utils import AveragedModel, update_bn",
    "averages by their module": "import paceline.optim.swa_utils; paceline.optim.swa_utils.AveragedModel",
    "a pickled tensor": "import pickle; t = pickle.loads(PICKLED); assert t.tolist() == [1.0, 2.0]",
}


@pytest.mark.parametrize("program", FIRST_USES.values(), ids=FIRST_USES)
def test_first_use(program):
    result = run(program.replace("PICKLED", repr(pickle.dumps(paceline.tensor([1.0, 2.0])))))
    assert result.returncode == 0, result.stderr


def test_once_used_the_package_is_an_ordinary_module():
    """Attributes of a class derived from ModuleType take the interpreter longer to find."""
    result = run("import sys, paceline; paceline.ones; assert type(paceline) is type(sys)")
    assert result.returncode == 0, result.stderr


RACE = """
import threading
start, found = threading.Barrier(8), []

def use(i):
    start.wait()
    import paceline
    found.append([lambda: paceline.ones, lambda: paceline.tensor, lambda: paceline.nn.Linear,
                  lambda: paceline.optim.SGD][i % 4]())

threads = [threading.Thread(target=use, args=[i]) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import paceline
assert len(found) == 8 and found.count(paceline.tensor) == 2, found
"""


def test_threads_may_race_for_the_first_use():
    result = run(RACE)
    assert result.returncode == 0 and not result.stderr, result.stderr


def test_an_absent_name_as_the_first_one():
    for name, words in (("sparse_coo_tensor", "has no 'sparse_coo_tensor' yet"), ("nonsense", "has no attribute")):
        assert words in run(f"import paceline; paceline.{name}").stderr

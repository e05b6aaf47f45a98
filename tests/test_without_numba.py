"""Without Numba everything works, on the portable bodies: the core of this suite, where Numba cannot be imported."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CORE = ("test_functional.py", "test_arena.py", "test_clip.py", "test_module.py", "test_optim_whole.py")
PROGRAM = """
import sys
sys.modules["numba"] = None
import pytest
from paceline.tensor import kernels
kernels.LEAST_SIZE = 0
status = pytest.main(["-q", "-p", "no:cacheprovider", "-W", "ignore:Numba does not load", *sys.argv[1:]])
assert not kernels.usable()
sys.exit(status)
"""


def test_the_core_of_the_suite_passes_without_numba():
    command = [sys.executable, "-c", PROGRAM, *(str(HERE / name) for name in CORE)]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr

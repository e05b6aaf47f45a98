"""What gets into the wheel: every package, py.typed, nothing under a generic name."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = ("paceline", "runtime", "autograd", "tensor", "nn", "optim", "launch")


def packages_in_the_tree():
    """Import names of all folders that hold an __init__.py."""
    found = set()
    for top in FOLDERS:
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join(parts if top == "paceline" else ("paceline", *parts)))
    return found


def test_the_package_list_equals_the_tree():
    """A forgotten folder would work in an editable install and be missing from the wheel."""
    listed = SETUPTOOLS["packages"]
    assert set(listed) == packages_in_the_tree() and len(listed) == len(set(listed))


def test_every_folder_with_code_is_a_package():
    for top in FOLDERS:
        for path in (ROOT / top).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} holds code but no __init__.py"


def test_every_folder_has_its_import_name():
    assert SETUPTOOLS["package-dir"] == {name if name == "paceline" else f"paceline.{name}": name for name in FOLDERS}


def test_the_marker_for_type_checkers_is_there_and_shipped():
    assert (ROOT / "paceline" / "py.typed").exists() and "py.typed" in SETUPTOOLS["package-data"]["paceline"]


@pytest.mark.parametrize("name", [folder for folder in FOLDERS if folder != "paceline"])
def test_a_bare_folder_is_not_imported(name):
    """From the repository's root `import tensor` would load a second copy with a second registry."""
    run = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode != 0 and f"import paceline.{name}" in run.stderr


def test_the_version_is_the_projects():
    code = "import paceline; print(paceline.__version__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == PROJECT["project"]["version"]


def test_dependencies_are_declared():
    names = {dep.split(">")[0].split("=")[0] for dep in PROJECT["project"]["dependencies"]}
    assert names >= {"numpy", "numba", "ml_dtypes", "mpi4py", "click", "safetensors", "tqdm"}
    assert not any("torch" in dep for dep in PROJECT["project"]["optional-dependencies"]["test"])

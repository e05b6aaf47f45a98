"""Imports point left: runtime <- autograd <- tensor <- nn; optim -> runtime, autograd, tensor; launch -> runtime."""

import ast
import builtins
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BELOW = {
    "runtime": set(),
    "autograd": {"runtime"},
    "tensor": {"runtime", "autograd"},
    "nn": {"runtime", "autograd", "tensor"},
    "optim": {"runtime", "autograd", "tensor"},
    "launch": {"runtime"},
    "paceline": {"runtime", "autograd", "tensor", "nn", "optim", "launch"},
}
FILES = sorted(path for package in BELOW for path in (ROOT / package).rglob("*.py"))

# Heavy third-party packages, and where they may be imported. All of these imports are lazy.
HOMES = {
    "cupy": lambda path: path == "runtime/arrays.py" or "kernels/" in path,
    "cupyx": lambda path: path == "runtime/arrays.py" or "kernels/" in path,
    "mpi4py": lambda path: path == "runtime/comm/mpi.py",
    "numba": lambda path: "kernels/" in path,
    "torch": lambda path: False,
}
# Looking whether a package is there, or asking it for its version, is what the doctor is for.
DOCTOR = {"launch/doctor.py"}


def imports(path, tree):
    """(full name, node) of everything a file imports, relative names resolved to `paceline...`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = list(parts if parts[0] == "paceline" else ("paceline", *parts))
    package = module[:-1]  # also of an __init__: its module is the package
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(filter(None, (base, node.module)))
            yield from ((f"{name}.{alias.name}", node) for alias in node.names)


def parsed(path):
    return ast.parse(path.read_text(), str(path))


def label(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=label)
def test_imports_point_left(path):
    own = path.relative_to(ROOT).parts[0]
    for name, node in imports(path, parsed(path)):
        parts = name.split(".")
        assert parts[0] not in BELOW or parts[0] == "paceline", f"line {node.lineno}: {name} is a bare folder"
        if parts[0] == "paceline" and len(parts) > 1 and parts[1] in BELOW and parts[1] != own:
            assert parts[1] in BELOW[own], f"line {node.lineno}: {own} may not import {name}"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_packages_use_relative_imports(path):
    for node in ast.walk(parsed(path)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        absolute = [name for name in names if name.split(".")[0] == "paceline"]
        assert not absolute, f"line {node.lineno}: import {absolute} relatively"


@pytest.mark.parametrize("path", FILES, ids=label)
def test_heavy_packages_stay_at_home(path):
    tree, here = parsed(path), path.relative_to(ROOT).as_posix()
    for name, node in imports(path, tree):
        allowed = HOMES.get(name.split(".")[0])
        assert allowed is None or allowed(here) or here in DOCTOR, (
            f"line {node.lineno}: {name} may not be imported here"
        )


@pytest.mark.parametrize("path", FILES, ids=label)
def test_shadowed_builtins_are_not_called_as_such(path):
    """A family file that defines `any` or `sum` as an operation gets that one, not Python's."""
    tree = parsed(path)
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    defined |= {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined & BUILTINS:
            python_s = node.args and isinstance(node.args[0], ast.GeneratorExp | ast.ListComp | ast.List)
            assert not python_s, f"line {node.lineno}: {node.func.id}() is this file's operation, not Python's"


BUILTINS = set(dir(builtins))


@pytest.mark.parametrize("path", FILES, ids=label)
def test_imports_within_functions_are_of_heavy_packages_only(path):
    """A late import of our own hides a circle."""
    for function in ast.walk(parsed(path)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for name, node in imports(path, function):
                assert not name.startswith("paceline"), f"line {node.lineno}: {name} imported within {function.name}()"

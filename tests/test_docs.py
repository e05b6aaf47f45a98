"""The examples in docstrings run, and what users call has a docstring."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import paceline


def module_names():
    """All modules that can be imported without the heavy optional packages."""
    found = ["paceline"]
    for package in ("runtime", "autograd", "tensor", "nn", "optim", "launch", "utils"):
        name = f"paceline.{package}"
        found.append(name)
        path = importlib.import_module(name).__path__
        found += [m.name for m in pkgutil.walk_packages(path, f"{name}.") if not NOT_IMPORTED & set(m.name.split("."))]
    return found


NOT_IMPORTED = {"__main__", "mpi", "nccl", "kernels"}  # run the program, or import what may be missing


@pytest.mark.parametrize("name", module_names())
def test_examples(name):
    module = importlib.import_module(name)
    paceline.manual_seed(0)
    failures, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not failures


def public_functions():
    for name in dir(paceline):
        value = getattr(paceline, name)
        if not name.startswith("_") and (inspect.isroutine(value) or inspect.isclass(value)):
            yield name, value
    for name, value in vars(paceline.Tensor).items():
        if not name.startswith("_") and inspect.isroutine(value):
            yield f"Tensor.{name}", value


@pytest.mark.parametrize("name, function", [pytest.param(n, f, id=n) for n, f in public_functions()])
def test_public_functions_have_docstrings(name, function):
    assert inspect.getdoc(function), f"{name} has no docstring"


PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
NAMED_TESTS = [named for page in PAGES for named in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page.read_text())]


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED_TESTS)))
def test_pages_name_tests_that_are_there(file, name):
    assert f"\ndef {name}(" in (Path(__file__).parent / file).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target

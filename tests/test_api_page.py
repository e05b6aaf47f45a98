"""docs/api.md says what is there; absent names say where to look; compilers' names do nothing, or say so."""

import contextlib
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import paceline as torch

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def test_what_the_page_calls_done_is_there():
    done = re.findall(r"^- `(torch[\w.]*)`", PAGE.read_text(), re.M)
    assert len(done) > 1000
    assert [name for name in done if not _exists(name)] == []


def test_what_the_page_calls_absent_is_absent():
    found = []
    for namespace, section in re.findall(r"^## (torch[\w.]*)$(.*?)(?=^## )", PAGE.read_text(), re.M | re.S):
        absent = re.findall(r"`(\w+)`", " ".join(re.findall(r"^Absent.*", section, re.M)))
        found += [name for name in (f"{namespace}.{name}" for name in absent) if _exists(name)]
    assert found == [], "write the page anew: python -m docs.api"


def _exists(name):
    """Whether there is an attribute or, whoever has imported it by now, a module of that name."""
    found = torch
    for part in name.split(".")[1:]:
        owner, found = found, inspect.getattr_static(found, part, None)
        if found is None and inspect.ismodule(owner):
            with contextlib.suppress(ModuleNotFoundError):
                found = importlib.import_module(f"{owner.__name__}.{part}")
    return found is not None


def test_absent_names_are_explained():
    with pytest.raises(AttributeError, match=r"paceline has no 'sparse_coo_tensor' yet \(PyTorch has torch"):
        _ = torch.sparse_coo_tensor
    with pytest.raises(AttributeError, match=r"has no 'forward_ad' yet"):
        _ = torch.autograd.forward_ad
    with pytest.raises(AttributeError, match="module 'paceline' has no attribute 'nonsense'"):
        _ = torch.nonsense
    assert not hasattr(torch, "__wrapped__")
    program = "import paceline, sys; hasattr(paceline, 'sparse_coo_tensor'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_torchscript():
    with pytest.raises(AttributeError, match="Leave the decorator"):
        torch.jit.script(torch.nn.Linear(1, 1))
    assert not torch.jit.is_scripting()
    assert torch.jit.ignore(len) is len
    assert torch.jit.unused(drop=True)(len) is len

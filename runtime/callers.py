"""Who called: the user's lines among all that are on the stack."""

from __future__ import annotations

import contextlib
import os
import sys
from types import CodeType, FrameType

# What code of this package is filed under, in an installation and in a checkout.
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = tuple(
    os.path.join(_ROOT, name, "") for name in ("runtime", "autograd", "tensor", "nn", "optim", "launch", "paceline")
)

# And code that is written at run time.
_GENERATED = "<paceline>"
PACKAGE = (*FOLDERS, _GENERATED)

# Modules by name: contextlib calls the package's context managers for the user.
_PASSED_OVER = ("paceline", contextlib.__name__)


def user_frame() -> FrameType:
    """The innermost caller outside of the package."""
    frame = sys._getframe(1)
    # How many frames of the package lie above depends on the path that a call takes; written-out ones have no name.
    while frame.f_back is not None and frame.f_globals.get("__name__", "paceline").partition(".")[0] in _PASSED_OVER:
        frame = frame.f_back
    return frame


def user_line() -> str:
    """File and line of the innermost caller outside of the package."""
    frame = user_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def generated(text: str, mode: str = "exec") -> CodeType:
    """Code written at run time, compiled for `exec` or `eval`: on the stack it is told from a user's."""
    return compile(text, _GENERATED, mode)

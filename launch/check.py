"""One line of the doctor's page, and how it is found out: by commands that have a limited time."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from .plan import without_rank

CHECK_SECONDS = 60


@dataclass(frozen=True)
class Check:
    """One line of the page.

    Attributes:
        name: what was looked at.
        state: "ok", "missing" (works without it) or "broken".
        detail: what was found.
        advice: what to do; empty if all is well.
    """

    name: str
    state: str
    detail: str
    advice: str = ""


def run_command(command: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """Exit code and output of a command that has a limited time."""
    process = subprocess.Popen(
        command,
        env=without_rank(os.environ) | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        output, _ = process.communicate(timeout=CHECK_SECONDS)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        process.kill()
        return 1, f"no answer within {CHECK_SECONDS} s"


def last_line(output: str) -> str:
    """The last line that says something: the result, or an exception's message."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")

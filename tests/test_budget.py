"""No file grows beyond what can be read at one sitting."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIMIT = 600
FILES = [
    p
    for top in ("paceline", "runtime", "autograd", "tensor", "nn", "optim", "launch")
    for p in (ROOT / top).rglob("*.py")
]


@pytest.mark.parametrize("path", sorted(FILES), ids=lambda path: str(path.relative_to(ROOT)))
def test_length_of_files(path):
    lines = len(path.read_text().splitlines())
    assert lines <= LIMIT, f"{lines} lines, {LIMIT} at most: split it by subject"

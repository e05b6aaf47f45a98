"""Numbers of ranks, times and rates as people write them on a command line, and results as they ask for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
BYTES_PER_SECOND = {
    **{f"{prefix}B/s": scale for prefix, scale in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))},
    **{f"{prefix}bit/s": scale / 8 for prefix, scale in (("M", 1e6), ("G", 1e9), ("T", 1e12))},
}


class Quantity(click.ParamType):
    """A number with a unit, for instance `2us`; gives its value in the base unit."""

    name = "quantity"

    def __init__(self, units: dict[str, float], zero: bool = False) -> None:
        self._units = units
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9.eE+-]*[0-9.]) *([a-zA-Z/]+)", value)
        try:
            number = float(match[1]) * self._units[match[2]] if match else -1.0
        except (ValueError, KeyError):
            number = -1.0
        if not (0 < number < float("inf") or (self._zero and number == 0)):
            kind = "number" if self._zero else "positive number"
            self.fail(f"{value!r} is no {kind} with one of the units {', '.join(self._units)}.")
        return number


class RankCounts(click.ParamType):
    """`1,2,4`, or `8..4096` for a number and its doubles up to the other; gives a list in ascending order."""

    name = "ranks"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        counts: set[int] = set()
        for part in value.split(","):
            match = re.fullmatch(r" *([1-9][0-9]{0,8})(?:\.\.([1-9][0-9]{0,8}))? *", part)
            if match is None or int(match[2] or match[1]) < int(match[1]):
                self.fail(f"{value!r} is no list of numbers of ranks like 1,2,4 or 8..4096.")
            counts.add(count := int(match[1]))
            while match[2] and 2 * count <= int(match[2]):
                counts.add(count := 2 * count)
        return sorted(counts)


class Sizes(click.ParamType):
    """`1KiB,1MiB`, or `1KiB..256MiB` for a size and its doubles up to the other; gives bytes in ascending order."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        sizes: set[int] = set()
        for part in value.split(","):
            bounds = [re.fullmatch(r" *([1-9][0-9]{0,8}) *([KMG]i)?B *", bound) for bound in part.split("..")]
            numbers = [int(each[1]) * BYTES[each[2] or ""] for each in bounds if each is not None]
            if len(numbers) != len(bounds) or len(numbers) > 2 or numbers[-1] < numbers[0]:
                self.fail(f"{value!r} is no list of sizes like 1KiB,1MiB or 1KiB..256MiB.")
            size = numbers[0]
            while size <= numbers[-1]:
                sizes.add(size)
                size *= 2
        return sorted(sizes)


def size_text(nbytes: int) -> str:
    """A number of bytes with the largest unit that divides it."""
    unit = max((each for each in BYTES if nbytes % BYTES[each] == 0), key=BYTES.__getitem__)
    return f"{nbytes // BYTES[unit]} {unit}B"


def show(figures: object, json_path: str | None, page: str) -> None:
    """Print the page, and write the figures where they are asked for; `-` is stdout, in place of the page."""
    text = json.dumps(figures, indent=1)
    if json_path == "-":
        click.echo(text)
        return
    if json_path:
        Path(json_path).write_text(text + "\n")
    click.echo(page)


def check_writable(path: str | None, option: str) -> None:
    """Refuse before a long run what would fail after it."""
    if path and path != "-":
        try:
            open(path, "a").close()
        except OSError as error:
            raise click.BadParameter(f"cannot write {path}: {error.strerror}.", param_hint=option) from None

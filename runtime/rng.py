"""Random streams: counter-based (Philox), seeded, with a state that can be saved and restored."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from contextvars import ContextVar

import numpy
from numpy import ndarray

_refusal: ContextVar[str | None] = ContextVar("why no random numbers may be drawn now", default=None)


@contextlib.contextmanager
def refused(reason: str | None) -> Iterator[None]:
    """Within the block drawing random numbers raises RuntimeError with the reason; None leaves it as it is."""
    token = _refusal.set(reason or _refusal.get())
    try:
        yield
    finally:
        _refusal.reset(token)


class Generator:
    """A stream of random numbers, independent of every other stream.

    Numbers are drawn on the host by NumPy's Philox generator and moved to the tensor's device, so that one seed gives
    the same numbers on every device.

    Args:
        device: accepted for PyTorch's sake; the stream is the same on every device.

    Example:
        >>> import paceline as torch
        >>> g = torch.Generator().manual_seed(0)
        >>> torch.randn(2, generator=g).shape
        paceline.Size([2])
    """

    def __init__(self, device: object = "cpu") -> None:
        self.device = device
        self._numpy = numpy.random.Generator(numpy.random.Philox(key=0))
        self._seed = 0

    def manual_seed(self, seed: int) -> Generator:
        """Restart the stream from a seed (any int; negative ones wrap around 2**64 as PyTorch's do)."""
        if not isinstance(seed, int):
            raise TypeError(f"manual_seed(): expected an int, got {type(seed).__name__}")
        self._seed = seed % 2**64
        zeros = (0, 0, 0, 0)
        self._numpy.bit_generator.state = {  # as of a new Philox(key=seed), which takes fifteen times as long to make
            "bit_generator": "Philox",
            "state": {"counter": zeros, "key": (self._seed, 0)},
            "buffer": zeros,
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self

    def seed(self) -> int:
        """Restart the stream from a seed that the operating system draws, and return it."""
        self.manual_seed(secrets.randbits(63))
        return self._seed

    def initial_seed(self) -> int:
        """The seed the stream was started from."""
        return self._seed

    def numpy(self) -> numpy.random.Generator:
        """The NumPy generator that draws this stream's numbers."""
        reason = _refusal.get()
        if reason is not None:
            raise RuntimeError(reason)
        return self._numpy

    def get_state(self) -> ndarray:
        """The position in the stream, as bytes (a uint8 array)."""
        state = self._numpy.bit_generator.state
        plain = json.dumps({"seed": self._seed, "state": state}, default=lambda a: a.tolist())
        return numpy.frombuffer(plain.encode(), numpy.uint8).copy()

    def set_state(self, state: ndarray) -> Generator:
        """Go back to a position that `get_state` returned."""
        try:
            plain = json.loads(numpy.asarray(state, numpy.uint8).tobytes())
            self.manual_seed(plain["seed"])
            position = plain["state"]
            for key in ("counter", "key"):
                position["state"][key] = numpy.array(position["state"][key], numpy.uint64)
            position["buffer"] = numpy.array(position["buffer"], numpy.uint64)
            self._numpy.bit_generator.state = position
        except (ValueError, KeyError, TypeError) as error:
            raise RuntimeError("set_state(): expected the bytes that Generator.get_state() returned") from error
        return self


_default = Generator()
_default.seed()
_instead: ContextVar[Generator | None] = ContextVar("the stream to draw from in place of the default one", default=None)


def default_generator() -> Generator:
    """The stream that random functions draw from unless given a generator."""
    return _instead.get() or _default


@contextlib.contextmanager
def drawing_from(generator: Generator) -> Iterator[None]:
    """Within the block, in this thread, `generator` takes the place of the default stream."""
    token = _instead.set(generator)
    try:
        yield
    finally:
        _instead.reset(token)


@contextlib.contextmanager
def rehearsal() -> Iterator[None]:
    """Within the block, in this thread, random numbers may be drawn, but come from no stream that anybody else sees."""
    token = _refusal.set(None)
    try:
        with drawing_from(Generator()):
            yield
    finally:
        _refusal.reset(token)


def manual_seed(seed: int) -> Generator:
    """Restart the default stream from a seed.

    Example:
        >>> import paceline as torch
        >>> _ = torch.manual_seed(0)
    """
    return _default.manual_seed(seed)


def seed() -> int:
    """Restart the default stream from a seed of the operating system's, and return it."""
    return _default.seed()


def initial_seed() -> int:
    """The seed the default stream was started from."""
    return _default.initial_seed()

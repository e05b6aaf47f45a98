"""Tensors whose values are brought only once somebody reads them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from ..autograd.variable import Variable
from ..runtime.arrays import Array


def await_values(tensor: Variable, bring: Callable[[], None]) -> None:
    """From now on who reads the tensor calls `bring()` first, which has to call `have_values(tensor)`."""
    vars(tensor)["bring"] = bring
    kind: Any = type(tensor)
    tensor.__class__ = _arriving(kind)


def is_awaited(tensor: Variable) -> bool:
    """Whether the tensor's values have to be brought still."""
    return "bring" in vars(tensor)


def have_values(tensor: Variable) -> None:
    """The tensor's array has its values: reading it is no event any more."""
    if vars(tensor).pop("bring", None) is not None:
        tensor.__class__ = type(tensor).original  # type: ignore[attr-defined]


def _bring(tensor: Variable) -> None:
    bring = vars(tensor).get("bring")
    if bring is not None:  # another thread may have been quicker
        bring()


@functools.cache
def _arriving(kind: type) -> type:
    """For tensors of a class, the class of those whose values have to be brought."""

    class Arriving(kind):  # type: ignore[misc]
        __slots__ = ()  # as instances of `kind` become its instances and the reverse
        original = kind

        @property
        def array(self) -> Array:
            _bring(self)
            return self.__dict__["array"]  # also of a copy of what this was a moment ago

        @array.setter
        def array(self, value: Array) -> None:
            _bring(self)
            self.__dict__["array"] = value

        def __deepcopy__(self, memo: dict) -> Any:
            _bring(self)
            return copy.deepcopy(self, memo)

        def __reduce_ex__(self, protocol: Any) -> Any:
            _bring(self)
            return self.__reduce_ex__(protocol)

    return Arriving

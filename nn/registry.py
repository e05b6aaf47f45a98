"""What assigning an attribute of a Module registers, and the names registered."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from .structure import changing


@dataclass(frozen=True)
class Kind:
    """One kind of what a module registers.

    Attributes:
        names: the module's attribute that holds the registered names.
        title: what messages call it.
        plural: what the message about a missing `super().__init__()` calls it.
        type: the class of its values.
        expected: the class as messages name it.
    """

    names: str
    title: str
    plural: str
    type: type
    expected: str

    def names_in(self, attributes: dict[str, Any]) -> dict[str, bool]:
        """The registered names of a module."""
        try:
            return attributes[self.names]
        except KeyError:
            raise AttributeError(f"cannot assign {self.plural} before Module.__init__() call") from None

    def check_name(self, name: Any) -> None:
        """Refuse what cannot be a part of a dotted name."""
        if not isinstance(name, str):
            raise TypeError(f"{self.title} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{self.title} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{self.title} name can\'t be empty string ""')

    def check_value(self, name: str, value: Any) -> None:
        """Refuse a value that is neither of this kind nor None."""
        if value is not None and not isinstance(value, self.type):
            raise TypeError(
                f"cannot assign {type(value).__name__!r} as {self.title} {name!r} ({self.expected} or None expected)"
            )


class Registered(MutableMapping):
    """A module's parameters, buffers or children by name: the registry says which attributes, the module has them."""

    def __init__(self, names: dict[str, bool], attributes: dict[str, Any]) -> None:
        self._names = names
        self._attributes = attributes

    def __getitem__(self, name: str) -> Any:
        self._names[name]  # KeyError for the module's other attributes
        return self._attributes[name]

    def __setitem__(self, name: str, value: Any) -> None:
        changing()
        self._names.setdefault(name, True)
        self._attributes[name] = value

    def __delitem__(self, name: str) -> None:
        changing()
        del self._names[name]
        del self._attributes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(dict(self))

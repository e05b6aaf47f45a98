"""Modules that hold modules or parameters: in a row, by number, by name."""

from __future__ import annotations

import itertools
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any, Self

from ..tensor import Tensor
from .module import Module, indented
from .parameter import Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


class _List(Module):
    """A list whose entries are registered in a module; names are "0", "1", ... where none were given."""

    @property
    def _entries(self) -> MutableMapping[str, Any]:
        return self._modules

    def _add(self, name: str, entry: Any) -> None:
        self.register_module(name, entry)

    def _reset(self, entries: Iterable[Any]) -> None:
        """Hold these entries, numbered, instead of those at hand."""
        entries = list(entries)
        self._entries.clear()
        self.extend(entries)

    def _name(self, index: int) -> str:
        """The name of an entry; a negative index counts from the end."""
        names = list(self._entries)
        position = index.__index__()
        if not -len(names) <= position < len(names):
            raise IndexError(f"index {index} is out of range: there are {len(names)} entries")
        return names[position]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries.values())

    def __getitem__(self, index: int | slice) -> Any:
        if not isinstance(index, slice):
            return self._entries[self._name(index)]
        part = type(self)()
        for name, entry in list(self._entries.items())[index]:
            part._add(self._name_in_slice(part, name), entry)
        return part

    def _name_in_slice(self, part: _List, name: str) -> str:
        return str(len(part))

    def __setitem__(self, index: int, entry: Any) -> None:
        self._add(self._name(index), entry)

    def __delitem__(self, index: int | slice) -> None:
        entries = list(self)
        if not isinstance(index, slice):
            self._name(index)
        del entries[index]
        self._reset(entries)

    def __add__(self, other: Iterable[Any]) -> Self:
        return type(self)().extend(self).extend(other)

    def __iadd__(self, other: Iterable[Any]) -> Self:
        return self.extend(other)

    def append(self, module: Any) -> Self:
        """Put an entry at the end."""
        free = (str(number) for number in itertools.count(len(self)) if str(number) not in self._entries)
        self._add(next(free), module)  # a slice keeps its names, so that str(len(self)) may be taken
        return self

    def extend(self, modules: Iterable[Any]) -> Self:
        """Put entries at the end."""
        if not isinstance(modules, Iterable):
            raise TypeError(
                f"{self._get_name()}.extend should be called with an iterable, but got {type(modules).__name__}"
            )
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Any) -> Self:
        """Put an entry before the one at `index`; those behind it are renumbered."""
        if not -len(self) <= index <= len(self):
            raise IndexError(f"Index out of range: {index}")
        entries = list(self)
        entries.insert(index, module)
        self._reset(entries)
        return self

    def pop(self, index: int = -1) -> Any:
        """Take an entry out and return it."""
        entry = self[index]
        del self[index]
        return entry


class Sequential(_List):
    """Modules applied one after the other: y = m_n(...m_2(m_1(x))).

    Args:
        args: the modules; or one OrderedDict of modules by name.

    Example:
        >>> import paceline as torch
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten())
        >>> net(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self._add(name, module)
        else:
            self.extend(args)

    def forward(self, input: Any) -> Any:
        attributes = self.__dict__
        for name in attributes["_module_names"]:
            input = attributes[name](input)
        return input

    def _name_in_slice(self, part: _List, name: str) -> str:
        return name  # PyTorch keeps them, so that a slice's state_dict fits the whole's


class ModuleList(_List):
    """A list of modules that belong to this one.

    Args:
        modules: the modules.

    Example:
        >>> import paceline as torch
        >>> torch.nn.ModuleList(torch.nn.ReLU() for _ in range(3))
        ModuleList(
          (0-2): 3 x ReLU()
        )
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def _child_lines(self) -> list[str]:
        runs: list[list] = []  # [first, last, text] of entries in a row that read the same
        for number, child in enumerate(self):
            text = indented(child)
            if runs and runs[-1][2] == text:
                runs[-1][1] = number
            else:
                runs.append([number, number, text])
        return [
            f"({first}): {text}" if first == last else f"({first}-{last}): {last - first + 1} x {text}"
            for first, last, text in runs
        ]


class _OfParameters(Module):
    """Mixed into a container, makes its entries parameters instead of modules."""

    @property
    def _entries(self) -> MutableMapping[str, Any]:
        return self._parameters

    def _add(self, name: str, entry: Any) -> None:
        is_plain = isinstance(entry, Tensor) and not isinstance(entry, Parameter)
        self.register_parameter(name, Parameter(entry) if is_plain else entry)

    def _child_lines(self) -> list[str]:
        return [f"({name}): {_summary(parameter)}" for name, parameter in self._parameters.items()]


def _summary(parameter: Parameter | None) -> str:
    if parameter is None:
        return "None"
    return f"Parameter containing: [{parameter.dtype!r} of size {'x'.join(map(str, parameter.shape))}]"


class ParameterList(_OfParameters, _List):
    """A list of parameters that belong to a module; tensors become Parameters.

    Args:
        values: the parameters.

    Example:
        >>> import paceline as torch
        >>> torch.nn.ParameterList([torch.zeros(2, 3)])
        ParameterList(
          (0): Parameter containing: [paceline.float32 of size 2x3]
        )
    """

    def __init__(self, values: Iterable[Tensor] | None = None) -> None:
        super().__init__()
        if values is not None:
            self.extend(values)

class _Dict(Module):
    """A dict whose entries are registered in a module."""

    @property
    def _entries(self) -> MutableMapping[str, Any]:
        return self._modules

    def _add(self, name: str, entry: Any) -> None:
        self.register_module(name, entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __setitem__(self, key: str, entry: Any) -> None:
        self._add(key, entry)

    def __delitem__(self, key: str) -> None:
        del self._entries[key]

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._entries.keys()

    def values(self) -> ValuesView[Any]:
        """The entries."""
        return self._entries.values()

    def items(self) -> ItemsView[str, Any]:
        """The names with the entries."""
        return self._entries.items()

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()

    def pop(self, key: str) -> Any:
        """Take an entry out and return it."""
        return self._entries.pop(key)

    def update(self, entries: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add entries, replacing those of the same name."""
        for name, entry in entries.items() if isinstance(entries, Mapping | _Dict) else entries:
            self._add(name, entry)


class ModuleDict(_Dict):
    """A dict of modules that belong to this one.

    Args:
        modules: the modules by name.

    Example:
        >>> import paceline as torch
        >>> choices = torch.nn.ModuleDict({"relu": torch.nn.ReLU(), "flat": torch.nn.Flatten()})
        >>> choices["relu"](torch.tensor([-1.0]))
        tensor([0.])
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)


class ParameterDict(_OfParameters, _Dict):
    """A dict of parameters that belong to a module; tensors become Parameters.

    Args:
        parameters: the parameters by name.

    Example:
        >>> import paceline as torch
        >>> scales = torch.nn.ParameterDict({"left": torch.ones(1)})
        >>> scales["left"].requires_grad
        True
    """

    def __init__(self, parameters: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | None = None) -> None:
        super().__init__()
        if parameters is not None:
            self.update(parameters)

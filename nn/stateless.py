"""Calling a module with other parameters than its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..tensor.ops.shaping import stack
from .module import Module
from .structure import changing, version


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """`module(*args, **kwargs)` with the given tensors in the places of its parameters and buffers, for this call.

    Args:
        module: left as it was, unless its forward changes a buffer that is not given.
        parameter_and_buffer_dicts: tensors by the names of `named_parameters()` and `named_buffers()`, or several such
            dicts without a name in common.
        args: a tuple of arguments, or the only one.
        kwargs: named arguments.
        tie_weights: a name given for one of several that share a tensor stands for all of them.
        strict: refuse missing and unknown names.

    Example:
        >>> import paceline as torch
        >>> net = torch.nn.Linear(2, 1, bias=False)
        >>> torch.func.functional_call(net, {"weight": torch.ones(1, 2)}, torch.tensor([3.0, 4.0]))
        tensor([7.])
    """
    values = _merged(parameter_and_buffer_dicts)
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    with _replaced(module, values, tie_weights, strict):
        return module(*args, **(kwargs or {}))


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters, and the buffers, of modules of one architecture, stacked along a new first dimension.

    Together with `vmap` and `functional_call` an ensemble runs as one batch. The stacked parameters are new leaves.

    Example:
        >>> import paceline as torch
        >>> parameters, _ = torch.func.stack_module_state([torch.nn.Linear(2, 1) for _ in range(3)])
        >>> parameters["weight"].shape
        paceline.Size([3, 1, 2])
    """
    if not models:
        raise RuntimeError("stack_module_state: expected at least one model")
    if len({type(model) for model in models}) > 1:
        raise RuntimeError("stack_module_state: expected all models to be of the same class")
    if len({model.training for model in models}) > 1:
        raise RuntimeError("stack_module_state: expected all models to have the same training/eval mode")
    parameters = _stacked([dict(model.named_parameters()) for model in models])
    buffers = _stacked([dict(model.named_buffers()) for model in models])
    return parameters, buffers


def _stacked(states: list[dict[str, Any]]) -> dict[str, Any]:
    result = {}
    for name, first in states[0].items():
        stacked = stack([state[name].detach() for state in states])
        result[name] = stacked.requires_grad_() if first.requires_grad else stacked
    return result


def _merged(dicts: Any) -> dict[str, Any]:
    if isinstance(dicts, Mapping):
        return dict(dicts)
    merged: dict[str, Any] = {}
    for each in dicts:
        if twice := merged.keys() & each.keys():
            raise ValueError(f"functional_call: the names {sorted(twice)} appear in more than one dictionary")
        merged.update(each)
    return merged


@contextlib.contextmanager
def _replaced(module: Module, values: dict[str, Any], tie_weights: bool, strict: bool) -> Iterator[None]:
    """The module with its registered tensors replaced within the block."""
    own = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    if strict and own.keys() != values.keys():
        missing, unexpected = sorted(own.keys() - values.keys()), sorted(values.keys() - own.keys())
        raise RuntimeError(f"functional_call: missing keys {missing}, unexpected keys {unexpected}")
    if tie_weights:
        values = _with_tied(values, own)
    places = []
    for name in values:
        path, _, attribute = name.rpartition(".")
        try:
            owner = module.get_submodule(path).__dict__
            places.append((owner, attribute, owner[attribute]))
        except (AttributeError, KeyError):
            raise AttributeError(f"functional_call: {module._get_name()} has no parameter or buffer {name!r}") from None
    changing()
    try:
        for (owner, attribute, _), value in zip(places, values.values(), strict=True):
            owner[attribute] = value
        yield
    finally:
        for owner, attribute, original in places:
            owner[attribute] = original
        version[0] += 1


def _with_tied(values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The values also under the other names of the tensors that they stand for."""
    given = {id(own[name]): value for name, value in values.items() if name in own}
    if any(given[id(own[name])] is not value for name, value in values.items() if name in own):
        raise ValueError("functional_call: different values were given for names that share one tensor; pass one of "
                         "them, or tie_weights=False")  # fmt: skip
    return {**{name: given[id(tensor)] for name, tensor in own.items() if id(tensor) in given}, **values}

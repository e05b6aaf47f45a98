"""Loading a state_dict into a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..autograd.mode import no_grad
from ..tensor import Tensor
from .parameter import Parameter

EXTRA_STATE = "_extra_state"  # the key of `module.get_extra_state()` in a state_dict


class IncompatibleKeys(NamedTuple):
    """The keys that `load_state_dict(strict=False)` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def load(module: Any, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """See `Module.load_state_dict`. Everything is checked before anything is written."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    own = module.state_dict(keep_vars=True)
    keys = IncompatibleKeys(
        [key for key in own if key not in state_dict], [key for key in state_dict if key not in own]
    )
    matched = [key for key in own if key in state_dict]
    errors: list[str] = []
    for what, found in ("Missing", keys.missing_keys), ("Unexpected", keys.unexpected_keys):
        if strict and found:
            quoted = ", ".join(f'"{key}"' for key in found)
            errors.append(f"{what} key(s) in state_dict: {quoted}. ")
    errors += filter(None, (_mismatch(key, own[key], state_dict[key]) for key in matched))
    if errors:
        raise RuntimeError(f"Error(s) in loading state_dict for {module._get_name()}:\n\t" + "\n\t".join(errors))
    for key in matched:
        _load_entry(module, key, own[key], state_dict[key], assign)
    return keys


def _mismatch(key: str, target: Any, value: Any) -> str | None:
    """Why `value` cannot be put in the place of `target`, or None."""
    if key.rpartition(".")[2] == EXTRA_STATE:
        return None
    if not isinstance(value, Tensor):
        return (
            f'While copying the parameter named "{key}", expected a Tensor from checkpoint but received {type(value)}'
        )
    if value.shape != target.shape:
        return (
            f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, the shape in current "
            f"model is {target.shape}."
        )
    return None


def _load_entry(module: Any, key: str, target: Any, value: Any, assign: bool) -> None:
    """Put one value in its place."""
    path, _, name = key.rpartition(".")
    owner = module.get_submodule(path)
    if name == EXTRA_STATE:
        owner.set_extra_state(value)
    elif not assign:
        with no_grad():
            target.copy_(value)  # into the memory at hand, which an arena may own
    elif isinstance(target, Parameter) and not isinstance(value, Parameter):
        setattr(owner, name, Parameter(value, target.requires_grad))
    else:
        setattr(owner, name, value)

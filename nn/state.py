"""Loading a state_dict into a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..autograd.mode import no_grad
from ..tensor import Tensor
from .hooks import call_load_pre_hooks
from .parameter import Parameter, is_lazy

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
    state_dict = dict(state_dict)  # hooks may change it
    hooked: tuple[list, list, list] = ([], [], [])  # what hooks report: missing keys, unexpected keys, errors
    modules = list(module.named_modules(remove_duplicate=False))
    for path, each in modules:
        call_load_pre_hooks(each, state_dict, f"{path}." if path else "", strict, hooked)
    own = dict(_entries(modules))
    keys = IncompatibleKeys(
        hooked[0] + [key for key in own if key not in state_dict],
        hooked[1] + [key for key in state_dict if key not in own],
    )
    matched = [key for key in own if key in state_dict]
    errors = hooked[2] + [e for e in (_mismatch(key, own[key], state_dict[key]) for key in matched) if e is not None]
    post_hooks = [(each, hook) for _, each in modules for hook in each._load_state_dict_post_hooks.values()]
    _refuse(module, errors, keys if strict and not post_hooks else None)
    for key in matched:
        _load_entry(module, key, own[key], state_dict[key], assign)
    for each, hook in reversed(post_hooks):
        hook(each, keys)  # may take keys out, so they are judged afterwards
    _refuse(module, [], keys if strict else None)
    return keys


def _entries(modules: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """What a state_dict of the modules has without any hooks: the tensors themselves, None for extra state."""
    for path, module in modules:
        prefix = f"{path}." if path else ""
        persistent = (name for name, keep in module.__dict__["_buffer_names"].items() if keep)
        for name in (*module.__dict__["_parameter_names"], *persistent):
            if module.__dict__[name] is not None:
                yield prefix + name, module.__dict__[name]
        if module._has_extra_state():
            yield prefix + EXTRA_STATE, None


def _refuse(module: Any, errors: list[str], keys: IncompatibleKeys | None) -> None:
    """Raise one error with everything that is wrong."""
    problems = []
    for what, found in zip(("Missing", "Unexpected"), keys or ((), ()), strict=True):
        if found:
            quoted = ", ".join(f'"{key}"' for key in found)
            problems.append(f"{what} key(s) in state_dict: {quoted}. ")
    problems += errors
    if problems:
        raise RuntimeError(f"Error(s) in loading state_dict for {module._get_name()}:\n\t" + "\n\t".join(problems))


def _mismatch(key: str, target: Any, value: Any) -> str | None:
    """Why `value` cannot be put in the place of `target`, or None."""
    if key.rpartition(".")[2] == EXTRA_STATE:
        return None
    if not isinstance(value, Tensor):
        return (
            f'While copying the parameter named "{key}", expected a Tensor from checkpoint but received {type(value)}'
        )
    if not is_lazy(target) and value.shape != target.shape:
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
        if is_lazy(target):
            if is_lazy(value):
                return
            target.materialize(value.shape)
        with no_grad():
            target.copy_(value)  # into the memory at hand, which an arena may own
    elif isinstance(target, Parameter) and not isinstance(value, Parameter):
        setattr(owner, name, Parameter(value, target.requires_grad))
    else:
        setattr(owner, name, value)

"""What other programs ask of a compiler: there is no TorchScript."""

from __future__ import annotations

from typing import Any, NoReturn


def is_scripting() -> bool:
    """Whether code runs as TorchScript: never."""
    return False


is_tracing = is_compiling = is_scripting


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """Marks of functions for TorchScript; the function itself, since there is none."""
    return drop if callable(drop) else lambda function: function


unused = export = ignore


def no_jit(name: str) -> NoReturn:
    """`__getattr__` of paceline.jit: says what to do about a missing name."""
    raise AttributeError(
        f"paceline.jit has no {name!r}: there is no TorchScript, modules run as they are written. Leave the decorator "
        "or the call out; to store a model save its state_dict()",
        name=name,
    )

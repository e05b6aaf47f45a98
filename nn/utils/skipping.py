"""Modules whose parameters are about to be overwritten anyway."""

from __future__ import annotations

import inspect
from typing import Any

from .. import init
from ..module import Module


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Module:
    """`module_cls(*args, **kwargs)` without drawing initial values: its parameters hold whatever their memory held.

    Args:
        module_cls: takes a `device`, and initialises its parameters with `nn.init`.

    Raises:
        RuntimeError: it is no module, or takes no device.

    Example:
        >>> import paceline as torch
        >>> torch.nn.utils.skip_init(torch.nn.Linear, 5, 1).weight.shape
        paceline.Size([1, 5])
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(f"Expected a Module; got {module_cls}")
    if "device" not in inspect.signature(module_cls).parameters:
        raise RuntimeError("Module must support a 'device' arg to skip initialization")
    with init.skipped():
        return module_cls(*args, **kwargs)

"""The twins of views that copy, for those who must not share memory: `view_copy` and its kin."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ...autograd.out import takes_out
from . import shaping, strided


def copying(view: Callable, name: str) -> Callable:
    """The twin of a view (or several) that gives copies."""

    @functools.wraps(view, assigned=("__module__",), updated=())
    def function(*args: Any, **kwargs: Any) -> Any:
        result = view(*args, **kwargs)
        return tuple(map(shaping.clone, result)) if isinstance(result, tuple) else shaping.clone(result)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"A copy of what `{name.removesuffix('_copy')}` gives a view of."
    return takes_out(function)


alias_copy = copying(shaping.alias, "alias_copy")
as_strided_copy = copying(strided.as_strided, "as_strided_copy")
diagonal_copy = copying(shaping.diagonal, "diagonal_copy")
expand_copy = copying(shaping.expand_sizes, "expand_copy")
narrow_copy = copying(shaping.narrow, "narrow_copy")
permute_copy = copying(shaping.permute_dims, "permute_copy")
select_copy = copying(shaping.select, "select_copy")
slice_copy = copying(shaping.slice_dim, "slice_copy")
split_copy = copying(shaping.split, "split_copy")
split_with_sizes_copy = copying(shaping.split, "split_with_sizes_copy")
squeeze_copy = copying(shaping.squeeze, "squeeze_copy")
t_copy = copying(shaping.t, "t_copy")
transpose_copy = copying(shaping.transpose, "transpose_copy")
unbind_copy = copying(shaping.unbind, "unbind_copy")
unfold_copy = copying(strided.unfold, "unfold_copy")
unsqueeze_copy = copying(shaping.unsqueeze, "unsqueeze_copy")
view_copy = copying(shaping.view, "view_copy")

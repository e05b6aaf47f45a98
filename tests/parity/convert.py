"""Between PyTorch's values and Paceline's, and comparing the two."""

from __future__ import annotations

from typing import Any

import numpy
import torch

import paceline


def to_paceline(value: Any, converted: dict[int, Any] | None = None) -> Any:
    """The same value for Paceline: tensors with their memory layout, dtypes, devices, containers.

    A tensor that appears twice is one tensor there, too; `converted` has those met so far.
    """
    converted = {} if converted is None else converted
    if isinstance(value, torch.Tensor):
        if id(value) not in converted:
            converted[id(value)] = tensor_to_paceline(value)
        return converted[id(value)]
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return getattr(paceline, str(value).removeprefix("torch."))
    if isinstance(value, torch.device):
        return paceline.device(value.type)
    if isinstance(value, torch.Size):
        return paceline.Size(value)
    if isinstance(value, torch.Generator):
        return paceline.Generator().manual_seed(value.initial_seed())
    if isinstance(value, torch.nn.Module):
        return _module_to_paceline(value)
    if callable(value) and hasattr(paceline.nn.functional, getattr(value, "__name__", "")):
        return getattr(paceline.nn.functional, value.__name__)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_paceline(v, converted) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(to_paceline(v, converted) for v in value)
    if isinstance(value, dict):
        return {k: to_paceline(v, converted) for k, v in value.items()}
    return value


def _module_to_paceline(module: torch.nn.Module) -> Any:
    """The same module with the same weights, for the kinds that are passed to others."""
    options: dict[str, Any] = {}
    if isinstance(module, torch.nn.TransformerEncoderLayer):
        attention = module.self_attn
        options = {
            "d_model": attention.embed_dim,
            "nhead": attention.num_heads,
            "batch_first": attention.batch_first,
            "dim_feedforward": module.linear1.out_features,
            "dropout": module.dropout.p,
            "norm_first": module.norm_first,
            "activation": to_paceline(module.activation),
            "bias": module.linear1.bias is not None,
        }
    elif isinstance(module, torch.nn.LayerNorm):
        options = {"normalized_shape": list(module.normalized_shape), "eps": module.eps}
    ours = getattr(paceline.nn, type(module).__name__)(**options)
    ours.load_state_dict({k: tensor_to_paceline(v) for k, v in module.state_dict().items()})
    return ours.double() if any(p.dtype == torch.float64 for p in module.parameters()) else ours


def tensor_to_paceline(tensor: torch.Tensor) -> Any:
    """A copy of the tensor and of all the memory under it, with the same strides."""
    t = tensor.detach()
    if t.is_conj() or t.is_neg():
        t = t.resolve_conj().resolve_neg()
    if 0 in t.stride() or t.numel() == 0 or t.dtype == torch.bfloat16:
        array = _to_numpy(t).copy()
    else:
        storage = torch.empty(0, dtype=t.dtype).set_(t.untyped_storage())
        memory = _to_numpy(storage).copy()
        strides = [s * memory.itemsize for s in t.stride()]
        array = numpy.ndarray(tuple(t.shape), memory.dtype, memory, t.storage_offset() * memory.itemsize, strides)
    result = paceline.from_numpy(array)
    return result.requires_grad_() if tensor.requires_grad else result


def _to_numpy(t: torch.Tensor) -> numpy.ndarray:
    if t.dtype == torch.bfloat16:
        return t.float().numpy().astype(paceline.bfloat16.numpy)
    return t.numpy(force=True)  # PyTorch's gradients may be symbolic zeros


def tensors_in(value: Any) -> list:
    """All tensors in a nested structure, of either library, in order."""
    if isinstance(value, torch.Tensor | paceline.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [t for v in value for t in tensors_in(v)]
    return []


def difference(ours: Any, theirs: Any, rtol: float, atol: float, values: bool = True) -> str:
    """What differs between two results, "" if nothing: structure, shape, dtype, values."""
    if isinstance(theirs, torch.Tensor):
        if not isinstance(ours, paceline.Tensor):
            return f"expected a tensor, got {type(ours).__name__}"
        if tuple(ours.shape) != tuple(theirs.shape):
            return f"shape {list(ours.shape)} instead of {list(theirs.shape)}"
        if repr(ours.dtype).removeprefix("paceline.") != str(theirs.dtype).removeprefix("torch."):
            return f"dtype {ours.dtype} instead of {theirs.dtype}"
        if not values:
            return ""
        a = ours.detach().array
        b = _to_numpy(theirs.detach().resolve_conj().resolve_neg())
        if a.dtype.kind == "V":
            a, b = a.astype(numpy.float32), b.astype(numpy.float32)
        if a.dtype.kind in "fc":
            if not numpy.allclose(a, b, rtol, atol, equal_nan=True):
                with numpy.errstate(all="ignore"):
                    return f"values differ by up to {numpy.nanmax(numpy.abs(a - b)):.3g}"
        elif not numpy.array_equal(a, b):
            return f"{int((a != b).sum())} of {a.size} elements differ"
        return ""
    if isinstance(theirs, list | tuple):
        if not isinstance(ours, list | tuple) or len(ours) != len(theirs):
            size = len(ours) if isinstance(ours, list | tuple) else type(ours).__name__
            return f"expected {len(theirs)} results, got {size}"
        found = [difference(a, b, rtol, atol, values) for a, b in zip(ours, theirs, strict=True)]
        return next((f for f in found if f), "")
    if isinstance(theirs, bool | int | str | type(None)):
        return "" if ours == theirs else f"{ours!r} instead of {theirs!r}"
    if isinstance(theirs, float | complex):
        close = isinstance(ours, int | float | complex) and numpy.allclose(ours, theirs, rtol, atol, equal_nan=True)
        return "" if close else f"{ours!r} instead of {theirs!r}"
    return ""

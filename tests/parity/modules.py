"""Modules against PyTorch's own sample inputs (module_db): outputs and gradients from the same weights."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import torch

import paceline

from .convert import difference, tensors_in, to_paceline
from .operations import Outcome, check_gradients

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_modules import module_db

# PyTorch's gradient in float32 is several times further from the one in float64 than Paceline's.
_COARSE_IN_FLOAT32 = {"CTCLoss": 1e-4}
_RANDOM_IN_TRAINING = {"FractionalMaxPool2d", "FractionalMaxPool3d"}


def name_of(info: Any) -> str:
    return "nn." + info.module_cls.__name__


def run(info: Any, limit: int | None = None) -> Outcome:
    """All samples of a module in both modes; the first that goes wrong ends it."""
    name, count = name_of(info), 0
    module_class = getattr(paceline.nn, info.module_cls.__name__, None)
    if module_class is None:
        return Outcome(name, "missing")
    for dtype, training in itertools.product((torch.float32, torch.float64), (True, False)):
        for sample in samples(info, dtype, training, limit):
            count += 1
            status, detail = check(info, module_class, sample, dtype, training)
            if status != "pass":
                mode = "training" if training else "evaluation"
                given = ", ".join(map(repr, sample.constructor_input.args))
                options = ", ".join(f"{k}={v!r}" for k, v in sample.constructor_input.kwargs.items())
                return Outcome(name, status, count, f"{mode}: {detail} on ({given}; {options})"[:300])
    return Outcome(name, "pass", count)


def samples(info: Any, dtype: torch.dtype, training: bool, limit: int | None) -> list:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        found = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)
        return list(itertools.islice(found, limit))


def check(info: Any, module_class: type, sample: Any, dtype: torch.dtype, training: bool) -> tuple[str, str]:
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (1e-7, 1e-7)
    if dtype == torch.float32:
        atol = _COARSE_IN_FLOAT32.get(info.module_cls.__name__, atol)
    given, arguments = sample.constructor_input, sample.forward_input
    if arguments is None:
        return "pass", ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = info.module_cls(*given.args, **given.kwargs).to(dtype).train(training)
        ours_in = to_paceline((arguments.args, arguments.kwargs))
        try:
            ours = module_class(*to_paceline(given.args), **to_paceline(given.kwargs))
            ours = ours.to(to_paceline(dtype)).train(training)
            if "Lazy" in module_class.__name__:
                theirs(*arguments.args, **arguments.kwargs)
                ours(*ours_in[0], **ours_in[1])
            ours.load_state_dict(to_paceline(dict(theirs.state_dict())))
            shown = repr(theirs).replace("NonDynamicallyQuantizableLinear", "Linear")  # a subclass without a difference
            if repr(ours) != shown:
                return "wrong", f"repr {repr(ours)!r} instead of {shown!r}"
        except Exception as error:
            return "error", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        try:
            expected = theirs(*arguments.args, **arguments.kwargs)
        except Exception:
            return "pass", ""  # a sample that PyTorch itself refuses here
        try:
            result = ours(*ours_in[0], **ours_in[1])
        except Exception as error:
            return "error", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        values = not (training and (info.module_cls.__name__ in _RANDOM_IN_TRAINING or has_dropout(theirs)))
        found = difference(result, expected, rtol, atol, values)
        if found:
            return "wrong", found
        if not values or not any(t.requires_grad for t in tensors_in(expected)):
            return "pass", ""
        parameters = (list(theirs.parameters()), list(ours.parameters()))
        return check_gradients(
            expected, result, (arguments.args, arguments.kwargs, parameters[0]), (*ours_in, parameters[1]), rtol, atol
        )


def has_dropout(module: torch.nn.Module) -> bool:
    """Whether some part of a module drops elements at random in training."""
    rates = [m.p if isinstance(m, torch.nn.Dropout) else getattr(m, "dropout", 0) for m in module.modules()]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def in_scope() -> list:
    return list(module_db)

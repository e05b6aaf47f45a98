"""What `paceline warmup` runs: calls of everything that has compiled kernels, so that these are compiled and kept.

Kernels are compiled for the types they are called with, which only their callers know. A new kernel is reached without
a line here if it is that of a function of one or two tensors or of an optimizer; others need a call here.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from . import _names as torch
from .autograd.declaration import registry
from .runtime.comm.window import SUPPORTED
from .tensor import kernels

nn, F, randn = torch.nn, torch.nn.functional, torch.randn


def calls() -> Iterator[Callable[[], None]]:
    """The calls for the default dtype, one after the other."""
    for primitive in registry.values():
        declaration = primitive.declaration
        compiled = "cpu" in declaration.kernels or "cpu" in declaration.fused
        inputs = declaration.inputs
        if compiled and inputs in (("input",), ("input", "other")) and declaration.required == len(inputs):
            yield lambda p=primitive, n=len(inputs): _train(p, *(randn(6, 6) for _ in range(n)))  # type: ignore[misc]
        chained = declaration.element is not None and not declaration.name.startswith("bitwise")  # as logical_ ones are
        if chained and inputs in (("input",), ("input", "other")) and declaration.required == len(inputs):
            yield lambda p=primitive, n=len(inputs): _train(_chained(p), *(randn(6, 6) for _ in range(n)))  # type: ignore[misc]
        if declaration.large is not None:
            yield lambda large=declaration.large: _compute(large)  # type: ignore[misc]
    yield lambda: _train(_chained(_with_numbers), randn(6, 6))
    yield lambda: _train(_chained(torch.mul), randn(2000, 6), randn(6))
    for layer, *shape in _layers():
        yield lambda layer=layer, shape=shape: _train(layer, randn(*shape))  # type: ignore[misc]
    for function, *inputs in _functions():
        yield lambda function=function, inputs=inputs: _train(function, *inputs)  # type: ignore[misc]
    for make, variants in _OPTIMIZERS.items():
        for options in variants:
            yield lambda make=make, options=options: _step(make, options)  # type: ignore[misc]


def _layers() -> Iterator[tuple]:
    """Layers, and the shapes of their inputs."""
    activations = (nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid,
                   nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Softsign,
                   nn.Tanh, nn.Tanhshrink, nn.GLU)  # fmt: skip
    yield from ((each(), 4, 6) for each in activations)
    yield nn.Dropout(), 100, 100
    yield nn.GELU(approximate="tanh"), 4, 6
    yield from ((each(dim), 4, 5, 6) for each in (nn.Softmax, nn.LogSoftmax) for dim in (1, 2))
    yield nn.Linear(6, 5), 4, 6
    yield nn.Linear(6, 5), 3, 4, 6
    for norm, dims in ((nn.BatchNorm1d, 0), (nn.BatchNorm1d, 1), (nn.BatchNorm2d, 2), (nn.BatchNorm3d, 3)):
        for affine in (True, False):
            yield norm(6, affine=affine), 4, 6, *[5] * dims
            yield norm(6, affine=affine).eval(), 4, 6, *[5] * dims
    for affine in (True, False):
        yield nn.LayerNorm(6, elementwise_affine=affine), 4, 6
        yield nn.RMSNorm(6, elementwise_affine=affine), 4, 6
        yield nn.GroupNorm(2, 6, affine=affine), 4, 6, 5, 5
        yield nn.InstanceNorm2d(6, affine=affine), 4, 6, 5, 5
    pools = ((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
             (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
             (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d))  # fmt: skip
    for kinds in pools:
        yield from ((pool(n), 2, 3, *[8] * dims) for dims, pool in enumerate(kinds, 1) for n in (1, 2, 3))
    convolutions = (nn.Conv1d, nn.ConvTranspose1d, nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)
    options: tuple[dict, ...] = ({}, {"stride": 2}, {"padding": 1}, {"groups": 4}, {"bias": False}, {"dilation": 2})
    for i, convolution in enumerate(convolutions):
        yield from ((convolution(4, 8, 3, **each), 2, 4, *[8] * (i // 2 + 1)) for each in options)
    yield nn.Conv2d(4, 8, 1), 2, 4, 8, 8
    yield nn.Conv2d(64, 64, 3, padding=1), 8, 64, 8, 8
    yield nn.Conv2d(16, 16, 3, padding=1, groups=16), 2, 16, 8, 8
    yield from ((each(6, 5), 3, 4, 6) for each in (nn.RNN, nn.LSTM, nn.GRU))


def _functions() -> Iterator[tuple]:
    """Functions, and their inputs."""
    classes, indices = torch.randint(0, 6, (4,)), torch.randint(0, 6, (5, 4))
    yield F.cross_entropy, randn(4, 6), classes
    yield F.cross_entropy, randn(4, 6, 5), torch.randint(0, 6, (4, 5))
    yield F.nll_loss, randn(4, 6), classes
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
        yield loss, randn(4, 6), randn(4, 6)
    yield F.binary_cross_entropy_with_logits, randn(4, 6), torch.rand(4, 6)
    yield F.embedding, indices, randn(6, 8)
    for options in ({}, {"is_causal": True}, {"attn_mask": randn(9, 9)}):
        attention = functools.partial(F.scaled_dot_product_attention, **options)
        yield attention, *(randn(2, 2, 9, 8) for _ in range(3))
    yield torch.add, randn(4, 6), randn(6)
    for reduce in (torch.sum, torch.mean, torch.amax, torch.amin, torch.logsumexp, torch.var, torch.std):
        yield from ((lambda x, r=reduce, d=dim: r(x, d), randn(4, 5, 6)) for dim in (0, 1, 2, (0, 2)))
    yield lambda gates, cell: torch.add(*registry["lstm_gates"](gates, cell)), randn(4, 24), randn(4, 6)
    yield torch.mm, randn(400, 400), randn(400, 400)
    yield lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), randn(2, 3, 4, 5)
    yield from ((function, randn(4, 5, 5)) for function in (torch.tril, torch.triu))
    yield lambda x: x.masked_fill(x > 0, 1.0), randn(4, 6)
    for function in (torch.cumsum, torch.cumprod, torch.prod, torch.argmax, functools.partial(torch.topk, k=2)):
        yield lambda x, f=function: f(x, dim=1), randn(4, 5, 6)
    yield lambda x: x.flip(1), randn(4, 5)
    yield lambda x: x.index_select(1, classes), randn(4, 6)
    yield lambda x: x.gather(1, classes[:, None]), randn(4, 6)
    yield from ((lambda x, n=exponent: x**n, randn(4, 6)) for exponent in (0.5, 2, 3))
    for reduce in (torch.sum, torch.mean, torch.norm, torch.amax):
        yield from ((lambda x, r=reduce, d=dim: r(x, dim=d), randn(400, 400)) for dim in (None, 0, 1))


_OPTIMIZERS: dict[Any, tuple[dict, ...]] = {
    **{
        getattr(torch.optim, name): ({},)
        for name in torch.optim.__all__
        if name not in ("Optimizer", "lr_scheduler", "LBFGS", "Muon")
    },
    torch.optim.SGD: ({}, {"momentum": 0.9}),
    torch.optim.Adam: ({}, {"amsgrad": True}),
    torch.optim.RMSprop: ({}, {"momentum": 0.9}, {"centered": True}, {"momentum": 0.9, "centered": True}),
}


def _train(function: Callable, *inputs: Any) -> None:
    """Forward and backward."""
    inputs = tuple(x.requires_grad_() if x.is_floating_point() else x for x in inputs)
    output = function(*inputs)
    output = output[0] if isinstance(output, tuple) else output
    if output.requires_grad:
        output.backward(torch.ones_like(output))


def _chained(function: Callable) -> Callable:
    """A function as one of several operations of a compiled call, which are loops of their own there."""

    def chain(x: Any, *others: Any) -> Any:
        y = function(x, *others)
        return torch.where(y, x, -x) if y.dtype is torch.bool else y * x

    return torch.compile(chain)


def _compute(large: Callable) -> None:
    """What a primitive computes large arrays by: of two, of one and a number, and of one that is repeated."""
    x = randn(6, 6).numpy()
    for other in (x, x[0], x[:, :1], 1.5, 2, 3, 0.5, -0.5, -1):  # as exponents, some numbers have kernels of their own
        large(x, other)
    large(1.5, x)


def _with_numbers(x: Any) -> Any:
    y = 1 - 2 / (x * x + 1) + x / 3 - 4 + 5 * x**3
    inside = (y > 0) & (y <= 1) | ~(y < 2) & (y >= 3) | (y == 4) | (y != 5)
    return torch.where(inside, y, 0.0) * inside.to(y.dtype) + y.masked_fill(inside, 1.0)


def _step(make: Any, options: dict) -> None:
    """Two steps of an optimizer, and the clipping of its gradients."""
    weight = nn.Parameter(randn(4, 6))
    optimizer = make([weight], **options)
    for _ in range(2):
        weight.grad = randn(4, 6)
        nn.utils.clip_grad_norm_([weight], 1.0)
        nn.utils.clip_grad_value_([weight], 1.0)
        optimizer.step()


def _reach_other_ranks() -> None:
    kernels.sources.streaming  # noqa: B018  (compiles it)


def main() -> None:
    if not kernels.usable():
        raise SystemExit("paceline warmup: Numba does not load, so there is nothing to compile: pip install numba")
    logging.getLogger("paceline").setLevel("ERROR")  # that it compiles is no news here
    kernels.LEAST_SIZE = 0
    steps = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        steps += [(dtype, call) for call in calls()]
    if SUPPORTED:
        steps.append((torch.float32, _reach_other_ranks))
    for dtype, call in tqdm(steps, desc="compiling", unit="call", disable=None):
        torch.set_default_dtype(dtype)
        call()
    print(kernels.sources.cache.contents())


if __name__ == "__main__":
    main()

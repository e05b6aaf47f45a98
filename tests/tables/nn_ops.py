"""Rows for the functions of nn.functional. The references say in loops what the functions say in strides."""

from __future__ import annotations

import itertools
import math

import numpy as np

from .ops import erf, ints, mask, rnd, sigmoid, softmax, spread
from .table import Op
from .table import Sample as S


def functional(name, samples, reference, **options):
    """A row for nn.functional.<name>."""
    return Op(
        f"nn.functional.{name}",
        samples,
        reference,
        call=lambda module, *args, **kwargs: getattr(module.nn.functional, name)(*args, **kwargs),
        **options,
    )


def both(value):
    return (value, value) if isinstance(value, int) else tuple(value)


# -- windows -----------------------------------------------------------------------------------------------------------


def padded(x, padding, value=0.0):
    (top, left), (height, width) = both(padding), x.shape[-2:]
    out = np.full((*x.shape[:-2], height + 2 * top, width + 2 * left), value)
    out[..., top : top + height, left : left + width] = x
    return out


def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """One multiplication at a time."""
    (sy, sx), (dy, dx) = both(stride), both(dilation)
    o, c, kh, kw = w.shape
    if padding == "same":
        ty, tx = dy * (kh - 1), dx * (kw - 1)
        x = np.pad(x, ((0, 0), (0, 0), (ty // 2, ty - ty // 2), (tx // 2, tx - tx // 2)))
    elif padding != "valid":
        x = padded(x, padding)
    height = (x.shape[2] - dy * (kh - 1) - 1) // sy + 1
    width = (x.shape[3] - dx * (kw - 1) - 1) // sx + 1
    out = np.zeros((len(x), o, height, width))
    for n, k, y, z in np.ndindex(out.shape):
        first = k // (o // groups) * c
        for i, j, channel in itertools.product(range(kh), range(kw), range(c)):
            out[n, k, y, z] += w[k, channel, i, j] * x[n, first + channel, y * sy + i * dy, z * sx + j * dx]
    return out if b is None else out + b[:, None, None]


def conv1d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    padding = padding if isinstance(padding, str) else (0, padding)
    return conv2d(x[:, :, None], w[:, :, None], b, (1, stride), padding, (1, dilation), groups)[:, :, 0]


def pool(x, kernel, stride, padding, dilation, ceil_mode, reduce):
    """reduce(the places of a window inside the image, and the number of those inside the padded image)."""
    (kh, kw), (sy, sx), (py, px), (dy, dx) = map(both, (kernel, stride or kernel, padding, dilation))
    sizes = []
    for n, k, s, p, d in zip(x.shape[-2:], (kh, kw), (sy, sx), (py, px), (dy, dx), strict=True):
        starts = [i for i in range(-p, n + p, s) if i + d * (k - 1) < n + p or (ceil_mode and i < n)]
        if ceil_mode and starts[-1] + d * (k - 1) < n + p - 1 and starts[-1] + s < n:
            starts.append(starts[-1] + s)
        sizes.append(starts)
    height, width = x.shape[-2:]
    out = np.zeros((*x.shape[:-2], len(sizes[0]), len(sizes[1])))
    for place in np.ndindex(x.shape[:-2]):
        for (a, y), (b, z) in itertools.product(enumerate(sizes[0]), enumerate(sizes[1])):
            spots = [(y + i * dy, z + j * dx) for i in range(kh) for j in range(kw)]
            inside = [x[place][s] for s in spots if 0 <= s[0] < height and 0 <= s[1] < width]
            counted = sum(s[0] < height + py and s[1] < width + px for s in spots)
            out[(*place, a, b)] = reduce(inside, counted)
    return out


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    return pool(x, kernel_size, stride, padding, dilation, ceil_mode, lambda inside, counted: max(inside))


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    def mean(inside, counted):
        return sum(inside) / (divisor_override or (counted if count_include_pad else len(inside)))

    return pool(x, kernel_size, stride, padding, 1, ceil_mode, mean)


def adaptive_avg_pool2d(x, output_size):
    height, width = (n if want is None else want for n, want in zip(x.shape[-2:], both(output_size), strict=True))
    out = np.zeros((*x.shape[:-2], height, width))
    for i, j in np.ndindex(height, width):
        rows = slice(i * x.shape[-2] // height, math.ceil((i + 1) * x.shape[-2] / height))
        columns = slice(j * x.shape[-1] // width, math.ceil((j + 1) * x.shape[-1] / width))
        out[..., i, j] = x[..., rows, columns].mean((-2, -1))
    return out


WINDOWS = [
    functional(
        "conv2d",
        [
            S(rnd(1, 2, 2, 2), rnd(1, 2, 2, 2), rnd(1)),
            S(rnd(2, 1, 2, 2), rnd(2, 1, 1, 2)),
            S(rnd(1, 1, 2, 4), rnd(2, 1, 2, 2), rnd(2), stride=(1, 2), padding=1),
            S(rnd(1, 2, 2, 2), rnd(4, 1, 1, 2), rnd(4), groups=2),
            S(rnd(1, 1, 1, 8), rnd(1, 1, 1, 3), dilation=(1, 2)),
            S(rnd(2, 4, 6, 5), rnd(6, 2, 3, 2), rnd(6), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
            S(rnd(3, 3, 7, 7), rnd(2, 3, 3, 3), rnd(2), padding="same"),
            S(rnd(2, 2, 5, 4), rnd(2, 2, 2, 2), None, 1, "same"),
            S(rnd(2, 2, 5, 4), rnd(2, 2, 5, 4), padding="valid"),
            S(rnd(1, 3, 4, 4).transpose(0, 1, 3, 2), rnd(2, 3, 1, 1).transpose(0, 1, 3, 2)),
            S(rnd(2, 2, 4, 17), rnd(11, 2, 3, 3), rnd(11), padding=1),  # more than one tile of the compiled kernel
            S(rnd(1, 2, 7, 8), rnd(3, 2, 2, 2), None, 3, 1),
        ],
        conv2d,
        fused=True,
    ),
    functional(
        "conv1d",
        [
            S(rnd(2, 1, 4), rnd(2, 1, 2), rnd(2), padding=1),
            S(rnd(1, 2, 4), rnd(2, 1, 3), None, 1, "same", 1, 2),
            S(rnd(2, 4, 9), rnd(6, 2, 3), rnd(6), stride=2, dilation=2, groups=2),
        ],
        conv1d,
    ),
    functional(
        "max_pool2d",
        [
            S(spread(1, 1, 2, 4), 2),
            S(spread(1, 2, 2, 2), (2, 1), 1, (1, 0)),
            S(spread(2, 2, 5, 5), 3, 2, 1),
            S(spread(1, 2, 5, 6), 2, ceil_mode=True),
            S(spread(1, 1, 6, 6), 2, 1, 0, 2),
            S(spread(2, 3, 4, 4), 2),
        ],
        max_pool2d,
    ),
    functional(
        "avg_pool2d",
        [
            S(rnd(1, 1, 2, 4), 2),
            S(rnd(1, 2, 2, 2), (2, 1), 1, (1, 0)),
            S(rnd(2, 2, 5, 5), 3, 2, 1),
            S(rnd(1, 2, 5, 6), 2, ceil_mode=True),
            S(rnd(1, 2, 5, 5), 3, 2, 1, True, False),
            S(rnd(1, 2, 5, 5), 3, 2, 1, divisor_override=2),
            S(rnd(1, 2, 4, 4), 3, 3, 1, True),
        ],
        avg_pool2d,
    ),
    functional(
        "adaptive_avg_pool2d",
        [
            S(rnd(1, 2, 2, 2), 1),
            S(rnd(1, 1, 4, 2), (2, 1)),
            S(rnd(1, 1, 2, 3), 2),
            S(rnd(2, 3, 5, 7), (3, None)),
            S(rnd(3, 5, 4), (2, 6)),
        ],
        adaptive_avg_pool2d,
        emulated=False,
    ),
]


# -- normalization -----------------------------------------------------------------------------------------------------


def standardized(x, dims, eps):
    return (x - x.mean(dims, keepdims=True)) / np.sqrt(x.var(dims, keepdims=True) + eps)


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    out = standardized(x, tuple(range(x.ndim - len(shape), x.ndim)), eps)
    return out * (1 if weight is None else weight) + (0 if bias is None else bias)


def per_channel(parameter, x, default):
    return default if parameter is None else parameter.reshape((-1,) + (1,) * (x.ndim - 2))


def batch_norm(x, mean=None, var=None, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if training:
        out = standardized(x, (0, *range(2, x.ndim)), eps)
    else:
        out = (x - per_channel(mean, x, 0)) / np.sqrt(per_channel(var, x, 1) + eps)
    return out * per_channel(weight, x, 1) + per_channel(bias, x, 0)


def group_norm(x, groups, weight=None, bias=None, eps=1e-5):
    out = standardized(x.reshape(len(x), groups, -1), (2,), eps).reshape(x.shape)
    return out * per_channel(weight, x, 1) + per_channel(bias, x, 0)


def normalize(x, p=2.0, dim=1, eps=1e-12):
    return x / np.maximum((np.abs(x) ** p).sum(dim, keepdims=True) ** (1 / p), eps)


NORMALIZATIONS = [
    functional(
        "layer_norm",
        [
            S(rnd(2, 4), (4,), rnd(4), rnd(4)),
            S(rnd(2, 2, 2), (2, 2), rnd(2, 2), None, 0.1),
            S(rnd(8), (8,)),
            S(rnd(3, 4, 5), (5,), rnd(5), rnd(5)),
        ],
        layer_norm,
        fused=True,
    ),
    functional(
        "batch_norm",
        [
            S(rnd(4, 2), None, None, rnd(2), rnd(2), True),
            S(rnd(2, 2, 2), None, None, None, rnd(2), True, eps=0.1),
            S(rnd(2, 1, 2, 2), None, None, training=True),
            S(rnd(3, 4, 2, 5), None, None, rnd(4), rnd(4), True),
            S(rnd(2, 2, 2), rnd(2), rnd(2, low=0.5), rnd(2), rnd(2)),
            S(rnd(3, 4, 2, 2), rnd(4), rnd(4, low=0.5)),
        ],
        batch_norm,
        fused=True,
    ),
    functional(
        "group_norm",
        [S(rnd(1, 4, 2), 2, rnd(4), rnd(4)), S(rnd(2, 4), 1), S(rnd(2, 6, 3, 2), 3, rnd(6), rnd(6), 0.1)],
        group_norm,
        fused=True,
    ),
    functional(
        "normalize",
        [S(rnd(2, 3)), S(rnd(2, 3), 1.0, 0), S(rnd(2, 3), p=3.0, dim=-1), S(rnd(4, low=1), dim=0)],
        normalize,
    ),
    functional(
        "cosine_similarity",
        [S(rnd(2, 3), rnd(2, 3)), S(rnd(2, 1, 2), rnd(1, 2, 2), dim=-1)],
        lambda a, b, dim=1: (a * b).sum(dim) / np.sqrt((a * a).sum(dim) * (b * b).sum(dim)),
    ),
]


# -- activations, not those of the main tables -------------------------------------------------------------------------

ACTIVATIONS = [
    functional("relu6", [S(spread(2, 3)), S(np.array([-1.0, 3.0, 7.0]))], lambda x: np.clip(x, 0, 6)),
    functional("hardtanh", [S(spread(4)), S(spread(4), -0.4, 0.2)], lambda x, a=-1.0, b=1.0: np.clip(x, a, b)),
    functional("elu", [S(spread(4)), S(spread(4), 0.7)], lambda x, a=1.0: np.where(x > 0, x, a * np.expm1(x))),
    functional("gelu", [S(rnd(4))], lambda x: x * (1 + erf(x / math.sqrt(2))) / 2),
    functional("silu", [S(rnd(4))], lambda x: x * sigmoid(x)),
    functional("mish", [S(rnd(4))], lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    functional(
        "selu",
        [S(spread(4))],
        lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    ),
    functional("hardsigmoid", [S(spread(4)), S(np.array([-4.0, 4.0]))], lambda x: np.clip(x + 3, 0, 6) / 6),
    functional("hardswish", [S(spread(4)), S(np.array([-4.0, 4.0]))], lambda x: x * np.clip(x + 3, 0, 6) / 6),
    functional("threshold", [S(spread(4), 0.1, -3.0)], lambda x, t, v: np.where(x > t, x, v)),
    functional(
        "prelu",
        [S(spread(2, 2), rnd(2)), S(spread(2, 2, 2), rnd(1)), S(spread(1, 2, 2, 2), rnd(2))],
        lambda x, w: np.where(x > 0, x, x * per_channel(w, x, 0)),
    ),
    functional("glu", [S(rnd(2, 4)), S(rnd(4, 1), dim=0)], lambda x, dim=-1: glu(x, dim)),
    functional("softmin", [S(rnd(2, 3), 1)], lambda x, dim: softmax(-x, dim)),
]


def glu(x, dim):
    a, b = np.split(x, 2, dim)
    return a * sigmoid(b)


# -- linear maps, tables, padding, attention ---------------------------------------------------------------------------


def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    scores = q @ np.swapaxes(k, -2, -1) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = np.tri(*scores.shape[-2:], dtype=bool)
    if attn_mask is not None:
        scores = np.where(attn_mask, scores, -np.inf) if attn_mask.dtype == bool else scores + attn_mask
    blind = np.isneginf(scores).all(-1, keepdims=True)
    return np.where(blind, 0, softmax(np.where(blind, 0, scores), -1)) @ v


def pad(x, pad, mode="constant", value=None):
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2) + [tuple(pad[i : i + 2]) for i in range(len(pad) - 2, -1, -2)]
    options = {"constant_values": value or 0} if mode == "constant" else {}
    return np.pad(x, pairs, {"replicate": "edge", "circular": "wrap"}.get(mode, mode), **options)


MAPS = [
    functional(
        "linear",
        [S(rnd(2, 3), rnd(2, 3), rnd(2)), S(rnd(3), rnd(2, 3)), S(rnd(2, 2, 2), rnd(3, 2), rnd(3))],
        lambda x, w, b=0.0: x @ w.T + b,
    ),
    functional(
        "bilinear",
        [S(rnd(2, 2), rnd(2, 2), rnd(2, 2, 2), rnd(2)), S(rnd(2), rnd(3), rnd(1, 2, 3))],
        lambda a, b, w, c=0.0: np.einsum("...i,oij,...j->...o", a, w, b) + c,
        emulated=False,
    ),
    functional(
        "embedding",
        [
            S(np.array([[0, 2], [2, 1]]), rnd(4, 2)),
            S(np.array(1), rnd(2, 3)),
            S(np.zeros((0, 2), int), rnd(2, 3)),
            S(np.array([5, 0, 5, 5, 3, 0]), rnd(6, 4)),
        ],
        lambda indices, table: table[indices],
    ),
    functional(
        "pad",
        [
            S(rnd(2, 3), (1, 2)),
            S(rnd(2, 3), (1, 0, 0, 2), "constant", 3.0),
            S(rnd(1, 1, 2, 3), (2, 1, 1, 0), "reflect"),
            S(rnd(1, 2, 3), (2, 4), "replicate"),
            S(rnd(1, 2, 3), (2, 3), "circular"),
        ],
        pad,
    ),
    functional(
        "scaled_dot_product_attention",
        [
            S(rnd(2, 2), rnd(3, 2), rnd(3, 2)),
            S(rnd(1, 3, 2), rnd(1, 3, 2), rnd(1, 3, 1), is_causal=True),
            S(rnd(2, 3, 4), rnd(2, 5, 4), rnd(2, 5, 3), mask(3, 5) | np.eye(3, 5, dtype=bool), scale=0.3),
            S(rnd(2, 3, 4), rnd(2, 5, 4), rnd(2, 5, 3), rnd(2, 3, 5)),
            S(rnd(1, 2, 3, 2), rnd(1, 2, 4, 2), rnd(1, 2, 4, 2), mask(4)),
            S(rnd(2, 1, 5, 3), rnd(2, 1, 5, 3), rnd(2, 1, 5, 2), is_causal=True),
            S(rnd(3, 2), rnd(3, 2), rnd(3, 2), np.tri(3, k=-1, dtype=bool)),  # the first query may look at nothing
        ],
        attention,
        fused=True,
    ),
    Op(
        "nn.functional.one_hot",
        [S(ints(2, 3, low=0, high=4)), S(np.array([0, 2]), 5)],
        lambda x, n=-1: np.eye(x.max() + 1 if n < 0 else n, dtype=int)[x],
        call=lambda module, *args: module.nn.functional.one_hot(*args),
        differentiable=False,
    ),
]


# -- losses ------------------------------------------------------------------------------------------------------------


def reduced(losses, reduction):
    return {"none": losses, "mean": np.mean(losses), "sum": np.sum(losses)}[reduction]


def nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    """One target at a time."""
    rows = np.moveaxis(x, 1, -1) if x.ndim > 1 else x
    losses, weights = np.zeros(target.shape), np.zeros(target.shape)
    for place in np.ndindex(target.shape):
        label = target[place]
        if label != ignore_index:
            weights[place] = 1 if weight is None else weight[label]
            losses[place] = -rows[place][label] * weights[place]
    return losses.sum() / weights.sum() if reduction == "mean" else reduced(losses, reduction)


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    dim = min(1, x.ndim - 1)
    log_p = np.log(softmax(x, dim))
    classes = x.shape[dim]
    if target.dtype == float:
        w = 1 if weight is None else weight.reshape((-1,) + (1,) * (x.ndim - dim - 1))
        target = target * (1 - label_smoothing) + label_smoothing / classes
        return reduced(-(log_p * w * target).sum(dim), reduction)
    hard = nll_loss(log_p, target, weight, ignore_index, "none")
    w = np.ones(classes) if weight is None else weight
    counted = target != ignore_index
    smooth = -np.moveaxis(log_p, dim, -1) @ w * counted
    losses = (1 - label_smoothing) * hard + label_smoothing / classes * smooth
    if reduction != "mean":
        return reduced(losses, reduction)
    return losses.sum() / w[np.where(counted, target, 0)][counted].sum()


def elementwise(loss):
    def reference(x, y, weight=None, *, reduction="mean", **options):
        losses = loss(x, y, **options) * (1 if weight is None else weight)
        return losses.sum() / len(x) if reduction == "batchmean" else reduced(losses, reduction)

    return reference


def huber(d, delta):
    d = np.abs(d)
    return np.where(d < delta, d * d / 2, delta * (d - delta / 2))


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def bce(p, t):
    return -(t * np.log(p) + (1 - t) * np.log(1 - p))


def bce_with_logits(x, t, pos_weight=1.0):
    return -(pos_weight * t * log_sigmoid(x) + (1 - t) * log_sigmoid(-x))


def kl_div(x, t, log_target=False):
    return np.exp(t) * (t - x) if log_target else t * (np.log(t) - x)


PAIRS = [S(rnd(2, 3), rnd(2, 3)), S(rnd(3), rnd(3), reduction="sum"), S(rnd(2, 2), rnd(2, 2), reduction="none")]
LABELS = np.array([2, 0])

LOSSES = [
    functional(
        "cross_entropy",
        [
            S(rnd(2, 3), LABELS),
            S(rnd(2, 3), LABELS, reduction="sum"),
            S(rnd(2, 3), LABELS, reduction="none"),
            S(rnd(2, 3), np.array([2, -100])),
            S(rnd(3, 2), np.array([1, 0, 1]), ignore_index=1, reduction="none"),
            S(rnd(2, 3), LABELS, label_smoothing=0.2),
            S(rnd(1, 2, 3), np.array([[1, 0, 1]])),
            S(rnd(4), np.array(3)),
            S(rnd(2, 3, 2, 2), ints(2, 2, 2, low=0, high=3), reduction="none"),
            S(rnd(2, 3), softmax(rnd(2, 3), 1)),
            S(rnd(1, 2, 2), softmax(rnd(1, 2, 2), 1), label_smoothing=0.3, reduction="sum"),
            S(rnd(8), softmax(rnd(8), 0)),
        ],
        cross_entropy,
        fused=True,
    ),
    functional(
        "nll_loss",
        [
            S(rnd(2, 3), LABELS),
            S(rnd(2, 3), np.array([1, -100]), reduction="none"),
            S(rnd(1, 2, 3), np.array([[1, 0, 1]]), ignore_index=0),
            S(rnd(3), np.array(1), reduction="sum"),
        ],
        nll_loss,
    ),
    functional("mse_loss", PAIRS, elementwise(lambda x, y: (x - y) ** 2)),
    functional("l1_loss", PAIRS, elementwise(lambda x, y: np.abs(x - y))),
    functional(
        "smooth_l1_loss",
        [*PAIRS, S(rnd(2, 3), rnd(2, 3), beta=0.3), S(rnd(2), rnd(2), beta=0.0)],
        elementwise(lambda x, y, beta=1.0: huber(x - y, beta) / beta if beta else np.abs(x - y)),
    ),
    functional(
        "huber_loss",
        [*PAIRS, S(rnd(2, 3), rnd(2, 3), delta=0.3)],
        elementwise(lambda x, y, delta=1.0: huber(x - y, delta)),
    ),
    functional(
        "binary_cross_entropy",
        [
            S(rnd(2, 3, low=0.1, high=0.9), rnd(2, 3, low=0.1, high=0.9)),
            S(rnd(2, 2, low=0.1, high=0.9), rnd(2, 2, low=0.1, high=0.9), rnd(2), reduction="sum"),
        ],
        elementwise(bce),
    ),
    functional(
        "binary_cross_entropy_with_logits",
        [
            S(rnd(2, 3), rnd(2, 3, low=0, high=1)),
            S(rnd(2, 2), rnd(2, 2, low=0, high=1), rnd(2), reduction="sum"),
            S(rnd(2, 2), rnd(2, 2, low=0, high=1), pos_weight=rnd(2), reduction="none"),
        ],
        elementwise(bce_with_logits),
    ),
    functional(
        "kl_div",
        [
            S(rnd(2, 3), rnd(2, 3, low=0.1)),
            S(rnd(2, 3), rnd(2, 3), log_target=True, reduction="batchmean"),
            S(rnd(2, 3), rnd(2, 3, low=0.1), reduction="sum"),
        ],
        elementwise(kl_div),
    ),
]


# -- recurrent cells ---------------------------------------------------------------------------------------------------


def lstm_gates(gates, cell):
    i, f, g, o = np.split(gates, 4, -1)
    new = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(new), new


def gru_gates(from_input, from_hidden, hidden):
    (xr, xz, xn), (hr, hz, hn) = (np.split(x, 3, -1) for x in (from_input, from_hidden))
    z = sigmoid(xz + hz)
    return (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * hidden


def sweep(step, input, weights, state, counts, reverse):
    """Each sequence on its own: rows of `step` are those of all sequences that are so long, one below the other."""
    weight_ih, weight_hh, bias_ih, bias_hh = (w if w is not None else 0.0 for w in weights)
    starts = np.cumsum(counts) - counts
    out, final = {}, []
    for sequence in range(counts[0]):
        rows = [start + sequence for start, n in zip(starts, counts, strict=True) if sequence < n]
        now = tuple(s[sequence] for s in state)
        for row in reversed(rows) if reverse else rows:
            now = step(weight_ih @ input[row] + bias_ih, weight_hh @ now[0] + bias_hh, now)
            out[row] = now[0]
        final.append(now)
    return np.stack([out[row] for row in range(sum(counts))]), *(np.stack(s) for s in zip(*final, strict=True))


def lstm_layer(input, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, h, c, counts, reverse=False):
    def step(x, y, state):
        h, c = lstm_gates(x + y, state[1])
        return (h if weight_hr is None else weight_hr @ h), c

    return sweep(step, input, (weight_ih, weight_hh, bias_ih, bias_hh), (h, c), counts, reverse)


def rnn_layer(input, weight_ih, weight_hh, bias_ih, bias_hh, h, mode, counts, reverse=False):
    steps = {
        "GRU": lambda x, y, state: (gru_gates(x, y, state[0]),),
        "RNN_TANH": lambda x, y, state: (np.tanh(x + y),),
        "RNN_RELU": lambda x, y, state: (np.maximum(x + y, 0),),
    }
    return sweep(steps[mode], input, (weight_ih, weight_hh, bias_ih, bias_hh), (h,), counts, reverse)


def _weights(gates, features, size, hidden=None):
    hidden = hidden or size
    return rnd(gates * size, features), rnd(gates * size, hidden), rnd(gates * size), rnd(gates * size)


CELLS = [
    Op("lstm_gates", [S(rnd(2, 12), rnd(2, 3)), S(rnd(4), rnd(1))], lstm_gates, internal=True),
    Op("gru_gates", [S(rnd(2, 9), rnd(2, 9), rnd(2, 3)), S(rnd(3), rnd(3), rnd(1))], gru_gates, internal=True),
    Op(
        "lstm_layer",
        [
            S(rnd(6, 2), *_weights(4, 2, 3), None, rnd(3, 3), rnd(3, 3), (3, 2, 1)),
            S(rnd(6, 2), *_weights(4, 2, 3), None, rnd(3, 3), rnd(3, 3), (3, 2, 1), True),
            S(rnd(4, 2), *_weights(4, 2, 3)[:2], None, None, None, rnd(2, 3), rnd(2, 3), (2, 2)),
            S(rnd(3, 2), *_weights(4, 2, 3, 2), rnd(2, 3), rnd(2, 2), rnd(2, 3), (2, 1)),
            S(rnd(2, 2), *_weights(4, 2, 3), None, rnd(2, 3), rnd(2, 3), (2,)),
        ],
        lstm_layer,
        internal=True,
        fused=True,
    ),
    Op(
        "rnn_layer",
        [
            *(
                S(rnd(6, 2), *_weights(gates, 2, 3), rnd(3, 3), mode, (3, 2, 1), reverse)
                for mode, gates in (("GRU", 3), ("RNN_TANH", 1), ("RNN_RELU", 1))
                for reverse in (False, True)
            ),
            S(rnd(2, 2), *_weights(3, 2, 2)[:2], None, None, rnd(1, 2), "GRU", (1, 1)),
        ],
        rnn_layer,
        internal=True,
        fused=True,
    ),
]

ROWS = [*WINDOWS, *NORMALIZATIONS, *ACTIVATIONS, *MAPS, *LOSSES, *CELLS]

"""Every public name of Paceline. The package takes them over when one of them is first asked for; see __init__.py."""

from __future__ import annotations

import sys as _sys
from math import e, inf, nan, pi
from types import ModuleType as _ModuleType

from . import accelerator as accelerator
from . import amp as amp
from . import autograd as autograd
from . import backends as backends
from . import cuda as cuda
from . import distributed as distributed
from . import distributions as distributions
from . import fft as fft
from . import func as func
from . import futures as futures
from . import jit as jit
from . import linalg as linalg
from . import nn as nn
from . import optim as optim
from . import random as random
from . import signal as signal
from . import special as special
from . import swa_utils as _swa_utils
from . import tensor as _tensor  # the package; the name `tensor` is the function below
from . import utils as utils
from .autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .autograd.batching import vmap
from .autograd.mode import is_anomaly_enabled
from .nn.compiled import compile
from .nn.functional import (
    adaptive_avg_pool1d,
    avg_pool1d,
    bilinear,
    celu,
    channel_shuffle,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    cosine_similarity,
    dropout,
    group_norm,
    hardshrink,
    layer_norm,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    pairwise_distance,
    pdist,
    pixel_shuffle,
    pixel_unshuffle,
    prelu,
    rms_norm,
    selu,
    threshold,
)
from .nn.parallel import DistributedDataParallel as DataParallel
from .runtime.device import device, get_default_device, set_default_device
from .runtime.dtypes import (
    bfloat16,
    complex64,
    complex128,
    dtype,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
    uint16,
    uint32,
    uint64,
)
from .runtime.dtypes import bool_ as bool
from .runtime.rng import Generator, initial_seed, manual_seed, seed
from .runtime.switches import (
    get_float32_matmul_precision,
    set_float32_matmul_precision,
    use_deterministic_algorithms,
)
from .runtime.threads import get_num_threads, set_num_threads
from .tensor import Size, Tensor
from .tensor.autocast import autocast, is_autocast_enabled
from .tensor.creation import (
    arange,
    as_tensor,
    asarray,
    empty,
    empty_like,
    empty_permuted,
    empty_strided,
    eye,
    from_dlpack,
    from_numpy,
    frombuffer,
    full,
    full_like,
    linspace,
    logspace,
    meshgrid,
    ones,
    ones_like,
    scalar_tensor,
    tensor,
    tril_indices,
    triu_indices,
    zeros,
    zeros_like,
)
from .tensor.inspection import (
    allclose,
    can_cast,
    equal,
    finfo,
    iinfo,
    is_complex,
    is_floating_point,
    isclose,
    numel,
    result_type,
)
from .tensor.layout import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    strided,
)
from .tensor.lowrank import pca_lowrank, svd_lowrank
from .tensor.ops.activation import relu
from .tensor.ops.arithmetic import add_scaled as add
from .tensor.ops.arithmetic import (
    atan2,
    bitwise_and,
    bitwise_left_shift,
    bitwise_not,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    div,
    eq,
    floor_divide,
    fmod,
    ge,
    gt,
    le,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    pow,
    remainder,
    true_divide,
)
from .tensor.ops.arithmetic import sub_scaled as sub
from .tensor.ops.bessel import modified_bessel_i0 as i0
from .tensor.ops.bessel import sinc
from .tensor.ops.binary import (
    clamp_max,
    clamp_min,
    copysign,
    fill,
    float_power,
    fmax,
    fmin,
    frexp,
    gcd,
    heaviside,
    hypot,
    lcm,
    ldexp,
    logaddexp,
    logaddexp2,
    nextafter,
    rsub,
)
from .tensor.ops.complex import (
    angle,
    complex,
    conj_physical,
    imag,
    is_conj,
    is_neg,
    isreal,
    polar,
    real,
    resolve_conj,
    resolve_neg,
    sgn,
    view_as_complex,
    view_as_real,
)
from .tensor.ops.copies import (
    alias_copy,
    as_strided_copy,
    diagonal_copy,
    expand_copy,
    narrow_copy,
    permute_copy,
    select_copy,
    slice_copy,
    split_copy,
    split_with_sizes_copy,
    squeeze_copy,
    t_copy,
    transpose_copy,
    unbind_copy,
    unfold_copy,
    unsqueeze_copy,
    view_copy,
)
from .tensor.ops.cumulative import (
    cummax,
    cummin,
    cumulative_trapezoid,
    diff,
    gradient,
    logcumsumexp,
    trapezoid,
)
from .tensor.ops.cumulative import cumprod_as as cumprod
from .tensor.ops.cumulative import cumsum_as as cumsum
from .tensor.ops.decompositions import cholesky_of as cholesky
from .tensor.ops.decompositions import geqrf, lu_unpack
from .tensor.ops.decompositions import lu_compact as lu
from .tensor.ops.decompositions import qr_reduced as qr
from .tensor.ops.determinants import det, logdet, slogdet
from .tensor.ops.diagonals import diag, diag_embed, diagflat
from .tensor.ops.distances import dist, norm, renorm
from .tensor.ops.indexing import (
    argwhere,
    gather,
    index_select,
    masked_fill,
    masked_select,
    nonzero,
    take,
    take_along_dim,
    where,
)
from .tensor.ops.indexing import index_put_at as index_put
from .tensor.ops.joining import (
    atleast_1d,
    atleast_2d,
    atleast_3d,
    block_diag,
    cartesian_prod,
    column_stack,
    combinations,
    constant_pad_nd,
    dsplit,
    dstack,
    hsplit,
    hstack,
    repeat_interleave,
    tensor_split,
    vsplit,
    vstack,
)
from .tensor.ops.least_squares import pinverse
from .tensor.ops.linalg import addmm, bmm, dot, einsum, matmul, mm, mv, outer
from .tensor.ops.matrix_functions import matrix_exp, matrix_power, ormqr
from .tensor.ops.ordering import (
    argsort,
    bucketize,
    isin,
    kthvalue,
    max,
    median,
    min,
    mode,
    msort,
    nanmedian,
    searchsorted,
    topk,
    unique,
    unique_consecutive,
)
from .tensor.ops.ordering import sort_by as sort
from .tensor.ops.pointwise import (
    abs,
    acos,
    acosh,
    addcdiv,
    addcmul,
    asin,
    asinh,
    atan,
    atanh,
    conj,
    cos,
    cosh,
    deg2rad,
    erf,
    erfc,
    exp,
    exp2,
    expm1,
    lerp,
    log,
    log1p,
    log2,
    log10,
    neg,
    positive,
    rad2deg,
    reciprocal,
    rsqrt,
    sigmoid,
    sign,
    sin,
    sinh,
    sqrt,
    square,
    tan,
    tanh,
)
from .tensor.ops.pointwise import clamp_between as clamp
from .tensor.ops.products import (
    addbmm,
    addmv,
    addr,
    baddbmm,
    cdist,
    chain_matmul,
    cross,
    inner,
    kron,
    tensordot,
    trace,
    vdot,
)
from .tensor.ops.reduction import (
    all,
    amax,
    amin,
    aminmax,
    any,
    argmax,
    argmin,
    count_nonzero,
    logsumexp,
    nanmean,
    nansum,
)
from .tensor.ops.reduction import mean_as as mean
from .tensor.ops.reduction import prod_as as prod
from .tensor.ops.reduction import sum_as as sum
from .tensor.ops.rounding import (
    ceil,
    floor,
    frac,
    isfinite,
    isinf,
    isnan,
    isneginf,
    isposinf,
    nan_to_num,
    round,
    signbit,
    trunc,
)
from .tensor.ops.scattering import (
    diagonal_scatter,
    index_add,
    index_copy,
    index_fill,
    index_reduce,
    masked_scatter,
    put,
    scatter,
    scatter_add,
    scatter_reduce,
    select_scatter,
    slice_scatter,
)
from .tensor.ops.shaping import (
    broadcast_shapes,
    broadcast_tensors,
    broadcast_to,
    cat,
    chunk,
    clone,
    diagonal,
    flatten,
    is_tensor,
    movedim,
    narrow,
    ravel,
    select,
    split,
    squeeze,
    stack,
    t,
    transpose,
    unbind,
    unflatten,
    unravel_index,
    unsqueeze,
)
from .tensor.ops.shaping import permute_dims as permute
from .tensor.ops.shaping import reshape_sizes as reshape
from .tensor.ops.shaping import roll_dims as roll
from .tensor.ops.shaping import tile_sizes as tile
from .tensor.ops.softmax import log_softmax_as as log_softmax
from .tensor.ops.softmax import softmax_as as softmax
from .tensor.ops.solving import cholesky_inverse, cholesky_solve, triangular_solve
from .tensor.ops.solving import inv as inverse
from .tensor.ops.solving import lu_solve_from as lu_solve
from .tensor.ops.special import (
    digamma,
    erfinv,
    igamma,
    igammac,
    lgamma,
    logit,
    mvlgamma,
    xlogy,
)
from .tensor.ops.special import polygamma_of_order as polygamma
from .tensor.ops.spectra import svd_with_v as svd
from .tensor.ops.statistics import (
    bincount,
    corrcoef,
    cov,
    histc,
    histogram,
    histogramdd,
    nanquantile,
    quantile,
    std,
    std_mean,
    var,
    var_mean,
)
from .tensor.ops.stft import istft, stft
from .tensor.ops.strided import as_strided, as_strided_scatter
from .tensor.ops.triangles import tril, triu
from .tensor.ops.turning import adjoint, fliplr, flipud, rot90
from .tensor.ops.turning import flip_dims as flip
from .tensor.printing import set_printoptions
from .tensor.random import (
    bernoulli,
    binomial,
    get_rng_state,
    multinomial,
    normal,
    poisson,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
    set_rng_state,
)
from .tensor.serialization import load, save
from .tensor.typed import (
    BFloat16Tensor,
    BoolTensor,
    ByteTensor,
    CharTensor,
    DoubleTensor,
    FloatTensor,
    HalfTensor,
    IntTensor,
    LongTensor,
    ShortTensor,
)
from .tensor.windows import bartlett_window, blackman_window, hamming_window, hann_window, kaiser_window

half, float, double = float16, float32, float64
short, int, long = int16, int32, int64
cfloat, cdouble = complex64, complex128
concat = concatenate = cat
trapz = trapezoid
moveaxis, row_stack = movedim, vstack
unsafe_chunk, unsafe_split, split_with_sizes = chunk, split, split
swapaxes = swapdims = transpose
ger = outer
absolute, negative, clip, divide, multiply, subtract = abs, neg, clamp, div, mul, sub
arccos, arcsin, arctan, arctan2, fix = acos, asin, atan, atan2, trunc
arccosh, arcsinh, arctanh = acosh, asinh, atanh
greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne

# The averages of models stand in optim, as in PyTorch, but are modules: only here may they meet.
optim.swa_utils = _sys.modules["paceline.optim.swa_utils"] = _swa_utils  # type: ignore[attr-defined]

_package = _sys.modules["paceline"]
vars(_package).update((name, value) for name, value in globals().items() if not name.startswith("_"))
_package.__class__ = _ModuleType  # whose attributes the interpreter finds quicker than those of a class derived from it

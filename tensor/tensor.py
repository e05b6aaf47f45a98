"""The Tensor class: a table of contents of the operations."""

from __future__ import annotations

from builtins import bool as bool_  # in its own body the class's methods bool(), float(), int() hide these
from builtins import int as int_
from builtins import sum as sum_
from collections.abc import Iterator
from typing import Any

import numpy

from ..autograd.variable import box
from ..runtime import device as devices
from ..runtime import dtypes
from ..runtime.arrays import Array
from . import creation, inspection, random, samplers
from .base import Size, TensorBase
from .inplace import assign, check_writable, inplace, inplace_view
from .ops import (
    activation,
    arithmetic,
    bessel,
    binary,
    cast,
    copies,
    cumulative,
    decompositions,
    determinants,
    diagonals,
    distances,
    indexing,
    joining,
    least_squares,
    linalg,
    matrix_functions,
    ordering,
    pointwise,
    products,
    reduction,
    rounding,
    scattering,
    shaping,
    solving,
    special,
    spectra,
    statistics,
    strided,
    triangles,
    turning,
)
from .ops import complex as complex_family
from .ops import softmax as softmax_family
from .ops import stft as stft_family

__all__ = ["Size", "Tensor"]


_fill = inplace(binary.fill)
_OPERANDS = (TensorBase, int, float, complex, numpy.ndarray, numpy.generic)


def constructed(data: tuple, dtype: dtypes.dtype, name: str) -> Array:
    """What PyTorch's first constructors make: an array of the data, or of the given sizes, uninitialized."""
    if len(data) == 1 and not isinstance(data[0], int | Size):
        return creation.as_array(data[0], dtype, name)
    return creation.empty(*data or (0,), dtype=dtype).array


class Tensor(TensorBase, box=True):
    """A multi-dimensional array with operations that can be differentiated.

    Made by `tensor()`, `zeros()`, `randn()` and the like. `.array` is the raw NumPy or CuPy array.

    Example:
        >>> import paceline as torch
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        tensor([2., 4.])
    """

    def __init__(self, *data: Any) -> None:
        """As PyTorch's legacy constructor: float32 from data, or uninitialized memory of the given sizes."""
        self.array = constructed(data, dtypes.get_default_dtype(), "Tensor")

    @staticmethod
    def _wrap(array: Any) -> Tensor:
        """A tensor around a raw array, sharing its memory."""
        return box(array)

    # -- dtype and device --------------------------------------------------------------------------------------------

    def to(
        self,
        *args: Any,
        device: Any = None,
        dtype: Any = None,
        non_blocking: bool_ = False,
        copy: bool_ = False,
        memory_format: Any = None,
    ) -> Tensor:
        """The tensor with another dtype or on another device; itself if nothing changes and copy is False.

        Args: a dtype, a device or both in any order, or another tensor to take both from.

        Example:
            >>> import paceline as torch
            >>> torch.ones(1).to("cpu", torch.int64)
            tensor([1])
        """
        for argument in args:
            if isinstance(argument, dtypes.dtype):
                dtype = argument
            elif isinstance(argument, Tensor):
                device, dtype = argument.device, argument.dtype
            elif isinstance(argument, str | int_ | devices.device) and not isinstance(argument, bool):
                device = argument
            elif not isinstance(argument, bool) and argument is not None:
                raise TypeError(f"to() expects a dtype, a device or a tensor, got {type(argument).__name__}")
        result = self
        if dtype is not None:
            result = cast.to_dtype(result, dtypes.of(dtype))
        if device is not None:
            result = cast.to_device(result, devices.resolve(device))
        return result.clone() if copy and result is self else result

    def cpu(self) -> Tensor:
        """The tensor on the CPU."""
        return cast.to_device(self, devices.CPU)

    def cuda(self, device: Any = None, non_blocking: bool_ = False) -> Tensor:
        """The tensor on a CUDA device (the current one if none is given)."""
        return cast.to_device(self, devices.resolve("cuda" if device is None else device))

    def type(self, dtype: Any = None) -> Any:
        """The dtype's name, or the tensor converted to a dtype."""
        return repr(self.dtype) if dtype is None else self.to(dtypes.of(getattr(dtype, "dtype", dtype)))

    def type_as(self, other: Tensor) -> Tensor:
        """The tensor with another one's dtype."""
        return self.to(other.dtype)

    def float(self, memory_format: Any = None) -> Tensor:
        """The tensor as float32."""
        return self.to(dtypes.float32)

    def double(self, memory_format: Any = None) -> Tensor:
        """The tensor as float64."""
        return self.to(dtypes.float64)

    def half(self, memory_format: Any = None) -> Tensor:
        """The tensor as float16."""
        return self.to(dtypes.float16)

    def cfloat(self, memory_format: Any = None) -> Tensor:
        """The tensor as complex64."""
        return self.to(dtypes.complex64)

    def cdouble(self, memory_format: Any = None) -> Tensor:
        """The tensor as complex128."""
        return self.to(dtypes.complex128)

    def bfloat16(self, memory_format: Any = None) -> Tensor:
        """The tensor as bfloat16."""
        return self.to(dtypes.bfloat16)

    def int(self, memory_format: Any = None) -> Tensor:
        """The tensor as int32."""
        return self.to(dtypes.int32)

    def long(self, memory_format: Any = None) -> Tensor:
        """The tensor as int64."""
        return self.to(dtypes.int64)

    def short(self, memory_format: Any = None) -> Tensor:
        """The tensor as int16."""
        return self.to(dtypes.int16)

    def char(self, memory_format: Any = None) -> Tensor:
        """The tensor as int8."""
        return self.to(dtypes.int8)

    def byte(self, memory_format: Any = None) -> Tensor:
        """The tensor as uint8."""
        return self.to(dtypes.uint8)

    def bool(self, memory_format: Any = None) -> Tensor:
        """The tensor as bool: whether elements are nonzero."""
        return self.to(dtypes.bool_)

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:
        """A new tensor from data, with this one's dtype and device."""
        return creation.tensor(data, **{"dtype": self.dtype, "device": self.device, **kwargs})

    def new_zeros(self, *size: Any, **kwargs: Any) -> Tensor:
        """Zeros with this tensor's dtype and device."""
        return creation.zeros(*size, **{"dtype": self.dtype, "device": self.device, **kwargs})

    def new_ones(self, *size: Any, **kwargs: Any) -> Tensor:
        """Ones with this tensor's dtype and device."""
        return creation.ones(*size, **{"dtype": self.dtype, "device": self.device, **kwargs})

    def new_empty(self, *size: Any, **kwargs: Any) -> Tensor:
        """Uninitialized memory with this tensor's dtype and device."""
        return creation.empty(*size, **{"dtype": self.dtype, "device": self.device, **kwargs})

    def new_empty_strided(self, size: Any, stride: Any, **kwargs: Any) -> Tensor:
        """Uninitialized memory of given strides with this tensor's dtype and device."""
        return creation.empty_strided(size, stride, **{"dtype": self.dtype, "device": self.device, **kwargs})

    def new_full(self, size: Any, fill_value: Any, **kwargs: Any) -> Tensor:
        """One value with this tensor's dtype and device."""
        return creation.full(size, fill_value, **{"dtype": self.dtype, "device": self.device, **kwargs})

    # -- indexing ----------------------------------------------------------------------------------------------------

    __getitem__ = indexing.getitem

    def __setitem__(self, key: Any, value: Any) -> None:
        check_writable(self)
        if not isinstance(value, Tensor | int | float | complex):
            value = creation.tensor(value, dtype=self.dtype, device=self.device)
        part, arrays = indexing.split_index(self, key)
        if arrays is None:
            assign(part, indexing.without_leading_ones(value) if isinstance(value, Tensor) else value, "setitem")
        else:
            assign(part, indexing.write_at(part, value, arrays), "setitem")

    def __iter__(self) -> Iterator[Tensor]:
        if self.array.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __contains__(self, element: Any) -> bool_:
        return bool((self == element).any())

    # -- arithmetic --------------------------------------------------------------------------------------------------

    __add__ = __radd__ = arithmetic.add
    __mul__ = __rmul__ = arithmetic.mul
    __sub__ = arithmetic.sub
    __truediv__ = arithmetic.true_divide
    __floordiv__ = arithmetic.floor_divide
    __mod__ = arithmetic.remainder
    __pow__ = arithmetic.pow
    __matmul__ = linalg.matmul
    __neg__ = pointwise.neg
    __abs__ = pointwise.abs
    __hash__ = TensorBase.__hash__  # a class that defines __eq__ loses it
    __lt__ = arithmetic.lt
    __le__ = arithmetic.le
    __gt__ = arithmetic.gt
    __ge__ = arithmetic.ge
    __and__ = __rand__ = arithmetic.bitwise_and
    __or__ = __ror__ = arithmetic.bitwise_or
    __xor__ = __rxor__ = arithmetic.bitwise_xor
    __invert__ = arithmetic.bitwise_not
    __pos__ = pointwise.positive
    __lshift__ = arithmetic.bitwise_left_shift
    __rshift__ = arithmetic.bitwise_right_shift

    def __eq__(self, other: Any) -> Any:
        return arithmetic.eq(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    def __ne__(self, other: Any) -> Any:
        return arithmetic.ne(self, other) if isinstance(other, _OPERANDS) else NotImplemented

    __array_priority__ = 1000  # NumPy's operators leave `array + tensor` to the tensor

    def __rsub__(self, other: Any) -> Tensor:
        return arithmetic.sub(other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return arithmetic.true_divide(other, self)

    __rdiv__ = __rtruediv__

    def __rfloordiv__(self, other: Any) -> Tensor:
        return arithmetic.floor_divide(other, self)

    def __rmod__(self, other: Any) -> Tensor:
        return arithmetic.remainder(other, self)

    def __rlshift__(self, other: Any) -> Tensor:
        return arithmetic.bitwise_left_shift(other, self)

    def __rrshift__(self, other: Any) -> Tensor:
        return arithmetic.bitwise_right_shift(other, self)

    def __rpow__(self, other: Any) -> Tensor:
        return arithmetic.pow(other, self)

    add, sub, div = arithmetic.add_scaled, arithmetic.sub_scaled, arithmetic.div
    mul, pow, remainder, fmod = arithmetic.mul, arithmetic.pow, arithmetic.remainder, arithmetic.fmod
    floor_divide, true_divide = arithmetic.floor_divide, arithmetic.true_divide
    subtract, multiply, divide = sub, mul, div
    maximum, minimum, atan2 = arithmetic.maximum, arithmetic.minimum, arithmetic.atan2
    eq, ne, lt, le, gt, ge = (
        arithmetic.eq, arithmetic.ne, arithmetic.lt, arithmetic.le, arithmetic.gt, arithmetic.ge)  # fmt: skip
    logical_and, logical_or = arithmetic.logical_and, arithmetic.logical_or
    logical_xor, logical_not = arithmetic.logical_xor, arithmetic.logical_not
    bitwise_and, bitwise_or = arithmetic.bitwise_and, arithmetic.bitwise_or
    bitwise_xor, bitwise_not = arithmetic.bitwise_xor, arithmetic.bitwise_not
    bitwise_left_shift, bitwise_right_shift = arithmetic.bitwise_left_shift, arithmetic.bitwise_right_shift
    greater, greater_equal, less, less_equal, not_equal, arctan2 = gt, ge, lt, le, ne, atan2
    lerp, addcmul, addcdiv = pointwise.lerp, pointwise.addcmul, pointwise.addcdiv
    logaddexp, logaddexp2, hypot, fmax, fmin = (
        binary.logaddexp, binary.logaddexp2, binary.hypot, binary.fmax, binary.fmin)  # fmt: skip
    heaviside, copysign, nextafter, gcd, lcm = (
        binary.heaviside, binary.copysign, binary.nextafter, binary.gcd, binary.lcm)  # fmt: skip
    ldexp, frexp, float_power, xlogy = binary.ldexp, binary.frexp, binary.float_power, special.xlogy
    clamp_min, clamp_max = binary.clamp_min, binary.clamp_max

    def where(self, condition: Tensor, other: Any) -> Tensor:
        """This tensor where the condition holds, other elsewhere."""
        return arithmetic.where(condition, self, other)

    # -- functions of one tensor -------------------------------------------------------------------------------------

    neg, abs, sign, square, reciprocal, positive = (
        pointwise.neg, pointwise.abs, pointwise.sign, pointwise.square, pointwise.reciprocal,
        pointwise.positive)  # fmt: skip
    negative, absolute = neg, abs
    exp, exp2, expm1 = pointwise.exp, pointwise.exp2, pointwise.expm1
    log, log2, log10, log1p = pointwise.log, pointwise.log2, pointwise.log10, pointwise.log1p
    sqrt, rsqrt = pointwise.sqrt, pointwise.rsqrt
    sin, cos, tan = pointwise.sin, pointwise.cos, pointwise.tan
    asin, acos, atan = pointwise.asin, pointwise.acos, pointwise.atan
    sinh, cosh, tanh = pointwise.sinh, pointwise.cosh, pointwise.tanh
    asinh, acosh, atanh = pointwise.asinh, pointwise.acosh, pointwise.atanh
    erf, erfc, sigmoid, relu = pointwise.erf, pointwise.erfc, pointwise.sigmoid, activation.relu
    floor, ceil, round, trunc, frac = (
        rounding.floor, rounding.ceil, rounding.round, rounding.trunc, rounding.frac)  # fmt: skip
    clamp = clip = pointwise.clamp_between
    isnan, isinf, isfinite, nan_to_num = (
        rounding.isnan, rounding.isinf, rounding.isfinite, rounding.nan_to_num)  # fmt: skip
    isposinf, isneginf, signbit, fix = rounding.isposinf, rounding.isneginf, rounding.signbit, trunc
    arcsin, arccos, arctan, arcsinh, arccosh, arctanh = asin, acos, atan, asinh, acosh, atanh
    deg2rad, rad2deg, sinc, i0 = pointwise.deg2rad, pointwise.rad2deg, bessel.sinc, bessel.modified_bessel_i0
    lgamma, digamma, mvlgamma, erfinv, logit = (
        special.lgamma, special.digamma, special.mvlgamma, special.erfinv, special.logit)  # fmt: skip
    igamma, igammac, polygamma = special.igamma, special.igammac, special.polygamma_of_order
    softmax, log_softmax = softmax_family.softmax_as, softmax_family.log_softmax_as

    # -- complex numbers ---------------------------------------------------------------------------------------------

    real, imag = property(complex_family.real), property(complex_family.imag)
    conj, conj_physical, angle, sgn = (
        pointwise.conj, complex_family.conj_physical, complex_family.angle, complex_family.sgn)  # fmt: skip
    resolve_conj, resolve_neg = complex_family.resolve_conj, complex_family.resolve_neg
    is_conj, is_neg, isreal = complex_family.is_conj, complex_family.is_neg, complex_family.isreal

    # -- reductions --------------------------------------------------------------------------------------------------

    sum, mean, prod = reduction.sum_as, reduction.mean_as, reduction.prod_as
    nansum, nanmean, count_nonzero, aminmax = (
        reduction.nansum, reduction.nanmean, reduction.count_nonzero, reduction.aminmax)  # fmt: skip
    var, std, norm, cov, corrcoef = statistics.var, statistics.std, distances.norm, statistics.cov, statistics.corrcoef
    quantile, nanquantile, bincount = statistics.quantile, statistics.nanquantile, statistics.bincount
    histc, histogram, dist, renorm = statistics.histc, statistics.histogram, distances.dist, distances.renorm
    amax, amin, argmax, argmin = reduction.amax, reduction.amin, reduction.argmax, reduction.argmin
    max, min, median = ordering.max, ordering.min, ordering.median
    all, any, logsumexp, cumsum = reduction.all, reduction.any, reduction.logsumexp, cumulative.cumsum_as
    cumprod, cummax, cummin = cumulative.cumprod_as, cumulative.cummax, cumulative.cummin
    logcumsumexp, diff = cumulative.logcumsumexp, cumulative.diff

    # -- shape -------------------------------------------------------------------------------------------------------

    reshape, view, flatten, unflatten = shaping.reshape_sizes, shaping.view, shaping.flatten, shaping.unflatten
    transpose, permute, t, movedim = shaping.transpose, shaping.permute_dims, shaping.t, shaping.movedim
    swapaxes = swapdims = transpose
    expand, expand_as, repeat, tile = shaping.expand_sizes, shaping.expand_as, shaping.repeat, shaping.tile_sizes
    broadcast_to, sum_to_size = shaping.broadcast_to, shaping.sum_to_sizes
    squeeze, unsqueeze = shaping.squeeze, shaping.unsqueeze
    split, chunk, unbind = shaping.split, shaping.chunk, shaping.unbind
    narrow, select, flip, roll = shaping.narrow, shaping.select, turning.flip_dims, shaping.roll_dims
    contiguous, clone = shaping.contiguous, shaping.clone
    tril, triu, diagonal, diag = triangles.tril, triangles.triu, shaping.diagonal, diagonals.diag
    diag_embed, diagflat = diagonals.diag_embed, diagonals.diagflat
    fliplr, flipud, rot90, adjoint = turning.fliplr, turning.flipud, turning.rot90, turning.adjoint
    T, mT = property(shaping.reverse_dims), property(shaping.matrix_transpose)
    H, mH = property(turning.hermitian), property(turning.adjoint)
    ravel, moveaxis, repeat_interleave = shaping.ravel, movedim, joining.repeat_interleave
    tensor_split, hsplit, vsplit, dsplit = joining.tensor_split, joining.hsplit, joining.vsplit, joining.dsplit
    unsafe_split, unsafe_chunk, split_with_sizes = split, chunk, split

    def view_as(self, other: Tensor) -> Tensor:
        """The same memory in another tensor's shape."""
        return self.view(other.array.shape)

    def reshape_as(self, other: Tensor) -> Tensor:
        """The same elements in another tensor's shape."""
        return self.reshape(other.array.shape)

    # -- indexing by tensors -----------------------------------------------------------------------------------------

    gather, scatter, scatter_add = indexing.gather, scattering.scatter, scattering.scatter_add
    scatter_reduce, index_reduce = scattering.scatter_reduce, scattering.index_reduce
    index_select, index_add = indexing.index_select, scattering.index_add
    index_copy, index_fill = scattering.index_copy, scattering.index_fill
    take, take_along_dim, put = indexing.take, indexing.take_along_dim, scattering.put
    masked_scatter, select_scatter = scattering.masked_scatter, scattering.select_scatter
    slice_scatter, diagonal_scatter = scattering.slice_scatter, scattering.diagonal_scatter
    narrow_copy = copies.narrow_copy
    as_strided, as_strided_scatter, unfold = strided.as_strided, strided.as_strided_scatter, strided.unfold
    masked_select, masked_fill = indexing.masked_select, indexing.masked_fill
    nonzero, argwhere = indexing.nonzero, indexing.argwhere
    equal, isclose, allclose = inspection.equal, inspection.isclose, inspection.allclose
    sort, argsort, msort, topk = ordering.sort_by, ordering.argsort, ordering.msort, ordering.topk
    kthvalue, nanmedian, mode = ordering.kthvalue, ordering.nanmedian, ordering.mode
    unique, unique_consecutive, isin = ordering.unique, ordering.unique_consecutive, ordering.isin

    index_put = indexing.index_put_at

    # -- products ----------------------------------------------------------------------------------------------------

    matmul, mm, bmm, mv, dot = linalg.matmul, linalg.mm, linalg.bmm, linalg.mv, linalg.dot
    outer, addmm, addmv, addr = linalg.outer, linalg.addmm, products.addmv, products.addr
    ger, addbmm, baddbmm = outer, products.addbmm, products.baddbmm
    trace, inner, kron, vdot, cross = products.trace, products.inner, products.kron, products.vdot, products.cross

    def __rmatmul__(self, other: Any) -> Tensor:
        return linalg.matmul(other, self)

    # -- matrices ----------------------------------------------------------------------------------------------------

    cholesky, qr, lu, geqrf, ormqr = (
        decompositions.cholesky_of, decompositions.qr_reduced, decompositions.lu_compact, decompositions.geqrf,
        matrix_functions.ormqr)  # fmt: skip
    svd, pinverse, inverse = spectra.svd_with_v, least_squares.pinverse, solving.inv
    det, logdet, slogdet = determinants.det, determinants.logdet, determinants.slogdet
    cholesky_solve, cholesky_inverse = solving.cholesky_solve, solving.cholesky_inverse
    triangular_solve, lu_solve = solving.triangular_solve, solving.lu_solve_from
    matrix_power, matrix_exp = matrix_functions.matrix_power, matrix_functions.matrix_exp
    stft, istft = stft_family.stft, stft_family.istft

    # -- in place ----------------------------------------------------------------------------------------------------

    add_, sub_ = inplace(add, "add_"), inplace(sub, "sub_")
    mul_, div_, true_divide_ = (inplace(f) for f in (mul, div, true_divide))
    subtract_, multiply_, divide_ = sub_, mul_, div_
    __iadd__, __isub__, __imul__, __itruediv__ = add_, sub_, mul_, div_
    pow_, remainder_, floor_divide_, lerp_ = (inplace(f) for f in (pow, remainder, floor_divide, lerp))
    fmod_, float_power_, ldexp_, xlogy_ = (inplace(f) for f in (fmod, float_power, ldexp, xlogy))
    atan2_, hypot_, copysign_, nextafter_ = (inplace(f) for f in (atan2, hypot, copysign, nextafter))
    heaviside_, gcd_, lcm_, igamma_, igammac_ = (inplace(f) for f in (heaviside, gcd, lcm, igamma, igammac))
    clamp_min_, clamp_max_ = inplace(clamp_min), inplace(clamp_max)
    arctan2_ = atan2_
    __ipow__, __imod__, __ifloordiv__ = pow_, remainder_, floor_divide_
    bitwise_and_, bitwise_or_, bitwise_xor_ = (inplace(f) for f in (bitwise_and, bitwise_or, bitwise_xor))
    __iand__, __ior__, __ixor__ = bitwise_and_, bitwise_or_, bitwise_xor_
    bitwise_left_shift_, bitwise_right_shift_ = inplace(bitwise_left_shift), inplace(bitwise_right_shift)
    __ilshift__, __irshift__ = bitwise_left_shift_, bitwise_right_shift_
    bitwise_not_, logical_not_ = inplace(bitwise_not), inplace(logical_not)
    logical_and_, logical_or_, logical_xor_ = (inplace(f) for f in (logical_and, logical_or, logical_xor))
    eq_, ne_, lt_, le_, gt_, ge_ = (inplace(f) for f in (eq, ne, lt, le, gt, ge))
    not_equal_, less_, less_equal_, greater_, greater_equal_ = ne_, lt_, le_, gt_, ge_
    addcmul_, addcdiv_ = inplace(addcmul), inplace(addcdiv)
    neg_, abs_, sign_, square_, reciprocal_ = (inplace(f) for f in (neg, abs, sign, square, reciprocal))
    negative_, absolute_ = neg_, abs_
    exp_, exp2_, expm1_, sqrt_, rsqrt_ = (inplace(f) for f in (exp, exp2, expm1, sqrt, rsqrt))
    log_, log2_, log10_, log1p_ = (inplace(f) for f in (log, log2, log10, log1p))
    sin_, cos_, tan_, sinh_, cosh_ = (inplace(f) for f in (sin, cos, tan, sinh, cosh))
    asin_, acos_, atan_, asinh_, acosh_, atanh_ = (inplace(f) for f in (asin, acos, atan, asinh, acosh, atanh))
    arcsin_, arccos_, arctan_, arcsinh_, arccosh_, arctanh_ = asin_, acos_, atan_, asinh_, acosh_, atanh_
    tanh_, sigmoid_, relu_ = (inplace(f) for f in (tanh, sigmoid, relu))
    floor_, ceil_, round_, trunc_, frac_ = (inplace(f) for f in (floor, ceil, round, trunc, frac))
    fix_ = trunc_
    erf_, erfc_, erfinv_, logit_, sinc_ = (inplace(f) for f in (erf, erfc, erfinv, logit, sinc))
    lgamma_, digamma_, mvlgamma_ = inplace(lgamma), inplace(digamma), inplace(mvlgamma)
    i0_, polygamma_ = inplace(i0, "i0_"), inplace(polygamma, "polygamma_")
    deg2rad_, rad2deg_, sgn_, conj_physical_ = (inplace(f) for f in (deg2rad, rad2deg, sgn, conj_physical))
    cumsum_, cumprod_ = inplace(cumsum), inplace(cumprod)
    clamp_ = clip_ = inplace(clamp, "clamp_")
    nan_to_num_, tril_, triu_ = (inplace(f) for f in (nan_to_num, tril, triu))
    masked_fill_, scatter_, scatter_add_ = (inplace(f) for f in (masked_fill, scatter, scatter_add))
    index_add_, index_put_ = inplace(index_add), inplace(index_put, "index_put_")
    index_copy_, index_fill_, index_reduce_ = inplace(index_copy), inplace(index_fill), inplace(index_reduce)
    scatter_reduce_, masked_scatter_, put_ = inplace(scatter_reduce), inplace(masked_scatter), inplace(put)
    renorm_ = inplace(renorm)
    addmm_, addbmm_, baddbmm_, addmv_, addr_ = (inplace(f) for f in (addmm, addbmm, baddbmm, addmv, addr))

    squeeze_, unsqueeze_, transpose_, t_ = (inplace_view(f) for f in (squeeze, unsqueeze, transpose, t))
    swapaxes_, swapdims_, as_strided_ = transpose_, transpose_, inplace_view(as_strided)

    def copy_(self, src: Tensor, non_blocking: bool_ = False) -> Tensor:
        """Write another tensor's elements into this one, converted and broadcast."""
        return assign(self, src.to(device=self.device), "copy_")

    def fill_(self, value: Any) -> Tensor:
        """Write one value into all elements."""
        if isinstance(value, Tensor) or self.requires_grad:
            return _fill(self, value)
        return assign(self, value, "fill_")

    def zero_(self) -> Tensor:
        """Write 0 into all elements."""
        return self.fill_(0)

    def fill_diagonal_(self, fill_value: Any, wrap: bool_ = False) -> Tensor:
        """Write one value on the diagonal; wrap=True starts a new diagonal below the end of a tall matrix."""
        rows, columns = self.array.shape[0], self.array.shape[-1]
        if self.array.ndim < 2 or (self.array.ndim > 2 and len(set(self.array.shape)) > 1):
            raise RuntimeError(
                f"fill_diagonal_: expected a matrix, or more dimensions of equal size, got {list(self.array.shape)}"
            )
        size = -(-rows * columns // (columns + 1)) if wrap and self.array.ndim == 2 else min(rows, columns)
        self.as_strided((size,), (sum_(self.stride()),)).fill_(fill_value)
        return self

    def apply_(self, callable: Any) -> Tensor:
        """Replace each element by what a Python function makes of it (slow; host tensors only)."""
        if self.is_cuda:
            raise TypeError("apply_ is only implemented on CPU tensors")
        values = numpy.array([callable(x) for x in self.array.ravel().tolist()], self.array.dtype)
        return assign(self, box(values.reshape(self.array.shape)), "apply_")

    uniform_, normal_, bernoulli_, random_ = (
        samplers.uniform_, samplers.normal_, samplers.bernoulli_, samplers.random_)  # fmt: skip
    exponential_, cauchy_, log_normal_, geometric_ = (
        samplers.exponential_, samplers.cauchy_, samplers.log_normal_, samplers.geometric_)  # fmt: skip
    bernoulli, multinomial = random.bernoulli, random.multinomial

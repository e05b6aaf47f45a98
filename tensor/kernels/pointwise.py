"""Elementwise functions and their gradients, for one element each; see elementwise for the loops.

A gradient takes that of the output, then the input or the output as its rule does, then the attributes. A literal 1
would be an int64, and an int64 with a float32 a float64, so constants are written `like(1, x)`.
"""

import math

from numba.extending import overload, register_jitable
from numba.np.numpy_support import as_dtype

from .approximations import erf, exp, exp_falling, expm1, log, log1p, normal, sigmoid, tanh

__all__ = ["erf", "exp", "expm1", "log", "log1p", "sigmoid", "tanh"]

element = register_jitable(forceinline=True)

_GELU = math.sqrt(2 / math.pi)


def like(value, x):
    """The number in the dtype of x."""
    return type(x)(value)


@overload(like, jit_options={"forceinline": True})
def _like(value, x):
    real = as_dtype(x).type
    return lambda value, x: real(value)


@element
def exp_backward(g, out):
    return g * out


@element
def expm1_backward(g, out):
    return g * (out + like(1, out))


@element
def log_backward(g, x):
    return g / x


@element
def log1p_backward(g, x):
    return g / (x + like(1, x))


@element
def sqrt(x):
    return math.sqrt(x)


@element
def sqrt_backward(g, out):
    return g / (out + out)


@element
def rsqrt(x):
    return like(1, x) / math.sqrt(x)


@element
def rsqrt_backward(g, out):
    return g * (out * out * out * like(-0.5, out))


@element
def square(x):
    return x * x


@element
def square_backward(g, x):
    return g * (x + x)


@element
def cube(x):
    return x * x * x


@element
def cube_backward(g, x):
    return g * (like(3, x) * (x * x))


@element
def root_backward(g, x):
    """As sqrt_backward, from the input."""
    return g * (like(0.5, x) / math.sqrt(x))


@element
def reciprocal(x):
    return like(1, x) / x


@element
def reciprocal_backward(g, out):
    return -g * (out * out)


@element
def absolute(x):
    return abs(x)


@element
def absolute_backward(g, x):
    """0 at 0 and at nan."""
    return g if x > 0 else -g if x < 0 else g * like(0, g)


@element
def tanh_backward(g, out):
    return g * (like(1, out) - out * out)


@element
def sigmoid_backward(g, out):
    return g * (out * (like(1, out) - out))


@element
def erf_backward(g, x):
    return g * (exp_falling(-x * x) * like(2 / math.sqrt(math.pi), x))


@element
def softplus(x, beta, threshold):
    scaled = x * beta
    positive = scaled if scaled > 0 else like(0, x)
    return x if scaled > threshold else (positive + log1p(exp_falling(-abs(scaled)))) / beta


@element
def softplus_backward(g, x, beta, threshold):
    scaled = x * beta
    return g if scaled > threshold else g * sigmoid(scaled)


@element
def logsigmoid(x):
    return (x if x < 0 else like(0, x)) - log1p(exp_falling(-abs(x)))


@element
def logsigmoid_backward(g, x):
    return g * sigmoid(-x)


@element
def logistic_cross_entropy(x, target):
    return (like(1, x) - target) * x - logsigmoid(x)


@element
def logistic_cross_entropy_backward(g, x, target):
    return g * (sigmoid(x) - target)


@element
def huber(x, target, delta):
    size = abs(x - target)
    bounded = size if size < delta else delta  # of NaN: the other factor is NaN
    return bounded * (size - bounded * like(0.5, x))


@element
def huber_backward(g, x, target, delta):
    return g * clamp(x - target, -delta, delta)


@element
def glu(a, b):
    return a * sigmoid(b)


@element
def relu(x):
    return like(0, x) if x <= 0 else x


@element
def relu_backward(g, out):
    return g if out > 0 else g * like(0, g)


@element
def leaky_relu(x, slope):
    return x if x > 0 else x * slope


@element
def leaky_relu_backward(g, x, slope):
    return g if x > 0 else g * slope


@element
def elu(x, alpha, scale):
    return (x if x > 0 else expm1(x) * alpha) * scale


@element
def elu_backward(g, x, alpha, scale):
    return g * scale if x > 0 else g * (scale * alpha * exp(x))


@element
def gelu(x):
    return x * normal(x)[0]


@element
def gelu_backward(g, x):
    distribution, density = normal(x)
    return g * (distribution + x * density)


@element
def gelu_tanh(x):
    """0.5 * (1 + tanh(u)) is sigmoid(2u)."""
    return x * sigmoid(x * (x * x * like(2 * _GELU * 0.044715, x) + like(2 * _GELU, x)))


@element
def gelu_tanh_backward(g, x):
    square = x * x
    s = sigmoid(x * (square * like(2 * _GELU * 0.044715, x) + like(2 * _GELU, x)))
    return g * (s + x * (s * (like(1, x) - s)) * (square * like(6 * _GELU * 0.044715, x) + like(2 * _GELU, x)))


@element
def silu(x):
    return x * sigmoid(x)


@element
def silu_backward(g, x):
    s = sigmoid(x)
    return g * (s * (like(1, x) + x * (like(1, x) - s)))


@element
def mish(x):
    return x * _tanh_of_softplus(x)


@element
def mish_backward(g, x):
    t = _tanh_of_softplus(x)
    return g * (t + x * (like(1, x) - t * t) * sigmoid(x))


@element
def _tanh_of_softplus(x):
    """tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2), where e = exp(x); 1 for large x, where e * e may overflow."""
    e = exp(like(30, x) if x > 30 else x)
    n = e * (e + like(2, x))
    return n / (n + like(2, x))


@element
def clamp(x, least, most):
    x = least if x < least else x  # of NaN: NaN
    return most if x > most else x


hardtanh = clamp


@element
def clamp_backward(g, x, least, most):
    return g if (least <= x) & (x <= most) else like(0, g)


@element
def hardtanh_backward(g, x, least, most):
    return g if (least < x) & (x < most) else like(0, g)


@element
def hardsigmoid(x):
    return clamp(x + like(3, x), like(0, x), like(6, x)) / like(6, x)


@element
def hardsigmoid_backward(g, x):
    return g / like(6, x) if abs(x) < 3 else like(0, g)


@element
def hardswish(x):
    return x * hardsigmoid(x)


@element
def hardswish_backward(g, x):
    inside = g * (x / like(3, x) + like(0.5, x))
    return like(0, g) if x <= -3 else inside if x < 3 else g


@element
def negative(x):
    return -x


@element
def add(x, y):
    return x + y


@element
def subtract(x, y):
    return x - y


@element
def subtract_from(x, y):
    return y - x


@element
def multiply(x, y):
    return x * y


@element
def divide(x, y):
    return x / y


@element
def divide_into(x, y):
    return y / x


@element
def where(condition, x, y):
    return x if condition else y


@element
def where_or_number(condition, x, number):
    return x if condition else number


@element
def number_or_where(condition, y, number):
    return number if condition else y


@element
def equal(x, y):
    return x == y


@element
def not_equal(x, y):
    return x != y


@element
def less(x, y):
    return x < y


@element
def less_equal(x, y):
    return x <= y


@element
def greater(x, y):
    return x > y


@element
def greater_equal(x, y):
    return x >= y


@element
def logical_and(x, y):
    return (x != 0) & (y != 0)


@element
def logical_or(x, y):
    return (x != 0) | (y != 0)


@element
def logical_xor(x, y):
    return (x != 0) ^ (y != 0)


@element
def logical_not(x):
    return x == 0


@element
def cast(x):
    """The loop stores it in the dtype of its results."""
    return x


@element
def squared_difference_backward(x, y, factor):
    return (x - y) * factor


@element
def larger_share(g, x, y):
    """The part of the gradient of the larger of two that goes to x."""
    return g if x > y else g * like(0.5, g) if x == y else like(0, g)


@element
def maximum(x, y):
    return y if y > x or y != y else x


@element
def minimum(x, y):
    return y if y < x or y != y else x

"""The ways to compute convolutions by compiled kernels, each against the portable body, whatever would be chosen."""

import numpy as np
import pytest

from paceline.tensor import kernels
from paceline.tensor.ops import convolution as ops

pytestmark = pytest.mark.skipif(not kernels.usable(), reason="needs Numba")

# image, weight, stride, padding, dilation, groups
MANY_CHANNELS = [
    ((3, 5, 6, 7), (4, 5, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 6, 9, 8), (70, 3, 3, 2), (2, 3), (1, 0), (1, 2), 2),
    ((5, 34, 4, 4), (33, 34, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 40, 21, 20), (16, 40, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((2, 8, 9, 9), (6, 8, 1, 1), (2, 2), (0, 0), (1, 1), 1),  # most of the input is in no window
    ((2, 3, 8, 8), (48, 3, 4, 4), (4, 4), (0, 0), (1, 1), 1),
    ((4, 6, 4, 4), (35, 6, 4, 4), (1, 1), (0, 0), (1, 1), 1),  # one window, the image
    ((2, 3, 5, 5), (4, 3, 2, 2), (1, 1), (3, 3), (1, 1), 1),  # windows in the padding only
    ((2, 4, 7, 6), (5, 4, 2, 3), (3, 2), (1, 2), (2, 1), 1),
    ((8, 9, 1, 1), (7, 9, 2, 2), (2, 2), (1, 1), (1, 1), 1),  # places in the window that are in the padding only
    ((2, 9, 3, 1), (7, 9, 3, 5), (2, 3), (2, 3), (2, 1), 1),  # with elements of 8 bytes, places a vector apart
    ((2, 5, 90), (7, 5, 20), (3,), (4,), (2,), 1),
    ((2, 4, 5, 6, 4), (8, 2, 2, 3, 3), (1, 2, 1), (1, 0, 1), (1, 1, 1), 2),
]


DEPTHWISE = [
    ((3, 16, 7, 5), (16, 1, 3, 3), (1, 1), (1, 1), (1, 1), 16),
    ((2, 37, 4, 6), (37, 1, 3, 2), (2, 1), (1, 1), (1, 1), 37),
    ((2, 20, 9, 9), (20, 1, 2, 2), (3, 3), (0, 0), (1, 1), 20),  # most of the input is in no window
    ((1, 16, 9, 40), (16, 1, 5, 7), (2, 3), (4, 0), (1, 2), 16),
    ((2, 18, 3, 3), (18, 1, 2, 2), (1, 1), (3, 3), (1, 1), 18),  # windows in the padding only
    ((1, 16, 61, 130), (16, 1, 3, 3), (1, 1), (1, 1), (1, 1), 16),  # bands
    ((1, 16, 62, 130), (16, 1, 3, 3), (2, 2), (1, 1), (1, 1), 16),
    ((2, 33, 50), (33, 1, 9), (1,), (4,), (1,), 33),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("way", "case"),
    [("deep_convolution", case) for case in MANY_CHANNELS] + [("depthwise", case) for case in DEPTHWISE],
    ids=str,
)
def test_ways(way, case, dtype):
    shape, weight_shape, *geometry = case
    way = getattr(kernels.sources, way)
    random = np.random.default_rng(0)
    image, weight = (random.standard_normal(size).astype(dtype) for size in (shape, weight_shape))
    bias = random.standard_normal(weight_shape[0]).astype(dtype)
    expected = ops.convolution.declaration.body(np, image, weight, bias, *geometry)
    gradient = random.standard_normal(expected.shape).astype(dtype)
    out, to_image = np.full_like(expected, np.nan), np.full_like(image, np.nan)
    way.forward(image, weight, bias, out, *geometry)
    close(out, expected)
    way.input_gradient(gradient, weight, to_image, *geometry)
    close(to_image, ops.convolution_input.declaration.body(np, gradient, weight, shape, *geometry))
    to_weight = way.weight_gradient(gradient, image, weight_shape, *geometry)
    close(to_weight, ops.convolution_weight.declaration.body(np, gradient, image, weight_shape, *geometry))


def close(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    allowed = 100 * np.finfo(expected.dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed)

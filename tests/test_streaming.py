"""Copies past the caches, against NumPy's: any length, wherever the arrays begin."""

import numpy as np
import pytest

from paceline.runtime.comm.window import SUPPORTED
from paceline.tensor import kernels

pytestmark = [
    pytest.mark.skipif(not SUPPORTED, reason="these instructions are x86's"),
    pytest.mark.skipif(not kernels.usable(), reason="Numba does not load"),
]


@pytest.mark.parametrize("start", [0, 1, 16, 63])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 127, 128, 1000, 100003])
def test_copies(size, start):
    source = np.random.default_rng(size).integers(1, 256, size + 9, np.uint8)
    target = np.zeros(size + 200, np.uint8)
    start += -target.ctypes.data % 64
    kernels.sources.streaming.copy(target[start : start + size], source[5 : 5 + size])
    np.testing.assert_array_equal(target[start : start + size], source[5 : 5 + size])
    assert not target[:start].any()
    assert not target[start + size :].any()

"""Functions of nn that PyTorch has at its top level, too, called as one would call them there."""

import numpy as np
import pytest
import torch

import paceline


def t(library, *shape):
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    return library.tensor(values.astype(np.float32))


CALLS = {
    "adaptive_avg_pool1d": lambda T: T.adaptive_avg_pool1d(t(T, 2, 3, 8), 4),
    "avg_pool1d": lambda T: T.avg_pool1d(t(T, 2, 3, 8), 2),
    "bilinear": lambda T: T.bilinear(t(T, 4, 3), t(T, 4, 5), t(T, 2, 3, 5), t(T, 2)),
    "celu": lambda T: T.celu(t(T, 5), 0.7),
    "channel_shuffle": lambda T: T.channel_shuffle(t(T, 1, 4, 2, 2), 2),
    "conv1d": lambda T: T.conv1d(t(T, 1, 2, 9), t(T, 3, 2, 3), None, 2, 1),
    "conv2d": lambda T: T.conv2d(t(T, 1, 2, 9, 9), t(T, 3, 2, 3, 3), t(T, 3), stride=2),
    "conv3d": lambda T: T.conv3d(t(T, 1, 2, 5, 5, 5), t(T, 3, 2, 3, 3, 3)),
    "conv_transpose1d": lambda T: T.conv_transpose1d(t(T, 1, 3, 9), t(T, 3, 2, 3), None, 2),
    "conv_transpose2d": lambda T: T.conv_transpose2d(t(T, 1, 3, 5, 5), t(T, 3, 2, 3, 3)),
    "conv_transpose3d": lambda T: T.conv_transpose3d(t(T, 1, 3, 5, 5, 5), t(T, 3, 2, 3, 3, 3)),
    "cosine_similarity": lambda T: T.cosine_similarity(t(T, 4, 5), t(T, 4, 5) * 2 + 1, dim=0),
    "dropout": lambda T: T.dropout(t(T, 5), 0.5, False),
    "group_norm": lambda T: T.group_norm(t(T, 2, 4, 3), 2, t(T, 4), t(T, 4), 1e-3),
    "hardshrink": lambda T: T.hardshrink(t(T, 9), 0.3),
    "layer_norm": lambda T: T.layer_norm(t(T, 2, 4), [4], t(T, 4), t(T, 4)),
    "max_pool1d": lambda T: T.max_pool1d(t(T, 2, 3, 8), 2),
    "max_pool2d": lambda T: T.max_pool2d(t(T, 2, 3, 8, 8), 3, 2, 1),
    "max_pool3d": lambda T: T.max_pool3d(t(T, 2, 3, 8, 8, 8), 2),
    "pairwise_distance": lambda T: T.pairwise_distance(t(T, 4, 5), t(T, 5), 2, 1e-6, True),
    "pdist": lambda T: T.pdist(t(T, 4, 5), 1),
    "pixel_shuffle": lambda T: T.pixel_shuffle(t(T, 1, 8, 2, 2), 2),
    "pixel_unshuffle": lambda T: T.pixel_unshuffle(t(T, 1, 2, 4, 4), 2),
    "prelu": lambda T: T.prelu(t(T, 2, 3), t(T, 3)),
    "rms_norm": lambda T: T.rms_norm(t(T, 2, 4), [4], t(T, 4), 1e-5),
    "selu": lambda T: T.selu(t(T, 4)),
    "threshold": lambda T: T.threshold(t(T, 9), 0.1, 20.0),
}


@pytest.mark.parametrize("name", CALLS)
def test_equals_pytorch(name):
    np.testing.assert_allclose(CALLS[name](paceline).numpy(), CALLS[name](torch).numpy(), 1e-4, 1e-5)

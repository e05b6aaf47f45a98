"""The CTC loss against PyTorch where its test data do not go: packed targets, empty and impossible sequences."""

import itertools

import numpy as np
import pytest
import torch

import paceline

PADDED = [[1, 2, 2, 3], [3, 3, 0, 0], [0, 0, 0, 0], [2, 2, 2, 2]]  # labels beyond the lengths do not count
SIZES = [4, 2, 0, 4]


def losses(module, targets, input_lengths, target_lengths, **options):
    x = module.tensor(np.random.default_rng(0).standard_normal((8, 4, 5)), requires_grad=True)
    loss = module.nn.CTCLoss(**options)(x.log_softmax(2), module.tensor(targets), input_lengths, target_lengths)
    (gradient,) = module.autograd.grad(loss.sum(), x)
    return loss.detach().numpy(), gradient.numpy()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("blank", [0, 4])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_same_as_pytorch(packed, blank, zero_infinity, reduction):
    """The last sequence is too short for its four equal labels."""
    targets = [label for row, size in zip(PADDED, SIZES, strict=True) for label in row[:size]] if packed else PADDED
    options = {"blank": blank, "zero_infinity": zero_infinity, "reduction": reduction}
    for lengths in ([8, 5, 3, 6], [8, 5, 0, 7]):
        pair = [losses(module, targets, lengths, SIZES, **options) for module in (paceline, torch)]
        for ours, theirs in zip(*pair, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_one_sequence():
    results = []
    for module in (paceline, torch):
        x = module.tensor(np.random.default_rng(0).standard_normal((6, 5))).log_softmax(1)
        size = module.tensor(6), module.tensor(3)
        results.append(module.nn.functional.ctc_loss(x, module.tensor([1, 2, 2]), *size, reduction="none"))
    assert tuple(results[0].shape) == tuple(results[1].shape) == ()
    np.testing.assert_allclose(results[0].numpy(), results[1].numpy(), rtol=1e-12)


def test_sum_over_all_alignments():
    p = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        merged = [c for c, _ in itertools.groupby(path) if c != 0]
        total += np.prod(p[range(4), path]) if merged == [1, 2] else 0
    loss = paceline.nn.functional.ctc_loss(paceline.tensor(p).log(), paceline.tensor([1, 2]), [4], [2], reduction="sum")
    np.testing.assert_allclose(loss.item(), -np.log(total), rtol=1e-12)


def test_second_derivative():
    targets = paceline.tensor([[1, 2], [2, 2]])

    def loss(x):
        return paceline.nn.functional.ctc_loss(x.log_softmax(2), targets, [4, 4], [2, 1])

    x = paceline.tensor(np.random.default_rng(0).standard_normal((4, 2, 3)), requires_grad=True)
    assert paceline.autograd.gradcheck(loss, (x,)) and paceline.autograd.gradgradcheck(loss, (x,))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([[1]], [3], [1], 7), RuntimeError, "blank must be in label range"),
        (([[1]], [4], [1]), RuntimeError, "Expected input_lengths to have values from 0 to 3, but got value 4"),
        (([[1]], [3, 3], [1]), RuntimeError, "input_lengths must be of size batch_size"),
        (([[1]], [3], [2]), RuntimeError, "Expected target_lengths"),
        (([[9]], [3], [1]), IndexError, "target 9 is out of bounds: there are 2 classes"),
        (([1, 1], [3], [1]), RuntimeError, "the sum of target_lengths, got 2"),
    ],
)
def test_bad_input(arguments, error, words):
    targets, *rest = arguments
    with pytest.raises(error, match=words):
        paceline.nn.functional.ctc_loss(paceline.zeros(3, 1, 2), paceline.tensor(targets), *rest)

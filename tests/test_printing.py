"""How tensors print. tests/parity/test_printing.py compares many more with PyTorch's own text."""

import numpy as np
import pytest

import paceline as torch

TEXTS = {
    "tensor([7., 9.])": lambda: torch.tensor([7, 9.0]),
    "tensor(3)": lambda: torch.tensor(3),
    "tensor(2.5000)": lambda: torch.tensor(2.5),
    "tensor(True)": lambda: torch.tensor(True),
    "tensor([])": lambda: torch.tensor([]),
    "tensor([], size=(0, 3))": lambda: torch.zeros(0, 3),
    "tensor([], dtype=paceline.int64)": lambda: torch.zeros(0, dtype=torch.int64),
    "tensor([1, 2], dtype=paceline.int32)": lambda: torch.tensor([1, 2]).int(),
    "tensor([0.1250, 1.0000], dtype=paceline.float64)": lambda: torch.tensor([0.125, 1.0]).double(),
    "tensor([1., nan, inf])": lambda: torch.tensor([1.0, float("nan"), float("inf")]),
    "tensor([-1.5000,  2.0000])": lambda: torch.tensor([-1.5, 2]),
    "tensor([1.0000e-05, 1.0000e+00])": lambda: torch.tensor([1e-5, 1.0]),
    "tensor([ True, False])": lambda: torch.tensor([True, False]),
    "tensor([[1, 2],\n        [3, 4]])": lambda: torch.tensor([[1, 2], [3, 4]]),
    "tensor([[[1.]],\n\n        [[2.]]])": lambda: torch.tensor([[[1.0]], [[2.0]]]),
    "tensor([0, 1, 2,  ..., 7, 8, 9])".replace("7, 8, 9", "1997, 1998, 1999").replace(
        "0, 1, 2", "   0,    1,    2"
    ): lambda: torch.arange(2000),
    "tensor([1.+2.j])": lambda: torch.tensor([1 + 2j]),
    "tensor([1., 1.], requires_grad=True)": lambda: torch.ones(2, requires_grad=True),
    "tensor(2., grad_fn=<SumBackward0>)": lambda: torch.ones(2, requires_grad=True).sum(),
    "tensor([2., 2.], grad_fn=<MulBackward0>)": lambda: torch.ones(2, requires_grad=True) * 2,
    "tensor([1.], dtype=paceline.bfloat16)": lambda: torch.ones(1).bfloat16(),
}


@pytest.mark.parametrize("text", TEXTS)
def test_text(text):
    x = TEXTS[text]()
    assert repr(x) == str(x) == text


def test_long_lines_are_broken_and_aligned():
    lines = repr(torch.arange(100.0)).splitlines()
    assert all(len(line) <= 80 for line in lines) and len({len(line) for line in lines[1:-1]}) == 1
    assert lines[1].startswith("        ")


def test_large_tensors_show_their_edges():
    text = repr(torch.zeros(1000, 1000))
    assert text.count("...") == 7 and len(text.splitlines()) == 7


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("precision", 2, "tensor([3.14])"),
        ("sci_mode", True, "tensor([3.1416e+00])"),
        ("threshold", 0, "tensor([3.1416])"),
        ("edgeitems", 1, "tensor([3.1416])"),
        ("linewidth", 200, "tensor([3.1416])"),
    ],
)
def test_options(name, value, text):
    try:
        torch.set_printoptions(**{name: value})
        assert repr(torch.tensor([np.pi], dtype=torch.float32)) == text
    finally:
        torch.set_printoptions(profile="default")


def test_profiles():
    numbers = torch.arange(1001) / 8
    try:
        torch.set_printoptions(profile="short")
        assert repr(numbers) == "tensor([  0.00,   0.12,  ..., 124.88, 125.00])"
        torch.set_printoptions(profile="full")
        assert "..." not in repr(numbers)
        torch.set_printoptions(precision=1, profile="default")
        assert repr(torch.tensor(0.25)) == "tensor(0.2)" and "..." in repr(numbers)
    finally:
        torch.set_printoptions(profile="default")
    assert repr(torch.tensor(0.25)) == "tensor(0.2500)"


def test_formatting():
    assert f"{torch.tensor(3.14159):.2f}" == "3.14" and f"{torch.tensor(7):03d}" == "007"
    assert f"{torch.tensor([1.5])}" == "tensor([1.5000])"
    with pytest.raises(TypeError, match="unsupported format string"):
        f"{torch.ones(2):.2f}"


def test_the_device_is_shown_when_it_is_not_the_cpu(device):
    text = repr(torch.ones(1, device=device))
    assert text == ("tensor([1.])" if device == "cpu" else "tensor([1.], device='cuda:0')")

"""Errors name the function, what came, and what was expected."""

import pytest

import paceline as torch

MESSAGES = {
    "shapes that do not broadcast": (
        lambda: torch.ones(2) + torch.ones(3),
        RuntimeError,
        r"add\(\).*input float32\[2\], other float32\[3\]",
    ),
    "an operand of another kind": (
        lambda: torch.ones(2) + "a",
        TypeError,
        r"add\(\): argument 'other' must be a tensor, got str",
    ),
    "no operand": (lambda: torch.add(torch.ones(2)), TypeError, "missing 1 required positional argument"),
    "no tensor": (lambda: torch.exp(1.0), TypeError, r"exp\(\): expected a tensor"),
    "an unknown option": (
        lambda: torch.ones(2).sum(axes=1),
        TypeError,
        r"sum\(\) has no argument 'axes'; its arguments are input, dim",
    ),
    "a sample of another shape": (
        lambda: torch.stack([torch.ones(2)] * 9 + [torch.ones(3)]),
        RuntimeError,
        r"stack\(\): expected tensors of one shape, but got \[2\] at position 0 and \[3\] at 9 .* 10 in all\)",
    ),
    "an argument twice": (lambda: torch.ones(2).sum(0, dim=0), TypeError, r"sum\(\) got argument 'dim' twice"),
    "too many arguments": (lambda: torch.ones(2).exp(1, 2), TypeError, r"exp\(\) takes 1 arguments \(input\), got 3"),
    "a rounding mode": (lambda: torch.div(torch.ones(1), 2, rounding_mode="up"), RuntimeError, "'up'"),
    "reshape": (
        lambda: torch.ones(4).reshape(3),
        RuntimeError,
        r"reshape\(\): shape '\[3\]' is invalid for input of size 4",
    ),
    "view": (lambda: torch.ones(2, 3).t().view(6), RuntimeError, r"Use \.reshape\(...\) instead"),
    "a dimension": (lambda: torch.ones(2).sum(1), IndexError, r"expected to be in range of \[-1, 0\], but got 1"),
    "a dimension twice": (lambda: torch.ones(2, 2).sum((0, 0)), RuntimeError, "dim 0 appears multiple times"),
    "a mean of integers": (
        lambda: torch.ones(2, dtype=torch.int64).mean(),
        RuntimeError,
        r"mean\(\): could not infer output dtype.*Got: int64",
    ),
    "an extreme of nothing": (
        lambda: torch.ones(2, 0).amax(1),
        IndexError,
        r"amax\(\): cannot reduce dimension of size 0.*\[2, 0\]",
    ),
    "inner sizes": (
        lambda: torch.ones(2, 3) @ torch.ones(2, 3),
        RuntimeError,
        r"cannot be multiplied \(\[2, 3\] and \[2, 3\]\)",
    ),
    "dtypes of a product": (
        lambda: torch.ones(2, 2) @ torch.ones(2, 2).double(),
        RuntimeError,
        "float32 != float64; convert one",
    ),
    "dimensions of a product": (
        lambda: torch.mm(torch.ones(2), torch.ones(2)),
        RuntimeError,
        r"mm\(\): expected tensors with 2 and 2 dimensions, got \(1, 1\)",
    ),
    "an index": (lambda: torch.ones(4)[4], IndexError, "index 4 is out of bounds for dimension 0 with size 4"),
    "an index tensor": (
        lambda: torch.ones(4)[torch.tensor([0, -5])],
        IndexError,
        "index -5 is out of bounds for dimension 0 with size 4",
    ),
    "a float index": (
        lambda: torch.ones(4)[torch.tensor([1.0])],
        IndexError,
        "must be long, int, byte or bool tensors, got float32",
    ),
    "a mask": (
        lambda: torch.ones(4)[torch.tensor([True, False])],
        IndexError,
        r"mask \[2\] at index 0 does not match.*\[4\]",
    ),
    "too many indices": (lambda: torch.ones(4)[0, 0], IndexError, "too many indices for tensor of dimension 1: got 2"),
    "a value that does not fit": (
        lambda: torch.ones(4).__setitem__(slice(2), torch.ones(3)),
        RuntimeError,
        r"\[2\].*\[3\]",
    ),
    "gather": (
        lambda: torch.ones(2).gather(0, torch.tensor([2])),
        RuntimeError,
        "index 2 is out of bounds for dimension 0 with size 2",
    ),
    "gather by floats": (
        lambda: torch.ones(2).gather(0, torch.ones(1)),
        RuntimeError,
        "Expected dtype int64 for index, got float32",
    ),
    "cat": (
        lambda: torch.cat([torch.ones(2, 2), torch.ones(2, 3)]),
        RuntimeError,
        r"cat\(\).*float32\[2, 2\], tensors float32\[2, 3\]",
    ),
    "cat of a number": (
        lambda: torch.cat([torch.ones(2), 1]),
        TypeError,
        r"cat\(\): expected a tensor at position 1, got int",
    ),
    "cat of a tensor": (
        lambda: torch.cat(torch.ones(2)),
        TypeError,
        r"cat\(\): expected a list or tuple of tensors, got Tensor",
    ),
    "split": (lambda: torch.ones(4).split([1, 2]), RuntimeError, r"sum exactly to 4.*split_sizes=\[1, 2\]"),
    "tensor_split": (lambda: torch.tensor_split(torch.ones(4)), TypeError, "sections or indices, got neither"),
    "no groups": (
        lambda: torch.nn.functional.group_norm(torch.ones(2, 3), 0),
        RuntimeError,
        r"input of shape \[2, 3\] and num_groups=0",
    ),
    "a factor": (
        lambda: torch.cholesky_solve(torch.ones(3, 1), torch.eye(2)),
        RuntimeError,
        r"cholesky_solve: Incompatible shapes of A and B .*\(\[2, 2\] and \[3, 1\]\)",
    ),
    "factors": (
        lambda: torch.linalg.lu_solve(*torch.linalg.lu_factor(torch.eye(2)), torch.ones(3, 1)),
        RuntimeError,
        r"lu_solve: Incompatible shapes of A and B .*\(\[2, 2\] and \[3, 1\]\)",
    ),
    "topk": (lambda: torch.ones(2).topk(3), RuntimeError, "k is 3, dimension 0 has 2"),
    "einsum": (lambda: torch.einsum("ij,jk", torch.ones(2, 3)), RuntimeError, "names 2 operands, but 1 were given"),
    "einsum sizes": (
        lambda: torch.einsum("i,i", torch.ones(2), torch.ones(3)),
        RuntimeError,
        "subscript 'i' has size 2 in one operand and 3",
    ),
    "ragged data": (lambda: torch.tensor([[1], [1, 2]]), ValueError, r"equal length at dim 1, got lengths \[1, 2\]"),
    "data": (lambda: torch.tensor([1, None]), RuntimeError, "Could not infer dtype of NoneType"),
    "a size": (lambda: torch.zeros(1.5), TypeError, "tuple of ints, but found an element of type float"),
    "a negative size": (lambda: torch.zeros(2, -1), RuntimeError, r"negative dimension: \[2, -1\]"),
    "a dtype": (
        lambda: torch.zeros(1, dtype="float99"),
        TypeError,
        "expected a paceline dtype, got 'float99'; the dtypes are bool",
    ),
    "item": (lambda: torch.ones(2).item(), RuntimeError, "a Tensor with 2 elements cannot be converted to Scalar"),
    "a manual seed": (lambda: torch.manual_seed("a"), TypeError, "expected an int, got str"),
    "multinomial": (lambda: torch.multinomial(torch.tensor([-1.0, 1.0]), 1), RuntimeError, "element < 0"),
    "random integers": (lambda: torch.rand(2, dtype=torch.int64), RuntimeError, r"dtype paceline.int64; use randint"),
    "a random state": (lambda: torch.set_rng_state(torch.zeros(3, dtype=torch.uint8)), RuntimeError, "get_state"),
    "a generator": (lambda: torch.rand(2, generator=3), TypeError, "expected a paceline.Generator, got int"),
    "arange": (lambda: torch.arange(0, 2, -1), RuntimeError, r"inconsistent with step sign: \[0, 2\) by -1"),
    "one_hot of a mask": (
        lambda: torch.ones(2).masked_fill(torch.tensor([1, 0]), 0.0),
        RuntimeError,
        "boolean masks, but got mask with dtype int64",
    ),
    "a condition": (
        lambda: torch.where(torch.ones(1), 1.0, torch.ones(1)),
        RuntimeError,
        r"where\(\).*boolean tensor.*float32",
    ),
    "expand": (
        lambda: torch.ones(2, 3).expand(4, 3),
        RuntimeError,
        r"expand\(\): sizes \[2, 3\] cannot become \[4, 3\]: only size 1 can be repeated",
    ),
    "a number in a product": (
        lambda: torch.matmul(torch.ones(2), 3),
        TypeError,
        r"matmul\(\): both arguments must be tensors, got int",
    ),
    "what an addition in place may not become": (
        lambda: torch.ones(2, dtype=torch.int64).add_(1.5),
        RuntimeError,
        "add_: result type float32 can't be cast",
    ),
    "classes that are floats": (
        lambda: torch.nn.functional.cross_entropy(torch.ones(3, 4), torch.ones(3)),
        RuntimeError,
        r"expected class indices as target, of dtype int64, got float32 of shape \[3\]; target.long\(\)",
    ),
    "no sequences": (lambda: torch.nn.utils.rnn.pad_sequence([]), RuntimeError, "empty list of sequences"),
    "a print profile": (lambda: torch.set_printoptions(profile="tiny"), ValueError, "one of default, short, full"),
    "no limits": (lambda: torch.ones(2).clamp(), RuntimeError, "At least one of 'min' or 'max' must not be None"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name):
    function, kind, message = MESSAGES[name]
    with pytest.raises(kind, match=message) as caught:
        function()
    assert caught.type is kind


@pytest.mark.parametrize("loss", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_losses_warn_of_targets_that_are_broadcast(loss):
    function = getattr(torch.nn.functional, loss)
    with pytest.warns(UserWarning, match=rf"{loss}\(\): target size \[3, 1\] is not the input size \[3\]"):
        assert function(torch.ones(3), torch.zeros(3, 1), reduction="none").shape == (3, 3)
    function(torch.ones(3), torch.zeros(3))


@pytest.mark.parametrize("name", [n for n in vars(torch.Tensor) if n.endswith("_") and not n.endswith("__")])
def test_methods_in_place_call_themselves_by_a_name_users_know(name):
    method = getattr(torch.Tensor, name)
    assert getattr(torch.Tensor, method.__name__) is method


def test_errors_inside_backward_name_the_node():
    x = torch.ones(2, requires_grad=True)
    y = torch.log(x)
    y.register_hook(lambda g: torch.ones(3))
    with pytest.raises(Exception) as caught:
        y.sum().backward()
    assert "LogBackward0" in "".join(caught.value.__notes__)

"""What a tensor is besides its operations: creation, memory, indexing, other libraries, copies, random numbers."""

import copy
import pickle

import numpy as np
import pytest
from conftest import EMULATED

import paceline as torch
from paceline.runtime.arrays import device_count

# -- creation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, dtype",
    [
        (1, "int64"),
        (1.5, "float32"),
        (True, "bool"),
        (1j, "complex64"),
        ([], "float32"),
        ([[1, 2.5]], "float32"),
        ([True, 2], "int64"),
        (np.float64(1), "float64"),
        (np.array([1, 2], np.int16), "int16"),
        ([np.float64(1)], "float64"),
        (range(3), "int64"),
        (np.bool_(True), "bool"),
        ((1, 2), "int64"),
    ],
)
def test_the_dtype_of_data(data, dtype):
    assert torch.tensor(data).dtype is getattr(torch, dtype)


def test_the_default_dtype_counts_for_floats_only():
    torch.set_default_dtype(torch.float64)
    assert torch.tensor(1.5).dtype is torch.float64 and torch.zeros(1).dtype is torch.float64
    assert torch.tensor(1).dtype is torch.int64 and torch.tensor(1j).dtype is torch.complex128
    assert torch.tensor(np.float32(1)).dtype is torch.float32 and torch.arange(2.0).dtype is torch.float64
    assert torch.rand(1).dtype is torch.float64 and (torch.tensor(1) / 2).dtype is torch.float64


def test_tensor_copies_and_as_tensor_shares():
    data = np.array([1.0, 2.0])
    copied, shared = torch.tensor(data), torch.as_tensor(data)
    data[0] = 9
    assert copied[0].item() == 1 and shared[0].item() == 9
    x = torch.ones(2)
    assert torch.as_tensor(x) is x and torch.tensor(x) is not x
    assert torch.as_tensor(x, dtype=torch.int64).dtype is torch.int64


def test_a_list_of_tensors_becomes_a_tensor():
    x = torch.tensor([torch.tensor(1.5), torch.tensor(2)])
    assert x.tolist() == [1.5, 2]
    assert torch.tensor([torch.ones(2), torch.zeros(2)]).shape == (2, 2)


def test_creation_with_requires_grad():
    assert torch.ones(2, requires_grad=True).is_leaf and torch.tensor([1.0], requires_grad=True).requires_grad


def test_the_legacy_constructor():
    assert torch.Tensor([1, 2]).dtype is torch.float32 and torch.Tensor(2, 3).shape == (2, 3)
    assert torch.Tensor().shape == (0,)


ONE_DTYPE = {
    "BFloat16Tensor": "bfloat16",
    "BoolTensor": "bool",
    "ByteTensor": "uint8",
    "CharTensor": "int8",
    "DoubleTensor": "float64",
    "FloatTensor": "float32",
    "HalfTensor": "float16",
    "IntTensor": "int32",
    "LongTensor": "int64",
    "ShortTensor": "int16",
}


@pytest.mark.parametrize(("name", "dtype"), ONE_DTYPE.items())
def test_constructors_of_one_dtype(name, dtype):
    constructor = getattr(torch, name)
    made = constructor([[1, 0]])
    assert made.tolist() == [[1, 0]] and made.dtype is torch.tensor([], dtype=dtype).dtype
    for sizes in ((2, 3), (torch.Size([2, 3]),)):
        assert constructor(*sizes).shape == (2, 3)
    assert [isinstance(made, getattr(torch, each)) for each in ONE_DTYPE] == [each == name for each in ONE_DTYPE]
    assert not isinstance(1, constructor)
    assert torch.ones(2).type(constructor).dtype is made.dtype


def test_questions_about_devices_need_none():
    if torch.cuda.is_available():
        assert torch.accelerator.current_accelerator() == torch.device("cuda")
        return
    assert torch.accelerator.current_accelerator() is None
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() == torch.cuda.memory_reserved() == 0
    x = torch.ones(1)
    assert x.is_cpu and x.pin_memory() is x and x.layout is torch.strided


def test_empty_tensors_have_their_shape_and_dtype():
    x = torch.empty(2, 3, dtype=torch.int32)
    assert x.shape == (2, 3) and x.dtype is torch.int32
    assert torch.empty_like(x).dtype is torch.int32 and x.new_empty(4).shape == (4,)


@pytest.mark.parametrize("make", [torch.zeros, torch.ones, torch.empty, torch.rand, torch.randn])
def test_sizes_may_come_in_any_form(make):
    for size in ((2, 3), [2, 3], torch.Size([2, 3]), (np.int64(2), torch.tensor(3))):
        assert make(size).shape == make(*size).shape == (2, 3)
    assert make(()).shape == ()


# -- Size --------------------------------------------------------------------------------------------------------------


def test_size_is_a_tuple_with_more():
    size = torch.zeros(2, 3, 4).shape
    assert size == (2, 3, 4) and isinstance(size, torch.Size) and size.numel() == 24 and size[0] == 2
    assert isinstance(size[1:], torch.Size) and size[1:] == (3, 4) and size[-1] == 4
    assert isinstance(size + (5,), torch.Size) and size + (5,) == (2, 3, 4, 5) and (1,) + size == (1, 2, 3, 4)
    assert repr(size) == "paceline.Size([2, 3, 4])" and torch.Size([]).numel() == 1
    a, b, c = size
    assert (a, b, c) == (2, 3, 4) and hash(size) == hash((2, 3, 4))


# -- memory ------------------------------------------------------------------------------------------------------------


def test_views_share_memory_and_copies_do_not():
    x = torch.zeros(2, 3)
    for view in (
        x.view(6),
        x.t(),
        x[0],
        x[:, 1:],
        x.unsqueeze(0),
        x.transpose(0, 1),
        x.expand(2, 2, 3),
        x.detach(),
        x.data,
        x.reshape(3, 2),
        x.flatten(),
        x.squeeze(),
        x.diagonal(),
        x.unbind()[0],
        x.split(1)[0],
    ):
        assert np.shares_memory(view.array, x.array)
    for copied in (x.clone(), x.contiguous().t().contiguous(), x[[0, 1]], x.t().reshape(6), x.flip(0), x.repeat(1, 1)):
        assert not np.shares_memory(copied.array, x.array)
    assert x.contiguous() is x and x.data_ptr() == x.view(6).data_ptr()


def test_assigning_data_replaces_the_memory_and_keeps_the_leaf():
    x = torch.ones(2, requires_grad=True)
    x.data = torch.zeros(2)
    assert x.tolist() == [0, 0] and x.requires_grad and x.is_leaf
    x.data[0] = 5
    assert x.tolist() == [5, 0]
    with pytest.raises(TypeError, match="has to be a tensor, but got int"):
        x.data = 3


def test_facts_about_a_tensor():
    x = torch.zeros(2, 3, dtype=torch.float16)
    assert (x.ndim, x.itemsize, x.nbytes, x.element_size(), x.numel(), x.get_device()) == (2, 2, 12, 2, 6, -1)
    assert x.device == torch.device("cpu") and not x.is_cuda and x.t().stride() == (1, 3)
    assert len({x, x, x.clone()}) == 2  # hashed by identity


# -- indexing ----------------------------------------------------------------------------------------------------------


def test_single_elements_are_views():
    x = torch.zeros(2, 2)
    x[0, 1].add_(5)
    x[1][0] += 2
    assert x.tolist() == [[0, 5], [2, 0]]


@pytest.mark.parametrize(
    "index, value",
    [
        (0, 1.0),
        (slice(None), [1.0, 2.0, 3.0]),
        ((slice(None), 0), np.array([7, 8])),
        (Ellipsis, 4),
        (None, 5),
        ((0, slice(1, None)), (8, 9)),
        ([0, 1], 3.0),
        ((slice(None), [0, 2]), [[1.0], [2.0]]),
        ((0, [0, 2]), 6.0),
        ((slice(None), np.array([True, False, True])), 2),
        ((np.array([1, 0]), np.array([0, 2])), [5, 6]),
    ],
)
def test_assignment_as_in_numpy(index, value):
    expected = np.zeros((2, 3), np.float32)
    expected[index] = value
    x = torch.zeros(2, 3)
    x[index] = value
    np.testing.assert_array_equal(x.numpy(), expected)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("width", [300, 3000])  # few elements, and so many that kernels take them
def test_indices_of_short_dtypes_reach_as_far_as_long_ones(dtype, width):
    rng = np.random.default_rng(0)
    x, places = rng.standard_normal((200, width)).astype(np.float32), rng.integers(100, 127, (9, width)).astype(dtype)
    index, ones, line = places.astype(np.int64), np.zeros_like(x), np.zeros_like(x)
    np.add.at(ones, (index, np.arange(width)), 1)
    np.add.at(line, index[:, 0], 1)
    of_places, of_line = torch.from_numpy(places), torch.from_numpy(places[:, 0].copy())
    for pick, picked, gradient in (
        (lambda a: a.gather(0, of_places), np.take_along_axis(x, index, 0), ones),
        (lambda a: a[of_line], x[index[:, 0]], line),
        (lambda a: a.index_select(0, of_line), x[index[:, 0]], line),
        (lambda a: torch.nn.functional.embedding(of_line, a), x[index[:, 0]], line),
    ):
        a = torch.from_numpy(x).requires_grad_()
        found = pick(a)
        found.sum().backward()
        np.testing.assert_array_equal(found.detach().numpy(), picked)
        np.testing.assert_array_equal(a.grad.numpy(), gradient)


def test_assignment_by_masks_and_tensors():
    x = torch.arange(6.0).view(2, 3)
    x[x > 3] = -1
    assert x.tolist() == [[0, 1, 2], [3, -1, -1]]
    x[torch.tensor([True, False])] = torch.tensor([7.0, 8.0, 9.0])
    x[torch.tensor(1), torch.tensor([0, 1])] = torch.tensor([5, 6])
    assert x.tolist() == [[7, 8, 9], [5, 6, -1]]
    x[:, None] = torch.zeros(1, 1, 3)
    assert not x.any()


def test_augmented_assignment_of_a_part():
    x = torch.ones(3)
    x[1:] *= 3
    x[torch.tensor([0, 2])] += 1
    assert x.tolist() == [2, 3, 4]


def test_assignment_converts_to_the_tensors_dtype():
    x = torch.zeros(3, dtype=torch.int64)
    x[0], x[1:] = 1.7, torch.tensor([2.5, 3.5])
    assert x.tolist() == [1, 2, 3]


def test_steps_must_be_positive():
    with pytest.raises(ValueError, match="step must be greater than zero"):
        torch.ones(4)[::-1]


def test_iteration_unpacking_and_membership():
    a, b = torch.tensor([[1, 2], [3, 4]])
    assert a.tolist() == [1, 2] and [x.item() for x in b] == [3, 4]
    assert 3 in b and 5 not in b
    assert [i for i, _ in enumerate(torch.ones(3))] == [0, 1, 2]


def test_truth_values_of_comparisons():
    x = torch.tensor(2.0)
    assert x > 1 and not x < 1 and bool(x) and not torch.tensor([0])
    for ambiguous in (torch.ones(2), torch.ones(0)):
        with pytest.raises(RuntimeError, match="ambiguous"):
            bool(ambiguous)


def test_comparison_with_none_and_strangers():
    x = torch.ones(2)
    assert (x == None) is False and (x != None) is True  # noqa: E711
    assert (x == "text") is False


# -- numbers and NumPy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [np.float32(2), np.float64(2), np.int64(2), np.bool_(True)])
def test_numpy_numbers_are_operands_like_python_numbers(number):
    x = torch.ones(2)
    for result in (x * number, number * x, x + number, number + x, x / number, number - x):
        assert isinstance(result, torch.Tensor) and result.dtype is torch.float32


def test_numpy_arrays_are_operands():
    array, x = np.array([1.0, 2.0], np.float32), torch.tensor([3.0, 4.0])
    for result, expected in ((array * x, [3, 8]), (x * array, [3, 8]), (array + x, [4, 6]), (x - array, [2, 2])):
        assert isinstance(result, torch.Tensor) and result.tolist() == expected


def test_from_numpy_and_numpy_share_memory():
    array = np.array([[1, 2], [3, 4]])
    x = torch.from_numpy(array)
    x[0, 0] = 9
    assert array[0, 0] == 9 and x.numpy() is array
    assert torch.from_numpy(array.T).stride() == (1, 2)


def test_numpy_of_what_requires_gradients():
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="Can't call numpy"):
        x.numpy()
    with pytest.raises(RuntimeError, match="Can't call numpy"):
        np.asarray(x)
    assert x.detach().numpy().tolist() == x.numpy(force=True).tolist() == [1, 1]


def test_the_array_protocol():
    x = torch.tensor([1.0, 2.0])
    assert np.asarray(x) is x.numpy() and np.asarray(x, np.float64).dtype == np.float64
    assert np.array(x) is not x.numpy() and np.sum(x.numpy()) == 3 and np.array([x, x]).shape == (2, 2)


def test_dlpack_with_numpy_shares_memory():
    x = torch.arange(3.0)
    array = np.from_dlpack(x)
    x[0] = 7
    assert array[0] == 7
    back = torch.from_dlpack(array)
    assert back.tolist() == [7, 1, 2] and torch.from_dlpack(x).data_ptr() == x.data_ptr()
    with pytest.raises(BufferError, match="require gradient"):
        np.from_dlpack(torch.ones(1, requires_grad=True))


def test_python_numbers():
    assert torch.tensor(2.5).item() == 2.5 and isinstance(torch.tensor(2).item(), int)
    assert float(torch.tensor([2])) == 2.0 and int(torch.tensor(2.9)) == 2 and complex(torch.tensor(1.0)) == 1
    assert [10, 20, 30][torch.tensor(1)] == 20 and list(range(torch.tensor(3))) == [0, 1, 2]
    assert f"{torch.tensor(2.5):.2f}" == "2.50"
    assert isinstance(torch.tensor([1.5]).tolist()[0], float) and torch.tensor(True).tolist() is True


# -- copies ------------------------------------------------------------------------------------------------------------


def test_deepcopy():
    x = torch.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    y, alias = copy.deepcopy([x, x])
    assert y is alias and y.requires_grad and y.is_leaf and y.grad.tolist() == [2, 2]
    with torch.no_grad():
        y.zero_()
    assert x.tolist() == [1, 1] and y.grad is not x.grad
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(x * 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(6).view(2, 3).t(),
        lambda: torch.ones(2, requires_grad=True),
        lambda: torch.tensor(1.5),
        lambda: torch.zeros(0, 2, dtype=torch.bfloat16),
    ],
)
def test_pickle(make):
    x = make()
    y = pickle.loads(pickle.dumps(x))
    assert y.tolist() == x.tolist() and y.dtype is x.dtype and y.shape == x.shape and y.requires_grad == x.requires_grad


def test_dtypes_and_devices_survive_pickle_and_copy():
    for thing in (torch.float32, torch.bfloat16, torch.device("cpu"), torch.device("cuda:1"), torch.Size([2, 3])):
        assert pickle.loads(pickle.dumps(thing)) == thing == copy.deepcopy(thing)
    assert pickle.loads(pickle.dumps(torch.float32)) is torch.float32


# -- devices -----------------------------------------------------------------------------------------------------------


def test_devices():
    assert torch.device("cuda", 1) == torch.device("cuda:1") != torch.device("cuda:0")
    assert (
        torch.device("cpu").type == "cpu"
        and torch.device("cuda:1").index == 1
        and str(torch.device("cuda:1")) == "cuda:1"
    )
    assert repr(torch.device("cuda", 1)) == "device(type='cuda', index=1)"
    x = torch.ones(2)
    assert x.cpu() is x and x.to("cpu") is x and x.to(torch.device("cpu")) is x
    with pytest.raises(RuntimeError, match="expected 'cpu', 'cuda' or 'cuda:N', got 'tpu'"):
        torch.device("tpu")


@pytest.mark.skipif(device_count() > 0, reason="there is a CUDA device")
def test_a_missing_cuda_device_is_named():
    with pytest.raises(RuntimeError, match="device 'cuda' was asked for, but"):
        torch.ones(1, device="cuda")


def test_default_device_context():
    with torch.device("cpu"):
        assert torch.ones(1).device.type == "cpu"
    torch.set_default_device("cpu")
    assert torch.get_default_device() == torch.device("cpu")


@pytest.mark.skipif(device_count() == 0, reason="no CUDA device")
def test_moving_between_devices():
    x = torch.ones(2, 3, requires_grad=True)
    y = x.cuda()
    assert y.is_cuda and y.device == torch.device("cuda:0") and y.cuda() is y and y.to("cuda") is y
    (y * 2).sum().backward()
    assert not x.grad.is_cuda and x.grad.tolist() == [[2] * 3] * 2
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
        y.detach().numpy()
    with pytest.raises(RuntimeError, match="expected all tensors on one device, found cpu and cuda:0"):
        torch.ones(2, 3) + y
    assert (torch.tensor(2.0) + y).is_cuda  # 0-d tensors of the CPU may go along
    z = torch.zeros(2, 3, device="cuda")
    z[0] = x.detach()[0].cuda()
    z[:, 1] = 5
    assert z.tolist() == [[1, 5, 1], [0, 5, 0]]
    assert pickle.loads(pickle.dumps(z)).device == z.device and copy.deepcopy(z).is_cuda
    assert "device='cuda:0'" in repr(z) and torch.zeros_like(z).is_cuda and z.new_ones(2).is_cuda
    with torch.device("cuda"):
        assert torch.ones(1).is_cuda and torch.tensor([1]).is_cuda and torch.arange(3).is_cuda
    if not EMULATED:
        assert torch.from_dlpack(z.array).tolist() == z.tolist()


# -- conversion --------------------------------------------------------------------------------------------------------


def test_to_takes_its_arguments_in_any_form():
    x = torch.ones(2)
    for y in (
        x.to(torch.int64),
        x.to(dtype=torch.int64),
        x.to("cpu", torch.int64),
        x.to(torch.zeros(1, dtype=torch.int64)),
        x.type(torch.int64),
        x.to(device="cpu", dtype=torch.int64),
    ):
        assert y.dtype is torch.int64
    assert x.to(torch.float32) is x and x.to(torch.float32, copy=True) is not x
    assert x.type() == "paceline.FloatTensor" or x.type() == "paceline.float32"
    with pytest.raises(TypeError, match="expects a dtype, a device or a tensor"):
        x.to([1])


def test_conversion_is_differentiable_between_floats_only():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    x.float().half().sum().backward()
    assert x.grad.dtype is torch.float64 and x.grad.tolist() == [1, 1]
    assert not x.long().requires_grad


# -- random numbers ----------------------------------------------------------------------------------------------------


def test_seeds_repeat_and_generators_are_independent():
    torch.manual_seed(3)
    first = torch.randn(4)
    torch.manual_seed(3)
    g = torch.Generator().manual_seed(3)
    assert torch.rand(2, generator=g).tolist() == torch.rand(2, generator=torch.Generator().manual_seed(3)).tolist()
    assert torch.randn(4).tolist() == first.tolist() and torch.initial_seed() == 3


def test_the_state_of_a_stream_can_be_saved():
    torch.manual_seed(0)
    torch.rand(3)
    state = torch.get_rng_state()
    assert state.dtype is torch.uint8
    expected = (torch.rand(5).tolist(), torch.randperm(5).tolist(), torch.randn(3).tolist())
    torch.set_rng_state(state)
    assert (torch.rand(5).tolist(), torch.randperm(5).tolist(), torch.randn(3).tolist()) == expected
    assert isinstance(torch.seed(), int)


def test_distributions():
    torch.manual_seed(0)
    n = 20_000
    for x, mean, variance in (
        (torch.rand(n), 0.5, 1 / 12),
        (torch.randn(n), 0, 1),
        (torch.zeros(n).uniform_(-1, 3), 1, 16 / 12),
        (torch.zeros(n).normal_(2, 3), 2, 9),
        (torch.bernoulli(torch.full((n,), 0.3)), 0.3, 0.21),
        (torch.zeros(n).bernoulli_(0.3), 0.3, 0.21),
        (torch.randint(0, 10, (n,)).double(), 4.5, 99 / 12),
        (torch.normal(torch.full((n,), 2.0), 3.0), 2, 9),
        (torch.normal(2.0, 3.0, (n,)), 2, 9),
        (torch.rand_like(torch.zeros(n)), 0.5, 1 / 12),
        (torch.randn_like(torch.zeros(n)), 0, 1),
    ):
        spread = (variance / n) ** 0.5
        assert abs(x.mean().item() - mean) < 5 * spread and abs(x.var().item() / variance - 1) < 0.1


def test_ranges_of_random_integers():
    torch.manual_seed(0)
    x = torch.randint(2, 5, (200,))
    assert set(x.tolist()) == {2, 3, 4} and x.dtype is torch.int64 and torch.randint(3, (4,)).max().item() < 3
    assert set(torch.randint_like(torch.zeros(100), 2).tolist()) == {0, 1}
    assert sorted(torch.randperm(10).tolist()) == list(range(10))


def test_multinomial():
    torch.manual_seed(0)
    weights = torch.tensor([0.0, 1.0, 3.0])
    drawn = torch.multinomial(weights, 4000, replacement=True)
    assert abs((drawn == 2).float().mean().item() - 0.75) < 0.04 and not (drawn == 0).any()
    assert sorted(torch.multinomial(weights, 2).tolist()) == [1, 2]
    assert torch.multinomial(torch.ones(2, 3), 2).shape == (2, 2)


def test_random_leaves_and_in_place_draws_on_views():
    assert torch.randn(2, requires_grad=True).is_leaf
    x = torch.zeros(3)
    x[1:].uniform_(1, 2)
    assert x[0].item() == 0 and (x[1:] >= 1).all()

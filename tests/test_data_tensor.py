"""The Tensor face of the loader: what comes out is Tensors with the values that went in."""

import collections

import numpy as np
import pytest

import paceline as torch
from paceline.runtime.arrays import device_count
from paceline.utils import data

Pair = collections.namedtuple("Pair", "x y")


class Samples(data.Dataset):
    """Any sequence as a dataset without a whole-batch read."""

    def __init__(self, samples):
        self.samples = samples

    def __getitem__(self, index):
        return self.samples[index]

    def __len__(self):
        return len(self.samples)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("wrap", [lambda dataset: dataset, Samples], ids=["whole batches", "sample by sample"])
@pytest.mark.parametrize("make", [torch.tensor, np.array], ids=["tensors", "arrays"])
def test_batches_are_tensors(make, wrap, num_workers):
    rows = [[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]]
    dataset = wrap(data.TensorDataset(make(rows), make([7, 8, 9])))
    loader = data.DataLoader(dataset, batch_size=2, num_workers=num_workers)
    for _ in range(2):
        (x, y), (last_x, last_y) = loader
        assert all(isinstance(batch, torch.Tensor) for batch in (x, y, last_x, last_y))
        assert (x.tolist(), y.tolist()) == (rows[:2], [7, 8])
        assert (last_x.tolist(), last_y.tolist()) == (rows[2:], [9])
        assert y.dtype == torch.int64


@pytest.mark.skipif(device_count() == 0, reason="no CUDA device")
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("wrap", [lambda dataset: dataset, Samples], ids=["whole batches", "sample by sample"])
def test_batches_stay_on_the_device_of_the_dataset(wrap, num_workers):
    dataset = wrap(data.TensorDataset(torch.tensor([1.0, 2.0, 3.0], device="cuda")))
    batches = [batch for (batch,) in data.DataLoader(dataset, batch_size=2, num_workers=num_workers)]
    assert [batch.device.type for batch in batches] == ["cuda", "cuda"]
    assert [batch.tolist() for batch in batches] == [[1.0, 2.0], [3.0]]


def test_default_collate_follows_the_structure():
    sample = {"pair": Pair(torch.tensor([1.0, 2.0]), 3), "name": "a", "row": (np.float32(1), True)}
    batch = data.default_collate([sample, sample])
    assert type(batch["pair"]) is Pair
    assert batch["pair"].x.tolist() == [[1.0, 2.0], [1.0, 2.0]]
    assert batch["pair"].y.tolist() == [3, 3]
    assert batch["name"] == ["a", "a"]
    assert [(leaf.dtype, leaf.tolist()) for leaf in batch["row"]] == [
        (torch.float32, [1, 1]),
        (torch.bool, [True, True]),
    ]


@pytest.mark.parametrize("wrap", [lambda dataset: dataset, Samples], ids=["whole batches", "sample by sample"])
def test_gradients_flow_through_a_batch(wrap):
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    for (batch,) in data.DataLoader(wrap(data.TensorDataset(x)), batch_size=2):
        (batch * batch).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0, 6.0]


def test_tensors_of_different_shapes_are_refused():
    with pytest.raises(RuntimeError, match=r"float32\[2\], tensors float32\[3\]"):
        data.default_collate([torch.zeros(2), torch.zeros(3)])


def test_single_samples_become_tensors_where_they_are_arrays():
    samples = [(np.array([1, 2]), 3, "a", Pair(np.float32(1), {"x": np.array([4])}))]
    ((array, number, string, pair),) = data.DataLoader(Samples(samples), batch_size=None)
    assert isinstance(array, torch.Tensor) and array.tolist() == [1, 2]
    assert (number, string) == (3, "a")
    assert pair.x.item() == 1 and pair.y["x"].tolist() == [4]


def test_a_collate_fn_has_the_last_word():
    loader = data.DataLoader(data.TensorDataset(torch.tensor([1, 2])), batch_size=2, collate_fn=len)
    assert list(loader) == [2]


def test_shuffles_follow_a_generator():
    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        return next(iter(data.DataLoader(range(50), batch_size=50, shuffle=True, generator=generator))).tolist()

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == list(range(50))


def test_random_split_follows_a_generator():
    parts = [data.random_split(range(10), [4, 6], generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert list(parts[0][0]) == list(parts[1][0])

"""Datasets, samplers and the loader: against closed forms, Python's own containers and each other."""

import collections
import contextvars
import itertools
import threading
import traceback
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from paceline.runtime import data, rng
from paceline.runtime.data import sampler as sampler_module

SIZES = st.integers(0, 40)
WORLDS = st.integers(1, 7)


def distributed(length, world, **options):
    """The samplers of all ranks."""
    return [data.DistributedSampler(range(length), world, rank, **options) for rank in range(world)]


def rounds(samplers):
    """One epoch of all ranks in the order in which the steps happen: step 0 of all ranks, step 1 of all ranks, ..."""
    missing = object()
    steps = itertools.zip_longest(*samplers, fillvalue=missing)
    return [index for step in steps for index in step if index is not missing]


class Slow(data.Dataset):
    """The rows of a TensorDataset without its whole-batch read."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, index):
        return self.dataset[index]

    def __len__(self):
        return len(self.dataset)


class Count(data.IterableDataset):
    def __iter__(self):
        return iter(range(5))


def assert_same(left, right):
    """Equal structure, types, dtypes and values."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        left, right = list(left.values()), list(right.values())
    if isinstance(left, list | tuple):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    else:
        assert left == right


# ---- the sharded sampler


@given(SIZES, WORLDS, st.integers(0, 3), st.booleans())
@settings(deadline=None)
def test_padded_ranks_deal_everything_in_equal_steps(length, world, epoch, shuffle):
    samplers = distributed(length, world, shuffle=shuffle, pad=True)
    for sampler in samplers:
        sampler.set_epoch(epoch)
    dealt = rounds(samplers)
    assert sorted(dealt[:length]) == list(range(length))
    assert len(dealt) == -(-length // world) * world
    assert dealt[length:] == list(itertools.islice(itertools.cycle(dealt[:length]), len(dealt) - length))


@given(SIZES, WORLDS, st.booleans())
@settings(deadline=None)
def test_unpadded_ranks_deal_everything_once(length, world, shuffle):
    samplers = distributed(length, world, shuffle=shuffle, pad=False)
    assert sorted(rounds(samplers)) == list(range(length))
    assert [len(s) for s in samplers] == [len(range(rank, length, world)) for rank in range(world)]


@given(SIZES, WORLDS, st.booleans())
@settings(deadline=None)
def test_drop_last_drops_only_the_global_tail(length, world, shuffle):
    samplers = distributed(length, world, shuffle=shuffle, drop_last=True)
    dealt = rounds(samplers)
    assert len(dealt) == len(set(dealt)) == length // world * world
    assert {len(s) for s in samplers} == {length // world}


@given(SIZES, WORLDS, st.booleans())
@settings(deadline=None)
def test_length_is_the_number_of_indices(length, world, drop_last):
    for sampler in distributed(length, world, drop_last=drop_last):
        assert len(sampler) == len(list(sampler))


def test_shuffling_pads_and_evaluation_does_not():
    assert [len(s) for s in distributed(10, 4)] == [3, 3, 3, 3]
    assert [len(s) for s in distributed(10, 4, shuffle=False)] == [3, 3, 2, 2]


def test_each_iteration_is_the_next_epoch():
    forgetful, careful = (data.DistributedSampler(range(50), 2, 0, seed=3) for _ in range(2))
    orders = [list(forgetful) for _ in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    for epoch in (2, 0, 3, 1, 1):
        careful.set_epoch(epoch)
        assert list(careful) == orders[epoch]


def test_ranks_default_to_those_of_the_job(monkeypatch):
    monkeypatch.setattr(sampler_module, "get_world", lambda: types.SimpleNamespace(size=3, rank=2))
    assert list(data.DistributedSampler(range(7), shuffle=False)) == [2, 5]


def test_order_depends_on_the_seed():
    assert list(data.DistributedSampler(range(50), 1, 0, seed=-1)) != list(data.DistributedSampler(range(50), 1, 0))


@given(SIZES, WORLDS, WORLDS, st.integers(0, 50), st.sampled_from([{}, {"drop_last": True}, {"shuffle": False}]))
@settings(deadline=None)
def test_resume_at_any_world_size_deals_exactly_the_rest(length, world, new_world, steps, options):
    samplers = distributed(length, world, **options)
    before = []
    for sampler in samplers:
        before.append(list(itertools.islice(iter(sampler), min(steps, length // world))))
    state = samplers[0].state_dict()
    resumed = distributed(length, new_world, **{**options, "seed": 99})
    for sampler in resumed:
        sampler.load_state_dict(state)
        sampler.set_epoch(sampler.epoch)  # a script's set_epoch must not throw the position away
    whole = rounds(distributed(length, 1, **options))
    if state["epoch"]:
        assert state["position"] == 0
        return
    dealt = [index for step in zip(*before, strict=True) for index in step]
    assert dealt == whole[: len(dealt)]
    rest = rounds(resumed)
    left = length - len(dealt)
    if options.get("drop_last"):
        assert rest == whole[len(dealt) :][: left // new_world * new_world]
    else:
        assert rest[:left] == whole[len(dealt) :]
        assert len(rest) == (left if options else -(-left // new_world) * new_world)


def test_two_iterations_at_once_keep_their_own_place():
    sampler = data.SequentialSampler(range(4))
    assert list(zip(sampler, sampler, strict=True)) == [(i, i) for i in range(4)]


# ---- the other samplers


@pytest.mark.parametrize("count", [1, 7, 10, 25])
def test_random_sampler_runs_through_whole_permutations(count):
    order = list(data.RandomSampler(range(10), num_samples=count, generator=np.random.default_rng(0)))
    assert len(order) == count
    for start in range(0, count, 10):
        part = order[start : start + 10]
        assert len(set(part)) == len(part)


def test_random_sampler_with_replacement_repeats():
    order = list(data.RandomSampler(range(3), replacement=True, num_samples=100, generator=rng.Generator()))
    assert set(order) == {0, 1, 2} and len(order) == 100


def test_weights_are_probabilities():
    order = list(data.WeightedRandomSampler([1, 0, 3], 4000, generator=np.random.default_rng(0)))
    counts = np.bincount(order, minlength=3) / 4000
    np.testing.assert_allclose(counts, [0.25, 0, 0.75], atol=0.03)  # 4 standard deviations
    assert sorted(data.WeightedRandomSampler([1, 0, 3], 2, replacement=False)) == [0, 2]


@given(SIZES, st.integers(1, 9), st.booleans())
@settings(deadline=None)
def test_batch_sampler_cuts_the_order(length, batch_size, drop_last):
    batches = data.BatchSampler(range(length), batch_size, drop_last)
    expected = [list(range(length))[start : start + batch_size] for start in range(0, length, batch_size)]
    if drop_last and expected and len(expected[-1]) < batch_size:
        expected.pop()
    assert list(batches) == expected and len(batches) == len(expected)


SAMPLERS = {
    "sequential": lambda g: data.SequentialSampler(range(10)),
    "random": lambda g: data.RandomSampler(range(10), generator=g),
    "replacement": lambda g: data.RandomSampler(range(10), replacement=True, generator=g),
    "subset": lambda g: data.SubsetRandomSampler(range(3, 13), generator=g),
    "weighted": lambda g: data.WeightedRandomSampler(np.arange(1, 21), 10, generator=g),
    "distributed": lambda g: data.DistributedSampler(range(20), 2, 1),
}


@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("taken", [0, 4, 10])
def test_every_sampler_resumes_in_mid_epoch(make, taken):
    generator = rng.Generator()
    sampler = make(generator)
    list(sampler)
    iteration = iter(sampler)
    list(itertools.islice(iteration, taken))
    position, stream = sampler.state_dict(), generator.get_state()
    expected = [list(iteration) or list(sampler), list(sampler)]

    resumed = make(rng.Generator().set_state(stream))
    resumed.load_state_dict(position)
    assert [list(resumed), list(resumed)] == expected


# ---- datasets


def test_random_split_deals_every_sample_once():
    parts = data.random_split(range(10), [3, 7], generator=np.random.default_rng(0))
    assert [len(part) for part in parts] == [3, 7]
    assert sorted(itertools.chain(*(list(part) for part in parts))) == list(range(10))


@pytest.mark.parametrize(
    ("total", "fractions", "sizes"),
    [(10, [0.33, 0.33, 0.34], [4, 3, 3]), (10, [0.5, 0.5], [5, 5]), (7, [0.9, 0.1], [7, 0]), (1, [1], [1])],
)
def test_fractions_are_rounded_down_and_topped_up(total, fractions, sizes):
    assert [len(part) for part in data.random_split(range(total), fractions)] == sizes


def test_concat_and_subset_find_their_samples():
    both = data.ConcatDataset(["ab", "", "cde"])
    assert [both[i] for i in range(-5, 5)] == list("abcdeabcde")
    assert list(data.Subset(both, [4, 0])) == ["e", "a"]
    assert len(Slow(both) + both) == 10


def test_stacked_and_chained_datasets():
    assert data.StackDataset("ab", [1, 2])[-1] == ("b", 2) and len(data.StackDataset("ab", [1, 2])) == 2
    assert data.StackDataset(x="ab", y=[1, 2])[0] == {"x": "a", "y": 1}
    assert list(data.ChainDataset([Count(), "ab"])) == [*Count(), "a", "b"] == list(Count() + "ab")
    assert data.get_worker_info() is None


# ---- collating

Pair = collections.namedtuple("Pair", "x y")
COLLATED = {
    "floats": ([1.0, 2.0], np.array([1.0, 2.0])),
    "ints": ([1, 2], np.array([1, 2])),
    "bools": ([True, False], np.array([True, False])),
    "int first": ([1, 2.0], np.array([1, 2], np.float32)),
    "float first": ([2.0, 1], np.array([2.0, 1.0])),
    "numpy scalars": ([np.float32(1), np.float32(2)], np.array([1, 2], np.float32)),
    "arrays": ([np.zeros(2, np.uint8), np.ones(2, np.uint8)], np.array([[0, 0], [1, 1]], np.uint8)),
    "bfloat16": ([np.ones(1, bfloat16), np.zeros(1, bfloat16)], np.array([[1], [0]], bfloat16)),
    "strings": (["a", "b"], ["a", "b"]),
    "bytes": ([b"a", b"b"], [b"a", b"b"]),
    "tuples": ([(1, "a"), (2, "b")], [np.array([1, 2]), ("a", "b")]),
    "lists": ([[1, 2], [3, 4]], [np.array([1, 3]), np.array([2, 4])]),
    "dicts": ([{"a": 1, "b": [2]}, {"a": 3, "b": [4]}], {"a": np.array([1, 3]), "b": [np.array([2, 4])]}),
    "namedtuples": ([Pair(1, 2.0), Pair(3, 4.0)], Pair(np.array([1, 3]), np.array([2.0, 4.0]))),
    "empty": ([(), ()], []),
}


@pytest.mark.parametrize(("samples", "batch"), COLLATED.values(), ids=COLLATED)
def test_default_collate(samples, batch):
    assert_same(data.default_collate(samples), batch)


def test_collate_keeps_the_type_of_a_mapping():
    batch = data.default_collate([collections.defaultdict(list, a=1), collections.defaultdict(list, a=2)])
    assert batch["missing"] == [] and batch["a"].tolist() == [1, 2]


# ---- the loader


def table(length=11):
    return data.TensorDataset(np.arange(3.0 * length, dtype=np.float32).reshape(length, 3), np.arange(length))


@given(st.integers(1, 20), st.integers(1, 6), st.booleans(), st.booleans(), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_fast_path_and_workers_change_nothing(length, batch_size, shuffle, drop_last, num_workers):
    dataset = table(length)
    variants = [
        (dataset, 0),
        (Slow(dataset), 0),
        (dataset, num_workers),
        (Slow(dataset), num_workers),
        (data.Subset(dataset, list(range(length))), num_workers),
        (data.Subset(Slow(dataset), list(range(length))), num_workers),
    ]
    epochs = []
    for variant, workers in variants:
        loader = data.DataLoader(
            variant, batch_size, shuffle, drop_last=drop_last, num_workers=workers, generator=rng.Generator()
        )
        epochs.append([list(loader), list(loader)])
        assert len(loader) == len(epochs[-1][0])
    for other in epochs[1:]:
        assert_same(epochs[0], other)


def test_fast_path_reads_whole_batches():
    class Strict(data.TensorDataset):
        def __getitem__(self, index):
            raise AssertionError("read sample by sample")

    loader = data.DataLoader(data.Subset(Strict(np.arange(6)), [5, 3, 1]), batch_size=2)
    assert_same(list(loader), [[np.array([5, 3])], [np.array([1])]])


def test_getitems_reads_the_samples_of_a_batch_at_once():
    class Batched(Slow):
        def __getitems__(self, indices):
            return [index * 10 for index in indices]

    assert_same(list(data.DataLoader(Batched(range(3)), batch_size=2)), [np.array([0, 10]), np.array([20])])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_orders_and_batches_given_by_the_user(num_workers):
    def load(dataset, **options):
        return list(data.DataLoader(dataset, num_workers=num_workers, **options))

    letters = "abcde"
    assert load(letters, sampler=[4, 2, 0], batch_size=2) == [["e", "c"], ["a"]]
    assert load(letters, batch_sampler=[[1], [0, 1]]) == [["b"], ["a", "b"]]
    assert load(letters, batch_size=None) == list("abcde")
    assert load(letters, batch_size=3, collate_fn="".join) == ["abc", "de"]
    assert_same(load(Count(), batch_size=2, drop_last=True), [np.array([0, 1]), np.array([2, 3])])
    assert load(Count(), batch_size=None) == [0, 1, 2, 3, 4]


def test_shuffle_follows_the_generator_and_the_default_stream():
    def epochs(**options):
        loader = data.DataLoader(range(20), batch_size=20, shuffle=True, **options)
        return [tuple(batch) for _ in range(2) for batch in loader]

    rng.manual_seed(5)
    first = epochs()
    rng.manual_seed(5)
    assert epochs(num_workers=1) == first
    assert epochs(generator=rng.Generator().manual_seed(5)) == first
    assert first[0] != first[1]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 3, 5, 6])
def test_loader_resumes_after_the_batch_delivered_last(num_workers, drop_last, taken):
    def make(generator):
        return data.DataLoader(
            range(11), 2, shuffle=True, num_workers=num_workers, drop_last=drop_last, generator=generator
        )

    generator = rng.Generator()
    loader = make(generator)
    iteration = iter(loader)
    list(itertools.islice(iteration, taken))
    state, stream = loader.state_dict(), generator.get_state()
    expected = [list(iteration), list(loader)]

    resumed = make(rng.Generator().set_state(stream))
    resumed.load_state_dict(state)
    epochs = [list(resumed), list(resumed)]
    if state["sampler"]["epoch"] is None:  # the epoch was over: resume with the next
        expected, epochs = expected[1], epochs[0]
    assert_same(epochs, expected)


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "paceline-loader"]


class Broken(Slow):
    def __getitem__(self, index):
        if index == 3:
            raise KeyError("sample three is broken")
        return index


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_arrives_with_its_traceback(num_workers):
    loader = iter(data.DataLoader(Broken(range(9)), batch_size=2, num_workers=num_workers))
    assert next(loader).tolist() == [0, 1]
    with pytest.raises(KeyError, match="sample three is broken") as caught:
        next(loader)
    assert "__getitem__" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert list(loader) == []
    assert not loader_threads()


def test_an_abandoned_iteration_ends_its_thread():
    for batch in data.DataLoader(range(1000), num_workers=4):
        assert batch.tolist() == [0]
        break
    assert not loader_threads()


def test_a_worker_reads_at_most_its_share_ahead():
    read = []
    waiting = threading.Event()

    class Watched(Slow):
        def __getitem__(self, index):
            read.append(index)
            if index == 4:
                waiting.set()
            return index

    iteration = iter(data.DataLoader(Watched(range(99)), num_workers=2, prefetch_factor=2))
    next(iteration)
    assert waiting.wait(10)
    assert read == [0, 1, 2, 3, 4]  # one delivered, four ahead
    del iteration
    assert len(read) <= 6


def test_the_reading_thread_sees_the_callers_context():
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    loader = data.DataLoader(range(1), num_workers=1, collate_fn=lambda samples: variable.get())
    assert list(loader) == ["set"]


def test_worker_init_fn_runs_first_in_the_reading_thread():
    calls = []
    loader = data.DataLoader(range(2), num_workers=3, worker_init_fn=lambda n: calls.append((n, loader_threads())))
    list(loader)
    ((number, threads),) = calls
    assert number == 0 and len(threads) == 1


def test_a_late_batch_is_an_error():
    release = threading.Event()

    class Late(Slow):
        def __getitem__(self, index):
            release.wait(10)
            return index

    try:
        with pytest.raises(RuntimeError, match=r"timed out after 0\.05 seconds"):
            next(iter(data.DataLoader(Late(range(2)), num_workers=1, timeout=0.05)))
    finally:
        release.set()


# ---- bad input

BAD = {
    "batch_size": (ValueError, "batch_size=0", lambda: data.DataLoader("abc", batch_size=0)),
    "batch_size type": (ValueError, "batch_size='2'", lambda: data.DataLoader("abc", batch_size="2")),
    "shuffle and sampler": (ValueError, "exclusive with shuffle", lambda: data.DataLoader("a", 1, True, [0])),
    "batch_sampler": (ValueError, "mutually exclusive", lambda: data.DataLoader("abc", 2, batch_sampler=[[0]])),
    "unbatched drop_last": (ValueError, "batch_size=None", lambda: data.DataLoader("a", None, drop_last=True)),
    "num_workers": (ValueError, "num_workers=-1", lambda: data.DataLoader("abc", num_workers=-1)),
    "timeout": (ValueError, "timeout=-1", lambda: data.DataLoader("abc", timeout=-1)),
    "prefetch_factor": (ValueError, "prefetch_factor=2", lambda: data.DataLoader("abc", prefetch_factor=2)),
    "persistent": (ValueError, "persistent_workers", lambda: data.DataLoader("abc", persistent_workers=True)),
    "stream shuffle": (ValueError, "unspecified shuffle", lambda: data.DataLoader(Count(), shuffle=True)),
    "stream sampler": (ValueError, "unspecified sampler", lambda: data.DataLoader(Count(), sampler=[0])),
    "shuffle nothing": (ValueError, "num_samples=0", lambda: data.DataLoader([], shuffle=True)),
    "unresumable": (TypeError, "no state_dict", lambda: data.DataLoader("abc", sampler=[0]).state_dict()),
    "generator": (TypeError, "not int", lambda: list(data.RandomSampler("abc", generator=3))),
    "replacement": (TypeError, "replacement=1", lambda: data.RandomSampler("abc", replacement=1)),
    "batch drop_last": (ValueError, "drop_last=1", lambda: data.BatchSampler([0], 1, 1)),
    "weights": (ValueError, ">= 0", lambda: data.WeightedRandomSampler([1, -1], 1)),
    "too few weights": (ValueError, "positive weights", lambda: data.WeightedRandomSampler([1, 0], 2, False)),
    "rank": (ValueError, "Invalid rank 2", lambda: data.DistributedSampler("abc", 2, 2)),
    "tail": (ValueError, "only one", lambda: data.DistributedSampler("abc", 2, 0, drop_last=True, pad=True)),
    "lengths": (ValueError, "sum 6", lambda: data.random_split(range(10), [3, 3])),
    "fractions": (ValueError, "fractions", lambda: data.random_split(range(10), [0.5, 0.6])),
    "sizes": (AssertionError, "shapes", lambda: data.TensorDataset(np.zeros(3), np.zeros(4))),
    "nothing to stack": (ValueError, "either as arguments or by name", lambda: data.StackDataset()),
    "unequal to stack": (ValueError, r"got lengths \[2, 1\]", lambda: data.StackDataset("ab", "c")),
    "no datasets": (AssertionError, "empty", lambda: data.ConcatDataset([])),
    "concat stream": (AssertionError, "IterableDataset", lambda: data.ConcatDataset([Count()])),
    "concat index": (IndexError, "-4 is out of range", lambda: data.ConcatDataset(["abc"])[-4]),
    "collate type": (TypeError, "found NoneType", lambda: data.default_collate([None])),
    "collate dtype": (TypeError, "found <U1", lambda: data.default_collate([np.array(["a"])])),
    "collate big": (TypeError, "int64", lambda: data.default_collate([2**64])),
    "collate lengths": (RuntimeError, "equal size", lambda: data.default_collate([(1,), (1, 2)])),
    "collate shapes": (
        RuntimeError,
        r"\[2\] at entry 0 and \[3\]",
        lambda: data.default_collate([np.ones(2), np.ones(3)]),
    ),
    "abstract": (NotImplementedError, "__getitem__", lambda: data.Dataset()[0]),
    "abstract stream": (NotImplementedError, "__iter__", lambda: iter(data.IterableDataset())),
}


@pytest.mark.parametrize(("error", "message", "call"), BAD.values(), ids=BAD)
def test_bad_input_is_named(error, message, call):
    with pytest.raises(error, match=message):
        call()

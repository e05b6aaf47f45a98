"""Training in lanes: the same bits on any number of ranks, and the right ones."""

import hashlib
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables.comms import finish_job

import paceline as torch
from paceline import nn
from paceline.launch.mpi import LaunchError, find_mpiexec
from paceline.nn import functional as F
from paceline.nn.parallel import DataParallel
from paceline.nn.parallel.tree import Block, TreeSum, blocks_of
from paceline.runtime.comm import world_comm
from paceline.runtime.comm.threads import run_threads
from paceline.utils.data import DataLoader, LaneSampler, TensorDataset

LANES = 8
WORLDS = [1, 2, 3, 4, 5, 8]


class Net(nn.Module):
    """Dropout, batch norm, a layer used twice, one used for some samples only, one never used."""

    def __init__(self, seed=0):
        super().__init__()
        self.first = nn.Linear(6, 33)
        self.norm = nn.BatchNorm1d(33)
        self.twice = nn.Linear(33, 33)
        self.rare = nn.Linear(33, 33)
        self.never = nn.Linear(2, 2)
        self.last = nn.Linear(33, 3)
        self.register_buffer("seen", torch.zeros(2))
        self.register_buffer("constant", torch.full((3,), 0.1))
        stream = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.3, generator=stream)

    def forward(self, x):
        h = F.dropout(self.norm(self.first(x)).tanh(), 0.4, self.training)
        h = self.twice(self.twice(h).tanh()).tanh()
        if float(x[0, 0]) > 0.8:
            h = self.rare(h)
            if self.training:
                self.seen = self.seen * 0.5 + float(x.mean())
        return self.last(h)


def data(count, seed=5):
    stream = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, 6, generator=stream), torch.randint(0, 3, (count,), generator=stream))


def digest(module):
    """Of all parameters and buffers."""
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in module.state_dict().values())).hexdigest()


def train(samples=89, batch_size=24, steps=None, resumed=None, **options):
    """Train on this rank; returns the losses, the digest and what is needed to go on."""
    comm = world_comm()
    torch.manual_seed(3)
    model = DataParallel(Net(seed=comm.rank), lanes=LANES, bucket_cap_mb=1e-3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sampler = LaneSampler(data(samples), batch_size, LANES, num_replicas=comm.size, rank=comm.rank)
    loader = DataLoader(data(samples), batch_sampler=sampler)
    if resumed is not None:
        for each, state in zip((model, optimizer, loader), resumed, strict=True):
            each.load_state_dict(state)
    losses = []
    for _ in range(2):
        for batch in loader:
            optimizer.zero_grad()
            values = []
            for x, y in model.lanes(batch, **options):
                loss = F.cross_entropy(model(x + torch.randn(x.shape) / 10), y)
                loss.backward()
                values.append(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            losses.append(model.lane_mean(values))
            if len(losses) == steps:
                return losses, digest(model), [each.state_dict() for each in (model, optimizer, loader)]
    assert model.module.never.weight.grad is None
    assert model.module.constant.tolist() == torch.full((3,), 0.1).tolist()
    return losses, digest(model), None


def everywhere(size, *args, **options):
    """What every rank of a world of that size got, if that is the same."""
    results = run_threads(size, lambda: train(*args, **options), timeout=60)
    assert all(result[:2] == results[0][:2] for result in results)
    return results[0]


@pytest.fixture(scope="module")
def alone():
    return everywhere(1)


@pytest.mark.parametrize("size", WORLDS[1:])
def test_same_bits_on_any_number_of_ranks(size, alone):
    losses, weights, _ = everywhere(size)
    assert losses == alone[0] and len(losses) == 8
    assert weights == alone[1]


def test_a_run_goes_on_with_another_number_of_ranks(alone):
    losses, _, state = everywhere(5, steps=2)
    more, _, state = everywhere(3, steps=1, resumed=state)
    rest, _, _ = everywhere(4, resumed=state)
    assert losses + more + rest[:5] == alone[0]


def test_batches_of_few_samples(alone):
    """Lanes without samples take no part."""
    losses = []
    for size in (1, 3):

        def body():
            comm = world_comm()
            model = DataParallel(nn.Linear(6, 3), lanes=LANES)
            nn.init.ones_(model.module.weight)
            nn.init.zeros_(model.module.bias)
            bounds = [5 * lane // LANES for lane in range(LANES + 1)]
            lanes = [LANES * rank // comm.size for rank in range(comm.size + 1)]
            part = slice(bounds[lanes[comm.rank]], bounds[lanes[comm.rank + 1]])
            x, y = data(5).tensors
            count = 0
            for part_x, part_y in model.lanes((x[part], y[part])):
                F.cross_entropy(model(part_x), part_y).backward()
                count += 1
            expected = nn.Linear(6, 3)
            expected.load_state_dict(model.module.state_dict())
            F.cross_entropy(expected(x), y).backward()
            np.testing.assert_allclose(model.module.weight.grad.numpy(), expected.weight.grad.numpy(), 1e-5, 1e-7)
            return model.module.weight.grad.tolist(), count

        results = run_threads(size, body, timeout=60)
        assert sum(count for _, count in results) == 5
        losses += [gradient for gradient, _ in results]
    assert losses == [losses[0]] * len(losses)


def test_a_step_is_that_of_the_whole_batch():
    """In double precision, without randomness and batch norm: the mean over lanes is the mean over samples."""
    model = DataParallel(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double(), lanes=3)
    plain = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    plain.load_state_dict(model.module.state_dict())
    x, y = data(11).tensors
    x = x.double()
    weights = torch.rand(11, dtype=torch.float64)
    for weight in (torch.ones(11, dtype=torch.float64), weights):
        model.zero_grad()
        plain.zero_grad()

        def loss(module, x, y, w):
            return (F.cross_entropy(module(x), y, reduction="none") * w).sum() / w.sum()

        losses = []
        for part in model.lanes((x, y, weight), weight=lambda part: part[2].sum()):
            losses.append(loss(model, *part))
            losses[-1].backward()
        whole = loss(plain, x, y, weight)
        whole.backward()
        assert model.lane_mean(losses) == pytest.approx(whole.item())
        for a, b in zip(model.module.parameters(), plain.parameters(), strict=True):
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_weights_by_tokens_have_the_same_bits_on_any_number_of_ranks():
    def weight(part):
        return 1 + int((part[1] == 0).sum())

    assert len({everywhere(size, 51, 17, weight=weight)[1] for size in (1, 2, 3)}) == 1


def test_running_statistics_are_the_mean_over_lanes():
    model = DataParallel(nn.BatchNorm1d(2), lanes=4)
    x = torch.randn(12, 2)
    for part in model.lanes(x):
        model(part).sum().backward()
    means = x.reshape(4, 3, 2).mean(1).mean(0)
    variances = x.reshape(4, 3, 2).var(1).mean(0)
    np.testing.assert_allclose(model.module.running_mean.numpy(), 0.1 * means.numpy(), 1e-5, 1e-7)
    np.testing.assert_allclose(model.module.running_var.numpy(), 0.9 + 0.1 * variances.numpy(), 1e-5)
    assert int(model.module.num_batches_tracked) == 1


def test_gradients_add_up_over_batches_and_live_in_the_arena():
    model = DataParallel(nn.Linear(2, 1), lanes=2)
    torch.optim.SGD(model.parameters(), lr=1)
    for _ in range(2):
        for part in model.lanes(torch.ones(4, 2)):
            model(part).mean().backward()
    assert model.module.weight.grad.tolist() == [[2.0, 2.0]]
    assert model.module.weight.grad is model.module.weight.grad_slot


def test_gradients_of_what_is_trained_beside_the_module_stay_as_they_are():
    model, beside = DataParallel(nn.Linear(2, 1), lanes=4), torch.ones(3, requires_grad=True)
    torch.optim.SGD([*model.parameters(), beside], lr=1)  # one arena for all of them
    for _ in range(2):
        model.zero_grad()
        beside.sum().backward()
        for part in model.lanes(torch.ones(8, 2)):
            model(part).mean().backward()
        assert model.module.weight.grad.tolist() == [[1.0, 1.0]]
    assert beside.grad.tolist() == [2.0, 2.0, 2.0]


def test_gradients_that_somebody_keeps_stay_as_they_are():
    model = DataParallel(nn.Linear(2, 1), lanes=2)
    torch.optim.SGD(model.parameters(), lr=1)
    kept = []
    for step in (1.0, 2.0, 3.0):
        model.zero_grad()
        for part in model.lanes(torch.full((4, 2), step)):
            model(part).mean().backward()
        kept.append(model.module.weight.grad)
    assert [each.tolist() for each in kept] == [[[1.0, 1.0]], [[2.0, 2.0]], [[3.0, 3.0]]]


def test_parameters_may_freeze_or_move_between_steps():
    def body():
        model = DataParallel(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), lanes=4)
        first, last = model.module
        first.requires_grad_(False)
        nn.init.ones_(first.weight)
        nn.init.zeros_(first.bias)
        comm = world_comm()
        batch = torch.full((8, 2), 3.0)[2 * (4 * comm.rank // comm.size) : 2 * (4 * (comm.rank + 1) // comm.size)]
        found = []
        for optimizer in (None, torch.optim.SGD, torch.optim.Adam):
            model.zero_grad()
            if optimizer is not None:  # another arena for each group
                optimizer([{"params": [last.bias]}, {"params": [last.weight]}], lr=0.1)
            for part in model.lanes(batch):
                model(part).mean().backward()
            assert first.weight.grad is None
            found.append((last.weight.grad.tolist(), last.bias.grad.tolist()))
        return found

    for size in (1, 3):
        assert run_threads(size, body, timeout=60) == [[([[6.0, 6.0]], [1.0])] * 3] * size


def test_parameters_may_be_trained_later():
    def body():
        model = DataParallel(nn.Linear(2, 1), lanes=4)
        model.module.bias.requires_grad_(False)
        comm = world_comm()
        batch = torch.ones(8, 2)[2 * (4 * comm.rank // comm.size) : 2 * (4 * (comm.rank + 1) // comm.size)]
        found = []
        for trained in (False, True):
            model.module.bias.requires_grad_(trained)
            model.zero_grad()
            for part in model.lanes(batch):
                model(part).mean().backward()
            found.append([p.grad is not None and p.grad.tolist() for p in model.parameters()])
        return found

    for size in (1, 3):
        assert run_threads(size, body, timeout=60) == [[[[[1.0, 1.0]], False], [[[1.0, 1.0]], [1.0]]]] * size


def test_an_exception_leaves_everything_as_it_was():
    model = DataParallel(Net(), lanes=LANES)
    torch.optim.SGD(model.parameters(), lr=1)
    slots = [p.grad_slot for p in model.parameters()]
    before = torch.get_rng_state().tolist()
    with pytest.raises(ZeroDivisionError):
        for part in model.lanes(data(16)[:][0]):
            model(part).sum().backward()
            raise ZeroDivisionError
    assert torch.get_rng_state().tolist() == before
    assert [p.grad_slot for p in model.parameters()] == slots
    assert all(p.grad is None for p in model.parameters())
    for part in model.lanes(data(16)[:][0]):
        model(part).sum().backward()


def test_without_lanes_the_batch_is_one_part():
    model = DataParallel(nn.Linear(2, 1))
    batch = torch.ones(3, 2)
    assert [part is batch for part in model.lanes(batch)] == [True]


def test_evaluation_needs_no_lanes():
    model = DataParallel(Net(), lanes=LANES).eval()
    model(torch.ones(2, 6)).sum().backward()
    model.train()
    with torch.no_grad():
        model(torch.ones(2, 6))


@given(st.integers(1, 40), st.data())
def test_the_tree_does_not_depend_on_who_adds(leaves, draw):
    def add(left, right):
        return f"({left}+{right})"

    whole = TreeSum(leaves, add)
    for leaf in range(leaves):
        whole.push(Block(0, leaf), str(leaf))
    cuts = sorted(draw.draw(st.lists(st.integers(0, leaves), max_size=6)))
    pieces = TreeSum(leaves, add)
    for first, last in zip([0, *cuts], [*cuts, leaves], strict=True):
        part = TreeSum(leaves, add)
        for leaf in range(first, last):
            part.push(Block(0, leaf), str(leaf))
        assert [block for block, _ in part.blocks] == blocks_of(first, last, leaves)
        for block, value in part.blocks:
            pieces.push(block, value)
    assert pieces.total() == whole.total()
    assert whole.total().count("+") == leaves - 1


@given(st.integers(8, 60), st.integers(8, 20), st.integers(1, 8), st.booleans())
def test_the_sampler_deals_every_sample_once(count, batch_size, size, drop_last):
    samplers = [
        LaneSampler(range(count), batch_size, LANES, drop_last=drop_last, num_replicas=size, rank=rank)
        for rank in range(size)
    ]
    alone = LaneSampler(range(count), batch_size, LANES, drop_last=drop_last, num_replicas=1, rank=0)
    for _ in range(2):
        batches = list(zip(*samplers, strict=True))
        joined = [list(chain(*parts)) for parts in batches]
        assert joined == list(alone) and len(joined) == len(alone)
        assert all(len(batch) >= LANES for batch in joined)
        dealt = sorted(chain(*joined))
        if not drop_last or count < batch_size:
            assert dealt == list(range(count)) or drop_last
        assert len(set(dealt)) == len(dealt)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: DataParallel(Net(), lanes=8)(torch.ones(2, 6)), RuntimeError, r"for part in model.lanes\(batch\)"),
        (lambda: DataParallel(nn.Linear(1, 1)).lane_mean([1]), RuntimeError, "has no lanes"),
        (lambda: list(DataParallel(Net(), lanes=2).lanes("text")), TypeError, "got str 'text'"),
        (lambda: list(DataParallel(Net(), lanes=2).lanes(torch.ones(2), torch.ones(2))), TypeError, r"lanes\(\(x, y"),
        (lambda: list(DataParallel(Net(), lanes=2).lanes([torch.ones(2), torch.ones(3)])), ValueError, "same length"),
        (lambda: list(DataParallel(Net(), lanes=2).lanes(torch.ones(0))), ValueError, "not all zero"),
        (lambda: DataParallel(nn.SyncBatchNorm(2), lanes=2), ValueError, "depend on the number of ranks"),
        (lambda: DataParallel(Net(), lanes=2).no_sync().__enter__(), RuntimeError, "step the optimizer after several"),
        (lambda: DataParallel(Net(), lanes=0), ValueError, "lanes should be a positive integer"),
        (lambda: DataParallel(Net(), lanes=2, check_nan=True), ValueError, "check_nan looks at what is averaged"),
        (lambda: LaneSampler(range(9), 4, lanes=8), ValueError, "every lane needs a sample"),
        (lambda: LaneSampler(range(9), 8, lanes=2, num_replicas=3, rank=0), ValueError, "3 ranks cannot share 2 lanes"),
        (lambda: run_threads(3, lambda: DataParallel(Net(), lanes=2)), ValueError, "3 ranks cannot share 2 lanes"),
        (
            lambda: run_threads(2, lambda: list(DataParallel(Net(), lanes=3).lanes(torch.ones(3, 6)))),
            RuntimeError,
            r"have \[3, 3\] samples .* shared out as \[2, 4\]; take the batches from a",
        ),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_mpi(alone):
    try:
        mpiexec = find_mpiexec()
    except LaunchError as error:
        pytest.skip(str(error))
    job = finish_job(mpiexec.command(3, [sys.executable, str(Path(__file__))]), timeout=60)
    assert job.returncode == 0, job.stderr
    assert job.stdout.replace("\n", "") == alone[1] * 3  # lines of several ranks may be mixed


if __name__ == "__main__":
    print(train()[1])

"""compile(): replays have eager's bits, notice what they are to notice, and leave the rest to eager calls."""

import copy
import gc
import random
import sys
import threading
import tracemalloc
import types
import weakref

import numpy as np
import pytest

import paceline as torch
from paceline.autograd.graph import saved_tensors_hooks
from paceline.runtime import tree

nn, F = torch.nn, torch.nn.functional
FACTOR = 1


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)
        self.factor = 2.0

    def forward(self, x):
        h = torch.relu(self.first(self.norm(x))) * self.factor + x
        return self.second(h) + self.first(h).tanh() * h


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        u, v = self.layer(x).chunk(2, 1)
        h = torch.cat([u * v, v], 1)
        top = h.max(1)
        return {"y": h.softmax(1), "rest": [top.values, top.indices, 3, x]}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 8), nn.Embedding(5, 8)
        self.qkv, self.norm, self.mlp = nn.Linear(8, 24), nn.LayerNorm(8), nn.Linear(8, 8)
        self.register_buffer("mask", torch.tril(torch.ones(5, 5)))

    def forward(self, tokens):
        length = tokens.shape[1]
        x = self.tokens(tokens) + self.places(torch.arange(length))
        q, k, v = self.qkv(self.norm(x)).split(8, 2)
        scores = (q @ k.transpose(1, 2)) * 8**-0.5
        weights = scores.masked_fill(self.mask[:length, :length] == 0, float("-inf")).softmax(-1)
        x = x + F.gelu(self.mlp(weights @ v))
        return F.linear(x, self.tokens.weight)  # tied


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.ones(8, 1))

    def forward(self, x):
        return F.linear(F.linear(x, self.weight / self.weight.norm() * self.scale), self.weight)


def mlp():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def narrow():
    return nn.Sequential(nn.Linear(8, 6, bias=False), nn.ReLU(), nn.Linear(6, 1))


def conv():
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*layers).eval()


def normalized():
    layers = nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.InstanceNorm2d(4, track_running_stats=True)
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.Hardtanh(-2, 2, inplace=True))


def dropped():
    layers = nn.Dropout1d(0.5), nn.Conv1d(8, 16, 1), nn.GELU(), nn.Dropout(0.1), nn.Conv1d(16, 80, 1), nn.Dropout(0.3)
    return nn.Sequential(*layers)


def attentive():
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)


def tokens():
    return torch.randint(0, 11, (2, 5))


MODELS = {
    "mlp": (mlp, lambda: torch.randn(3, 8)),
    "narrow": (narrow, lambda: torch.randn(3, 8)),
    "conv": (conv, lambda: torch.randn(2, 3, 8, 8)),
    "residual": (Residual, lambda: torch.randn(3, 8)),
    "several": (Several, lambda: torch.randn(3, 8)),
    "block": (Block, tokens),
    "scaled": (Scaled, lambda: torch.randn(3, 8)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), lambda: torch.randn(5, 2, 8)),
    "attentive": (attentive, lambda: torch.randn(32, 9, 8)),
    "lstm": (lambda: nn.LSTM(8, 4), lambda: torch.randn(5, 2, 8)),
    "dropout": (dropped, lambda: torch.randn(32, 8, 2)),
    "batch norm": (normalized, lambda: torch.randn(2, 3, 8, 8)),
}


def bits(tensors):
    return [None if t is None else (t.dtype, tuple(t.shape), t.detach().numpy().tobytes()) for t in tensors]


def results(call, module, *inputs, steps=1):
    """What a call returns and all gradients, the module's memory as it is after `steps` updates."""
    found = []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.001, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        leaves = tree.flatten(call(*inputs))[0]
        outputs = [x for x in leaves if isinstance(x, torch.Tensor)]
        sum((x * x).sum() for x in outputs if x.requires_grad).backward()
        found += bits(outputs) + bits([p.grad for p in module.parameters()]) + bits([x.grad for x in inputs])
        optimizer.step()
    return found + bits(module.parameters()) + bits(module.buffers())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wanted", [False, True])
def test_training_has_the_bits_of_eager_training(name, wanted):
    make, draw = MODELS[name]
    torch.manual_seed(0)
    module, x = make(), draw()
    if wanted and x.is_floating_point():
        x.requires_grad_()
    twin, x2 = copy.deepcopy(module), copy.deepcopy(x)
    compiled = torch.compile(twin, fullgraph=True)
    torch.manual_seed(1)
    expected = results(module, module, x, steps=3)
    torch.manual_seed(1)
    assert results(compiled, twin, x2, steps=3) == expected


@pytest.mark.parametrize("name", [name for name in MODELS if name != "conv"])
def test_evaluation_has_the_bits_of_eager_evaluation(name):
    make, draw = MODELS[name]
    module = make().eval()
    compiled = torch.compile(module, fullgraph=True)
    with torch.no_grad():
        for _ in range(3):
            x = draw()
            mine, theirs = (tree.flatten(f(x))[0] for f in (compiled, module))
            keep = [i for i, t in enumerate(mine) if isinstance(t, torch.Tensor)]
            assert bits([mine[i] for i in keep]) == bits([theirs[i] for i in keep])
            assert not mine[0].requires_grad


# -- what is noticed ---------------------------------------------------------------------------------------------------


def frozen(module):
    module.first.weight.requires_grad_(False)


def replaced(module):
    module.first.weight = nn.Parameter(torch.randn(8, 8))


def replaced_child(module):
    module.second = nn.Linear(8, 8)


def registered(module):
    module._parameters["weight"] = nn.Parameter(torch.randn(8))
    module.norm.register_parameter("weight", module._parameters.pop("weight"))


def rebound(module):
    module.first.weight.data = torch.randn(8, 8)


def loaded(module):
    module.load_state_dict(Residual().state_dict())


def wider(module):
    module.double()


def attribute(module):
    module.factor = 3.0


def method(module):
    module.first.forward = lambda x: x * 2


def inner_training(module):
    module.second.add_module("more", nn.ReLU())
    module.second.eval()


def hooked(module):
    module.first.register_forward_hook(lambda module, inputs, output: output + 1)


CHANGES = (frozen, replaced, replaced_child, registered, rebound, loaded, wider, attribute, method, inner_training,
           hooked)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_changed_module_is_noticed(change):
    module = Residual()
    compiled = torch.compile(module)
    x = torch.randn(3, 8)
    for _ in range(2):
        compiled(x)
    change(module)
    x = x.to(module.second.weight.dtype)
    for _ in range(2):
        assert results(compiled, module, x, steps=0) == results(module, module, x, steps=0)
        module.zero_grad()
        compiled(x).sum().backward()
        mine = bits([compiled(x), *(p.grad for p in module.parameters())])
        module.zero_grad()
        module(x).sum().backward()
        assert mine == bits([module(x), *(p.grad for p in module.parameters())])


def test_changed_arguments_are_noticed():
    def function(x, times=1, *, shift=0.0):
        return (x * times + shift) if x.shape[0] < 4 else x - times

    compiled = torch.compile(function, fullgraph=True)
    for x in (torch.ones(2), torch.ones(5), torch.ones(2, dtype=torch.float64), torch.ones(2, requires_grad=True)):
        for arguments in ({}, {"times": 2}, {"times": 2, "shift": 1.0}):
            y, expected = compiled(x, **arguments), function(x, **arguments)
            assert bits([y]) == bits([expected])
            assert y.requires_grad == expected.requires_grad
            if len(compiled._records) > 6:
                compiled = torch.compile(function, fullgraph=True)


def test_training_and_evaluation_take_turns():
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    compiled = torch.compile(module)
    x = torch.ones(8, 4)
    for _ in range(20):
        assert (compiled.train()(x) == 0).any()
        assert bits([compiled.eval()(x)]) == bits([module(x)])
    assert len(compiled._compiled._records) == 2
    with torch.no_grad():
        assert not compiled(x).requires_grad
    assert compiled(x).requires_grad


def test_the_same_tensor_twice_and_other_layouts_are_noticed():
    module = nn.MultiheadAttention(8, 2)
    compiled = torch.compile(module, fullgraph=True)
    x, y = torch.randn(5, 2, 8), torch.randn(5, 2, 8)
    for arguments in ((x, x, x), (x, y, y), (x, y, x), (x, x.clone(), y), (y, y, y)):
        assert bits(compiled(*arguments)) == bits(module(*arguments))
    assert len(compiled._compiled._records) == 4

    compiled = torch.compile(lambda x: x.transpose(0, 1).reshape(-1))
    flat = compiled(torch.ones(2, 3))
    base = torch.ones(3, 2).transpose(0, 1)
    flat = compiled(base)
    flat.add_(1)
    assert base._version == 1

    signed = torch.compile(lambda x, sign: x * sign, fullgraph=True)
    assert [(1 / signed(torch.ones(1), sign)).item() for sign in (0.0, -0.0)] == [float("inf"), float("-inf")]


def hidden(x):
    return HIDDEN["model"](x)


HIDDEN = {"model": nn.Linear(4, 4)}


class Trainer:
    def __init__(self, model):
        self.model = model

    def through_self(self, x):
        return self.model(x)

    def nested(self, x):
        return next(self.model(part) for part in (x,))


def test_modules_are_found_through_attributes_and_functions():
    trainer = Trainer(nn.Linear(4, 4))
    holder = types.SimpleNamespace(trainer=trainer, models=[trainer.model])
    functions = (trainer.through_self, trainer.nested, lambda x: trainer.model(x), lambda x: holder.trainer.model(x),
                 lambda x: holder.models[0](x), lambda x: trainer.through_self(x), lambda x: hidden(x))  # fmt: skip
    x = torch.randn(2, 4)
    for function in functions:
        model = HIDDEN["model"] if function is functions[-1] else trainer.model
        compiled = torch.compile(function, fullgraph=True)
        compiled(x)
        nn.Linear(1, 1).eval()  # a change elsewhere
        compiled(x)
        assert len(compiled._records) == 1
        model.weight = nn.Parameter(torch.randn(4, 4))
        assert bits([compiled(x)]) == bits([model(x)])


def test_names_that_stand_for_something_else_are_noticed(monkeypatch):
    layer, factor = nn.Linear(2, 2), 1

    def function(x):
        nonlocal factor
        return layer(x) * factor * FACTOR

    compiled = torch.compile(function, fullgraph=True)
    for i in range(3):
        layer, factor = nn.Linear(2, 2), i
        monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2 - i)
        for _ in range(2):
            assert bits([compiled(torch.ones(2))]) == bits([function(torch.ones(2))])
    assert len(compiled._records) == 3


def test_parameters_of_modules_that_are_not_found_are_watched():
    layers = {"known": nn.Linear(2, 2), "hidden": [[[[[[nn.Linear(2, 2)]]]]]]}
    known = layers["known"]
    compiled = torch.compile(lambda x: known(layers["hidden"][0][0][0][0][0][0](x)), fullgraph=True)
    other = layers["hidden"][0][0][0][0][0][0]
    for _ in range(3):
        other.weight = nn.Parameter(torch.randn(2, 2))
        for _ in range(2):
            assert bits([compiled(torch.ones(1, 2))]) == bits([known(other(torch.ones(1, 2)))])


def test_the_default_dtype_is_noticed():
    compiled = torch.compile(lambda x: x / 2 + torch.ones(2), fullgraph=True)
    x = torch.tensor([1, 2])
    assert compiled(x).dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    assert compiled(x).dtype is torch.float64


def test_the_default_device_is_noticed(monkeypatch):
    compiled = torch.compile(lambda x: x + 1, fullgraph=True)
    compiled(torch.ones(2))
    other = torch.device("cuda", 0)
    with other:
        compiled(torch.ones(2, device="cpu"))
    assert len(compiled._records) == 2
    torch.set_default_device("cpu")
    compiled(torch.ones(2))
    assert len(compiled._records) == 2


# -- training steps ----------------------------------------------------------------------------------------------------


class Training:
    """What steps are made of; `kept` is what a step may do that no replay can."""

    def __init__(self):
        torch.manual_seed(0)
        self.model, self.criterion, self.kept = Residual(), nn.MSELoss(), []
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)


def plain(t, x, y):
    t.optimizer.zero_grad()
    loss = t.criterion(t.model(x), y)
    loss.backward()
    t.optimizer.step()
    return loss


def clipped(t, x, y):
    prediction = t.model(x)
    loss = t.criterion(prediction, y)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(t.model.parameters(), 0.1)
    nn.utils.clip_grad_value_(t.model.parameters(), 0.05)
    t.optimizer.step()
    t.schedule.step()
    t.model.zero_grad()
    return {"loss": loss.item(), "norm": norm, "error": (prediction - y).abs().max(), "logits": prediction.detach()}


def accumulated(t, x, y):
    t.criterion(t.model(x), y).backward()
    t.criterion(t.model(x * 2), y).backward()
    t.optimizer.step()
    t.optimizer.zero_grad(set_to_none=False)


def two_losses(t, x, y):
    h = t.model(x)
    first, second = h.sum(), t.criterion(h, y)
    first.backward(retain_graph=True)
    torch.autograd.backward(second)
    t.optimizer.step()
    return second.detach().item()


def two_graphs(t, x, y):
    for p in t.model.parameters():
        p.grad = None
    losses = [t.criterion(t.model(x * i), y) for i in range(2)]
    for loss in losses:
        loss.backward()
    t.optimizer.step()


STEPS = (plain, clipped, two_losses, two_graphs)


def reads_a_gradient(t, x, y):
    t.criterion(t.model(x), y).backward()
    return t.model.first.weight.grad.sum()


def uses_the_new_weights(t, x, y):
    plain(t, x, y)
    return t.model.first.weight.sum()


def uses_a_view_of_them(t, x, y):
    weight = t.model.first.weight.t()
    plain(t, x, y)
    return weight.sum()


def logs(t, x, y):
    t.kept.append(plain(t, x, y).item())


def formats(t, x, y):
    t.kept.append(f"{plain(t, x, y).item()}")


def divides(t, x, y):
    return plain(t, x, y).item() / 2


def gives_a_closure(t, x, y):
    def closure():
        loss = t.criterion(t.model(x), y)
        loss.backward()
        return loss

    return t.optimizer.step(closure)


def sets_a_gradient(t, x, y):
    for p in t.model.parameters():
        p.grad = torch.ones_like(p)
    return t.criterion(t.model(x), y).backward()


REFUSED_STEPS = {
    accumulated: "after backward", reads_a_gradient: "gradient",
    uses_the_new_weights: "after it changes", uses_a_view_of_them: "after it changes",
    logs: "keeps", formats: "read", divides: "read", gives_a_closure: "argument", sets_a_gradient: "gradient",
}  # fmt: skip


@pytest.mark.parametrize("step", [*STEPS, *REFUSED_STEPS], ids=lambda f: f.__name__)
def test_a_training_step_has_the_bits_of_an_eager_one(step):
    found = []
    for wrap in (lambda function: function, torch.compile):
        training = Training()
        run = wrap(lambda x, y, training=training: step(training, x, y))
        results = [run(torch.randn(3, 8), torch.randn(3, 8)) for _ in range(5)]
        tensors = [x for x in tree.flatten(results)[0] if isinstance(x, torch.Tensor)]
        numbers = [x for x in (*tree.flatten(results)[0], *training.kept) if not isinstance(x, torch.Tensor)]
        parameters = list(training.model.parameters())
        found.append((numbers, bits(tensors), bits(parameters), bits([p.grad for p in parameters])))
    assert found[0] == found[1]
    assert [reason for reason in run.reasons if REFUSED_STEPS.get(step, "none") not in reason] == []
    assert bool(run.reasons) == (step in REFUSED_STEPS)


def noisy(x):
    noise = torch.randn_like(x) * torch.rand(x.shape[1]) + torch.randint(0, 9, (1,))
    return x * noise + torch.randperm(len(x)).view(-1, 1), F.dropout(x, 0.5), torch.rand_like(x)


def test_random_numbers_are_those_that_eager_calls_draw():
    x, found = torch.randn(6, 4, requires_grad=True), []
    for call in (noisy, torch.compile(noisy, fullgraph=True)):
        torch.manual_seed(0)
        for _ in range(4):
            outputs = call(x)
            sum(y.sum() for y in outputs).backward()
            found.append(bits([*outputs, x.grad, torch.rand(3)]))
            x.grad = None
    assert found[:4] == found[4:]
    assert found[0] != found[1]


def test_random_numbers_of_a_call_that_fails_are_drawn_once():
    rows, drop = nn.Embedding(4, 2), nn.Dropout(0.5)

    def function(i):
        return drop(torch.ones(2)) + rows(i)

    compiled = torch.compile(function)
    compiled(torch.tensor([1]))
    found = []
    for call in (compiled, function):
        torch.manual_seed(0)
        with pytest.raises(IndexError):
            call(torch.tensor([4]))
        found.append(bits([torch.rand(4)]))
    assert found[0] == found[1]


def test_an_exception_in_a_step_leaves_it_undone():
    model = nn.Embedding(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    @torch.compile
    def step(i):
        model(i).sum().backward()
        optimizer.step()

    step(torch.tensor([1]))
    before = bits([model.weight, model.weight.grad])
    with pytest.raises(IndexError):
        step(torch.tensor([4]))
    assert bits([model.weight, model.weight.grad]) == before


def test_the_modules_of_a_step_that_cannot_be_replayed_are():
    model, log = Residual(), []
    run = torch.compile(lambda x: log.append(model(x).sum().item()))
    for _ in range(3):
        run(torch.ones(3, 8))
    assert log == log[:1] * 3
    assert "keeps" in run.reasons[0]
    assert [len(part._records) for _, part in run._parts] == [1]
    assert "forward" not in vars(model)


# -- what is left to eager calls ---------------------------------------------------------------------------------------

STATE = nn.Module()
STATE.register_buffer("count", torch.zeros(()))
LAYER = nn.Linear(2, 2)
KEPT = []


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def counted(x):
    STATE.calls = getattr(STATE, "calls", 0) + 1
    return x * 1


def overwritten(x):
    y = x * 2
    y[0] = 1
    return y


def through_a_view(x):
    y = x * 2
    y.view(2).add_(1)
    return y


def kept(x):
    KEPT.append(x * 2)
    return KEPT[-1] + 1


def with_hook(x):
    y = x * 2
    y.register_hook(lambda g: g * 3)
    return y.sum()


def caught(x):
    try:
        return x * x.sum().item()
    except Exception:
        return x


def differentiated(x):
    return x * torch.autograd.grad((x * x).sum(), x)[0]


FUNCTIONS = {
    "item": (lambda x: x * x.sum().item(), "read"),
    "condition": (lambda x: x * 2 if x.sum() > 0 else x * 3, "read"),
    "buffer": (lambda x: x * STATE.count.item(), "read"),
    "numpy": (lambda x: x * float(x.detach().numpy().sum()), "read"),
    "mask": (lambda x: x[x > 0] * 2, ""),
    "argument in place": (lambda x: x + x.detach().add_(0), "in place"),
    "view in place": (through_a_view, "in place"),
    "saved, in place": (lambda x: x + torch.exp(x).detach().add_(1), "in place"),
    "setitem": (overwritten, "in place"),
    "buffer in place": (lambda x: x + STATE.count.add_(1), "after it changes"),
    "out": (lambda x: torch.add(x.detach(), 1, out=torch.empty(2)) * x, ""),
    "random": (lambda x: x + torch.normal(0.0, 1.0, (2,)), "random"),
    "attribute": (counted, "attribute"),
    "keeps": (kept, "keeps"),
    "hook": (with_hook, "hook"),
    "Function": (lambda x: Double.apply(x) + 1, ""),
    "caught": (caught, "read"),
    "grad": (differentiated, "grad"),
    "data": (lambda x: x * LAYER.weight.data, ".data"),
    "view": (lambda x: x.view(2, 1), "view"),
    "equal": (lambda x: x * torch.equal(LAYER.weight, LAYER.weight), "read"),
    "checkpoint": (lambda x: torch.utils.checkpoint.checkpoint(torch.sin, x), "checkpoint"),
    "complex": (lambda x: torch.fft.fft(x).abs(), "complex"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_cannot_be_replayed_is_run_as_it_is(name):
    function, reason = FUNCTIONS[name]
    compiled = torch.compile(function)
    found = []
    for call in (compiled, function):
        torch.manual_seed(0)
        STATE.count.zero_()
        LAYER.zero_grad()
        KEPT.clear()
        for value in (1.0, 2.0, -3.0):
            x = torch.tensor([value, value + 1], requires_grad=True)
            y = call(x)
            y.sum().backward()
            found += bits([y, x.grad, LAYER.weight.grad, STATE.count])
    half = len(found) // 2
    assert found[:half] == found[half:]
    assert reason in " ".join(compiled.reasons)
    assert compiled.reasons
    with pytest.raises(RuntimeError, match="cannot be replayed"):
        torch.compile(function, fullgraph=True)(torch.ones(2, requires_grad=True))
    for tensor in KEPT:
        tensor.tolist()  # a true tensor, also of the call that was to be recorded


def test_errors_are_those_of_the_function():
    compiled = torch.compile(nn.Embedding(3, 2))
    compiled(torch.tensor([1]))
    for _ in range(2):
        with pytest.raises(IndexError, match="out of bounds"):
            compiled(torch.tensor([3]))
        with pytest.raises(IndexError, match="out of bounds"):
            compiled(torch.tensor([-1]))
    with pytest.raises(RuntimeError):
        torch.compile(nn.Linear(2, 2))(torch.ones(3))


def test_recordings_are_limited():
    compiled = torch.compile(lambda x: x * 2)
    for n in range(20):
        assert compiled(torch.ones(n + 1)).shape == (n + 1,)
    assert len(compiled._records) == 8
    assert "8 times" in compiled.reasons[0]


def test_python_random_numbers_are_eager():
    random.seed(0)
    expected = [random.random() for _ in range(3)]
    random.seed(0)
    compiled = torch.compile(lambda x: x * random.random())
    x = torch.ones(1, dtype=torch.float64)
    assert [compiled(x).item() for _ in range(3)] == expected


# -- the tape ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    module = Residual()
    compiled = torch.compile(module, fullgraph=True)
    compiled(torch.randn(3, 8))
    compiled(torch.randn(3, 8, requires_grad=True))
    return module, compiled


def test_gradients_accumulate_over_calls_as_eagerly(pair):
    module, compiled = pair
    x, y = torch.randn(3, 8), torch.randn(3, 8)
    found = []
    for call in (module, compiled):
        module.zero_grad()
        a, b = call(x), call(y)
        (a * b + call(b)).sum().backward()
        call(a.detach()).sum().backward()
        found.append(bits([p.grad for p in module.parameters()]))
    assert found[0] == found[1]


def test_backward_twice(pair):
    module, compiled = pair
    x = torch.randn(3, 8)
    found = []
    for call in (module, compiled):
        module.zero_grad()
        y = call(x).sum()
        y.backward(retain_graph=True)
        y.backward()
        found.append(bits([p.grad for p in module.parameters()]))
        with pytest.raises(RuntimeError, match="second time"):
            y.backward()
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["residual", "several", "block"])
def test_gradients_of_chosen_tensors_and_of_gradients(name):
    make, draw = MODELS[name]
    module, x = make(), draw()
    compiled = torch.compile(module, fullgraph=True)
    parameters = list(module.parameters())
    found = []
    for call in (module, compiled):
        outputs = [t for t in tree.flatten(call(x))[0] if isinstance(t, torch.Tensor) and t.requires_grad]
        loss = sum((t * t).sum() for t in outputs)
        some = torch.autograd.grad(loss, parameters[:1], retain_graph=True)
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in first), parameters, allow_unused=True)
        found.append(some + first + second)
    for mine, theirs in zip(*found, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_allclose(mine.detach(), theirs.detach(), rtol=1e-4, atol=1e-4)
    assert bits(found[0][: 1 + len(parameters)]) == bits(found[1][: 1 + len(parameters)])


def test_leaf_hooks_and_output_hooks(pair):
    module, compiled = pair
    found = []
    x = torch.randn(3, 8)
    with module.first.weight.register_hook(lambda g: g * 2):
        for call in (module, compiled):
            module.zero_grad()
            y = call(x)
            y.register_hook(lambda g: g + 1)
            y.sum().backward()
            found.append(bits([p.grad for p in module.parameters()]))
    assert found[0] == found[1]


def test_changed_values_are_refused_in_backward(pair):
    module, compiled = pair
    loss = compiled(torch.randn(3, 8)).sum()
    with torch.no_grad():
        module.first.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    compiled_exp = torch.compile(torch.exp, fullgraph=True)
    y = compiled_exp(torch.ones(2, requires_grad=True))
    with torch.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_saved_tensor_hooks_and_anomaly_detection(pair):
    module, compiled = pair
    x = torch.randn(3, 8)
    module(x).sum().backward()
    expected = bits([p.grad for p in module.parameters()])
    packed = []
    module.zero_grad()
    with saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        compiled(x).sum().backward()
    assert packed
    assert bits([p.grad for p in module.parameters()]) == expected
    y = compiled(x)
    with torch.autograd.detect_anomaly():
        for loss in (compiled(x).sum(), y.sum()):
            module.zero_grad()
            loss.backward()
            assert bits([p.grad for p in module.parameters()]) == expected


def test_checkpointed_and_transformed(pair):
    module, compiled = pair
    x = torch.randn(3, 8, requires_grad=True)
    found = []
    for call in (module, compiled):
        x.grad = None
        torch.utils.checkpoint.checkpoint(call, x, use_reentrant=False).sum().backward()
        found.append(bits([x.grad]))
    assert found[0] == found[1]
    batched = torch.func.vmap(torch.compile(module))(x)
    np.testing.assert_allclose(batched.detach(), module(x).detach(), rtol=1e-5, atol=1e-6)
    values = {name: p.detach() * 2 for name, p in module.named_parameters()}
    expected = torch.func.functional_call(module, values, x)
    wrapped = {f"_orig_mod.{name}": value for name, value in values.items()}
    assert bits([torch.func.functional_call(compiled, wrapped, x)]) == bits([expected])
    assert bits([compiled(x)]) == bits([module(x)])


def test_compiled_within_compiled(pair):
    module, compiled = pair
    x = torch.randn(3, 8)
    outer = torch.compile(lambda x: compiled(x) * 2, fullgraph=True)
    with torch.no_grad():
        inner = torch.compile(lambda: module.first.weight * 2, fullgraph=True)
        inner()
        around = torch.compile(lambda x: x + inner(), fullgraph=True)
        for _ in range(2):
            assert bits([outer(x)]) == bits([module(x) * 2])
            y = torch.randn(8, 8)
            assert bits([around(y)]) == bits([y + module.first.weight * 2])
            module.first.weight.mul_(2)


# -- the object --------------------------------------------------------------------------------------------------------


def test_a_compiled_module_is_a_module(pair):
    module, compiled = pair
    assert isinstance(compiled, nn.Module)
    assert compiled.factor == 2.0
    assert list(compiled.parameters()) == list(module.parameters())
    assert list(compiled.state_dict()) == [f"_orig_mod.{name}" for name in module.state_dict()]
    other = copy.deepcopy(compiled)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2)
    x = torch.randn(3, 8)
    assert bits([other(x)]) == bits([other._orig_mod(x)])
    assert bits([other(x)]) != bits([compiled(x)])


def test_nothing_of_the_recorded_call_is_kept():
    compiled = torch.compile(mlp(), fullgraph=True)
    x = torch.randn(3, 8)
    y = compiled(x)
    arrays = weakref.ref(x.array), weakref.ref(y.array)
    y.sum().backward()
    reference = weakref.ref(x)
    del x, y
    gc.collect()
    assert reference() is None
    assert [array() for array in arrays] == [None, None]


def test_threads_replay_and_record_at_once():
    module = Residual()
    compiled = torch.compile(module)
    inputs = [torch.randn(n % 5 + 1, 8) for n in range(40)]
    expected = [bits([module(x)]) for x in inputs]
    found = [[], [], []]

    def work(mine):
        mine += [bits([compiled(x)]) for x in inputs]

    def eager(mine):
        mine += [bits([module(x)]) for x in inputs]

    threads = [threading.Thread(target=f, args=(m,)) for f, m in zip((work, work, eager), found, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [expected] * 3
    assert len(compiled._compiled._records) == 5
    assert not compiled.reasons


def peak_memory(call):
    """The most that arrays take at a time while a call runs."""
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("wanted", [False, True])
def test_a_recorded_call_takes_no_more_memory_than_an_eager_one(wanted):
    def step(x):
        for _ in range(20):
            x = torch.flip(x.reshape(-1), (0,)).reshape(x.shape) + x[:1]
        return x.sum()

    x = torch.randn(1024, 1024, requires_grad=wanted)
    compiled = torch.compile(step, fullgraph=True)
    eager = peak_memory(lambda: step(x))
    assert eager > 2 * x.nbytes  # or nothing was measured
    assert peak_memory(lambda: compiled(x)) < eager + x.nbytes // 2
    assert peak_memory(lambda: compiled(x)) < eager + x.nbytes // 2


def test_a_replayed_training_step_takes_no_more_memory_than_an_eager_one():
    layers = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.Tanh(), nn.Softmax(1))]
    model, x = nn.Sequential(*layers), torch.randn(1024, 64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    compiled = torch.compile(step, fullgraph=True)
    for _ in range(2):
        step(), compiled()
    assert peak_memory(compiled) < peak_memory(step) + x.nbytes // 2


UFUNCS = [getattr(torch, name) for name in (
    "add sub mul div neg exp exp2 expm1 log log2 log10 log1p sqrt sin cos tan sinh cosh tanh").split()]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", UFUNCS, ids=lambda f: f.__name__)
def test_results_in_the_place_of_operands_have_the_bits_of_others(function, dtype):
    def run(x, y):
        if function in UFUNCS[:4]:
            return function(x * y, y), function(y, x * y), function(x * y, 3.0), function(x[:1] * y[:1], y)
        return function(x * y), function((x * y).t())

    compiled = torch.compile(run, fullgraph=True)
    for shape in ((3, 5), (70, 90)):
        x, y = torch.rand(*shape, dtype=dtype) + 0.1, torch.rand(*shape, dtype=dtype) + 0.1
        expected = bits(run(x, y))
        assert [bits(compiled(x, y)) for _ in range(2)] == [expected] * 2


def viewed(x, y):
    h = x * y
    row = h[1]
    return h + 1, row * 2


def saved(x, y):
    h = x * y
    return h.sin() * h.exp() + h.tanh()


def twice(x, y):
    h = x + y
    return (h * h).view(-1) - 1, h.t() + y.t()


def kept_for_backward(x, y):
    h = F.layer_norm(x * y, (6,))
    return h + 1, F.cross_entropy(h - 1, torch.arange(6))


@pytest.mark.parametrize("function", [viewed, saved, twice, kept_for_backward], ids=lambda f: f.__name__)
def test_no_operand_gives_its_place_that_is_needed_again(function):
    compiled, found = torch.compile(function, fullgraph=True), []
    for call in (function, compiled):
        torch.manual_seed(0)
        for _ in range(3):
            x, y = torch.randn(6, 6, requires_grad=True), torch.randn(6, 6)
            leaves = tree.flatten(call(x, y))[0]
            sum(z.sum() for z in leaves).backward()
            found.append(bits([*leaves, x.grad, y]))
    assert found[:3] == found[3:]


def test_a_chain_of_small_operations_takes_less_memory_than_an_eager_one():
    def run(x):
        return -(((x * x + 2).sqrt() - x) / 3)

    x, compiled = torch.randn(15000), torch.compile(run, fullgraph=True)
    run(x), compiled(x)
    assert peak_memory(lambda: compiled(x)) < 1.5 * x.nbytes < peak_memory(lambda: run(x))

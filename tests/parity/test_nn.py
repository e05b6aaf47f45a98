"""Layers and losses against PyTorch: repr, state, values and gradients from the same weights, initial distributions."""

import inspect

import numpy as np
import pytest
import torch

import paceline

# (name, arguments and options of the constructor, shapes of the inputs or what they are)
LAYERS = [
    ("Linear", (5, 3), {}, [(4, 5)]),
    ("Linear", (5, 3), {"bias": False}, [(2, 4, 5)]),
    ("Bilinear", (3, 4, 2), {}, [(5, 3), (5, 4)]),
    ("Identity", (), {}, [(2, 3)]),
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, [(2, 4, 9)]),
    ("Conv2d", (3, 6, 5), {}, [(2, 3, 12, 12)]),
    ("Conv2d", (3, 6, 3), {"padding": 1, "bias": False}, [(40, 3, 16, 16)]),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}, [(2, 4, 9, 8)]),
    ("Conv2d", (2, 3, 4), {"padding": "same"}, [(2, 2, 7, 7)]),
    ("Conv2d", (2, 3, 3), {"padding": 2, "padding_mode": "circular"}, [(2, 2, 7, 6)]),
    ("Conv2d", (4, 4, 3), {"groups": 4, "padding": 1}, [(2, 4, 8, 8)]),
    ("Conv2d", (8, 4, 1), {}, [(2, 8, 5, 5)]),
    ("Conv3d", (2, 4, (1, 3, 2)), {"padding": "same", "groups": 2}, [(2, 2, 4, 5, 3)]),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1, "groups": 2}, [(2, 4, 9)]),
    ("ConvTranspose2d", (3, 2, 4), {"stride": 2, "padding": 1}, [(2, 3, 5, 6)]),
    ("ConvTranspose3d", (2, 3, 2), {"dilation": 2, "bias": False}, [(2, 2, 3, 4, 3)]),
    ("MaxPool2d", (2,), {}, [(2, 3, 8, 8)]),
    ("MaxPool1d", (3, 2, 1), {"dilation": 2}, [(2, 3, 9)]),
    ("MaxPool3d", ((1, 2, 2),), {}, [(2, 3, 4, 5, 6)]),
    ("AvgPool1d", (3,), {"padding": 1}, [(2, 3, 9)]),
    ("AvgPool3d", (2,), {"divisor_override": 3}, [(2, 3, 4, 5, 6)]),
    ("LPPool2d", (2, 3), {"stride": 2}, [(2, 3, 8, 8)]),
    ("AdaptiveAvgPool1d", (3,), {}, [(2, 3, 8)]),
    ("AdaptiveAvgPool3d", ((2, None, 3),), {}, [(2, 3, 5, 4, 4)]),
    ("AdaptiveMaxPool1d", (3,), {}, [(2, 3, 8)]),
    ("AdaptiveMaxPool2d", ((3, 5),), {}, [(2, 3, 8, 8)]),
    ("AdaptiveMaxPool3d", (2,), {}, [(2, 3, 5, 4, 4)]),
    ("MaxPool2d", (3, 2, 1), {"ceil_mode": True}, [(2, 3, 9, 8)]),
    ("AvgPool2d", (2,), {}, [(2, 3, 8, 8)]),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}, [(2, 3, 9, 8)]),
    ("AdaptiveAvgPool2d", (1,), {}, [(2, 3, 8, 8)]),
    ("AdaptiveAvgPool2d", ((3, 5),), {}, [(2, 3, 8, 8)]),
    ("BatchNorm1d", (4,), {}, [(6, 4)]),
    ("BatchNorm1d", (4,), {"momentum": None, "affine": False}, [(3, 4, 5)]),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, [(4, 3, 5, 5)]),
    ("BatchNorm2d", (3,), {"momentum": 0.3, "eps": 0.1}, [(4, 3, 5, 5)]),
    ("LayerNorm", (6,), {}, [(4, 6)]),
    ("LayerNorm", ([3, 4],), {"bias": False}, [(2, 3, 4)]),
    ("GroupNorm", (2, 6), {}, [(3, 6, 4, 4)]),
    ("BatchNorm3d", (3,), {}, [(2, 3, 4, 2, 3)]),
    ("SyncBatchNorm", (3,), {"momentum": 0.3}, [(4, 3, 5)]),
    ("InstanceNorm1d", (3,), {}, [(4, 3, 5)]),
    ("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, [(4, 3, 5, 2)]),
    ("InstanceNorm3d", (3,), {}, [(3, 4, 5, 2)]),
    ("RMSNorm", ((3, 4),), {}, [(2, 3, 4)]),
    ("LocalResponseNorm", (3,), {"alpha": 0.5}, [(2, 5, 3)]),
    ("ZeroPad2d", ((1, 2, 0, 1),), {}, [(2, 3, 4, 5)]),
    ("ConstantPad1d", (2, 1.5), {}, [(2, 3, 4)]),
    ("ReflectionPad2d", ((1, 2, 0, 1),), {}, [(2, 3, 4, 5)]),
    ("ReplicationPad3d", (1,), {}, [(2, 3, 4, 5, 2)]),
    ("CircularPad2d", (2,), {}, [(2, 3, 4, 5)]),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear"}, [(2, 3, 4, 5)]),
    ("Upsample", ((7,),), {}, [(2, 3, 4)]),
    ("UpsamplingBilinear2d", (), {"scale_factor": 3}, [(2, 3, 4, 5)]),
    ("UpsamplingNearest2d", (6,), {}, [(2, 3, 4, 5)]),
    ("PixelShuffle", (2,), {}, [(2, 8, 3, 4)]),
    ("PixelUnshuffle", (2,), {}, [(2, 3, 6, 4)]),
    ("ChannelShuffle", (2,), {}, [(2, 6, 3, 4)]),
    ("Unfold", ((2, 3),), {"padding": 1}, [(2, 3, 4, 5)]),
    ("Fold", ((4, 5), 2), {"stride": (2, 1)}, [(2, 12, 8)]),
    ("CosineSimilarity", (), {}, [(4, 3), (4, 3)]),
    ("PairwiseDistance", (3.0,), {"keepdim": True}, [(4, 3), (4, 3)]),
    ("Embedding", (7, 3), {"padding_idx": 2}, ["indices below 7"]),
    ("Embedding", (7, 3), {"scale_grad_by_freq": True, "max_norm": 1.0}, ["indices below 7"]),
    ("EmbeddingBag", (7, 3), {"mode": "max", "padding_idx": -1}, ["indices below 7", "offsets"]),
    ("Dropout", (0.0,), {}, [(3, 4)]),
    ("Dropout2d", (0.0,), {"inplace": True}, [(3, 4, 2, 2)]),
    ("Flatten", (), {}, [(2, 3, 4)]),
    ("Unflatten", (1, (2, 3)), {}, [(2, 6)]),
    ("Softmax", (), {"dim": 1}, [(3, 4)]),
    ("LogSoftmax", (), {"dim": -1}, [(3, 4)]),
    ("Softmin", (), {"dim": 0}, [(3, 4)]),
    ("GLU", (), {"dim": 1}, [(3, 4)]),
    ("PReLU", (), {}, [(3, 4)]),
    ("PReLU", (4,), {}, [(3, 4, 2)]),
    ("LeakyReLU", (0.2,), {}, [(3, 4)]),
    ("ELU", (0.5,), {}, [(3, 4)]),
    ("GELU", (), {}, [(3, 4)]),
    ("GELU", (), {"approximate": "tanh"}, [(3, 4)]),
    ("Hardtanh", (-0.5, 0.7), {}, [(3, 4)]),
    ("Softplus", (2.0, 3.0), {}, [(3, 4)]),
    ("Threshold", (0.1, 2.0), {}, [(3, 4)]),
    *((name, (), {}, [(3, 4)]) for name in ("ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Hardsigmoid", "Hardswish",
                                            "Sigmoid", "Tanh", "Tanhshrink", "Softsign", "LogSigmoid")),
    ("CrossEntropyLoss", (), {}, [(5, 4), "indices below 4"]),
    ("CrossEntropyLoss", (), {"label_smoothing": 0.1, "ignore_index": 1}, [(5, 4), "indices below 4"]),
    ("CrossEntropyLoss", (), {"reduction": "sum"}, [(5, 4), (5, 4)]),
    ("NLLLoss", (), {"ignore_index": 2}, [(5, 4), "indices below 4"]),
    *((name, (), {"reduction": reduction}, [(5, 4), (5, 4)])
      for name in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "BCEWithLogitsLoss")
      for reduction in ("mean", "sum", "none")),
    ("SmoothL1Loss", (), {"beta": 0.4}, [(5, 4), (5, 4)]),
    ("HuberLoss", (), {"delta": 0.4}, [(5, 4), (5, 4)]),
    ("BCELoss", (), {}, ["probabilities", "probabilities"]),
    ("KLDivLoss", (), {"reduction": "batchmean"}, [(5, 4), "probabilities"]),
]  # fmt: skip
NAMES = [f"{name}{args}{kwargs or ''} of {shapes}" for name, args, kwargs, shapes in LAYERS]


def inputs(shapes):
    random = np.random.default_rng(3)
    found = []
    for shape in shapes:
        if shape == "probabilities":
            found.append(random.uniform(0.05, 0.95, (5, 4)))
        elif shape == "offsets":
            found.append(np.array([0, 2, 2]))
        elif isinstance(shape, str):
            found.append(random.integers(0, int(shape.split()[-1]), 5))
        else:
            found.append(random.standard_normal(shape))
    return found


def build(module, row):
    name, args, kwargs, _ = row
    torch.manual_seed(0)
    return getattr(module.nn, name)(*args, **kwargs)


def close(ours, theirs, tolerance=1e-5):
    """Sums of many terms are right to the tolerance times their largest element."""
    x, y = ours.detach().numpy(), theirs.detach().numpy()
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * np.abs(y).max(initial=1.0))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("row", LAYERS, ids=NAMES)
def test_same_as_pytorch(row, mode):
    ours, theirs = build(paceline, row), build(torch, row)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [tuple(p.shape) for p in ours.parameters()] == [tuple(p.shape) for p in theirs.parameters()]
    ours.load_state_dict({k: paceline.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    results = []
    for module, layer in ((paceline, ours), (torch, theirs)):
        getattr(layer, mode)()
        leaves = [module.tensor(x, requires_grad=x.dtype == float) for x in inputs(row[3])]
        values = [x.float() if x.requires_grad else x for x in leaves]
        out = layer(*(x * 1 if x.requires_grad else x for x in values))
        wanted = [x for x in leaves if x.requires_grad] + list(layer.parameters())
        weight = module.tensor(np.random.default_rng(4).standard_normal(tuple(out.shape)), dtype=module.float32)
        gradients = module.autograd.grad(out, wanted, weight, allow_unused=True) if out.requires_grad else ()
        results.append([out, *gradients, *layer.buffers()])
    for x, y in zip(*results, strict=True):
        assert tuple(x.shape) == tuple(y.shape)
        close(x, y)


DRAWN = [
    ("Linear", (300, 200)),
    ("Bilinear", (40, 50, 30)),
    ("Conv1d", (20, 30, 5)),
    ("Conv2d", (20, 30, 5)),
    ("ConvTranspose2d", (30, 20, 5)),
    ("Embedding", (200, 100)),
]


@pytest.mark.parametrize(("name", "args"), DRAWN)
def test_initial_distributions(name, args):
    """Spread, extent and shape (the share below half the largest value) of what is drawn."""
    paceline.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = getattr(paceline.nn, name)(*args), getattr(torch.nn, name)(*args)
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        x, y = np.abs(p.detach().numpy()).ravel(), np.abs(q.detach().numpy()).ravel()
        # three standard errors: of the mean of |x| they are below 3 * std / sqrt(n), for both draws
        allowed = 3 * 2**0.5 * y.std() / y.size**0.5
        assert abs(x.mean() - y.mean()) < allowed, key
        if name != "Embedding":  # uniform: the extent is sharp
            assert abs(x.max() / y.max() - 1) < 0.2 and x.max() <= 1 / {"Linear": 300, "Bilinear": 40}.get(
                name, 20 * 5 ** (1 + ("2d" in name))) ** 0.5 * (1 + 1e-6)  # fmt: skip


DEPRECATED = {"size_average", "reduce", "min_value", "max_value"}


@pytest.mark.parametrize("name", sorted({row[0] for row in LAYERS} - {"Identity"}))
def test_same_constructor(name):
    """Names, order and defaults of the arguments, but for deprecated ones."""
    ours, theirs = (inspect.signature(getattr(m.nn, name).__init__).parameters for m in (paceline, torch))
    wanted = {n: p.default for n, p in theirs.items() if n not in DEPRECATED and p.kind is not p.VAR_POSITIONAL}
    wanted.pop("kwargs", None)
    assert list(ours) == list(wanted)
    for n, p in ours.items():
        if name in ("Softmax", "LogSoftmax", "Softmin") and n == "dim":
            continue  # PyTorch guesses it with a warning
        assert p.default == wanted[n] or (p.default is p.empty and wanted[n] is p.empty), n


# -- whole networks ----------------------------------------------------------------------------------------------------


def lenet(nn):
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def residual(nn):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1, bias=False),
        nn.GroupNorm(2, 8), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 10),
    )  # fmt: skip


@pytest.mark.parametrize("network", [lenet, residual])
def test_training_gives_the_same_weights(network):
    """Ten steps of plain gradient descent, in float64 so that rounding cannot pile up."""
    random = np.random.default_rng(0)
    x, y = random.standard_normal((8, 3, 32, 32)), random.integers(0, 10, 8)
    torch.manual_seed(1)
    theirs = network(torch.nn).double()
    ours = network(paceline.nn).double()
    ours.load_state_dict({k: paceline.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    for module, model in ((paceline, ours), (torch, theirs)):
        criterion = module.nn.CrossEntropyLoss()
        for _ in range(10):
            model.zero_grad()
            criterion(model(module.tensor(x)), module.tensor(y)).backward()
            with module.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key].numpy(), value.numpy(), rtol=1e-8, atol=1e-10, err_msg=key)


def test_transformer_block_differentiates_as_pytorch_does():
    """Attention, layer norm and embedding together."""
    random = np.random.default_rng(0)
    tokens, table = random.integers(0, 9, (2, 5)), random.standard_normal((9, 8))
    results = []
    for module in (paceline, torch):
        F, weight = module.nn.functional, module.tensor(table, requires_grad=True)
        x = F.layer_norm(F.embedding(module.tensor(tokens), weight, padding_idx=3), (8,))
        q = x.view(2, 5, 2, 4).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, q, q, is_causal=True).transpose(1, 2).reshape(2, 5, 8)
        loss = F.cross_entropy(F.gelu(y).view(-1, 8), module.tensor(tokens).view(-1) % 8)
        loss.backward()
        results.append((loss, weight.grad))
    for x, y in zip(*results, strict=True):
        close(x, y, 1e-10)

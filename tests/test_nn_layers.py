"""Layers: closed forms, state, randomness, messages. tests/tables/nn_ops.py has the values of the functions."""

import copy
import math

import numpy as np
import pytest
from tables.nn_ops import conv2d as conv2d_by_loops

import paceline
from paceline.runtime.comm import world_comm
from paceline.runtime.comm.threads import run_threads

nn, F = paceline.nn, paceline.nn.functional
tensor = paceline.tensor


def random(*shape, seed=0, **options):
    return tensor(np.random.default_rng(seed).standard_normal(shape), **options)


def close(found, expected, tolerance=1e-6):
    np.testing.assert_allclose(found.detach().cpu().numpy(), expected, rtol=tolerance, atol=tolerance)


# -- convolution -------------------------------------------------------------------------------------------------------

GEOMETRIES = {
    "rows kept whole": ((2, 2, 5, 6), (2, 2, 2, 2), {}),
    "rows cut": ((2, 2, 5, 4), (2, 2, 2, 3), {}),
    "all options": ((2, 4, 5, 4), (2, 2, 2, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}),
}


@pytest.mark.parametrize(("size", "kernel", "options"), GEOMETRIES.values(), ids=GEOMETRIES)
def test_convolution_differentiates_twice(size, kernel, options, device):
    x = random(*size, seed=1).to(device).requires_grad_()
    w = random(*kernel, seed=2).to(device).requires_grad_()
    b = random(w.shape[0], seed=3).to(device).requires_grad_()
    function = lambda x, w, b: F.conv2d(x, w, b, **options)  # noqa: E731
    assert paceline.autograd.gradcheck(function, (x, w, b))
    assert paceline.autograd.gradgradcheck(function, (x, w, b))


def test_convolution_cuts_large_batches_into_pieces():
    x, w = np.random.default_rng(0).standard_normal((70, 2, 40, 40)), np.ones((1, 2, 3, 3))
    x[:, :, 4:] = 0
    found = F.conv2d(tensor(x), tensor(w), padding=1)
    close(found[[0, 33, 69], :, :8], conv2d_by_loops(x[[0, 33, 69]], w, padding=1)[:, :, :8], 1e-12)


def test_unbatched_images():
    x, layer = random(3, 8, 8, dtype=paceline.float32), nn.Conv2d(3, 4, 3)
    close(layer(x), layer(x.unsqueeze(0))[0].detach().numpy())
    assert F.max_pool2d(x, 2).shape == (3, 4, 4) and F.avg_pool2d(x, 2).shape == (3, 4, 4)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_of_convolution(mode):
    x = random(1, 2, 5, 5, dtype=paceline.float32)
    layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode)
    surrounded = F.pad(x, (1, 1, 1, 1), mode)
    close(layer(x), F.conv2d(surrounded, layer.weight, layer.bias).detach().numpy())


# -- pooling -----------------------------------------------------------------------------------------------------------


def test_max_pool_gives_the_gradient_to_the_first_of_equals():
    x = paceline.ones(1, 1, 2, 2, requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    close(x.grad, [[[[1, 0], [0, 0]]]])


def test_max_pool_indices_are_where_the_values_are():
    x = random(2, 3, 5, 6)
    values, indices = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    close(x.flatten(2).gather(2, indices.flatten(2)), values.flatten(2).numpy())


def test_max_pool_of_nan_and_of_nothing_but_minus_infinity():
    x = tensor([[[1.0, float("nan"), 2.0, 0.0]]], requires_grad=True)
    y, index = F.max_pool1d(x, 2, return_indices=True)
    assert math.isnan(float(y[0, 0, 0])) and index.tolist() == [[[1, 2]]]
    y.sum().backward()
    close(x.grad, [[[0, 1, 1, 0]]])
    _, index = F.max_pool1d(tensor([[[math.nan, 3.0, math.nan]]]), 3, return_indices=True)
    assert index.tolist() == [[[2]]]  # of several nans the last
    _, index = F.max_pool2d(paceline.full((1, 1, 2, 2), -math.inf), 2, 2, 1, return_indices=True)
    assert index.tolist() == [[[[0, 1], [2, 3]]]]


def test_max_pool_does_not_need_its_output_again():
    x = tensor([[[1.0, 2.0, -4.0, -3.0]]], requires_grad=True)
    F.relu(F.max_pool1d(x, 2), inplace=True).sum().backward()
    close(x.grad, [[[0, 1, 0, 0]]])


def test_unpooling_reverses_pooling():
    x = random(2, 3, 5, 4, 6)
    y, index = F.max_pool3d(x, 2, return_indices=True)
    z = F.max_unpool3d(y, index, 2, output_size=(5, 4, 6))
    kept = z != 0
    close(z[kept], x[kept].numpy())
    assert int(kept.sum()) == y.numel()


def test_fractional_pooling_repeats_by_seed():
    layer, x = nn.FractionalMaxPool3d(2, output_ratio=0.5), random(1, 2, 6, 6, 6)
    paceline.manual_seed(3)
    first = layer(x)
    paceline.manual_seed(3)
    close(layer(x), first.numpy())
    assert first.shape == (1, 2, 3, 3, 3)


# -- resizing ----------------------------------------------------------------------------------------------------------


def test_nothing_spreads_through_interpolation():
    """A nan stays among the outputs that it is a part of."""
    x = paceline.zeros(1, 1, 8)
    x[0, 0, 0] = math.nan
    y = F.interpolate(x, scale_factor=2.0, mode="linear")
    assert y.isnan().tolist() == [[[True] * 3 + [False] * 13]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_nearest_elements_are_the_same_in_all_dtypes(dtype):
    row = paceline.arange(20, dtype=getattr(paceline, dtype))[None, None]
    assert F.interpolate(row, scale_factor=1.3, mode="nearest-exact")[0, 0, 19].item() == 15  # at (19 + 0.5) / 1.3
    assert F.interpolate(row, scale_factor=2.6)[0, 0, 39].item() == 15  # at 39 / 2.6


def test_identity_grid_samples_the_image():
    x = random(2, 3, 4, 5)
    same = tensor(np.eye(2, 3)[None].repeat(2, 0))
    for align_corners in (False, True):
        grid = F.affine_grid(same, x.shape, align_corners)
        for mode in ("bilinear", "nearest", "bicubic"):
            close(F.grid_sample(x, grid, mode, align_corners=align_corners), x.numpy(), 1e-12)
        reflected = F.grid_sample(x, grid + tensor([2.0, 0.0], dtype=x.dtype), "bilinear", "reflection", align_corners)
        close(reflected, x.numpy()[..., ::-1], 1e-12)


def test_fold_counts_how_often_unfold_takes_each_element():
    ones = paceline.ones(1, 1, 4, 4)
    close(F.fold(F.unfold(ones, 3), (4, 4), 3), np.outer([1, 2, 2, 1], [1, 2, 2, 1])[None, None])


# -- normalization -----------------------------------------------------------------------------------------------------


def test_running_statistics_are_those_of_the_formula():
    layer = nn.BatchNorm1d(2, momentum=0.3)
    x = np.random.default_rng(0).standard_normal((5, 2)).astype("f")
    layer(tensor(x))
    close(layer.running_mean, 0.3 * x.mean(0))
    close(layer.running_var, 0.7 + 0.3 * x.var(0, ddof=1))
    assert int(layer.num_batches_tracked) == 1


def test_momentum_none_averages_all_batches():
    layer = nn.BatchNorm2d(2, momentum=None)
    batches = [np.random.default_rng(i).standard_normal((4, 2, 3, 3)).astype("f") for i in range(3)]
    for x in batches:
        layer(tensor(x))
    close(layer.running_mean, np.mean([x.mean((0, 2, 3)) for x in batches], 0))


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    layer = nn.BatchNorm1d(2)
    layer.running_mean.copy_(tensor([1.0, 2.0]))
    layer.running_var.copy_(tensor([4.0, 9.0]))
    close(layer.eval()(tensor([[3.0, 5.0]])), [[1.0, 1.0]], 1e-5)
    close(layer.running_mean, [1.0, 2.0])
    assert int(layer.num_batches_tracked) == 0


def test_without_running_statistics_evaluation_uses_the_batch():
    layer, x = nn.BatchNorm1d(3, track_running_stats=False), random(6, 3, dtype=paceline.float32)
    assert layer.running_mean is None and list(layer.state_dict()) == ["weight", "bias"]
    close(layer.eval()(x), layer.train()(x).detach().numpy())


@pytest.mark.parametrize("affine", [True, False])
def test_synchronized_batch_norm_is_batch_norm_of_all_batches(affine):
    """Outputs, gradients of the input and running statistics; those of parameters add up over the ranks."""
    x, weights = random(7, 2, 3), random(7, 2, 3, seed=1)
    parts = [slice(0, 2), slice(2, 7)]

    def run(layer, x, weights):
        layer, x = layer.double(), x.clone().requires_grad_()
        y = layer(x)
        (y * weights).sum().backward()
        return [y, x.grad, layer.running_mean, layer.running_var], [p.grad for p in layer.parameters()]

    def program():
        part = parts[world_comm().rank]
        return run(nn.SyncBatchNorm(2, affine=affine), x[part], weights[part])

    expected, of_parameters = run(nn.BatchNorm1d(2, affine=affine), x, weights)
    ranks = run_threads(2, program)
    for part, (found, _) in zip(parts, ranks, strict=True):
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            close(a, (b[part] if i < 2 else b).detach().numpy(), 1e-12)
    for a, b, whole in zip(ranks[0][1], ranks[1][1], of_parameters, strict=True):
        close(a + b, whole.numpy(), 1e-12)


def test_converting_to_synchronized_batch_norm_keeps_the_state():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2, affine=False)))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(converted[1][0], nn.SyncBatchNorm) and converted[0] is net[0]
    x = random(3, 1, 4, 4, dtype=paceline.float32)
    close(converted(x), net(x).detach().numpy())


def test_instance_norm_averages_running_statistics_over_samples():
    layer = nn.InstanceNorm1d(2, momentum=0.3, track_running_stats=True)
    x = np.random.default_rng(0).standard_normal((4, 2, 5)).astype("f")
    layer(tensor(x))
    close(layer.running_mean, 0.3 * x.mean((0, 2)))
    close(layer.running_var, 0.7 + 0.3 * x.var(2, ddof=1).mean(0))
    with pytest.warns(UserWarning, match="does not match num_features"):
        nn.InstanceNorm1d(3)(tensor(x))


def test_batch_norm_of_nothing():
    weight = paceline.ones(3, requires_grad=True)
    y = F.batch_norm(paceline.zeros(0, 3), None, None, weight, training=True)
    y.sum().backward()
    assert y.shape == (0, 3) and not weight.grad.any()


# -- lazy layers -------------------------------------------------------------------------------------------------------

LAZY = [
    (nn.LazyLinear, (2,), nn.Linear, (3, 4)),
    (nn.LazyConv1d, (2, 3), nn.Conv1d, (1, 4, 5)),
    (nn.LazyConv2d, (2, 3), nn.Conv2d, (4, 5, 5)),
    (nn.LazyConvTranspose3d, (2, 2), nn.ConvTranspose3d, (1, 4, 2, 2, 2)),
    (nn.LazyBatchNorm2d, (), nn.BatchNorm2d, (2, 4, 3, 3)),
    (nn.LazyInstanceNorm1d, (), nn.InstanceNorm1d, (4, 3)),
]


@pytest.mark.parametrize(("lazy", "args", "ordinary", "shape"), LAZY, ids=lambda x: getattr(x, "__name__", None))
def test_lazy_layers_become_ordinary_ones(lazy, args, ordinary, shape):
    layer = copy.deepcopy(lazy(*args)).double()
    names = list(layer.state_dict())
    with pytest.raises(RuntimeError, match="shape of an uninitialized parameter"):
        _ = layer.weight.shape
    x = random(*shape)
    y = layer(x)
    assert type(layer) is ordinary and list(layer.state_dict()) == names and y.dtype is paceline.float64
    again = lazy(*args).double()
    again.load_state_dict(layer.state_dict())
    fresh = lazy(*args).double()
    fresh.load_state_dict(lazy(*args).state_dict())  # neither knows its size: nothing to load
    assert fresh.has_uninitialized_params() and not again.has_uninitialized_params()
    close(again.eval()(x), layer.eval()(x).detach().numpy(), 1e-12)
    assert repr(again) == repr(layer)


def test_lazy_layer_keeps_its_parameters():
    """An optimizer made before the first call holds the parameters that the call fills."""
    layer = nn.LazyLinear(2)
    parameter = layer.weight
    assert repr(parameter) == "<UninitializedParameter>"
    layer(paceline.ones(1, 3))
    assert layer.weight is parameter and parameter.shape == (2, 3) and parameter.requires_grad


# -- embedding, dropout, attention -------------------------------------------------------------------------------------


def test_padding_row_stays_zero():
    layer = nn.Embedding(4, 2, padding_idx=-1)
    assert layer.padding_idx == 3 and not layer.weight[3].any()
    layer(tensor([[0, 3], [3, 0]])).sum().backward()
    close(layer.weight.grad, [[2, 2], [0, 0], [0, 0], [0, 0]])


def test_embedding_from_pretrained_is_frozen():
    layer = nn.Embedding.from_pretrained(paceline.eye(3))
    assert not layer.weight.requires_grad
    close(layer(tensor([2])), [[0, 0, 1]])


def test_dropout_keeps_the_mean_and_repeats_by_seed(device):
    x = paceline.ones(100, 100, device=device, requires_grad=True)
    paceline.manual_seed(0)
    y = F.dropout(x, 0.25)
    values, counts = np.unique(y.detach().cpu().numpy(), return_counts=True)
    close(tensor(values), [0, 1 / 0.75])
    assert abs(counts[0] / 10_000 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 10_000)
    y.sum().backward()
    close(x.grad, y.detach().cpu().numpy())
    paceline.manual_seed(0)
    close(F.dropout(x, 0.25), y.detach().cpu().numpy())


def test_embedding_shortens_the_vectors_it_uses():
    layer = nn.Embedding(3, 2, max_norm=1.0)
    with paceline.no_grad():
        layer.weight.copy_(tensor([[3.0, 4.0], [0.3, 0.4], [6.0, 8.0]]))
    close(layer(tensor([0, 1])), [[0.6, 0.8], [0.3, 0.4]])
    close(layer.weight, [[0.6, 0.8], [0.3, 0.4], [6.0, 8.0]])


def test_gradient_by_frequency():
    layer = nn.Embedding(3, 1, scale_grad_by_freq=True)
    layer(tensor([2, 0, 2, 2])).sum().backward()
    close(layer.weight.grad, [[1.0], [0.0], [1.0]])


@pytest.mark.parametrize("shape, dim", [((3,), 0), ((2, 3), 1), ((2, 3, 4), 0), ((2, 3, 4, 5), 1)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_softmax_without_a_dimension_warns_and_takes_pytorchs(name, shape, dim):
    x = paceline.randn(shape)
    with pytest.warns(UserWarning, match=rf"{name}\(\): a call without dim is deprecated; dim={dim} is taken"):
        y = getattr(F, name)(x)
    assert paceline.equal(y, getattr(F, name)(x, dim))


def test_alpha_dropout_keeps_mean_and_variance():
    paceline.manual_seed(0)
    x = paceline.randn(200, 400)
    for y in (F.alpha_dropout(x, 0.3, True), F.feature_alpha_dropout(x, 0.3, True)):
        assert abs(float(y.mean())) < 0.02 and abs(float(y.var()) - 1) < 0.02
    saturation = 1.7580993408473766
    values, counts = np.unique(F.alpha_dropout(x, 0.3, True).numpy(), return_counts=True)
    assert counts.max() / 80_000 == pytest.approx(0.3, abs=0.01)
    expected = (0.3 - 1) * saturation / ((0.3 * saturation**2 + 1) * 0.7) ** 0.5
    assert values[counts.argmax()] == pytest.approx(expected, rel=1e-5)
    assert nn.AlphaDropout(0.5).eval()(x) is x


def test_dropout_of_channels_and_its_limits():
    y = nn.Dropout2d(0.5)(paceline.ones(8, 16, 3, 3)).numpy().reshape(128, 9)
    assert set(y.mean(1)) == {0.0, 2.0}
    x = paceline.ones(4)
    assert nn.Dropout(0.9).eval()(x) is x and nn.Dropout(0.0)(x) is x
    assert not nn.Dropout(1.0)(x).any()
    assert nn.Dropout(1.0, inplace=True)(x) is x and not x.any()


def test_attention_that_looks_at_the_past_only():
    q = random(1, 4, 2)
    before = F.scaled_dot_product_attention(q, q, q, is_causal=True)
    later = q.clone()
    later[:, 3] = 9.0
    close(F.scaled_dot_product_attention(later, later, later, is_causal=True)[:, :3], before[:, :3].numpy())


# -- activations and losses --------------------------------------------------------------------------------------------


IN_PLACE = ["relu", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "silu", "mish", "hardsigmoid", "hardswish"]


@pytest.mark.parametrize("name", IN_PLACE)
def test_activations_in_place(name, device):
    function = getattr(F, name)
    x = random(3, 4).to(device).requires_grad_()
    y = x.clone()
    assert function(y, inplace=True) is y
    close(y, function(x).detach().cpu().numpy())
    weights = random(3, 4, seed=5).to(device)
    (found,) = paceline.autograd.grad((y * weights).sum(), [x])
    (expected,) = paceline.autograd.grad((function(x) * weights).sum(), [x])
    close(found, expected.cpu().numpy())


def test_cross_entropy_of_large_logits_does_not_overflow():
    x = tensor([[1e4, -1e4], [0.0, 1e4]], requires_grad=True)
    loss = F.cross_entropy(x, tensor([0, 1]))
    loss.backward()
    assert loss.item() == 0 and bool(x.grad.isfinite().all())


def test_cross_entropy_where_no_target_counts():
    x = paceline.zeros(2, 3, requires_grad=True)
    loss = F.cross_entropy(x, tensor([-100, -100]))
    loss.backward()
    assert math.isnan(loss.item())
    close(x.grad, np.zeros((2, 3)))


def test_class_weights():
    x, target, weight = random(4, 3), tensor([0, 2, 2, 1]), tensor([1.0, 2.0, 0.5], dtype=paceline.float64)
    losses = F.cross_entropy(x, target, reduction="none")
    factors = weight[target]
    close(F.cross_entropy(x, target, weight), ((losses * factors).sum() / factors.sum()).item(), 1e-12)


def test_binary_losses_agree():
    x, target = random(5), tensor([0.0, 1.0, 1.0, 0.0, 0.5], dtype=paceline.float64)
    close(F.binary_cross_entropy_with_logits(x, target), F.binary_cross_entropy(x.sigmoid(), target).item(), 1e-12)


def test_binary_cross_entropy_is_finite_at_the_limits():
    x = tensor([0.0, 1.0], requires_grad=True)
    loss = F.binary_cross_entropy(x, tensor([1.0, 0.0]))
    loss.backward()
    assert loss.item() == 100 and bool(x.grad.isfinite().all())


# -- messages ----------------------------------------------------------------------------------------------------------

x24, images = paceline.zeros(2, 4), paceline.zeros(1, 3, 4, 4)

MISTAKES = {
    "linear": (lambda: nn.Linear(784, 128)(paceline.zeros(32, 100)), RuntimeError,
               r"linear\(\): input has 100 features in its last dim, weight expects 784"),
    "linear dtype": (lambda: nn.Linear(4, 2)(x24.double()), RuntimeError, "same dtype, but got float64 and float32"),
    "bilinear": (lambda: nn.Bilinear(2, 4, 3)(x24, x24), RuntimeError, "bilinear.*got.*2, 4"),
    "conv channels": (lambda: nn.Conv2d(1, 6, 3)(images), RuntimeError, "to have 1 channels, but got 3 channels"),
    "conv dims": (lambda: nn.Conv2d(1, 6, 3)(x24), RuntimeError, r"Expected 3D .* but got input of size: \[2, 4\]"),
    "conv kernel": (lambda: nn.Conv2d(3, 6, 5)(images), RuntimeError, r"\(4 x 4\). Kernel size: \(5 x 5\)"),
    "conv dtype": (lambda: nn.Conv2d(3, 6, 3)(images.double()), RuntimeError, "Input type .float64.*float32"),
    "conv groups": (lambda: nn.Conv2d(3, 6, 3, groups=2), ValueError, "in_channels must be divisible by groups"),
    "conv bias": (lambda: F.conv2d(images, paceline.zeros(2, 3, 1, 1), paceline.zeros(3)), RuntimeError, "with 2 elem"),
    "conv padding": (lambda: nn.Conv2d(3, 6, 3, padding="full"), ValueError, "Invalid padding string 'full'"),
    "conv same": (lambda: nn.Conv2d(3, 6, 3, 2, "same"), ValueError, "not supported for strided"),
    "conv padding_mode": (lambda: nn.Conv2d(3, 6, 3, padding_mode="none"), ValueError, "padding_mode must be one of"),
    "pool dims": (lambda: F.max_pool2d(x24, 2), RuntimeError, r"max_pool2d\(\): Expected 3D or 4D"),
    "pool padding": (lambda: F.max_pool2d(images, 2, padding=2), RuntimeError, "at most half of effective kernel size"),
    "pool size": (lambda: F.avg_pool2d(images, 5), RuntimeError, "Output size is too small"),
    "pool stride": (lambda: F.avg_pool2d(images, 2, 0), RuntimeError, "greater than zero"),
    "pool divisor": (lambda: F.avg_pool2d(images, 2, divisor_override=0), RuntimeError, "divisor must be not zero"),
    "conv transpose": (lambda: nn.ConvTranspose2d(1, 2, 2)(images), RuntimeError, "to have 1 channels.*got 3 channels"),
    "conv output size": (lambda: nn.ConvTranspose2d(3, 2, 2, 2)(images, (9, 10)), ValueError, r"\[8, 8\] to \[9, 9\]"),
    "conv output padding": (lambda: F.conv_transpose1d(x24, paceline.zeros(2, 1, 1), output_padding=1), RuntimeError,
                            "output padding must be smaller"),
    "conv sizes": (lambda: F.conv2d(images, paceline.zeros(2, 3, 1, 1), stride=(1, 1, 1)), RuntimeError, "2 ints, got"),
    "unpool index": (lambda: F.max_unpool1d(x24, tensor([[0, 1, 2, 8]] * 2), 2), RuntimeError, "size 8"),
    "fractional": (lambda: nn.FractionalMaxPool2d(2), ValueError, "either an output_size or an output_ratio"),
    "interpolate": (lambda: F.interpolate(images), ValueError, "either size or scale_factor should be defined"),
    "interpolate mode": (lambda: F.interpolate(images, 2, mode="linear"), NotImplementedError, "1 spatial dim.* got 2"),
    "grid": (lambda: F.grid_sample(images, images), RuntimeError, "expected input.* and grid"),
    "shuffle": (lambda: F.pixel_shuffle(images, 2), RuntimeError, r"=3 is not divisible by 2 \* 2"),
    "fold": (lambda: F.fold(x24, (3, 3), 2), RuntimeError, r"expected input \[n, channels \* 4, 4\]"),
    "bag": (lambda: F.embedding_bag(tensor([0]), x24, tensor([1])), RuntimeError, "must begin with 0"),
    "bag offsets": (lambda: F.embedding_bag(tensor([0]), x24), ValueError, "has to be a 1D Tensor but got None"),
    "sparse": (lambda: nn.Embedding(3, 2, sparse=True), NotImplementedError, "no sparse tensors"),
    "lazy": (lambda: nn.LazyConv2d(2, 3)(x24), RuntimeError, "to LazyConv2d, but got input of size"),
    "instance norm": (lambda: F.instance_norm(paceline.zeros(1, 2, 1)), ValueError, "more than 1 spatial element"),
    "norm single": (lambda: nn.BatchNorm1d(4)(paceline.zeros(1, 4)), ValueError, "more than 1 value per channel"),
    "norm dims": (lambda: nn.BatchNorm2d(4)(x24), ValueError, "expected 4D input .got 2D"),
    "norm channels": (lambda: nn.BatchNorm1d(3)(x24), RuntimeError, "running_mean should contain 4 elements not"),
    "norm statistics": (lambda: F.batch_norm(x24, None, None), RuntimeError, "when training=False"),
    "layer norm": (lambda: nn.LayerNorm(3)(x24), RuntimeError, r"expected input with shape \[\*, 3\], but got"),
    "group norm": (lambda: nn.GroupNorm(3, 4), ValueError, "must be divisible by num_groups"),
    "embedding range": (lambda: nn.Embedding(3, 2)(tensor([3])), IndexError, "index 3 is out of bounds .* size 3"),
    "embedding negative": (lambda: nn.Embedding(3, 2)(tensor([-1])), IndexError, "index -1 is out of bounds"),
    "embedding dtype": (lambda: nn.Embedding(3, 2)(x24), RuntimeError, "Long or Int, got float32"),
    "embedding padding": (lambda: nn.Embedding(3, 2, padding_idx=3), AssertionError, "within num_embeddings"),
    "dropout": (lambda: nn.Dropout(1.5), ValueError, "between 0 and 1, but got 1.5"),
    "hardtanh": (lambda: nn.Hardtanh(1, 1), AssertionError, "max_val must be larger"),
    "softmax": (lambda: F.softmax(x24, 2), IndexError, "Dimension out of range"),
    "gelu": (lambda: F.gelu(x24, approximate="erf"), RuntimeError, "'none' or 'tanh', got 'erf'"),
    "prelu": (lambda: nn.PReLU(3)(x24), RuntimeError, "weight has 3 elements, expected 1 or .* 4"),
    "glu": (lambda: F.glu(paceline.zeros(3)), RuntimeError, "Halving dimension must be even"),
    "attention": (lambda: F.scaled_dot_product_attention(x24, images, x24), RuntimeError, "expected query"),
    "attention masks": (lambda: F.scaled_dot_product_attention(x24, x24, x24, x24, is_causal=True), RuntimeError,
                        "attn_mask must not be given with is_causal"),
    "pad": (lambda: F.pad(x24, (1, 2, 3)), RuntimeError, "even number of lengths"),
    "pad reflect": (lambda: F.pad(x24, (4, 0), "reflect"), RuntimeError, "not be more than 3"),
    "pad mode": (lambda: F.pad(x24, (1, 0), "mirror"), NotImplementedError, "Unrecognised padding mode mirror"),
    "target": (lambda: F.cross_entropy(x24, tensor([0, 12])), IndexError, "Target 12 is out of bounds.*4 classes"),
    "target negative": (lambda: F.cross_entropy(x24, tensor([0, -1])), IndexError, "Target -1 is out of bounds"),
    "target size": (lambda: F.cross_entropy(x24, tensor([0])), ValueError, r"input \[2, 4\] and target \[1\]"),
    "target dtype": (lambda: F.nll_loss(x24, paceline.zeros(2)), RuntimeError, "dtype int64, got float32"),
    "target soft": (lambda: F.cross_entropy(x24, paceline.zeros(2, 3)), ValueError, "must be the same as input size"),
    "class weights": (lambda: F.cross_entropy(x24, tensor([0, 1]), paceline.ones(3)), RuntimeError, "all 4 classes"),
    "smoothing": (lambda: F.cross_entropy(x24, tensor([0, 1]), label_smoothing=2), RuntimeError, "between 0.0 and 1.0"),
    "reduction": (lambda: F.mse_loss(x24, x24, reduction="max"), ValueError, "max is not a valid value for reduction"),
    "bce size": (lambda: F.binary_cross_entropy(x24, paceline.zeros(2)), ValueError, "must be the same as input size"),
    "bce range": (lambda: F.binary_cross_entropy(x24 + 2, x24), RuntimeError, "between 0 and 1"),
    "beta": (lambda: F.smooth_l1_loss(x24, x24, beta=-1), RuntimeError, "negative values for beta"),
    "delta": (lambda: F.huber_loss(x24, x24, delta=0), RuntimeError, "non-positive values for delta"),
}  # fmt: skip


@pytest.mark.parametrize(("mistake", "kind", "message"), MISTAKES.values(), ids=MISTAKES)
def test_messages(mistake, kind, message):
    with pytest.raises(kind, match=message):
        mistake()

"""The tape: hooks, freed graphs, changed values, views, modes, Function, threads, very long chains."""

import gc
import threading

import numpy as np
import pytest

import paceline as torch
from paceline.autograd import Function, engine, grad, gradcheck, gradgradcheck


def leaf(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def scalar(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


# -- accumulation ------------------------------------------------------------------------------------------------------


def test_gradients_of_all_uses_are_summed():
    x = leaf(1, 2)
    (x * x + 3 * x + x).sum().backward()
    assert x.grad.tolist() == [6, 8]
    x.sum().backward()
    assert x.grad.tolist() == [7, 9]


def test_leaves_that_get_one_gradient_stay_independent():
    x, y = leaf(1, 2), leaf(3, 4)
    (x + y).sum().backward()
    x.grad.add_(10)
    assert x.grad.tolist() == [11, 11] and y.grad.tolist() == [1, 1]


def test_a_root_gradient_given_by_the_user_is_not_changed_and_not_shared():
    x = leaf(1, 2)
    g = torch.tensor([1.0, 2.0], dtype=torch.float64)
    (x + 0).backward(g)
    x.grad.add_(10)
    x.backward(g)
    assert g.tolist() == [1, 2] and x.grad.tolist() == [12, 14]


def test_a_kept_gradient_is_not_overwritten_by_the_next_backward():
    x = leaf(1, 2)
    (x * 2).sum().backward()
    kept = x.grad
    x.grad = None
    (x * 3).sum().backward()
    assert kept.tolist() == [2, 2] and x.grad.tolist() == [3, 3]


def test_a_backward_without_a_reset_adds_to_the_same_tensor():
    x = leaf(1, 2)
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert x.grad is first and first.tolist() == [5, 5]


def test_zero_dimensional_gradients_are_arrays_of_their_own():
    x = scalar(2.0)
    (x * x).backward()
    kept = x.grad
    (x * x).backward()
    assert isinstance(x.grad.array, np.ndarray) and x.grad is kept and kept.item() == 8


def test_gradients_of_a_transposed_matrix_are_added_up():
    x, g = torch.zeros(130, 140, requires_grad=True), torch.arange(18200.0).reshape(140, 130)
    for _ in range(3):
        x.t().backward(g)
    assert np.array_equal(x.grad.numpy(), 3 * g.numpy().T)


def test_gradients_have_the_dtype_of_their_leaf():
    x = torch.ones(2, dtype=torch.float32, requires_grad=True)
    y = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (x * y).sum().backward()
    assert x.grad.dtype is torch.float32 and y.grad.dtype is torch.float64


def test_an_expanded_gradient_is_written_out_in_the_leaf():
    x = leaf(1, 2)
    x.sum().backward()
    x.grad[0] = 5
    assert x.grad.tolist() == [5, 1]


# -- which tensors are on the tape -------------------------------------------------------------------------------------


def test_leaves_and_computed_tensors():
    x = leaf(1)
    y = x * 2
    constant = torch.ones(1)
    assert x.is_leaf and constant.is_leaf and not y.is_leaf
    assert x.grad_fn is None and constant.grad_fn is None and y.grad_fn.name() == "MulBackward0"
    assert x.requires_grad and y.requires_grad and not constant.requires_grad
    assert (constant * 2).grad_fn is None


def test_integers_cannot_require_gradients():
    with pytest.raises(RuntimeError, match="only Tensors of floating point"):
        torch.ones(2, dtype=torch.int64).requires_grad_()


def test_computed_tensors_keep_their_flag():
    y = leaf(1) * 2
    with pytest.raises(RuntimeError, match="you can only change requires_grad flags of leaf"):
        y.requires_grad = False


def test_detach_shares_memory_and_leaves_the_tape():
    x = leaf(1, 2)
    y = (x * 2).detach()
    assert not y.requires_grad and y.is_leaf
    z = x.detach()
    z[0] = 7
    assert x.tolist() == [7, 2]


def test_detach_in_place():
    y = leaf(1) * 2
    assert y.detach_() is y and not y.requires_grad


def test_comparison_and_rounding_cut_the_graph_or_pass_zero():
    x = leaf(1.4, -2.6)
    assert not (x > 0).requires_grad and not x.argmax().requires_grad
    x.round().sum().backward()
    assert x.grad.tolist() == [0, 0]


# -- retain_graph ------------------------------------------------------------------------------------------------------


def test_a_second_backward_through_a_freed_graph_is_an_error():
    x = leaf(2)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        y.backward()


def test_retain_graph_allows_a_second_backward():
    x = leaf(2)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [8]


def test_grad_frees_the_graph_as_well():
    x = leaf(2)
    y = (x * x).sum()
    grad(y, x)
    with pytest.raises(RuntimeError, match="a second time"):
        grad(y, x)


def test_saved_values_are_let_go_by_backward():
    x = leaf(*range(10))
    y = x.exp()
    node = y.grad_fn
    y.sum().backward()
    assert node.saved is None


# -- hooks -------------------------------------------------------------------------------------------------------------


def test_a_hook_sees_and_replaces_the_gradient_of_a_computed_tensor():
    x = leaf(1, 2)
    y = x * 2
    seen = []
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    y.sum().backward()
    assert seen == [[1, 1]] and x.grad.tolist() == [20, 20]


def test_a_removed_hook_is_not_called():
    x = leaf(1)
    handle = x.register_hook(lambda g: g * 10)
    handle.remove()
    handle.remove()
    x.sum().backward()
    assert x.grad.tolist() == [1]
    with x.register_hook(lambda g: g * 10):
        x.sum().backward()
    x.sum().backward()
    assert x.grad.tolist() == [12]


def test_a_leaf_hook_is_called_once_with_the_sum_of_all_uses():
    x = leaf(1, 2)
    seen = []
    x.register_hook(lambda g: seen.append(g.tolist()))
    (x * 2 + x * x).sum().backward()
    assert seen == [[4, 6]] and x.grad.tolist() == [4, 6]


def test_a_leaf_hook_replaces_what_is_accumulated():
    x = leaf(1, 2)
    x.register_hook(lambda g: -g)
    x.sum().backward()
    x.sum().backward()
    assert x.grad.tolist() == [-2, -2]


def test_a_hook_must_return_a_tensor():
    x = leaf(1)
    x.register_hook(lambda g: 3)
    with pytest.raises(TypeError, match="must return a tensor or None, got int"):
        x.sum().backward()


def test_a_hook_that_changes_a_shared_gradient_in_place_does_not_reach_other_leaves():
    x, y = leaf(1, 2), leaf(3, 4)
    x.register_hook(lambda g: g * 2)
    (x + y).sum().backward()
    assert x.grad.tolist() == [2, 2] and y.grad.tolist() == [1, 1]


def test_hooks_on_constants_are_refused():
    with pytest.raises(RuntimeError, match="doesn't require gradient"):
        torch.ones(1).register_hook(print)
    with pytest.raises(RuntimeError, match="non-leaf"):
        (leaf(1) * 2).register_post_accumulate_grad_hook(print)


def test_post_accumulate_hooks_fire_once_with_the_complete_gradient_before_earlier_layers():
    """What data parallelism needs: when a layer's gradient is complete its hook runs, while earlier ones wait."""
    w1, w2 = leaf(1, 2), leaf(3, 4)
    events = []
    w1.register_post_accumulate_grad_hook(lambda p: events.append(("w1", p.grad.tolist(), w2.grad is not None)))
    w2.register_post_accumulate_grad_hook(lambda p: events.append(("w2", p.grad.tolist(), w1.grad is not None)))
    hidden = w1 * 2
    (hidden * w2 + w2 * w2).sum().backward()  # w2 is used twice
    assert events == [("w2", [2 + 6, 4 + 8], False), ("w1", [6, 8], True)]


def test_post_accumulate_hooks_see_the_accumulated_sum_and_may_clear_it():
    x = leaf(1)
    seen = []

    def take(p):
        seen.append(p.grad.tolist())
        p.grad = None

    x.register_post_accumulate_grad_hook(take)
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    assert seen == [[2], [3]] and x.grad is None


def test_post_accumulate_hook_of_a_leaf_that_is_itself_the_root():
    x = scalar(1.0)
    seen = []
    x.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.item()))
    x.backward()
    assert seen == [1]


def test_post_accumulate_hooks_do_not_fire_for_grad():
    x = leaf(1)
    x.register_post_accumulate_grad_hook(lambda p: pytest.fail("grad() accumulates nothing"))
    assert grad((x * 2).sum(), x)[0].tolist() == [2]


def test_retain_grad_keeps_gradients_of_computed_tensors():
    x = leaf(1, 2)
    y = x * 2
    y.retain_grad()
    z = y * y
    z.sum().backward()
    assert y.grad.tolist() == [4, 8] and y.is_leaf is False and z.grad is None
    with pytest.raises(RuntimeError, match="requires_grad=False"):
        torch.ones(1).retain_grad()


def test_callbacks_run_at_the_end_of_backward():
    x = leaf(1)
    events = []

    def last(p):
        engine.queue_callback(lambda: events.append(("end", x.grad.tolist())))
        events.append("hook")

    x.register_post_accumulate_grad_hook(last)
    (x * 2).sum().backward()
    assert events == ["hook", ("end", [2])]
    with pytest.raises(RuntimeError, match="no backward pass running"):
        engine.queue_callback(print)


def test_an_exception_in_a_hook_comes_through_and_leaves_the_engine_usable():
    x = leaf(1)
    handle = x.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (x * 2).sum().backward()
    handle.remove()
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2]


# -- in place ----------------------------------------------------------------------------------------------------------

CHANGED = "one of the variables needed for gradient computation has been modified by an inplace operation"


@pytest.mark.parametrize(
    "compute, change",
    [
        (lambda x: x * x, lambda x, y: x.add_(1)),
        (lambda x: x.exp(), lambda x, y: y.mul_(2)),
        (lambda x: x.exp(), lambda x, y: y[0].fill_(2)),
        (lambda x: x.sin(), lambda x, y: x.view(2, 1).zero_()),
        (lambda x: x.sin(), lambda x, y: x.detach().zero_()),
        (lambda x: x[:1] * x[1:], lambda x, y: x.zero_()),
        (lambda x: torch.cat([x, x]) * torch.cat([x, x]), lambda x, y: None),
    ],
    ids=["input", "output", "view of output", "view of input", "detached input", "base of view", "nothing"],
)
def test_a_saved_value_that_was_changed_is_an_error(compute, change):
    x = leaf(1, 2) * 1
    y = compute(x)
    before = x._version + y._version
    change(x, y)
    if x._version + y._version == before:
        y.sum().backward()
    else:
        with pytest.raises(RuntimeError, match=CHANGED):
            y.sum().backward()


def test_the_error_names_the_operation_that_saved_and_the_one_that_changed():
    x = leaf(1, 2) * 1
    y = x.sin()
    x.add_(1)
    with pytest.raises(RuntimeError, match=r"SinBackward0 saved it before it got to version 1 in add"):
        y.sum().backward()


def test_changing_what_is_not_needed_is_fine():
    x = leaf(1, 2)
    y = x * 3  # saves nothing of y
    y.add_(1)
    y.mul_(2)
    y.sum().backward()
    assert x.grad.tolist() == [6, 6]


@pytest.mark.parametrize("output", [0, 1])
def test_of_several_outputs_only_the_saved_ones_must_stay(output):
    x = leaf(3, 1, 2)
    outputs = x.sort()  # saves the indices
    outputs[output].zero_().add_(1)
    if output == 1:
        with pytest.raises(RuntimeError, match=CHANGED):
            outputs[0].sum().backward()
    else:
        outputs[0].sum().backward()
        assert x.grad.tolist() == [0, 0, 0]


def test_a_quotient_may_be_changed():
    x, y = leaf(2, 6), leaf(4, 3)
    (x / y).mul_(2).sum().backward()
    assert x.grad.tolist() == [0.5, 2 / 3] and y.grad.tolist() == [-0.25, -4 / 3]


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("part", [lambda y: y[1:], lambda y: y.view(2, 2)[1], lambda y: y[2:].unsqueeze(0)])
def test_what_was_overwritten_gets_no_gradient_where_that_is_not_finite(part, value):
    x, w = torch.ones(4, requires_grad=True), torch.ones(4, requires_grad=True)
    y, gradient = x * 2, torch.tensor([1.0, 2.0, value, value])
    part(y).copy_(part(w))
    y.backward(gradient)
    overwritten = torch.zeros(4)
    part(overwritten).fill_(1)
    there = overwritten.numpy() == 1
    np.testing.assert_array_equal(x.grad.numpy(), np.where(there, 0, 2 * gradient.numpy()))
    np.testing.assert_array_equal(w.grad.numpy(), np.where(there, gradient.numpy(), 0))


def test_leaves_that_require_gradients_are_not_changed_in_place():
    x = leaf(1, 2)
    for change in (lambda: x.add_(1), lambda: x[0].zero_(), lambda: x.view(-1).mul_(2), lambda: x.__setitem__(0, 1.0)):
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            change()
    with torch.no_grad():
        x.add_(1)
    assert x.tolist() == [2, 3] and x.is_leaf


IN_PLACE = {  # in-place program -> the same without in-place operations
    "add_": (lambda x, w: x.add_(w), lambda x, w: x + w),
    "mul_ by itself": (lambda x, w: x.mul_(x), lambda x, w: x * x),
    "mul_ by a view of itself": (lambda x, w: x.mul_(x[1:2]), lambda x, w: x * x[1:2]),
    "view mul_ by its base": (
        lambda x, w: [x[1:2].mul_(x[:1])] and x + 0,
        lambda x, w: torch.cat([x[:1], x[1:2] * x[:1], x[2:]]),
    ),
    "setitem number": (
        lambda x, w: x.__setitem__(0, 5.0) or x,
        lambda x, w: x * torch.tensor([0.0, 1, 1]) + torch.tensor([5.0, 0, 0]),
    ),
    "setitem tensor": (lambda x, w: x.__setitem__(slice(0, 2), w[1:]) or x, lambda x, w: torch.cat([w[1:], x[2:]])),
    "setitem itself": (lambda x, w: x.__setitem__(0, x[1] * 2) or x, lambda x, w: torch.cat([x[1:2] * 2, x[1:]])),
    "setitem mask": (lambda x, w: x.__setitem__(x > 1.5, 0.0) or x, lambda x, w: x * torch.tensor([1.0, 0, 0])),
    "setitem leaf": (lambda x, w: x.__setitem__(slice(None), w) or x, lambda x, w: w * 1),
    "view then base": (
        lambda x, w: [v := x[:2], v.mul_(w[:2])] and x * x,
        lambda x, w: (lambda y: y * y)(torch.cat([x[:2] * w[:2], x[2:]])),
    ),
    "base then view": (lambda x, w: [v := x[:2], x.mul_(w)] and v * v, lambda x, w: (x * w)[:2] * (x * w)[:2]),
    "view of view": (
        lambda x, w: [v := x[1:], u := v[1:], u.mul_(3), v.mul_(2)] and x + 0,
        lambda x, w: torch.cat([x[:1], x[1:2] * 2, x[2:] * 6]),
    ),
    "two views": (
        lambda x, w: [a := x[:2], b := x[1:], a.mul_(2), b.mul_(3)] and a.sum() * b.sum() + x.sum(),
        lambda x, w: (lambda y: y[:2].sum() * y[1:].sum() + y.sum())(x * torch.tensor([2.0, 6, 3])),
    ),
    "transposed view": (
        lambda x, w: [m := (x * 1).reshape(3, 1).expand(3, 2).clone(), m.t()[0].mul_(w)] and m,
        lambda x, w: torch.stack([x * w, x], 1),
    ),
    "zero_ and refill": (lambda x, w: x.zero_().add_(w), lambda x, w: w * 1),
    "copy_": (lambda x, w: x.copy_(w * 2), lambda x, w: w * 2),
    "fill_ with a tensor": (lambda x, w: x.fill_(w.sum()), lambda x, w: w.sum().expand(3) * 1),
    "masked_fill_": (
        lambda x, w: x.masked_fill_(torch.tensor([True, False, False]), 2.0),
        lambda x, w: x * torch.tensor([0.0, 1, 1]) + torch.tensor([2.0, 0, 0]),
    ),
    "sigmoid_": (lambda x, w: x.sigmoid_() * w, lambda x, w: x.sigmoid() * w),
    "constant base": (
        lambda x, w: [b := torch.zeros(3, dtype=torch.float64), b[1:].copy_(w[:2] * x[:2])] and b,
        lambda x, w: torch.cat([torch.zeros(1, dtype=torch.float64), w[:2] * x[:2]]),
    ),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_programs_equal_functional_ones(name):
    """Values, gradients and second derivatives."""
    changing, functional = IN_PLACE[name]
    found = []
    for program in (changing, functional):
        x, w = leaf(1.0, 2.0, 3.0), leaf(0.5, -1.0, 2.0)
        y = program(x * 1, w)
        gradients = grad((y * y).sum(), (x, w), create_graph=True, allow_unused=True, materialize_grads=True)
        total = sum((g * g).sum() for g in gradients)
        second = grad(total, (x, w), allow_unused=True, materialize_grads=True) if total.requires_grad else ()
        found.append([y.tolist(), *(g.tolist() for g in (*gradients, *second))])
    np.testing.assert_allclose(
        np.concatenate([np.ravel(v) for v in found[0]]), np.concatenate([np.ravel(v) for v in found[1]]), rtol=1e-12
    )


@pytest.mark.parametrize(
    "overwrite",
    [
        lambda x: x.zero_(),
        lambda x: x[:].copy_(torch.ones(3)),
        lambda x: x.view(3, 1)[:, 0].fill_(2),
    ],
    ids=["zero_", "copy_ into a view", "view of view"],
)
def test_what_a_constant_was_written_over_has_a_gradient_of_zero(overwrite):
    x = leaf(1, 2, 3)
    y = x * 2
    written = overwrite(y)
    assert y.requires_grad and written.requires_grad
    (y + written).sum().backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_after_a_view_was_changed_it_is_computed_from_what_it_was_cut_from():
    x = leaf(1, 2, 3) * 1
    view = x[:2]
    view.mul_(2)
    view_grad, x_grad = grad((view * view).sum(), (view, x))
    assert view_grad.tolist() == [4, 8] and x_grad.tolist() == [4, 8, 0]


def test_a_view_taken_without_grad_is_not_tracked_but_shares_memory():
    x = leaf(1, 2) * 1
    with torch.no_grad():
        v = x[:1]
        v.zero_()
    assert x.tolist() == [0, 2] and x._version == v._version == 1


def test_views_share_one_version_counter():
    x = torch.zeros(4)
    view, detached = x.view(2, 2)[0], x.detach()
    x.add_(1)
    view.add_(1)
    detached.add_(1)
    assert x._version == view._version == detached._version == 3
    assert x.clone()._version == 0


def test_expanded_views_cannot_be_written():
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor refers to a single memory"):
        torch.zeros(1).expand(3).add_(1)


# -- modes -------------------------------------------------------------------------------------------------------------


def test_no_grad_and_enable_grad():
    x = leaf(1)
    with torch.no_grad():
        assert not torch.is_grad_enabled() and not (x * 2).requires_grad
        with torch.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert torch.is_grad_enabled() and (x * 2).requires_grad


def test_modes_end_with_an_exception():
    with pytest.raises(ValueError), torch.no_grad():
        raise ValueError
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("decorator", [torch.no_grad, torch.no_grad(), torch.inference_mode, torch.inference_mode()])
def test_modes_as_decorators(decorator):
    x = leaf(1)

    @decorator
    def double(y, factor=2):
        "Doc."
        return y * factor

    assert not double(x).requires_grad and double.__name__ == "double" and double.__doc__ == "Doc."
    assert double(x, factor=3).tolist() == [3] and torch.is_grad_enabled()


def test_a_decorated_generator_is_in_its_mode_only_while_it_runs():
    @torch.no_grad()
    def generate():
        for _ in range(2):
            got = yield torch.is_grad_enabled()
            assert got is None
        return "done"

    inside = []
    for enabled in generate():
        inside.append(enabled)
        assert torch.is_grad_enabled()
    assert inside == [False, False]


def test_a_decorated_generator_takes_what_is_sent_and_thrown_into_it():
    @torch.no_grad()
    def echo():
        got = yield "ready"
        try:
            yield got
        except KeyError:
            yield "caught"

    generator = echo()
    assert next(generator) == "ready" and generator.send(5) == 5
    assert generator.throw(KeyError) == "caught"
    generator.close()


def test_set_grad_enabled_works_at_once_and_as_a_context():
    torch.set_grad_enabled(False)
    assert not torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    with torch.set_grad_enabled(False):
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_inference_mode():
    with torch.inference_mode():
        assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
        assert not (leaf(1) * 2).requires_grad
    with torch.inference_mode(False):
        assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


def test_modes_belong_to_their_thread():
    seen = []
    with torch.no_grad():
        thread = threading.Thread(target=lambda: seen.append(torch.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


# -- grad() and backward(inputs=) --------------------------------------------------------------------------------------


def test_grad_touches_no_grad_attribute_and_reaches_intermediate_tensors():
    x = leaf(1, 2)
    y = x * 3
    z = (y * y).sum()
    gx, gy = grad(z, (x, y))
    assert gx.tolist() == [18, 36] and gy.tolist() == [6, 12] and x.grad is None and y.grad is None
    assert not gx.requires_grad


def test_grad_computes_only_the_gradients_that_are_asked_for(monkeypatch):
    leaves = [torch.randn(2, 3, 4, requires_grad=True) for _ in range(3)]  # query, key, value
    out = torch.nn.functional.scaled_dot_product_attention(*leaves)
    out.sum().backward(retain_graph=True)
    plan, asked = out.grad_fn.plan, []
    function, pick = plan.fused

    def spy(xp, g, needs, *saved):
        asked.append(needs[:3])
        return function(xp, g, needs, *saved)

    monkeypatch.setattr(plan, "fused", (spy, pick))
    for i, leaf_ in enumerate(leaves):
        (found,) = grad(out.sum(), leaf_, retain_graph=True)
        assert torch.equal(found, leaf_.grad) and asked.pop() == tuple(k == i for k in range(3))


def test_grad_of_the_output_itself():
    y = leaf(2) * 3
    z = y.sum()
    assert grad(z, z)[0].item() == 1


def test_unused_inputs():
    x, unused = leaf(1), leaf(2)
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        grad((x * 2).sum(), (x, unused))
    assert grad((x * 2).sum(), (x, unused), allow_unused=True)[1] is None
    assert grad((x * 2).sum(), (x, unused), materialize_grads=True)[1].tolist() == [0]


def test_inputs_must_require_gradients():
    with pytest.raises(RuntimeError, match="does not require grad"):
        grad((leaf(1) * 2).sum(), torch.ones(1))


def test_several_outputs_and_their_gradients():
    x = leaf(1, 2)
    y, z = x * 2, x * x
    (g,) = grad((y, z.sum()), x, (torch.tensor([1.0, 10.0], dtype=torch.float64), None))
    assert g.tolist() == [2 + 2, 20 + 4]


def test_higher_derivatives():
    x = scalar(2.0)
    y, derivatives = x**4, []
    for _ in range(5):
        (y,) = grad(y, x, create_graph=True) if y.requires_grad else (torch.zeros(()),)
        derivatives.append(y.item())
    assert derivatives == [32, 48, 48, 24, 0]


def test_backward_with_create_graph_leaves_a_differentiable_gradient():
    x = leaf(3)
    (x**3).sum().backward(create_graph=True)
    (g,) = grad(x.grad.sum(), x)
    assert g.tolist() == [18]


def test_backward_into_chosen_inputs_only():
    x, y = leaf(1), leaf(2)
    z = x * 3
    (z * y).sum().backward(inputs=[x])
    assert x.grad.tolist() == [6] and y.grad is None
    with pytest.raises(RuntimeError, match="inputs cannot be empty"):
        (x * 2).sum().backward(inputs=[])


def test_backward_of_inputs_calls_their_hooks_once():
    x, y = leaf(1, 2), leaf(3, 4)
    seen = []
    for tensor in (x, y):
        tensor.register_post_accumulate_grad_hook(lambda p: seen.append((p, p.grad.tolist(), torch.is_grad_enabled())))
    (x * y).sum().backward(inputs=[x, x])
    assert len(seen) == 1 and seen[0][0] is x and seen[0][1:] == ([3, 4], False)


def test_backward_arguments_are_checked():
    x = leaf(1, 2)
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        torch.ones(()).backward()
    with pytest.raises(RuntimeError, match=r"Mismatch in shape: grad_output\[0\] has a shape of \[3\]"):
        (x * 2).backward(torch.ones(3))


# -- Function ----------------------------------------------------------------------------------------------------------


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g


class CubeInNewStyle(Function):
    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g


@pytest.mark.parametrize("function", [Cube, CubeInNewStyle])
def test_function_of_either_style_to_second_order(function):
    x = leaf(1.0, -2.0)
    assert gradcheck(function.apply, x) and gradgradcheck(function.apply, x)
    y = function.apply(x)
    assert y.grad_fn.name() == f"{function.__name__}Backward"
    assert not function.apply(torch.ones(2)).requires_grad


def test_function_may_save_its_output():
    class Exp(Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            return ctx.saved_tensors[0] * g

    x = leaf(0.5, 1.0)
    assert gradcheck(Exp.apply, x) and gradgradcheck(Exp.apply, x)
    y = Exp.apply(x)
    y.add_(1)
    with pytest.raises(RuntimeError, match=CHANGED):
        y.sum().backward()


def test_function_with_several_outputs_and_arguments():
    class Both(Function):
        @staticmethod
        def forward(ctx, x, factor, y):
            ctx.factor = factor
            assert ctx.needs_input_grad == (True, False, True)
            return x * factor, x + y, torch.arange(2)

        @staticmethod
        def backward(ctx, g1, g2, g3):
            assert g3.tolist() == [0, 0]
            return g1 * ctx.factor + g2, None, g2

    x, y = leaf(1, 2), leaf(3, 4)
    a, b, c = Both.apply(x, 5, y)
    assert not c.requires_grad
    (a * 2 + b).sum().backward()
    assert x.grad.tolist() == [11, 11] and y.grad.tolist() == [1, 1]
    x.grad = y.grad = None
    a, b, c = Both.apply(x, 5, y)
    b.sum().backward()  # the gradient of a comes as zeros
    assert x.grad.tolist() == [1, 1]


def test_function_can_ask_for_none_instead_of_zeros():
    class Two(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx, g1, g2):
            assert g2 is None
            return g1

    x = leaf(1)
    Two.apply(x)[0].sum().backward()
    assert x.grad.tolist() == [1]


def test_function_marks_outputs_without_gradient():
    class Mask(Function):
        @staticmethod
        def forward(ctx, x):
            positive = (x > 0) * 1.0
            ctx.mark_non_differentiable(positive)
            return x * positive, positive

        @staticmethod
        def backward(ctx, g, _):
            return g

    y, positive = Mask.apply(leaf(1.0, -1.0))
    assert y.requires_grad and not positive.requires_grad


def test_function_that_changes_its_input_in_place():
    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = leaf(1, 2)
    y = x * 1
    z = Double.apply(y)
    assert z is y and z.tolist() == [2, 4]
    z.sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_function_that_returns_its_input():
    class Same(Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 7

    x = leaf(1)
    y = Same.apply(x)
    assert y is not x
    y.sum().backward()
    assert x.grad.tolist() == [7]


def test_function_with_a_wrong_number_of_gradients():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(RuntimeError, match=r"incorrect number of gradients \(expected 2, got 1\)"):
        Wrong.apply(leaf(1), leaf(2)).sum().backward()


def test_function_may_return_too_many_nones():
    class Extra(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g, None, None

    x = leaf(1)
    Extra.apply(x).sum().backward()
    assert x.grad.tolist() == [1]


def test_function_of_a_wrong_gradient_shape_is_an_error():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum()

        @staticmethod
        def backward(ctx, g):
            return torch.ones(5, dtype=torch.float64)

    with pytest.raises(RuntimeError, match="shape"):
        Wrong.apply(leaf(1, 2)).backward()


def test_function_without_backward():
    class Forward(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

    with pytest.raises(NotImplementedError, match="static method backward"):
        Forward.apply(leaf(1)).sum().backward()


def test_function_saves_only_tensors():
    class Bad(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(3)
            return x

    with pytest.raises(TypeError, match="can only save tensors, got int"):
        Bad.apply(leaf(1))


def test_function_results_stay_independent_of_what_backward_returns():
    kept = []

    class Keep(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, g):
            kept.append(g)
            return g, g

    x, y = leaf(1), leaf(2)
    Keep.apply(x, y).sum().backward()
    x.grad.add_(5)
    assert kept[0].tolist() == [1] and y.grad.tolist() == [1]


# -- anomaly detection -------------------------------------------------------------------------------------------------


def test_anomaly_mode_names_the_operation_and_shows_its_forward():
    x = leaf(0.0)
    with torch.autograd.detect_anomaly():
        y = (x * 0) / x
        with pytest.raises(RuntimeError, match="returned nan values") as caught:
            y.sum().backward()
    assert "DivBackward0" in str(caught.value)
    assert any("(x * 0) / x" in note for note in caught.value.__notes__)


def test_anomaly_mode_switches():
    assert not torch.autograd.is_anomaly_enabled()
    with torch.autograd.set_detect_anomaly(True):
        assert torch.autograd.is_anomaly_enabled()
        with torch.autograd.set_detect_anomaly(False):
            assert not torch.autograd.is_anomaly_enabled()
    assert not torch.autograd.is_anomaly_enabled()


def test_errors_in_backward_name_their_node():
    class Fails(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise ArithmeticError("no")

    with pytest.raises(ArithmeticError) as caught:
        Fails.apply(leaf(1)).sum().backward()
    assert "FailsBackward" in caught.value.__notes__[0]


# -- size and threads --------------------------------------------------------------------------------------------------


def test_a_chain_of_100000_operations_is_differentiated_and_deleted_without_recursion():
    x = scalar(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1
    z = x
    for _ in range(100_000):
        z = z * 1.0
    del y, z
    gc.collect()


def test_a_long_chain_of_views_changed_in_place():
    x = leaf(1, 2) * 1
    view = x
    for _ in range(200):
        view = view[:]
    view.mul_(2)
    assert x.tolist() == [2, 4]


def test_two_threads_differentiate_at_once():
    shared = leaf(*range(100))
    results, errors = [], []

    def work(factor):
        try:
            for _ in range(50):
                x = leaf(*range(100))
                y = x
                for _ in range(10):
                    y = y * shared.detach() + factor * x
                (g,) = grad(y.sum(), x)
            results.append((factor, g.sum().item()))
        except Exception as error:
            errors.append(error)

    expected = {}
    for factor in (2, 3):
        work(factor)
        expected[factor] = results.pop()[1]
    threads = [threading.Thread(target=work, args=(f,)) for f in (2, 3, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors and sorted(results) == sorted((f, expected[f]) for f in (2, 2, 3, 3))


def test_graphs_are_freed_without_the_garbage_collector():
    class Marker:
        pass

    import weakref

    gc.collect()
    gc.disable()
    try:
        x = leaf(1, 2)
        y = x.exp()
        z = (y * y).sum()
        found = weakref.ref(y.grad_fn)
        z.backward()
        del y, z
        assert found() is None
    finally:
        gc.enable()


# -- the checker -------------------------------------------------------------------------------------------------------


def test_gradcheck_finds_a_wrong_derivative():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(torch.autograd.GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0"):
        gradcheck(Wrong.apply, leaf(1.0, 2.0))
    assert not gradcheck(Wrong.apply, leaf(1.0, 2.0), raise_exception=False)


def test_gradgradcheck_finds_a_wrong_second_derivative():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.x = x.detach()  # a constant to the tape: the first derivative is right, the second is not
            return x * x

        @staticmethod
        def backward(ctx, g):
            return 2 * ctx.x * g

    x = leaf(1.0, 2.0)
    assert gradcheck(Wrong.apply, x)
    with pytest.raises(torch.autograd.GradcheckError):
        gradgradcheck(Wrong.apply, x)


def test_gradcheck_needs_something_to_check():
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        gradcheck(torch.sin, torch.ones(2))


def test_the_former_word_for_a_tensor_on_the_tape():
    source = torch.ones(2, requires_grad=True)
    inner = torch.autograd.Variable(source * 2)
    assert not inner.requires_grad and isinstance(inner, torch.autograd.Variable)
    x = torch.autograd.Variable(torch.tensor([1.0, 3.0]), requires_grad=True)
    (x * x).sum().backward()
    assert x.grad.tolist() == [2.0, 6.0]
    with pytest.raises(TypeError, match="has to be a tensor, but got list"):
        torch.autograd.Variable([1.0])

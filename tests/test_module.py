"""What modules do beyond what tests/parity/test_module.py compares with PyTorch, and the essentials without PyTorch."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import paceline as torch
from paceline import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(3, 1))
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x):
        return self.head(self.fc(x - self.mean))


def test_output_is_the_composition_of_the_layers():
    net = Net()
    x = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
    w, b, v, c = (p.detach().numpy() for p in net.parameters())
    np.testing.assert_allclose(net(torch.tensor(x)).detach().numpy(), np.maximum(x @ w.T + b, 0) @ v.T + c, rtol=1e-5)


def test_repr():
    assert repr(Net()) == (
        "Net(\n"
        "  (fc): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (head): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Linear(in_features=3, out_features=1, bias=True)\n"
        "  )\n"
        ")"
    )


def test_results_of_operations_on_parameters_are_plain_tensors():
    parameter = nn.Parameter(torch.ones(2))
    assert isinstance(parameter, torch.Tensor)
    for result in (parameter * 2, parameter[0], parameter.detach(), parameter.data, parameter.clone()):
        assert type(result) is torch.Tensor
    assert parameter.is_leaf and parameter.requires_grad


def test_a_parameter_shares_its_data_and_backward_notices_changes_through_it():
    data = torch.ones(2)
    parameter = nn.Parameter(data)
    loss = (parameter * parameter).sum()
    data.add_(1)
    assert parameter.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_reading_a_parameter_runs_no_python_code():
    """What makes small models fast: values are ordinary attributes, whatever way they were registered."""
    net = Net()
    assert net.fc.__dict__["weight"] is net.fc._parameters["weight"]
    assert not hasattr(nn.Module, "__getattr__")
    net.fc._parameters["weight"] = replaced = nn.Parameter(torch.zeros(3, 2))
    assert net.fc.weight is replaced
    assert net.head._modules["1"] is net.head[1]


def test_a_state_dict_with_errors_changes_nothing():
    net = Net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    state["fc.bias"] = torch.zeros(7)
    del state["mean"]
    state["more"] = torch.zeros(1)
    with pytest.raises(RuntimeError) as error:
        net.load_state_dict(state)
    assert str(error.value) == (
        "Error(s) in loading state_dict for Net:\n"
        '\tMissing key(s) in state_dict: "mean". \n'
        '\tUnexpected key(s) in state_dict: "more". \n'
        "\tsize mismatch for fc.bias: copying a param with shape paceline.Size([7]) from checkpoint, the shape in "
        "current model is paceline.Size([3])."
    )
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name].numpy())


def test_loading_writes_into_the_memory_at_hand():
    source, target = Net().double(), Net()
    arrays = [p.array for p in target.parameters()]
    target.load_state_dict(source.state_dict())
    assert all(p.array is array for p, array in zip(target.parameters(), arrays, strict=True))
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach().numpy().astype(np.float32), b.detach().numpy())


def test_a_value_that_is_no_tensor_is_refused_by_name():
    with pytest.raises(RuntimeError, match=r'parameter named "mean", expected a Tensor .* received <class \'list\'>'):
        Net().load_state_dict({"mean": [0.0, 0.0]}, strict=False)


def test_conversion_keeps_identity_sharing_and_integers():
    net = Net()
    net.register_buffer("count", torch.tensor(3))
    net.head[1].weight = net.fc.weight
    weight = net.fc.weight
    net.double()
    assert net.fc.weight is weight is net.head[1].weight
    assert weight.dtype is torch.float64 and net.mean.dtype is torch.float64 and net.count.dtype is torch.int64


def test_to_moves_everything(device):
    net = Net().to(device)
    assert {t.device.type for t in (*net.parameters(), *net.buffers())} == {device}
    net(torch.ones(4, 2, device=device)).sum().backward()
    assert {p.grad.device.type for p in net.parameters()} == {device}
    net.cpu()
    assert {p.grad.device.type for p in net.parameters()} == {"cpu"}
    net.to(device).load_state_dict(Net().state_dict())


def test_copies_share_nothing_with_the_original():
    net = Net()
    net.head[1].register_forward_hook(hook)
    net(torch.ones(1, 2)).sum().backward()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert repr(other) == repr(net)
        for a, b in zip(net.parameters(), other.parameters(), strict=True):
            assert a is not b and a.tolist() == b.tolist() and b.requires_grad and b.grad is None
        other.extra = nn.Parameter(torch.zeros(1))
        assert not hasattr(net, "extra")
    shallow = copy.copy(net)
    shallow.extra = nn.Parameter(torch.zeros(1))
    assert shallow.fc is net.fc and "extra" not in dict(net.named_parameters())


def hook(module, args, output):
    return output


def test_shared_weights_stay_shared_in_copies():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other[0].weight is other[1].weight
        assert len(list(other.parameters())) == 3 and len(other.state_dict()) == 4


def test_a_hook_that_returns_nonsense_is_refused():
    linear = nn.Linear(1, 1)
    linear.register_forward_pre_hook(lambda module, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match=r"must return None or a tuple of \(new_args, new_kwargs\), but got 3"):
        linear(torch.ones(1))


def test_a_slice_can_be_appended_to():
    part = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())[1:]
    part.append(nn.Flatten())
    assert [type(module).__name__ for module in part] == ["Tanh", "Sigmoid", "Flatten"]


def test_sequential_is_named_by_an_ordered_dict():
    net = nn.Sequential(OrderedDict(first=nn.Linear(1, 2), second=nn.Linear(2, 1)))
    assert net.first is net[0]
    assert list(net.state_dict()) == ["first.weight", "first.bias", "second.weight", "second.bias"]
    assert net(torch.ones(3, 1)).shape == (3, 1)


def test_forgotten_init_is_explained():
    class Forgetful(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"cannot assign module before Module.__init__\(\) call"):
        Forgetful()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: nn.Parameter([1.0]), TypeError, r"Parameter\(\): data should be a Tensor, got list"),
        (lambda: nn.Parameter(torch.ones(1, dtype=torch.int64)), RuntimeError, "floating point and complex"),
        (lambda: nn.Module().x, AttributeError, "'Module' object has no attribute 'x'"),
        (lambda: nn.Module()(1), NotImplementedError, r'Module \[Module\] is missing the required "forward" function'),
        (lambda: nn.Module().add_module("m", 3), TypeError, r"cannot assign 'int' as module 'm' \(nn.Module or None"),
        (lambda: nn.Linear(1, 1).register_buffer("weight", None), KeyError, "attribute 'weight' already exists"),
        (lambda: nn.Linear(1, 1).to([1]), TypeError, "expects a device, a dtype or a tensor, got list"),
        (lambda: nn.Linear(1, 1).to(torch.int8), TypeError, "desired dtype=paceline.int8"),
        (lambda: nn.Sequential(nn.ReLU())[4], IndexError, "index 4 is out of range: there are 1 entries"),
        (
            lambda: nn.utils.vector_to_parameters(torch.zeros(9), nn.Linear(1, 1).parameters()),
            RuntimeError,
            "vec has 9 elements, the 2 parameters have 2",
        ),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    ("module", "count"),
    [(nn.Conv1d(2, 2, 2), 1), (nn.Sequential(nn.Dropout()), 1), (nn.MultiheadAttention(3, 1), 3), (nn.MSELoss(), 2)],
)
def test_what_is_no_tensor_is_refused_by_name(module, count):
    with pytest.raises(TypeError, match=r"^\w+: expected a tensor, got ndarray; .*as_tensor"):
        module(*[np.ones((2, 3), np.float32)] * count)


@pytest.mark.parametrize("name", ["appendix", "shape"])  # of nothing, and of a tensor, which nobody has taken it for
def test_other_missing_attributes_are_reported_as_they_are(name):
    class Wrong(nn.Module):
        def forward(self, x):
            return getattr([], name)

    with pytest.raises(AttributeError, match=name):
        Wrong()(torch.ones(1))

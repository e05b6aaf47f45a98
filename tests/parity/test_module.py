"""The same small program run on Paceline and on PyTorch must say the same."""

import collections
import copy

import pytest

import paceline
from paceline.runtime.arrays import module_of  # noqa: F401  (Paceline before torch: it sets the number of threads)

torch = pytest.importorskip("torch")


def make_block(torch):
    """A module with everything there is to register, on either library."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))
            self.fc = nn.Linear(2, 2)
            self.register_parameter("bias", None)
            self.register_buffer("mean", torch.zeros(2))
            self.register_buffer("scratch", torch.zeros(1), persistent=False)
            self.layers = nn.ModuleList([nn.Linear(2, 2), nn.ReLU(), nn.ReLU()])
            self.named = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False)})
            self.named["a"].weight = self.fc.weight
            self.again = self.fc
            self.nothing = None

        def forward(self, x):
            return self.fc(x) * self.scale

        def extra_repr(self):
            return "first line\nsecond line"

    return Block()


def reprs(torch):
    nn = torch.nn
    named = collections.OrderedDict(one=nn.ReLU(), two=nn.Sequential(nn.Flatten()))
    return [repr(module) for module in (
        make_block(torch), nn.Sequential(), nn.Sequential(named),
        nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU())),
        nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Linear(1, 1)]),
        nn.ModuleDict({"x": nn.ReLU()}), nn.Module(),
        nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2), requires_grad=False),
    )]  # fmt: skip


def walks(torch):
    block = make_block(torch)
    named = (block.named_parameters, block.named_buffers, block.named_modules)
    return [
        *([name for name, _ in walk()] for walk in named),
        *([name for name, _ in walk(prefix="p", remove_duplicate=False)] for walk in named),
        [name for name, _ in block.named_parameters(recurse=False)],
        [name for name, _ in block.named_buffers("x", False)],
        [name for name, _ in block.named_children()],
        [len(list(walk())) for walk in (block.parameters, block.buffers, block.modules, block.children)],
        list(block._parameters), list(block._buffers), list(block._modules),
    ]  # fmt: skip


def state_dicts(torch):
    block = make_block(torch)
    state = block.state_dict()
    shares = block.fc.weight.data_ptr() == state["fc.weight"].data_ptr()
    kept = block.state_dict(keep_vars=True, prefix="m.")["m.fc.weight"] is block.fc.weight
    filled = {"old": 1}
    block.state_dict(destination=filled)
    types = [type(state).__name__, type(state["fc.weight"]).__name__, state["fc.weight"].requires_grad]
    return [list(state), list(block.state_dict(prefix="m.")), list(filled), shares, kept, types]


def loading_errors(torch):
    state = make_block(torch).state_dict()
    state["extra"] = torch.zeros(1)
    state["more.extra"] = torch.zeros(1)
    del state["scale"], state["mean"]
    state["fc.weight"] = torch.zeros(3, 2)
    state["layers.0.bias"] = torch.zeros(())
    return message(lambda: make_block(torch).load_state_dict(state))


def loading_some(torch):
    block = make_block(torch)
    before = block.scale
    keys = block.load_state_dict({"scale": torch.tensor([3.0, 4.0]), "odd": torch.zeros(1)}, strict=False)
    return [keys.missing_keys, keys.unexpected_keys, block.scale is before, block.scale.tolist(),
            repr(block.load_state_dict(block.state_dict()))]  # fmt: skip


def loading_by_assignment(torch):
    source, target = make_block(torch).double(), make_block(torch)
    target.load_state_dict(source.state_dict(), assign=True)
    return [str(p.dtype) + str(p.requires_grad) + type(p).__name__ for p in target.parameters()]


def extra_state(torch):
    class Counting(torch.nn.Module):
        count = 0

        def get_extra_state(self):
            return self.count

        def set_extra_state(self, state):
            self.count = state

    one, two = torch.nn.Sequential(Counting()), torch.nn.Sequential(Counting())
    one[0].count = 5
    two.load_state_dict(one.state_dict())
    return [list(one.state_dict()), two[0].count]


def attributes(torch):
    nn, seen = torch.nn, []
    module = nn.Module()

    def note():
        seen.append([list(module._parameters), list(module._buffers), list(module._modules), hasattr(module, "x")])

    module.x = torch.zeros(1)
    note()
    module.x = nn.Parameter(torch.zeros(1))
    note()
    module.x = None
    note()
    seen.append([message(setattr, module, "x", value)[0] for value in (nn.Linear(1, 1), torch.zeros(1), 3)])
    del module.x
    note()
    module.x = nn.Buffer(torch.zeros(1), persistent=False)
    note()
    module.x = torch.ones(2)
    note()
    seen.append([module.x.tolist(), list(module.state_dict())])
    module.x = nn.Linear(1, 1)
    note()
    seen.append([message(setattr, module, "x", value)[0] for value in (nn.Buffer(torch.zeros(1)), 3)])
    module.x = nn.Parameter(torch.zeros(1))
    note()
    module.y = nn.Parameter(torch.zeros(1))
    module.z = nn.Parameter(torch.zeros(1))
    module.y = nn.Parameter(torch.ones(1))
    note()
    module._parameters["y"] = nn.Parameter(torch.tensor([7.0]))
    seen.append(module.y.item())
    del module._parameters["y"]
    seen.append(hasattr(module, "y"))
    return seen


def copies(torch):
    block = make_block(torch)
    block(torch.ones(1, 2)).sum().backward()
    other = copy.deepcopy(block)
    shallow = copy.copy(block)
    return [
        other.fc is other.again, other.named["a"].weight is other.fc.weight, other.fc.weight is block.fc.weight,
        other.fc.weight.grad is None, other.fc.weight.requires_grad,
        other.fc.weight.tolist() == block.fc.weight.tolist(),
        shallow.fc is block.fc, repr(shallow) == repr(block),
    ]  # fmt: skip


def conversions(torch):
    block = make_block(torch)
    block.register_buffer("count", torch.tensor(3))
    weight = block.fc.weight
    block(torch.ones(1, 2)).sum().backward()
    seen = []
    for convert in (
        lambda: block.double(), lambda: block.to(torch.float16), lambda: block.bfloat16(), lambda: block.float(),
        lambda: block.to("cpu", torch.float64), lambda: block.to(torch.zeros(1)), lambda: block.to(dtype=torch.double),
        lambda: block.half(), lambda: block.cpu(),
    ):  # fmt: skip
        seen.append([convert() is block, block.fc.weight is weight])
        seen.append([str(tensor.dtype) for tensor in (weight, weight.grad, block.mean, block.count)])
    return seen


def modes(torch):
    block = make_block(torch)
    seen = [[m.training for m in block.modules()], [m.training for m in block.eval().modules()]]
    block.layers.train()
    block.requires_grad_(False)
    order = []
    block.apply(lambda module: order.append(type(module).__name__))
    return [*seen, [m.training for m in block.modules()], [p.requires_grad for p in block.parameters()], order]


def zeroing(torch):
    block = make_block(torch)
    block(torch.ones(1, 2)).sum().backward()
    held = block.scale.grad
    block.zero_grad(set_to_none=False)
    seen = [held is block.scale.grad, held.tolist(), block.layers[0].weight.grad]
    block.zero_grad()
    return [*seen, block.scale.grad]


def hooks(torch):
    seen = []
    linear = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(linear.weight)

    def call(*args, **kwargs):
        seen.append(linear(*args, **kwargs).item())

    one = torch.ones(1)
    a = linear.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    call(one)
    b = linear.register_forward_pre_hook(lambda module, args: args[0] * 3, prepend=True)
    call(one)
    c = linear.register_forward_hook(lambda module, args, output: output + 10 * args[0])
    d = linear.register_forward_hook(lambda module, args, output: seen.append(output.item()), prepend=True)
    call(one)
    e = linear.register_forward_pre_hook(lambda m, args, kwargs: ((), {"input": kwargs["input"] + 5}), with_kwargs=True)
    f = linear.register_forward_hook(lambda m, args, kwargs, output: output + kwargs["input"], with_kwargs=True)
    for handle in (a, b, c, d):
        handle.remove()
    call(input=one)
    e.remove()
    f.remove()
    f.remove()
    call(one)
    return seen


def lookups(torch):
    block = make_block(torch)
    return [
        block.get_submodule("layers.1") is block.layers[1], block.get_submodule("") is block,
        block.get_parameter("fc.weight") is block.fc.weight, block.get_buffer("mean") is block.mean,
        message(lambda: block.get_submodule("layers.9")), message(lambda: block.get_submodule("scale")),
        message(lambda: block.get_parameter("fc.x")), message(lambda: block.get_parameter("mean")),
        message(lambda: block.get_buffer("scale")), message(lambda: block.missing),
    ]  # fmt: skip


def sequential(torch):
    nn = torch.nn
    net = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
    seen = [list(net[1:].state_dict()), len(net), repr(net[-1]), [type(m).__name__ for m in net]]
    net.append(nn.Flatten()).insert(0, nn.Tanh())
    seen.append(repr(net))
    net.extend([nn.Sigmoid()])
    net[1] = nn.Tanh()
    del net[0]
    seen.append([repr(net), repr(net.pop(0)), repr(net), repr(net + nn.Sequential(nn.ReLU()))])
    net += nn.Sequential(nn.Flatten())
    del net[1:]
    return [*seen, repr(net), message(lambda: net[5])[0], message(lambda: net.insert(9, nn.ReLU()))]


def lists_and_dicts(torch):
    nn = torch.nn
    modules = nn.ModuleList(nn.Linear(n, 1) for n in (1, 2))
    modules.append(nn.ReLU())
    modules += [nn.Tanh()]
    modules.insert(1, nn.Flatten())
    seen = [repr(modules), repr(modules[1:3]), repr(modules + [nn.Tanh()]), repr(modules.pop(0))]
    del modules[0]
    seen.append([repr(modules), list(modules.state_dict()), message(lambda: modules.extend(3)), message(modules)[0]])
    choices = nn.ModuleDict([("a", nn.ReLU())])
    choices["b"] = nn.Linear(1, 1)
    choices.update({"c": nn.Tanh()})
    del choices["a"]
    seen.append([list(choices), "b" in choices, len(choices), repr(choices), repr(choices.pop("c"))])
    seen.append([list(choices.keys()), list(map(repr, choices.values())), [name for name, _ in choices.items()]])
    parameters = nn.ParameterList([torch.zeros(2)])
    parameters.append(nn.Parameter(torch.ones(1)))
    table = nn.ParameterDict({"w": torch.zeros(1)})
    seen.append([[name for name, _ in parameters.named_parameters()], parameters[1].item(), len(parameters)])
    seen.append([type(p).__name__ for p in (*parameters, table["w"])])
    return [*seen, list(table.state_dict()), "w" in table]


def same_errors(torch):
    nn = torch.nn

    class Early(nn.Module):
        def __init__(self, value):
            self.value = value

    module, linear = nn.Module(), nn.Linear(1, 1)
    return [message(call) for call in (
        lambda: Early(linear), lambda: Early(linear.weight), lambda: Early(nn.Buffer(torch.zeros(1))),
        lambda: module(1), lambda: module.to(torch.int64), lambda: module.load_state_dict(3), lambda: module.train(1),
        lambda: module.register_module("a.b", None), lambda: module.register_module("", None),
        lambda: module.register_buffer("train", None), lambda: module.register_parameter(3, None),
        lambda: nn.init.calculate_gain("leaky_relu", True), lambda: nn.init.kaiming_normal_(torch.ones(2, 2), mode="x"),
    )] + [message(call)[0] for call in (
        lambda: linear.register_parameter("w", torch.zeros(1)), lambda: linear.register_buffer("b", 3),
        lambda: linear.add_module("m", 3), lambda: setattr(linear, "weight", torch.zeros(1)),
        lambda: nn.Sequential(3), lambda: nn.ModuleList([3]), lambda: nn.init.eye_(torch.zeros(1)),
        lambda: nn.init.dirac_(torch.zeros(3, 3, 3), 2), lambda: nn.init.xavier_normal_(torch.zeros(1)),
        lambda: nn.init.orthogonal_(torch.zeros(1)), lambda: nn.init.calculate_gain("no"),
        lambda: nn.utils.vector_to_parameters(3, linear.parameters()),
    )]  # fmt: skip


def vectors(torch):
    linear = torch.nn.Linear(2, 2)
    torch.nn.utils.vector_to_parameters(torch.arange(6.0), linear.parameters())
    vector = torch.nn.utils.parameters_to_vector(linear.parameters())
    vector.sum().backward()
    return [linear.weight.tolist(), linear.bias.tolist(), vector.tolist(), linear.bias.grad.tolist()]


def message(call, *args):
    try:
        call(*args)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return "no error"


PROGRAMS = [
    reprs, walks, state_dicts, loading_errors, loading_some, loading_by_assignment, extra_state, attributes, copies,
    conversions, modes, zeroing, hooks, lookups, sequential, lists_and_dicts, same_errors, vectors,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_program(program):
    assert plain(program(paceline)) == plain(program(torch))


def plain(value):
    """Text without the library's name."""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value.replace("paceline.", "torch.") if isinstance(value, str) else value

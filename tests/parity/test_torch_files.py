"""load() of files that torch.save wrote."""

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import paceline  # noqa: E402


def loaded(obj):
    file = io.BytesIO()
    torch.save(obj, file)
    file.seek(0)
    return paceline.load(file)


def check(ours, theirs):
    """Equal in structure and in every bit."""
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, paceline.Tensor)
        assert ours.requires_grad == theirs.requires_grad
        assert str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[1]
        assert tuple(ours.shape) == tuple(theirs.shape)
        wide = torch.float32 if theirs.dtype is torch.bfloat16 else theirs.dtype
        found = ours.detach().float() if theirs.dtype is torch.bfloat16 else ours.detach()
        np.testing.assert_array_equal(found.numpy(), theirs.detach().to(wide).resolve_conj().numpy())
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            check(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            check(a, b)
    else:
        assert ours == theirs


NAMES = ("bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 "
         "complex128").split()  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name):
    full = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
    tensors = {"full": full, "scalar": full[0, 1], "empty": full[:0], "strided": full.T, "part": full[:, 1:]}
    check(loaded(tensors), tensors)


def test_views_share_their_storage():
    base = torch.arange(10.0)
    ours = loaded([base, base[2:4], base.view(2, 5).T])
    ours[1].zero_()
    assert ours[0].tolist() == [0, 1, 0, 0, 4, 5, 6, 7, 8, 9]
    assert ours[2][2].tolist() == [0, 7]


def test_lazy_conjugates():
    x = torch.tensor([1 + 2j, 3 - 1j]).conj()
    check(loaded(x), x)
    check(loaded(x.imag), x.imag.resolve_neg())


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_training_states(optimizer):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    opt = getattr(torch.optim, optimizer)(net.parameters(), lr=0.1, **options)
    schedule = torch.optim.lr_scheduler.MultiStepLR(opt, [2, 3])
    net(torch.randn(4, 3)).sum().backward()
    opt.step()
    schedule.step()
    state = {"model": net.state_dict(), "optimizer": opt.state_dict(), "schedule": schedule.state_dict(), "epoch": 1}
    ours = loaded(state)
    check(ours, state)
    module = paceline.nn.Sequential(paceline.nn.Linear(3, 2), paceline.nn.BatchNorm1d(2))
    module.load_state_dict(ours["model"])
    getattr(paceline.optim, optimizer)(module.parameters(), lr=0.5).load_state_dict(ours["optimizer"])


def test_other_values():
    values = {"size": torch.Size([1, 2]), "device": "cpu", "complex": 1 + 2j, "set": {1, 2}, "none": None, "big": 2**80}
    check(loaded(values), values)
    assert loaded(torch.device("cpu")) == "cpu"
    assert loaded(torch.float16) is paceline.float16
    assert loaded(torch.nn.Parameter(torch.ones(2))).requires_grad


def test_objects_are_refused_by_name():
    with pytest.raises(RuntimeError, match=r"holds an object of torch\.nn\.modules\.linear\.Linear"):
        loaded(torch.nn.Linear(1, 1))


def test_large_tensors():
    big = torch.arange(300_000.0)
    check(loaded(big), big)


def test_safetensors_of_ours_are_read_by_theirs(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    state = {"a": paceline.ones(2, 3).bfloat16(), "b": paceline.arange(3)}
    paceline.save(state, tmp_path / "model.safetensors")
    for name, theirs in safetensors.load_file(tmp_path / "model.safetensors").items():
        check(state[name], theirs)
    safetensors.save_file({"a": torch.ones(2).bfloat16()}, tmp_path / "theirs.safetensors")
    check(paceline.load(tmp_path / "theirs.safetensors"), {"a": torch.ones(2).bfloat16()})

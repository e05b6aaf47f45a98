"""These tests compare with PyTorch and are skipped where it is not installed."""

import pytest

torch = pytest.importorskip("torch", minversion="2.13")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)  # the tensors here are small, and other tests run beside these

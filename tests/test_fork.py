"""A process forked between forward and backward computes the same gradients, though it has no threads for kernels."""

import os
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("numba")
if not hasattr(os, "fork"):
    pytest.skip("there is no fork() here", allow_module_level=True)

# The inputs are large enough for compiled kernels. A child that waits for its parent's threads is ended by the alarm.
PROGRAM = """
    import os, signal
    import numpy
    import paceline as torch
    from paceline import nn

    F = nn.functional
    classes = torch.randint(0, 100, (1024,))
    CASES = {
        "cross entropy": (lambda x: F.cross_entropy(x, classes), (1024, 100)),
        "softmax": (lambda x: F.softmax(x, 1).square().sum(), (1024, 100)),
        "gelu": (lambda x: F.gelu(x).sum(), (1024, 256)),
        "a chain": (lambda x: (x.tanh().exp() * x).sum(), (1024, 256)),
        "layer norm": (lambda x: F.layer_norm(x, (256,)).pow(3).sum(), (512, 256)),
        "batch norm": (lambda x: nn.BatchNorm2d(16)(x).pow(3).sum(), (16, 16, 32, 32)),
        "convolution": (lambda x: nn.Conv2d(16, 16, 3, padding=1)(x).square().sum(), (16, 16, 32, 32)),
        "max pooling": (lambda x: F.max_pool2d(x, 2).square().sum(), (16, 16, 32, 32)),
        "average pooling": (lambda x: F.avg_pool2d(x, 2).square().sum(), (16, 16, 32, 32)),
        "linear": (lambda x: nn.Linear(512, 512)(x).square().sum(), (512, 512)),
        "attention": (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True).sum(), (4, 4, 128, 32)),
        "lstm": (lambda x: nn.LSTM(64, 64)(x)[0].square().sum(), (32, 32, 64)),
        "embedding": (lambda x: F.embedding(classes, x).square().sum(), (100, 512)),
    }
    for name, (function, shape) in CASES.items():
        torch.manual_seed(0)
        x = torch.randn(shape, requires_grad=True)
        loss = function(x)
        expected, = torch.autograd.grad(loss, x, retain_graph=True)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            found, = torch.autograd.grad(loss, x)
            os._exit(not numpy.allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5))
        status = os.waitpid(child, 0)[1]
        if status:
            print(name, "gave other gradients" if status == 256 else f"ended with {status}")
"""


def test_backward_in_a_forked_process():
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.returncode) == ("", 0), run.stderr

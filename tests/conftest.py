"""Set-up that several test files share."""

import os
import sys
import threading

import pytest

import paceline
from paceline.runtime.arrays import device_count

EMULATED = "EMU_OUT" in os.environ  # the CUDA device is emulated on the CPU: no cuRAND, sort or cuSOLVER there


def pytest_configure(config):
    # paceline silences NumPy's warnings about nan and inf in its own modules; pytest's filters come before that
    config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning:paceline")
    # ranks that are threads share one GPU, which NCCL refuses
    config.addinivalue_line("filterwarnings", "ignore:arrays on GPUs travel through host memory")
    if EMULATED and device_count():
        sys.modules["cupy"]._util = sys.modules["cupy._util"]  # lost by the emulator's import hook; cupyx needs it
        compiler, compiling = sys.modules["cupy.cuda.compiler"], threading.Lock()
        compile_kernel = compiler._compile_using_nvrtc_no_warning

        def in_turn(*args, **kwargs):  # ranks that are threads would write the emulator's files of a kernel at once
            with compiling:
                return compile_kernel(*args, **kwargs)

        compiler._compile_using_nvrtc_no_warning = in_turn
        config.addinivalue_line("filterwarnings", "ignore::ResourceWarning")
        config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu", "cuda"][: 1 + (device_count() > 0)])


@pytest.fixture(autouse=True)
def unchanged_settings():
    """No test leaves process-wide settings behind."""
    dtype, device = paceline.get_default_dtype(), paceline.get_default_device()
    yield
    paceline.set_default_dtype(dtype)
    paceline.set_default_device(device)

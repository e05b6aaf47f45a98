"""torch.backends.cudnn's switches: convolutions on GPUs are CuPy's products of matrices, not cuDNN's."""

from ..runtime.switches import not_there as is_available

enabled = False
benchmark = False
deterministic = True
allow_tf32 = False

__all__ = ["allow_tf32", "benchmark", "deterministic", "enabled", "is_available"]

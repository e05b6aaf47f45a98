"""Those of torch.jit's names that mean something without TorchScript."""

from .tensor.eager import export, ignore, is_scripting, is_tracing, unused
from .tensor.eager import no_jit as __getattr__

__all__ = ["__getattr__", "export", "ignore", "is_scripting", "is_tracing", "unused"]

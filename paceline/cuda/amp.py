"""torch.cuda.amp's names, the older ones of torch.amp."""

from functools import partial

from ..optim.grad_scaler import GradScaler as _GradScaler
from ..tensor.autocast import cuda_autocast as autocast
from ..tensor.autocast import custom_bwd, custom_fwd

GradScaler = partial(_GradScaler, "cuda")

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]

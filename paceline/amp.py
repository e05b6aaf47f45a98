"""torch.amp's names: loss scaling, and autocast for scripts that ask for it."""

from .optim.grad_scaler import GradScaler
from .tensor.autocast import autocast, custom_bwd, custom_fwd, is_autocast_available

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]

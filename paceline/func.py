"""torch.func's names."""

from .autograd.batching import vmap
from .autograd.func import grad, grad_and_value, hessian, jacfwd, jacrev, jvp, vjp
from .nn.stateless import functional_call, stack_module_state

__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "stack_module_state",
    "vjp",
    "vmap",
]

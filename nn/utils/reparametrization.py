"""PyTorch's older weight and spectral normalisation: the weight is computed anew before every forward."""

from __future__ import annotations

import warnings
from typing import Any

from ...autograd.mode import no_grad
from ..functional.normalization import normalize
from ..module import Module
from ..parameter import Parameter
from .parametrizations import as_matrix, check_iterations, length_of, output_dim, random_direction

__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]


class _Computed:
    """A forward pre-hook that sets the attribute `name` to what other parameters of the module give."""

    title: str

    def __init__(self, name: str) -> None:
        self.name = name

    def weight(self, module: Module) -> Any:
        raise NotImplementedError

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.weight(module))

    def part(self, module: Module, suffix: str) -> Any:
        return getattr(module, f"{self.name}_{suffix}")

    @classmethod
    def find(cls, module: Module, name: str) -> int | None:
        """The key of such a hook for this name."""
        hooks = module._forward_pre_hooks.items()
        return next((key for key, hook in hooks if isinstance(hook, cls) and hook.name == name), None)

    def attach(self, module: Module) -> None:
        if self.find(module, self.name) is not None:
            raise RuntimeError(f"Cannot register two {self.title} hooks on the same parameter {self.name}")
        self.split(module)
        module.register_forward_pre_hook(self)

    def split(self, module: Module) -> None:
        """Put the parameters that the weight is computed from in its place."""
        raise NotImplementedError

    @classmethod
    def remove(cls, module: Module, name: str) -> Module:
        """Leave the weight as it is now, as a parameter."""
        key = cls.find(module, name)
        if key is None:
            raise ValueError(f"{cls.title} of '{name}' not found in {module}")
        hook: Any = module._forward_pre_hooks.pop(key)  # type: ignore[attr-defined]
        with no_grad():
            weight = hook.now(module)
        for suffix in hook.parts:
            delattr(module, f"{name}_{suffix}")
        delattr(module, name)
        module.register_parameter(name, Parameter(weight))
        return module


class WeightNorm(_Computed):
    """weight = g * v / |v|."""

    title = "weight_norm"
    parts = ("g", "v")

    def __init__(self, name: str, dim: int | None) -> None:
        super().__init__(name)
        self.dim = -1 if dim is None else dim

    def weight(self, module: Module) -> Any:
        direction = self.part(module, "v")
        return direction * (self.part(module, "g") / length_of(direction, self.dim))

    now = weight

    def split(self, module: Module) -> None:
        weight = getattr(module, self.name).detach()
        delattr(module, self.name)
        module.register_parameter(f"{self.name}_g", Parameter(length_of(weight, self.dim)))
        module.register_parameter(f"{self.name}_v", Parameter(weight))
        self(module, ())


class SpectralNorm(_Computed):
    """weight = original / its largest singular value."""

    title = "spectral_norm"
    parts = ("orig", "u", "v")

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__(name)
        check_iterations(n_power_iterations)
        self.n_power_iterations = n_power_iterations
        self.dim = dim
        self.eps = eps

    def weight(self, module: Module) -> Any:
        if module.training:
            self._iterate(module)
        return self.now(module)

    def now(self, module: Module) -> Any:
        original = self.part(module, "orig")
        # copies: the next forward changes the buffers, which backward through this one still needs
        u, v = self.part(module, "u").clone(), self.part(module, "v").clone()
        return original / u.dot(as_matrix(original, self.dim) @ v)

    def _iterate(self, module: Module) -> None:
        u, v = self.part(module, "u"), self.part(module, "v")
        with no_grad():
            matrix = as_matrix(self.part(module, "orig"), self.dim)
            for _ in range(self.n_power_iterations):
                v.copy_(normalize(matrix.mT @ u, dim=0, eps=self.eps))
                u.copy_(normalize(matrix @ v, dim=0, eps=self.eps))

    def split(self, module: Module) -> None:
        weight = module._parameters[self.name]
        if weight is None:
            raise ValueError(f"`SpectralNorm` cannot be applied as parameter `{self.name}` is None")
        matrix = as_matrix(weight.detach(), self.dim)
        delattr(module, self.name)
        module.register_parameter(f"{self.name}_orig", weight)
        setattr(module, self.name, weight.detach())
        module.register_buffer(f"{self.name}_u", random_direction(matrix, 0, self.eps))
        module.register_buffer(f"{self.name}_v", random_direction(matrix, 1, self.eps))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """The older form of `parametrizations.weight_norm`: the parameters are `weight_g` and `weight_v`."""
    warnings.warn(
        "`nn.utils.weight_norm` is deprecated in favor of `nn.utils.parametrizations.weight_norm`.",
        FutureWarning,
        stacklevel=2,
    )
    WeightNorm(name, dim).attach(module)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Undo `weight_norm`; the weight keeps its value.

    Raises:
        ValueError: there is none on that name.
    """
    return WeightNorm.remove(module, name)


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """The older form of `parametrizations.spectral_norm`: the parameter is `weight_orig`, iterated once a forward."""
    dim = output_dim(module) if dim is None else dim
    SpectralNorm(name, n_power_iterations, dim, eps).attach(module)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Undo `spectral_norm`; the weight keeps its value.

    Raises:
        ValueError: there is none on that name.
    """
    return SpectralNorm.remove(module, name)

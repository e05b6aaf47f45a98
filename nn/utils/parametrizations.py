"""Weights that are normalised by their norm or their largest singular value, or kept orthogonal."""

from __future__ import annotations

from typing import Any

from ...autograd.mode import no_grad
from ...tensor import Tensor, creation
from ...tensor.inspection import finfo
from ...tensor.ops.arithmetic import where
from ...tensor.ops.decompositions import geqrf
from ...tensor.ops.matrix_functions import householder_product, matrix_exp
from ...tensor.ops.shaping import cat
from ...tensor.ops.solving import solve
from ..functional.normalization import normalize
from ..module import Module
from .parametrize import register_parametrization

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


def as_matrix(weight: Any, dim: int) -> Any:
    """The weight as [its size along dim, everything else]."""
    return weight.movedim(dim, 0).reshape(weight.shape[dim], -1)


def _tensor_of(module: Module, name: str) -> Any:
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    return weight


# -- by the norm -------------------------------------------------------------------------------------------------------


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train a weight's length and direction apart: weight = g * v / |v|.

    Source: Salimans and Kingma, Weight normalization, 2016.

    Args:
        module: changed in place, and returned; g is `parametrizations.weight.original0` and v is `original1`.
        name: of the weight.
        dim: each of its slices along this dimension has a length of its own; None: one length for the whole weight.

    Example:
        >>> import paceline as torch
        >>> net = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(20, 40))
        >>> net.parametrizations.weight.original0.shape
        paceline.Size([40, 1])
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim  # PyTorch's -1 is the whole weight, too

    def forward(self, length: Any, direction: Any) -> Any:
        return direction * (length / length_of(direction, self.dim))

    def right_inverse(self, weight: Any) -> tuple[Any, Any]:
        return length_of(weight, self.dim), weight


def length_of(weight: Any, dim: int) -> Any:
    """The norm of each slice along dim, to be broadcast with the weight; of the whole weight if dim is -1."""
    if dim == -1:
        return weight.norm()
    shape = [1] * weight.ndim
    shape[dim] = weight.shape[dim]
    return as_matrix(weight, dim).norm(dim=1).reshape(shape)


# -- by the largest singular value -------------------------------------------------------------------------------------


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divide a weight by its largest singular value, estimated by power iterations whenever it is read in training.

    Source: Miyato, Kataoka, Koyama and Yoshida, Spectral normalization for generative adversarial networks, 2018.

    Args:
        module: changed in place, and returned.
        name: of the weight.
        n_power_iterations: how many at each reading.
        eps: keeps the norms in the iterations from 0.
        dim: the rows of the weight as a matrix; default: 0, and 1 for transposed convolutions.

    Example:
        >>> import paceline as torch
        >>> net = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(20, 40))
        >>> bool((torch.linalg.matrix_norm(net.weight, 2) - 1).abs() < 0.1)
        True
    """
    weight = _tensor_of(module, name)
    dim = output_dim(module) if dim is None else dim
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))


def output_dim(module: Module) -> int:
    """The dimension of a layer's weight that counts its outputs."""
    return int(getattr(module, "transposed", False))


class _SpectralNorm(Module):
    def __init__(self, weight: Any, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        ndim = weight.ndim
        if not -ndim <= dim < ndim:
            raise IndexError(f"Dimension out of range (expected to be in range of [{-ndim}, {ndim - 1}] but got {dim})")
        check_iterations(n_power_iterations)
        self.dim = dim % ndim
        self.eps = eps
        if ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = as_matrix(weight.detach(), self.dim)
            self.register_buffer("_u", random_direction(matrix, 0, eps))
            self.register_buffer("_v", random_direction(matrix, 1, eps))
            self._iterate(matrix, 15)

    def _iterate(self, matrix: Any, steps: int) -> None:
        with no_grad():
            for _ in range(steps):
                self._u.copy_(normalize(matrix @ self._v, dim=0, eps=self.eps))
                self._v.copy_(normalize(matrix.mH @ self._u, dim=0, eps=self.eps))

    def forward(self, weight: Any) -> Any:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        # copies: the next reading changes the buffers, which backward through this one still needs
        return weight / self._u.clone().vdot(matrix @ self._v.clone())

    def right_inverse(self, value: Any) -> Any:
        return value


def check_iterations(count: int) -> None:
    """Refuse a spectral norm without power iterations."""
    if count <= 0:
        raise ValueError(f"Expected n_power_iterations to be positive, but got n_power_iterations={count}")


def random_direction(matrix: Any, dim: int, eps: float) -> Any:
    """A unit vector as long as the matrix along dim."""
    return normalize(creation.empty(matrix.shape[dim], dtype=matrix.dtype, device=matrix.device).normal_(), 2.0, 0, eps)


# -- orthogonal matrices -----------------------------------------------------------------------------------------------


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Module:
    """Keep a matrix orthogonal (unitary if complex): its columns orthonormal, or its rows if there are fewer.

    "matrix_exp" takes exp(A) and "cayley" (1 + A/2) / (1 - A/2) of a skew-symmetric A, "householder" a product of
    reflections.

    Source: Lezcano-Casado, Trivializations for gradient-based optimization on manifolds, 2019.

    Args:
        module: changed in place, and returned.
        name: of the matrix, or matrices [..., m, n].
        orthogonal_map: one of the three; default: "matrix_exp" for square and complex matrices, else "householder".
        use_trivialization: start from the matrix at hand (made orthogonal), which is then a factor of the result; else
            only "householder" can be assigned to.

    Example:
        >>> import paceline as torch
        >>> net = torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(2, 4))
        >>> torch.allclose(net.weight.mT @ net.weight, torch.eye(2), atol=1e-5)
        True
    """
    weight = _tensor_of(module, name)
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square or weight.is_complex() else "householder"
    if orthogonal_map not in _ORTHOGONAL_MAPS:
        raise ValueError(
            f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}'
        )
    made = _Orthogonal(weight, orthogonal_map, use_trivialization=use_trivialization)
    return register_parametrization(module, name, made, unsafe=True)


class _Orthogonal(Module):
    def __init__(self, weight: Any, orthogonal_map: str, *, use_trivialization: bool = True) -> None:
        super().__init__()
        if weight.is_complex() and orthogonal_map == "householder":
            # the reflections' n(n - 1) numbers are fewer than the n * n of a unitary matrix
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        self.use_trivialization = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Any) -> Any:
        wide = X.shape[-2] < X.shape[-1]
        Q = _ORTHOGONAL_MAPS[self.orthogonal_map](X.mT if wide else X)
        if self.use_trivialization:
            Q = self.base @ Q
        return Q.mT if wide else Q

    def right_inverse(self, Q: Any) -> Any:
        if Q.shape != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of shape {Q.shape}."
            )
        wide = Q.shape[-2] < Q.shape[-1]
        tall = Q.mT if wide else Q
        with no_grad():
            if self.use_trivialization:
                self.base = _completed(tall)
                # the maps of -1 and of 0 are 1; the diagonal's sign is what the reflections read
                origin = creation.zeros_like(Q)
                origin.diagonal(dim1=-2, dim2=-1).fill_(-1.0)
                return origin
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    "It is not possible to assign to the matrix exponential or the Cayley parametrizations when "
                    "use_trivialization=False."
                )
            reflections = _reflections(tall)
            return reflections.mT if wide else reflections


def _skew(X: Any) -> Any:
    """The skew-symmetric (skew-Hermitian) square matrix of the lower triangle of a tall one."""
    n, k = X.shape[-2:]
    X = X.tril()
    if n != k:
        X = cat([X, creation.zeros(*X.shape[:-1], n - k, dtype=X.dtype, device=X.device)], -1)
    return X - X.mH


def _exponential(X: Any) -> Any:
    return matrix_exp(_skew(X))[..., : X.shape[-1]]


def _cayley(X: Any) -> Any:
    A = _skew(X)
    identity = creation.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return solve(identity - 0.5 * A, identity + 0.5 * A)[..., : X.shape[-1]]


def _householder(X: Any) -> Any:
    """The product of the reflections below the diagonal, columns with the signs on it."""
    A = X.tril(-1)
    tau = 2.0 / (1.0 + (A * A).sum(-2))
    signs = X.detach().diagonal(dim1=-2, dim2=-1).int()
    return householder_product(A, tau) * signs.unsqueeze(-2)


_ORTHOGONAL_MAPS = {"matrix_exp": _exponential, "cayley": _cayley, "householder": _householder}


def _reflections(Q: Any) -> Any:
    """The inverse of `_householder`, for a tall matrix made orthogonal."""
    A, tau = geqrf(Q)
    diagonal = A.diagonal(dim1=-2, dim2=-1)
    # columns keep their signs: LAPACK's R need not have a positive diagonal. Where tau is 0 nothing is reflected
    diagonal.copy_(where(tau == 0, -diagonal.sign(), diagonal.sign()))
    return A


def _completed(tall: Any) -> Any:
    """An orthogonal square matrix that begins with the columns of a tall one, made orthogonal if they are not."""
    n, k = tall.shape[-2:]
    if n == k:
        return tall.clone() if _is_orthogonal(tall) else _made_orthogonal(tall)
    drawn = creation.empty(*tall.shape[:-1], n - k, dtype=tall.dtype, device=tall.device).normal_()
    return _made_orthogonal(cat([tall, drawn], -1))


def _is_orthogonal(Q: Any) -> bool:
    identity = creation.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
    return (Q.mH @ Q).allclose(identity, atol=10.0 * Q.shape[-2] * finfo(Q.dtype).eps)


def _made_orthogonal(A: Any) -> Any:
    """Q of A = QR with a positive diagonal of R."""
    packed, tau = geqrf(A)
    return householder_product(packed, tau) * packed.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)

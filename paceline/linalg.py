"""Linear algebra, under PyTorch's names."""

from .runtime.absent import getattr_of
from .tensor.ops.decompositions import (
    cholesky,
    ldl_factor,
    ldl_factor_ex,
    ldl_solve,
    lu,
    lu_factor,
    lu_factor_ex,
    qr,
)
from .tensor.ops.determinants import det, slogdet
from .tensor.ops.least_squares import lstsq, matrix_rank, pinv
from .tensor.ops.linalg import matmul
from .tensor.ops.matrices import LinAlgError
from .tensor.ops.matrix_functions import householder_product, matrix_exp, matrix_power, tensorinv, tensorsolve
from .tensor.ops.norms import cond, matrix_norm, norm, vector_norm
from .tensor.ops.products import cross_along as cross
from .tensor.ops.products import diagonal_of_matrices as diagonal
from .tensor.ops.products import multi_dot, vander, vecdot
from .tensor.ops.solving import cholesky_ex, inv, inv_ex, lu_solve, solve, solve_ex, solve_triangular
from .tensor.ops.spectra import eig, eigh, eigvals, eigvalsh, svd, svdvals

__getattr__ = getattr_of(__name__)

__all__ = [
    "LinAlgError",
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "householder_product",
    "inv",
    "inv_ex",
    "ldl_factor",
    "ldl_factor_ex",
    "ldl_solve",
    "lstsq",
    "lu",
    "lu_factor",
    "lu_factor_ex",
    "lu_solve",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_ex",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]

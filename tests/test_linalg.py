"""Linear algebra and Fourier transforms: what cannot be computed, and derivatives where the usual formulas break."""

import numpy as np
import pytest

import paceline

linalg = paceline.linalg
RANDOM = np.random.default_rng(5)


def tensor(*shape, leaf=True):
    return paceline.from_numpy(RANDOM.standard_normal(shape)).requires_grad_(leaf)


SINGULAR = paceline.tensor([[1.0, 2.0], [2.0, 4.0]])


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: linalg.inv(paceline.zeros(2, 2)), linalg.LinAlgError, "singular"),
        (lambda: linalg.solve(paceline.zeros(2, 2), paceline.ones(2)), linalg.LinAlgError, "singular"),
        (lambda: linalg.cholesky(-paceline.eye(2)), linalg.LinAlgError, "positive-definite"),
        (lambda: linalg.cholesky_ex(-paceline.eye(2), check_errors=True), linalg.LinAlgError, "positive-definite"),
        (lambda: linalg.inv_ex(paceline.zeros(2, 2), check_errors=True), linalg.LinAlgError, "info is 1"),
        (lambda: linalg.lu_factor(paceline.zeros(2, 2)), linalg.LinAlgError, "zero on its diagonal"),
        (lambda: linalg.inv(paceline.ones(2, 3)), RuntimeError, "2 by 3"),
        (lambda: linalg.det(paceline.ones(3)), RuntimeError, "at least 2 dimensions"),
        (lambda: linalg.svd(paceline.ones(2, 2, dtype=paceline.int64)), RuntimeError, "floating point"),
        (lambda: linalg.inv(paceline.eye(2, dtype=paceline.bfloat16)), RuntimeError, "Low precision"),
        (lambda: linalg.solve(paceline.eye(2), paceline.ones(3, 1)), RuntimeError, "Incompatible shapes"),
        (lambda: linalg.eigvals(paceline.full((2, 2), float("nan"))), RuntimeError, "infs or NaNs"),
        (lambda: linalg.eigh(paceline.eye(2), UPLO="X"), RuntimeError, "'L' or 'U'"),
        (lambda: linalg.qr(paceline.eye(2), "full"), RuntimeError, "unrecognized mode"),
        (lambda: linalg.matrix_norm(paceline.eye(2), 3), RuntimeError, "Order 3 not supported"),
        (lambda: linalg.vector_norm(paceline.ones(0), float("inf")), RuntimeError, "identity"),
        (lambda: linalg.multi_dot([paceline.eye(2)]), RuntimeError, "at least 2"),
        (lambda: linalg.lstsq(paceline.eye(2), paceline.eye(2), driver="x"), RuntimeError, "driver"),
        (lambda: linalg.lu_factor(paceline.eye(2), pivot=False), NotImplementedError, "pivot"),
        (lambda: paceline.tensordot(paceline.ones(2), paceline.ones(3), 1), RuntimeError, "need to match"),
        (lambda: paceline.cdist(paceline.ones(2, 2), paceline.ones(2, 3)), RuntimeError, "number of columns"),
        (lambda: paceline.fft.fft(paceline.ones(2), 0), RuntimeError, "Invalid number of data points"),
        (lambda: paceline.fft.rfft(paceline.ones(2, dtype=paceline.complex64)), RuntimeError, "real input"),
        (lambda: paceline.fft.fft(paceline.ones(2), norm="unit"), RuntimeError, "norm"),
        (lambda: paceline.fft.fft(paceline.ones(2).half()), RuntimeError, "float16"),
        (lambda: paceline.stft(paceline.ones(8), 4), RuntimeError, "return_complex"),
        (lambda: paceline.stft(tensor(8), 4, window=tensor(3), return_complex=True), RuntimeError, "window tensor"),
        (lambda: paceline.istft(paceline.ones(3, 2), 4), RuntimeError, "complex"),
        (lambda: paceline.signal.windows.gaussian(4, std=0), ValueError, "positive"),
        (lambda: paceline.hann_window(-1), RuntimeError, "non-negative"),
    ],
)
def test_what_cannot_be_computed_says_why(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("mode", ["r", "complete"])
def test_qr_modes_without_derivative_say_so(mode):
    R = linalg.qr(tensor(3, 2), mode).R
    with pytest.raises(RuntimeError, match="mode='reduced'"):
        R.sum().backward()


def test_results_of_singular_matrices_leave_the_others_right():
    batch = paceline.stack([paceline.eye(2) * 2, SINGULAR])
    inverse, info = linalg.inv_ex(batch)
    assert info.tolist() == [0, 2]
    assert inverse[0].tolist() == [[0.5, 0.0], [0.0, 0.5]]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_determinants_of_singular_matrices_have_derivatives(rank):
    """A polynomial of the elements has derivatives everywhere, of second order too."""
    left, right = RANDOM.standard_normal((3, rank)), RANDOM.standard_normal((rank, 3))
    x = paceline.from_numpy(left @ right).requires_grad_()
    paceline.autograd.gradcheck(linalg.det, [x])
    paceline.autograd.gradgradcheck(linalg.det, [x])


def test_equal_values_do_no_harm_where_vectors_are_not_used():
    x = paceline.eye(3, dtype=paceline.float64).requires_grad_()
    for values in (linalg.svd(x).S, linalg.eigh(x).eigenvalues, linalg.svdvals(x), linalg.eigvalsh(x)):
        (g,) = paceline.autograd.grad(values.sum(), [x])
        np.testing.assert_allclose(g.numpy(), np.eye(3), atol=1e-14)


def test_norms_of_zero_have_gradient_zero():
    for p in (0.5, 1, 2, 3, float("inf")):
        x = paceline.zeros(3, requires_grad=True)
        linalg.vector_norm(x, p).backward()
        assert x.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 2)])
def test_factors_multiply_to_the_matrix(shape):
    A = tensor(*shape, leaf=False)
    U, S, Vh = linalg.svd(A, full_matrices=False)
    Q, R = linalg.qr(A)
    P, L, upper = linalg.lu(A)
    for product in ((U * S.unsqueeze(-2)) @ Vh, Q @ R, P @ L @ upper):
        np.testing.assert_allclose(product.numpy(), A.numpy(), atol=1e-13)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("transpose", [True, False])
def test_reflections_multiply_as_the_matrix_does(left, transpose):
    A, C = tensor(4, 4, leaf=False), tensor(4, 4, leaf=False)
    packed, tau = paceline.geqrf(A)
    Q = linalg.householder_product(packed, tau)
    expected = (Q.mT if transpose else Q) @ C if left else C @ (Q.mT if transpose else Q)
    np.testing.assert_allclose(paceline.ormqr(packed, tau, C, left, transpose).numpy(), expected.numpy(), atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_results_keep_single_precision(dtype):
    A = (tensor(3, 3, leaf=False) + 3 * paceline.eye(3, dtype=paceline.float64)).to(getattr(paceline, dtype))
    for result in (linalg.inv(A), linalg.det(A), linalg.matrix_exp(A), linalg.pinv(A), linalg.svd(A).U, linalg.qr(A).R,
                   linalg.lu(A).L, linalg.slogdet(A).sign, linalg.solve(A, A)):  # fmt: skip
        assert result.dtype is A.dtype
    for result in (linalg.svdvals(A), linalg.slogdet(A).logabsdet, linalg.norm(A), linalg.eigvalsh(A)):
        assert result.dtype is paceline.float32
    assert linalg.eig(A).eigenvalues.dtype is paceline.fft.fft(A).dtype is paceline.complex64


def test_einsum_takes_lists_of_numbers_and_lists_of_operands():
    a, b = tensor(2, 3, leaf=False), tensor(3, 2, leaf=False)
    expected = paceline.einsum("ij,jk->ki", a, b).tolist()
    assert paceline.einsum(a, [0, 1], b, [1, 2], [2, 0]).tolist() == expected
    assert paceline.einsum("ij,jk->ki", [a, b]).tolist() == expected

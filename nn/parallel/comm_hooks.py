"""Communication hooks: other ways to average a bucket of gradients, for `register_comm_hook`.

Narrow and low-rank messages pay on slow networks. Inside a machine float32 is faster, since converting costs more than
moving the bytes.
"""

from __future__ import annotations

import math

import numpy

from ...runtime import dtypes, rng
from ...runtime.arrays import Array, module_of
from ...runtime.comm import Comm, ReduceOp, world_comm
from ...runtime.comm.work import Future
from ...tensor import Tensor
from .flat import dense_places, pack, unpack
from .reducer import GradBucket

__all__ = [
    "ErrorFeedbackState",
    "PowerSGDState",
    "allreduce_hook",
    "batched_powerSGD_hook",
    "bf16_compress_hook",
    "fp16_compress_hook",
    "powerSGD_hook",
]


def allreduce_hook(process_group: Comm | None, bucket: GradBucket) -> Future:
    """The mean over ranks, as without a hook.

    Args:
        process_group: the ranks; None for all.
        bucket: the gradients.

    Example:
        >>> import paceline as torch
        >>> from paceline.distributed.algorithms.ddp_comm_hooks import default_hooks
        >>> net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
        >>> net.register_comm_hook(None, default_hooks.allreduce_hook)
    """
    comm = process_group or world_comm()
    work = comm.all_reduce(bucket.buffer().array, ReduceOp.AVG, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: bucket.buffer())


class ErrorFeedbackState:
    """What a narrow wire has lost of the gradients so far, to be added to the next ones.

    Pass it as the state of `fp16_compress_hook` or `bf16_compress_hook` in place of the communicator.

    Args:
        process_group: the ranks; None for all.

    Source: Karimireddy et al., Error Feedback Fixes SignSGD and other Gradient Compression Schemes, 2019.
    """

    def __init__(self, process_group: Comm | None = None) -> None:
        self.process_group = process_group
        self.errors: dict[tuple, Array] = {}


def fp16_compress_hook(state: Comm | ErrorFeedbackState | None, bucket: GradBucket) -> Future:
    """The mean over ranks of gradients sent in float16.

    They are divided by the number of ranks before they are sent, so that the sum cannot leave float16's range where
    the gradients did not.

    Args:
        state: the ranks (None for all), or an ErrorFeedbackState.
        bucket: the gradients.
    """
    return _narrow(state, bucket, dtypes.float16.numpy)


def bf16_compress_hook(state: Comm | ErrorFeedbackState | None, bucket: GradBucket) -> Future:
    """The mean over ranks of gradients sent in bfloat16; otherwise as `fp16_compress_hook`."""
    return _narrow(state, bucket, dtypes.bfloat16.numpy)


def _narrow(state: Comm | ErrorFeedbackState | None, bucket: GradBucket, dtype: numpy.dtype) -> Future:
    """Send the gradients in a narrow dtype."""
    feedback = state if isinstance(state, ErrorFeedbackState) else None
    comm: Comm = (feedback.process_group if feedback else state) or world_comm()  # type: ignore[assignment]
    buffer = bucket.buffer().array
    buffer /= buffer.dtype.type(comm.size)
    if feedback is not None:
        buffer += feedback.errors.get(_key(bucket), 0)
    wire = buffer.astype(dtype)
    if feedback is not None:
        feedback.errors[_key(bucket)] = buffer - wire.astype(buffer.dtype)
    work = comm.all_reduce(wire, async_op=True)
    assert work is not None

    def widen(future: Future) -> Tensor:
        buffer[...] = wire
        return bucket.buffer()

    return work.get_future().then(widen)


def _key(bucket: GradBucket) -> tuple:
    """What stays the same for a bucket until buckets are planned anew."""
    return tuple(map(id, bucket.parameters()))


class PowerSGDState:
    """What `powerSGD_hook` keeps between steps.

    Args:
        process_group: the ranks; None for all.
        matrix_approximation_rank: rank of the approximation of every gradient; 1 or 2 is usual.
        start_powerSGD_iter: steps that send whole gradients first; early ones are hard to compress.
        min_compression_rate: only matrices that get smaller by this factor are compressed.
        use_error_feedback: add what was lost to the next gradient; without it training rarely reaches the same loss.
        warm_start: begin with the last step's factors instead of random ones.
        orthogonalization_epsilon: added to the norms by which factors are divided, against columns of zeros.
        random_seed: of the first factors; the same on all ranks.

    Source: Vogels, Karimireddy and Jaggi, PowerSGD, 2019.
    """

    def __init__(
        self,
        process_group: Comm | None = None,
        matrix_approximation_rank: int = 1,
        start_powerSGD_iter: int = 1000,
        min_compression_rate: float = 2,
        use_error_feedback: bool = True,
        warm_start: bool = True,
        orthogonalization_epsilon: float = 0,
        random_seed: int = 0,
    ) -> None:
        if matrix_approximation_rank < 1:
            raise ValueError(
                f"PowerSGDState(): matrix_approximation_rank should be at least 1, got {matrix_approximation_rank}"
            )
        if (use_error_feedback or warm_start) and start_powerSGD_iter <= 1:
            raise ValueError(
                "PowerSGDState(): start_powerSGD_iter should be at least 2 with use_error_feedback or warm_start, "
                f"since buckets are planned anew after the first step; got {start_powerSGD_iter}"
            )
        self.process_group = process_group
        self.matrix_approximation_rank = matrix_approximation_rank
        self.start_powerSGD_iter = start_powerSGD_iter
        self.min_compression_rate = min_compression_rate
        self.use_error_feedback = use_error_feedback
        self.warm_start = warm_start
        self.orthogonalization_epsilon = orthogonalization_epsilon
        self.iter = 0
        self._stream = rng.Generator().manual_seed(random_seed)
        self._errors: dict[tuple, list[Array]] = {}
        self._factors: dict[tuple, list[Array]] = {}

    def _factors_of(self, key: tuple, matrices: list[Array]) -> list[Array]:
        """The right factor of each matrix to begin with."""
        if self.warm_start and key in self._factors:
            return self._factors[key]
        factors = []
        for matrix in matrices:
            shape = (matrix.shape[1], min(*matrix.shape, self.matrix_approximation_rank))
            drawn = self._stream.numpy().standard_normal(shape, numpy.float32)
            factors.append(module_of(matrix).asarray(drawn.astype(matrix.dtype)))
        return factors

    def _is_compressed(self, shape: tuple[int, ...]) -> bool:
        rows, columns = shape[0], math.prod(shape[1:])
        sent = (rows + columns) * min(rows, columns, self.matrix_approximation_rank)
        return len(shape) > 1 and sent * self.min_compression_rate < rows * columns


def powerSGD_hook(state: PowerSGDState, bucket: GradBucket) -> Tensor | Future:
    """The mean over ranks of low-rank approximations: G = P Q^T, where only P [rows, r] and Q [columns, r] are sent.

    One power iteration: P = mean(G Q) made orthonormal, Q = mean(G^T P). Vectors, and matrices that would not get
    smaller, are sent whole.

    Args:
        state: made once for the wrapper.
        bucket: the gradients.
    """
    arrays = [gradient.array for gradient in bucket.gradients()]
    matrices = [g.reshape(g.shape[0], -1) for g in arrays if state._is_compressed(g.shape)]
    rest = [g for g in arrays if not state._is_compressed(g.shape)]
    done = _power_sgd(state, bucket, matrices, rest)
    return bucket.buffer() if done else allreduce_hook(state.process_group, bucket)


def batched_powerSGD_hook(state: PowerSGDState, bucket: GradBucket) -> Tensor | Future:
    """`powerSGD_hook` with the whole bucket as one square matrix: fewer and smaller messages, a worse approximation."""
    buffer = bucket.buffer().array
    side = math.isqrt(buffer.size - 1) + 1
    square = module_of(buffer).zeros((side, side), buffer.dtype)
    square.reshape(-1)[: buffer.size] = buffer
    if not _power_sgd(state, bucket, [square], []):
        return allreduce_hook(state.process_group, bucket)
    buffer[...] = square.reshape(-1)[: buffer.size]
    return bucket.buffer()


def _power_sgd(state: PowerSGDState, bucket: GradBucket, matrices: list[Array], rest: list[Array]) -> bool:
    """Replace matrices by the mean over ranks of their approximations, and the rest by its mean; not in first steps."""
    started = state.iter >= state.start_powerSGD_iter
    state.iter += bucket.is_last()
    if not started:
        return False
    comm = state.process_group or world_comm()
    key = _key(bucket)
    if state.use_error_feedback:
        for matrix, error in zip(matrices, state._errors.get(key, [0] * len(matrices)), strict=True):
            matrix += error
    right = state._factors_of(key, matrices)
    left = [matrix @ q for matrix, q in zip(matrices, right, strict=True)]
    _average_together(comm, left + rest)
    for p in left:
        _orthonormalize(p, state.orthogonalization_epsilon)
    right = [matrix.T @ p for matrix, p in zip(matrices, left, strict=True)]
    if state.use_error_feedback:
        state._errors[key] = [matrix - p @ q.T for matrix, p, q in zip(matrices, left, right, strict=True)]
    _average_together(comm, right)
    for matrix, p, q in zip(matrices, left, right, strict=True):
        matrix[...] = p @ q.T
    if state.warm_start:
        state._factors[key] = right
    return True


def _average_together(comm: Comm, arrays: list[Array]) -> None:
    """The means over ranks of several arrays, in place and in one message."""
    if arrays:
        places = dense_places(arrays)
        flat = pack(arrays, places)
        comm.all_reduce(flat, ReduceOp.AVG)
        unpack(flat, arrays, places)


def _orthonormalize(matrix: Array, epsilon: float) -> None:
    """Make the columns orthonormal, one after the other (Gram-Schmidt): few columns, and the same bits on all ranks."""
    for i in range(matrix.shape[1]):
        column = matrix[:, i]
        column /= (column @ column) ** 0.5 + (epsilon or module_of(matrix).finfo(matrix.dtype).tiny)
        after = matrix[:, i + 1 :]
        after -= column[:, None] * (column @ after)

"""Sequences of different lengths in one batch: padded, or packed step by step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy

from ...autograd.variable import box
from ...tensor import creation
from ...tensor.ops import shaping


class _Packed(NamedTuple):
    data: Any
    batch_sizes: Any
    sorted_indices: Any
    unsorted_indices: Any


class PackedSequence(_Packed):
    """Sequences sorted by falling length, stored step by step without padding.

    Attributes:
        data: [sum of lengths, ...]: first the first steps of all sequences, then the second ones, ...
        batch_sizes: [longest length]: how many sequences have that step, on the CPU.
        sorted_indices: the order in which the sequences were put, None if they came sorted.
        unsorted_indices: the way back.

    Made by `pack_padded_sequence` and `pack_sequence`; RNN, LSTM and GRU take and return it.
    """

    __slots__ = ()

    def __new__(
        cls, data: Any, batch_sizes: Any = None, sorted_indices: Any = None, unsorted_indices: Any = None
    ) -> PackedSequence:
        if batch_sizes is None:
            raise ValueError("PackedSequence: batch_sizes must be given; use pack_padded_sequence to make one")
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same sequences with another dtype or on another device."""
        return PackedSequence(self.data.to(*args, **kwargs), *self[1:])

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on a CUDA device."""
        return self.data.is_cuda


def invert_permutation(permutation: Any) -> Any:
    """The permutation that undoes another one; None for None."""
    return None if permutation is None else permutation.argsort()


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Sequences padded to one length, without their padding.

    Args:
        input: [steps, n, ...], or [n, steps, ...] with batch_first.
        lengths: of each sequence, a list or a tensor on the CPU.
        batch_first: which of the two.
        enforce_sorted: the sequences come by falling length; False sorts them.

    Example:
        >>> import paceline as torch
        >>> packed = torch.nn.utils.rnn.pack_padded_sequence(torch.ones(3, 2, 1), [3, 1])
        >>> packed.batch_sizes
        tensor([2, 1, 1])
    """
    sizes = numpy.asarray([int(n) for n in lengths], numpy.int64)
    order = None
    if enforce_sorted:
        if (numpy.diff(sizes) > 0).any():
            raise RuntimeError(
                "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
                "`enforce_sorted=False` to pack_padded_sequence to sort the sequences."
            )
    else:
        index = numpy.argsort(-sizes, kind="stable")
        sizes, order = sizes[index], box(index).to(input.device)
    if batch_first:
        input = input.transpose(0, 1)
    if len(sizes) != input.shape[1]:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(sizes)} (batch_size={input.shape[1]})"
        )
    if not len(sizes) or sizes[-1] <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    if order is not None:
        input = input.index_select(1, order)
    counts = [int((sizes > t).sum()) for t in range(int(sizes[0]))]
    data = shaping.cat([input[t, :count] for t, count in enumerate(counts)])
    return PackedSequence(data, creation.tensor(counts, device="cpu"), order)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Any, Any]:
    """The padded sequences and their lengths; the inverse of `pack_padded_sequence`.

    Args:
        sequence: what to unpack.
        batch_first: give [n, steps, ...] instead of [steps, n, ...].
        padding_value: for the steps that a sequence does not have.
        total_length: pad to so many steps; default: the longest.
    """
    counts = sequence.batch_sizes.tolist()
    steps = len(counts)
    if total_length is not None and total_length < steps:
        raise ValueError(
            f"Expected total_length to be at least the length of the longest sequence in input, but got {total_length} "
            f"and {steps}"
        )
    data, n = sequence.data, counts[0]
    rows, start = [], 0
    for count in counts + [0] * ((total_length or steps) - steps):
        step = data[start : start + count]
        if count < n:
            padding = creation.full((n - count, *data.shape[1:]), padding_value, dtype=data.dtype, device=data.device)
            step = shaping.cat([step, padding]) if count else padding
        rows.append(step)
        start += count
    padded = shaping.stack(rows)
    lengths = creation.tensor([sum(count > i for count in counts) for i in range(n)], device="cpu")
    if sequence.unsorted_indices is not None:
        padded = padded.index_select(1, sequence.unsorted_indices)
        lengths = lengths[sequence.unsorted_indices.cpu()]
    return (shaping.transpose(padded, 0, 1) if batch_first else padded), lengths


def pad_sequence(
    sequences: list, batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Any:
    """Sequences [steps, ...] of different lengths as one tensor [longest, n, ...] (or [n, longest, ...]).

    Example:
        >>> import paceline as torch
        >>> torch.nn.utils.rnn.pad_sequence([torch.ones(2), torch.ones(1)], batch_first=True)
        tensor([[1., 1.],
                [1., 0.]])
    """
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    if not len(sequences):
        raise RuntimeError("pad_sequence(): received an empty list of sequences")
    longest = max(len(s) for s in sequences)
    rows = []
    for s in sequences:
        if len(s) < longest:
            padding = creation.full((longest - len(s), *s.shape[1:]), padding_value, dtype=s.dtype, device=s.device)
            s = shaping.cat([s, padding] if padding_side == "right" else [padding, s])
        rows.append(s)
    return shaping.stack(rows, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Any, lengths: Any, batch_first: bool = False) -> list:
    """The sequences that `pad_sequence` put together."""
    if not batch_first:
        padded_sequences = padded_sequences.transpose(0, 1)
    return [padded_sequences[i, : int(n)] for i, n in enumerate(lengths)]


def pack_sequence(sequences: list, enforce_sorted: bool = True) -> PackedSequence:
    """Sequences [steps, ...] of different lengths, packed."""
    return pack_padded_sequence(pad_sequence(sequences), [len(s) for s in sequences], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list:
    """The sequences that `pack_sequence` packed."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)

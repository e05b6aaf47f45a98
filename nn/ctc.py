"""The loss of sequences with unknown alignment, as a module."""

from __future__ import annotations

from typing import Any

from . import functional as F
from .loss import _Loss

__all__ = ["CTCLoss"]


class CTCLoss(_Loss):
    """-log of the probability of the labels, over all alignments; see `functional.ctc_loss`.

    Args:
        blank: the class of a step without label.
        reduction: "mean", "sum" or "none".
        zero_infinity: losses of sequences too short for their labels are 0 instead of inf.

    Shape:
        log_probs [steps, n, classes] or [steps, classes]; targets [n, longest] or [sum of target_lengths].
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(self, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any) -> Any:
        return F.ctc_loss(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity
        )

"""What the image datasets share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .dataset import Dataset


class LabelledImages(Dataset):
    """Images in memory with a class each: sample i is ``(data[i], int(targets[i]))``, each through its transform.

    Args:
        data: shape [N, H, W] or [N, H, W, C], uint8.
        targets: shape [N], int64.
        transform: applied to the image of a sample.
        target_transform: applied to its label.
    """

    def __init__(
        self,
        data: np.ndarray,
        targets: np.ndarray,
        transform: Callable[[np.ndarray], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ):
        self.data = data
        self.targets = targets
        self.transform = transform
        self.target_transform = target_transform

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = self.data[index], int(self.targets[index])
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def __len__(self) -> int:
        return len(self.data)

    @property
    def fetch_batch(self) -> Callable[[Sequence[int]], list[np.ndarray]] | None:
        """The whole-batch read; transforms are written for single samples, so None where there are any."""
        if self.transform is not None or self.target_transform is not None:
            return None
        return lambda indices: [self.data[indices], self.targets[indices]]

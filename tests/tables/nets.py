"""Networks that several tests train on ranks."""

import paceline as torch
from paceline import nn


class Net(nn.Module):
    """With arrays of two dtypes; one is so small that some ranks own nothing of it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(101, 257)
        self.second = nn.Linear(257, 3)
        self.last = nn.Linear(3, 1, dtype=torch.float64)

    def forward(self, x, whole=True):
        h = self.first(x).tanh()
        return self.last(self.second(h).double()).square().mean() if whole else h.square().mean()

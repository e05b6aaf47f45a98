"""Define by run: ordinary Python decides what is computed, and what was computed is differentiated."""

import paceline as torch


def f(x):
    if x.sum() > 0:
        return (x * x).sum()
    return (3 * x).sum()


for values in ([1.0, 2.0], [-1.0, -2.0]):
    x = torch.tensor(values, requires_grad=True)
    f(x).backward()
    print(values, "->", x.grad)  # tensor([2., 4.]), then tensor([3., 3.])

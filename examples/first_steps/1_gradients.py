"""Gradients: the derivative of x*x + 3x + 1 is 2x + 3."""

import paceline as torch

x = torch.tensor([2.0, 3.0], requires_grad=True)
y = x * x + 3 * x + 1
y.sum().backward()

print(y)  # tensor([11., 19.], grad_fn=<AddBackward0>)
print(x.grad)  # tensor([7., 9.])

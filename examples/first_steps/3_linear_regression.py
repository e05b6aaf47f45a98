"""Linear regression: find w and b of y = 2x."""

import paceline as torch
from paceline import nn

torch.manual_seed(0)
x = torch.tensor([[1.0], [2.0], [3.0]])
y = torch.tensor([[2.0], [4.0], [6.0]])

model = nn.Linear(1, 1)
criterion = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

for epoch in range(2000):
    loss = criterion(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if epoch % 400 == 399:
        print(f"step {epoch + 1}: loss {loss.item():.6f}")

print("w =", round(model.weight.item(), 3), " b =", round(model.bias.item(), 3))
print("prediction for 4:", round(model(torch.tensor([[4.0]])).item(), 2))

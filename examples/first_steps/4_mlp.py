"""A multi-layer perceptron, 784-128-64-10, on handwritten digits."""

from pathlib import Path

import paceline as torch
from paceline import nn
from paceline.utils.data import DataLoader, TensorDataset, read_idx

torch.manual_seed(0)
data = Path(__file__).parents[1] / "data" / "mnist"
images = torch.from_numpy(read_idx(data / "t10k-images-idx3-ubyte.gz")).float().view(-1, 784) / 255
labels = torch.from_numpy(read_idx(data / "t10k-labels-idx1-ubyte.gz")).long()
train = DataLoader(TensorDataset(images[:8000], labels[:8000]), batch_size=32, shuffle=True)

model = nn.Sequential(
    nn.Linear(784, 128), nn.ReLU(),
    nn.Linear(128, 64), nn.ReLU(),
    nn.Linear(64, 10),
)  # fmt: skip
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(3):
    for x, y in train:
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = (model(images[8000:]).argmax(1) == labels[8000:]).float().mean().item()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}  test accuracy {right:.3f}")

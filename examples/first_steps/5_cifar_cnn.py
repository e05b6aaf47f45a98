"""The CNN of the CIFAR-10 tutorial. Pass the folder with the data set; without it, it learns random images by heart.

    python 5_cifar_cnn.py [FOLDER [download]]
"""

import sys

import paceline as torch
from paceline import nn
from paceline.nn import functional as F
from paceline.utils.data import CIFAR10, DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):  # [n, 3, 32, 32]
        x = self.pool(F.relu(self.conv1(x)))  # [n, 6, 14, 14]
        x = self.pool(F.relu(self.conv2(x)))  # [n, 16, 5, 5]
        x = torch.flatten(x, 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


torch.manual_seed(0)
if len(sys.argv) > 1:
    cifar = CIFAR10(sys.argv[1], train=True, download="download" in sys.argv)
    images = torch.from_numpy(cifar.data).permute(0, 3, 1, 2).float() / 127.5 - 1  # stored as [n, 32, 32, 3]
    labels = torch.tensor(cifar.targets)
else:
    images, labels = torch.randn(512, 3, 32, 32), torch.randint(0, 10, (512,))
loader = DataLoader(TensorDataset(images, labels), batch_size=4, shuffle=True)

model = Net()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
for epoch in range(2):
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}")

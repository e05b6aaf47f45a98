"""A small CNN learns handwritten digits: 8,000 for training, 2,000 for testing.

    python examples/mnist.py                        one process
    paceline run -n 2 examples/mnist.py             two ranks (or: mpirun -n 2 python examples/mnist.py)
    python examples/mnist.py --device cuda          on a GPU; with several ranks, each takes its own
    paceline run -n 3 examples/mnist.py --lanes 8   the same bits on any number of ranks up to 8

The batch size is that of all ranks together, so the number of ranks changes the speed and not the result; with --lanes
not even its last bit: compare the printed weights_sha256.
The last line of the output is one JSON object.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

from tqdm import tqdm

import paceline as torch
import paceline.distributed as dist
from paceline import nn
from paceline.nn import functional as F
from paceline.nn.parallel import DistributedDataParallel
from paceline.utils.data import DataLoader, DistributedSampler, LaneSampler, TensorDataset, read_idx

DATA = Path(__file__).parent / "data" / "mnist"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5)
        self.conv2 = nn.Conv2d(16, 32, 5)
        self.fc1 = nn.Linear(32 * 4 * 4, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):  # [n, 1, 28, 28]
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # [n, 16, 12, 12]
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # [n, 32, 4, 4]
        return self.fc2(F.relu(self.fc1(x.flatten(1))))  # [n, 10]


def load(device):
    images = torch.from_numpy(read_idx(DATA / "t10k-images-idx3-ubyte.gz")).float().unsqueeze(1)
    labels = torch.from_numpy(read_idx(DATA / "t10k-labels-idx1-ubyte.gz")).long()
    images = ((images / 255 - 0.1307) / 0.3081).to(device)
    labels = labels.to(device)
    return TensorDataset(images[:8000], labels[:8000]), TensorDataset(images[8000:], labels[8000:])


def total(*values):
    """The sums of numbers over all ranks."""
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    return sums.tolist()


def train_epoch(model, loader, optimizer, progress, losses):
    loss_sum = count = 0
    for batch in progress(loader):
        optimizer.zero_grad()
        for images, labels in model.lanes(batch):  # the whole batch at once, unless --lanes is given
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            loss_sum += loss.item() * len(images)
            count += len(images)
        optimizer.step()
        if losses is not None:
            losses.append(total(loss.item())[0] / dist.get_world_size())
    loss_sum, count = total(loss_sum, count)
    return loss_sum / count, count


@torch.no_grad()
def accuracy(model, loader):
    model.eval()
    right = count = 0
    for images, labels in loader:
        right += (model(images).argmax(1) == labels).sum().item()
        count += len(images)
    model.train()
    right, count = total(right, count)
    return right / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64, help="samples of one step, over all ranks")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, help="parts that every batch is cut into, whatever the number of ranks")
    parser.add_argument("--losses", type=Path, help="write the loss of every step to this JSON file")
    args = parser.parse_args()

    rank, world_size = dist.get_rank(), dist.get_world_size()
    if args.lanes is None and args.batch_size % world_size:
        parser.error(f"--batch-size {args.batch_size} cannot be shared out evenly to {world_size} ranks")
    if args.device == "cuda":
        torch.cuda.set_device(dist.get_node_local_rank() % max(1, torch.cuda.device_count()))

    start = time.perf_counter()
    torch.manual_seed(args.seed)
    train_set, test_set = load(args.device)
    if args.lanes is None:
        sampler = DistributedSampler(train_set, seed=args.seed)
        train_loader = DataLoader(train_set, args.batch_size // world_size, sampler=sampler)
    else:
        sampler = LaneSampler(train_set, args.batch_size, args.lanes, seed=args.seed)
        train_loader = DataLoader(train_set, batch_sampler=sampler)
    test_loader = DataLoader(test_set, 500, sampler=DistributedSampler(test_set, shuffle=False))
    model = DistributedDataParallel(Net().to(args.device), lanes=args.lanes)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    losses = [] if args.losses else None

    for epoch in range(args.epochs):
        began = time.perf_counter()

        def progress(loader, epoch=epoch):
            return tqdm(loader, f"epoch {epoch + 1}/{args.epochs}", disable=rank != 0, leave=False)

        loss, count = train_epoch(model, train_loader, optimizer, progress, losses)
        speed = count / (time.perf_counter() - began)
        right = accuracy(model, test_loader)
        if rank == 0:
            print(f"epoch {epoch + 1}: loss {loss:.4f}  test accuracy {right:.4f}  {speed:,.0f} samples/s", flush=True)

    if rank == 0:
        weights = b"".join(p.detach().cpu().numpy().tobytes() for p in model.parameters())
        if args.losses:
            args.losses.write_text(json.dumps(losses))
        result = {
            "test_accuracy": right,
            "world_size": world_size,
            "seconds": round(time.perf_counter() - start, 2),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()

"""A variational auto-encoder learns to draw handwritten digits.

    python examples/vae.py                          one process; writes vae.png, 64 digits drawn by the model
    paceline run -n 2 examples/vae.py               two ranks (or: mpirun -n 2 python examples/vae.py)
    python examples/vae.py --device cuda            on a GPU; with several ranks, each takes its own

The encoder turns an image into a normal distribution over codes z, the decoder a code into the brightness of every
pixel. Both learn to make -ELBO = -log p(x | z) + KL(q(z | x) || N(0, 1)) small. The last line of the output is one JSON
object.

Source: Kingma and Welling, Auto-Encoding Variational Bayes, 2014.
"""

import argparse
import json
import struct
import time
import zlib
from pathlib import Path

from tqdm import tqdm

import paceline as torch
import paceline.distributed as dist
from paceline import nn
from paceline.nn import functional as F
from paceline.nn.parallel import DistributedDataParallel
from paceline.utils.data import DataLoader, DistributedSampler, TensorDataset, read_idx

IMAGES = Path(__file__).parent / "data" / "mnist" / "t10k-images-idx3-ubyte.gz"


class VAE(nn.Module):
    def __init__(self, hidden, codes):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 2 * codes))
        self.decoder = nn.Sequential(nn.Linear(codes, hidden), nn.ReLU(), nn.Linear(hidden, 784))

    def forward(self, x):  # [n, 784] -> logits of the pixels [n, 784], mean and log variance of the codes [n, codes]
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        # z ~ N(mean, variance) written as a function of mean and variance, so that it has a gradient for both
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.decoder(z), mean, log_variance


def negative_elbo(x, logits, mean, log_variance):
    """Its two terms, each in nats per image."""
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
    divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum() / len(x)
    return reconstruction, divergence


def load(device):
    images = torch.from_numpy(read_idx(IMAGES)).float().flatten(1).to(device) / 255
    return TensorDataset(images[:9000]), TensorDataset(images[9000:])


@torch.no_grad()
def evaluate(model, loader):
    """The mean of both terms over all ranks' images."""
    sums = torch.zeros(3, dtype=torch.float64)
    for (x,) in loader:
        reconstruction, divergence = negative_elbo(x, *model(x))
        sums += len(x) * torch.tensor([reconstruction.item(), divergence.item(), 1.0], dtype=torch.float64)
    dist.all_reduce(sums)
    return (sums[:2] / sums[2]).tolist()


def write_png(path, pixels):
    """A grey picture from brightnesses in 0 ... 1, [height, width]."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape
    rows = (255 * pixels).round().cpu().numpy().astype("uint8")
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey, deflate, not interlaced
    lines = b"".join(b"\0" + row.tobytes() for row in rows)  # 0: the line is stored as it is
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=128, help="images of one step, over all ranks")
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--codes", type=int, default=20, help="numbers that describe an image")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--output", type=Path, default=Path("vae.png"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rank, world_size = dist.get_rank(), dist.get_world_size()
    if args.batch_size % world_size:
        parser.error(f"--batch-size {args.batch_size} cannot be shared out evenly to {world_size} ranks")
    if args.device == "cuda":
        torch.cuda.set_device(dist.get_node_local_rank() % max(1, torch.cuda.device_count()))

    start = time.perf_counter()
    train_set, test_set = load(args.device)
    sampler = DistributedSampler(train_set, seed=args.seed)
    train_loader = DataLoader(train_set, args.batch_size // world_size, sampler=sampler)
    test_loader = DataLoader(test_set, 500, sampler=DistributedSampler(test_set, shuffle=False))
    torch.manual_seed(args.seed + rank)  # every rank draws noise of its own; the weights are rank 0's
    model = DistributedDataParallel(VAE(args.hidden, args.codes).to(args.device))
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    for epoch in range(args.epochs):
        for (x,) in tqdm(train_loader, f"epoch {epoch + 1}/{args.epochs}", disable=rank != 0, leave=False):
            loss = sum(negative_elbo(x, *model(x)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        reconstruction, divergence = evaluate(model, test_loader)
        if rank == 0:
            print(f"epoch {epoch + 1}: reconstruction {reconstruction:.2f}  divergence {divergence:.2f}", flush=True)

    if rank == 0:
        with torch.no_grad():
            digits = torch.sigmoid(model.module.decoder(torch.randn(64, args.codes, device=args.device)))
        write_png(args.output, digits.view(8, 8, 28, 28).transpose(1, 2).reshape(8 * 28, 8 * 28))
        result = {
            "test_negative_elbo": round(reconstruction + divergence, 3),
            "reconstruction": round(reconstruction, 3),
            "divergence": round(divergence, 3),
            "samples": str(args.output),
            "world_size": world_size,
            "seconds": round(time.perf_counter() - start, 2),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()

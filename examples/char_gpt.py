"""A small GPT learns to write Shakespeare, one character after the other.

    python examples/char_gpt.py                     one process
    paceline run -n 2 examples/char_gpt.py          two ranks (or: mpirun -n 2 python examples/char_gpt.py)
    python examples/char_gpt.py --device cuda       on a GPU; with several ranks, each takes its own

The text is cut into windows; at each of its characters, the model says how likely every character is to come next. The
batch size is that of all ranks together. The last line of the output is one JSON object.

Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019 (pre-norm blocks, GELU, tied weights).
"""

import argparse
import json
import math
import time
from pathlib import Path

from tqdm import tqdm

import paceline as torch
import paceline.distributed as dist
from paceline import nn
from paceline.nn import functional as F
from paceline.nn.parallel import DistributedDataParallel
from paceline.utils.data import DataLoader, DistributedSampler, TensorDataset

TEXT = Path(__file__).parent / "data" / "tinyshakespeare.txt"


class CausalSelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):  # [batch, time, width]
        split = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2)]
        y = F.scaled_dot_product_attention(*split, is_causal=True)  # [batch, heads, time, width / heads]
        return self.proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary, block_size, layers, heads, width):
        super().__init__()
        self.block_size = block_size
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(block_size, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight  # what a character means coming in is what it means going out
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # every block adds two terms to the stream: scaled down, it starts with the same variance at any depth
                std = 0.02 / math.sqrt(2 * layers) if name.endswith(("proj.weight", "mlp.2.weight")) else 0.02
                nn.init.normal_(parameter, std=std)

    def forward(self, tokens):  # [batch, time] -> logits [batch, time, vocabulary]
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.positions(positions))))

    @torch.no_grad()
    def generate(self, tokens, count, temperature=0.8):
        for _ in range(count):
            logits = self(tokens[:, -self.block_size :])[:, -1]
            following = torch.multinomial(F.softmax(logits / temperature, dim=-1), num_samples=1)
            tokens = torch.cat([tokens, following], dim=1)
        return tokens


def load(block_size, device):
    """Windows [n, block size + 1] for training and for validation, and the characters that occur."""
    text = TEXT.read_text()
    characters = sorted(set(text))
    number = {character: i for i, character in enumerate(characters)}
    tokens = torch.tensor([number[character] for character in text], device=device)
    windows = tokens[: len(tokens) // (block_size + 1) * (block_size + 1)].view(-1, block_size + 1)
    held_out = len(windows) // 10
    return TensorDataset(windows[:-held_out]), TensorDataset(windows[-held_out:]), characters


def make_optimizer(model, lr, weight_decay):
    """AdamW that pulls matrices towards zero, but neither biases nor the scales of the norms."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99))


def warm_up_then_cosine(step, warm_up, steps):
    """The factor of the learning rate: a line from 0 to 1, then half a cosine down to 0.1."""
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))


def loss_of(model, windows):
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


@torch.no_grad()
def mean_loss(model, loader):
    """The mean over all ranks' windows, in nats per character."""
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    for (windows,) in loader:
        sums += torch.tensor([loss_of(model, windows).item() * len(windows), len(windows)], dtype=torch.float64)
    dist.all_reduce(sums)
    model.train()
    return (sums[0] / sums[1]).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="at most one pass over the text")
    parser.add_argument("--batch-size", type=int, default=32, help="windows of one step, over all ranks")
    parser.add_argument("--block-size", type=int, default=64, help="characters of one window")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--sample", type=int, default=300, help="characters to write at the end")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rank, world_size = dist.get_rank(), dist.get_world_size()
    if args.batch_size % world_size:
        parser.error(f"--batch-size {args.batch_size} cannot be shared out evenly to {world_size} ranks")
    if args.device == "cuda":
        torch.cuda.set_device(dist.get_node_local_rank() % max(1, torch.cuda.device_count()))

    start = time.perf_counter()
    torch.manual_seed(args.seed)
    train_set, validation_set, characters = load(args.block_size, args.device)
    sampler = DistributedSampler(train_set, seed=args.seed)
    train_loader = DataLoader(train_set, args.batch_size // world_size, sampler=sampler, drop_last=True)
    validation_loader = DataLoader(validation_set, 64, sampler=DistributedSampler(validation_set, shuffle=False))
    model = GPT(len(characters), args.block_size, args.layers, args.heads, args.width).to(args.device)
    model = DistributedDataParallel(model)
    optimizer = make_optimizer(model, args.lr, args.weight_decay)
    steps = min(args.steps, len(train_loader))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_up_then_cosine(step, steps // 10, steps))

    batches = zip(range(steps), train_loader, strict=False)
    progress = tqdm(batches, "training", total=steps, disable=rank != 0, leave=False)
    for _, (windows,) in progress:
        loss = loss_of(model, windows)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)

    loss = mean_loss(model, validation_loader)
    if rank == 0:
        beginning = torch.tensor([[characters.index("\n")]], device=args.device)
        print("".join(characters[i] for i in model.module.generate(beginning, args.sample)[0].tolist()), end="\n\n")
        result = {
            "validation_loss": round(loss, 4),
            "bits_per_character": round(loss / math.log(2), 4),
            "world_size": world_size,
            "seconds": round(time.perf_counter() - start, 2),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()

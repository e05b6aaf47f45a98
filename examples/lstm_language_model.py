"""An LSTM learns which word of Shakespeare's comes next.

    python examples/lstm_language_model.py          one process
    paceline run -n 2 examples/lstm_language_model.py   two ranks (or: mpirun -n 2 python ...)
    python examples/lstm_language_model.py --device cuda

The text is cut into parallel streams, which are read a few words at a time. The state of the LSTM goes from one piece
to the next, its gradient does not: truncated back-propagation through time. The result is a perplexity, exp(mean loss):
among how many equally likely words the model would be as unsure. The last line of the output is one JSON object.

Sources: Zaremba et al., Recurrent Neural Network Regularization, 2014 (streams, dropout between the layers);
Press and Wolf, Using the Output Embedding to Improve Language Models, 2017 (tied weights).
"""

import argparse
import collections
import json
import math
import re
import time
from pathlib import Path

from tqdm import tqdm

import paceline as torch
import paceline.distributed as dist
from paceline import nn
from paceline.nn import functional as F
from paceline.nn.parallel import DistributedDataParallel

TEXT = Path(__file__).parent / "data" / "tinyshakespeare.txt"
UNKNOWN = "<unknown>"


class LanguageModel(nn.Module):
    def __init__(self, vocabulary, width, layers, dropout):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, width, layers, dropout=dropout if layers > 1 else 0)
        self.head = nn.Linear(width, vocabulary)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.head.bias)
        self.head.weight = self.embedding.weight

    def forward(self, words, state=None):  # [time, streams] -> logits [time, streams, vocabulary]
        output, state = self.lstm(self.dropout(self.embedding(words)), state)
        return self.head(self.dropout(output)), state


def load(least):
    """The text as numbers of words, split 9 : 1, and the words that occur at least so many times."""
    words = re.findall(r"[\w']+|[^\w\s]|\n", TEXT.read_text())
    counts = collections.Counter(words)
    vocabulary = [UNKNOWN, *sorted(word for word, count in counts.items() if count >= least)]
    number = {word: i for i, word in enumerate(vocabulary)}
    tokens = torch.tensor([number.get(word, 0) for word in words])
    held_out = len(tokens) // 10
    return tokens[:-held_out], tokens[-held_out:], vocabulary


def in_streams(tokens, streams, device):
    """[time, streams]: stream i is the i-th part of the text; every rank takes its own ones.

    They stay in the text's order: the state after one piece is the beginning of the next.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    time_steps = len(tokens) // streams
    return tokens[: time_steps * streams].view(streams, time_steps)[rank::world_size].T.contiguous().to(device)


def pieces(stream, length):
    """(words, following words), each [at most `length`, streams]."""
    for i in range(0, len(stream) - 1, length):
        words = stream[i : i + length + 1]
        yield words[:-1], words[1:]


def loss_of(logits, following):
    return F.cross_entropy(logits.flatten(0, 1), following.flatten())


@torch.no_grad()
def perplexity(model, stream, length):
    """exp of the mean loss over all ranks' words."""
    model.eval()
    sums, state = torch.zeros(2, dtype=torch.float64), None
    for words, following in pieces(stream, length):
        logits, state = model(words, state)
        sums += words.numel() * torch.tensor([loss_of(logits, following).item(), 1.0], dtype=torch.float64)
    dist.all_reduce(sums)
    model.train()
    return math.exp(sums[0] / sums[1])


@torch.no_grad()
def write(model, vocabulary, count, device):
    """Words drawn one after the other, each from what the model expects after those before it."""
    model.eval()
    word, state = torch.tensor([[vocabulary.index("\n")]], device=device), None
    written = []
    for _ in range(count):
        logits, state = model(word, state)
        probabilities = F.softmax(logits[0], dim=1)
        probabilities[:, 0] = 0  # not the unknown word
        word = torch.multinomial(probabilities, num_samples=1)
        written.append(vocabulary[word.item()])
    text = "".join(word if re.match(r"[^\w']", word) else " " + word for word in written)
    return text.replace("\n ", "\n").strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--streams", type=int, default=40, help="parallel parts of the text, over all ranks")
    parser.add_argument("--length", type=int, default=25, help="words that a gradient goes back")
    parser.add_argument("--least", type=int, default=5, help="how often a word must occur to be known")
    parser.add_argument("--words", type=int, help="train on so many words only")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--sample", type=int, default=80, help="words to write at the end")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rank, world_size = dist.get_rank(), dist.get_world_size()
    if args.streams % world_size:
        parser.error(f"--streams {args.streams} cannot be shared out evenly to {world_size} ranks")
    if args.device == "cuda":
        torch.cuda.set_device(dist.get_node_local_rank() % max(1, torch.cuda.device_count()))

    start = time.perf_counter()
    torch.manual_seed(args.seed + rank)  # every rank drops other units; the weights are rank 0's
    train_tokens, validation_tokens, vocabulary = load(args.least)
    train_stream = in_streams(train_tokens[: args.words], args.streams, args.device)
    validation_stream = in_streams(validation_tokens[: args.words], args.streams, args.device)
    model = LanguageModel(len(vocabulary), args.width, args.layers, args.dropout).to(args.device)
    model = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    total = math.ceil((len(train_stream) - 1) / args.length)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs * total)

    for epoch in range(args.epochs):
        state = None
        label = f"epoch {epoch + 1}/{args.epochs}"
        progress = tqdm(pieces(train_stream, args.length), label, total, disable=rank != 0, leave=False)
        for words, following in progress:
            logits, state = model(words, state)
            loss = loss_of(logits, following)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.5)
            optimizer.step()
            schedule.step()
            state = tuple(s.detach() for s in state)
            progress.set_postfix_str(f"perplexity {math.exp(loss.item()):.1f}", refresh=False)
        unsure = perplexity(model, validation_stream, args.length)
        if rank == 0:
            print(f"epoch {epoch + 1}: validation perplexity {unsure:.1f}", flush=True)

    if rank == 0:
        print("\n" + write(model.module, vocabulary, args.sample, args.device) + "\n")
        result = {
            "validation_perplexity": round(unsure, 2),
            "vocabulary": len(vocabulary),
            "world_size": world_size,
            "seconds": round(time.perf_counter() - start, 2),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()

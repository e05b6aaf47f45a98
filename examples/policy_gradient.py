"""REINFORCE learns to balance a pole on a cart, a game written below in plain Python.

    python examples/policy_gradient.py              one process
    paceline run -n 2 examples/policy_gradient.py   two ranks (or: mpirun -n 2 python examples/policy_gradient.py)
    python examples/policy_gradient.py --device cuda

The policy says how likely it pushes left or right. It plays some games; then actions that were followed by more reward
than usual are made more likely, the others less. All ranks play, and learn from the average of their gradients. The
last line of the output is one JSON object.

Source: Williams, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, 1992.
"""

import argparse
import json
import math
import random
import time

from tqdm import tqdm

import paceline as torch
import paceline.distributed as dist
from paceline import nn
from paceline.nn import functional as F
from paceline.nn.parallel import DistributedDataParallel


class CartPole:
    """A pole stands on a cart; push the cart left (0) or right (1) at 50 Hz so that the pole does not fall.

    Every step is worth a reward of 1. The game ends when the pole leans by more than 12 degrees, the cart is 2.4 m
    from the middle, or after 500 steps.

    Source: Barto, Sutton and Anderson, Neuronlike Adaptive Elements That Can Solve Difficult Control Problems, 1983.
    """

    gravity, cart_mass, pole_mass, half_length, force, interval = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02  # SI units

    def __init__(self, generator):
        self.generator = generator

    def reset(self):
        self.steps = 0
        self.state = [self.generator.uniform(-0.05, 0.05) for _ in range(4)]
        return self.state

    def step(self, action):
        """The next state (position, speed, angle, angular speed), and whether the game is over."""
        x, v, angle, spin = self.state
        sin, cos = math.sin(angle), math.cos(angle)
        mass = self.cart_mass + self.pole_mass
        push = (self.force if action == 1 else -self.force) + self.pole_mass * self.half_length * spin * spin * sin
        inertia = self.half_length * (4 / 3 - self.pole_mass * cos * cos / mass)
        spin_change = (self.gravity * sin - cos * push / mass) / inertia
        v_change = (push - self.pole_mass * self.half_length * spin_change * cos) / mass
        dt = self.interval
        self.state = [x + dt * v, v + dt * v_change, angle + dt * spin, spin + dt * spin_change]
        self.steps += 1
        fallen = abs(self.state[0]) > 2.4 or abs(self.state[2]) > math.radians(12)
        return self.state, fallen or self.steps == 500


class Policy(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.fc1 = nn.Linear(4, hidden)
        self.fc2 = nn.Linear(hidden, 2)

    def forward(self, states):  # [n, 4] -> log-probabilities of the two actions [n, 2]
        return F.log_softmax(self.fc2(F.relu(self.fc1(states))), dim=1)


@torch.no_grad()
def play(policy, game, device):
    """The states and the actions of one game."""
    state, over = game.reset(), False
    states, actions = [], []
    while not over:
        probabilities = policy(torch.tensor([state], device=device)).exp()
        action = torch.multinomial(probabilities, num_samples=1).item()
        states.append(state)
        actions.append(action)
        state, over = game.step(action)
    return states, actions


def returns_of(steps, discount):
    """What a game of so many steps is still worth at each of them: 1 + discount + discount^2 + ..."""
    returns = [0.0]
    for _ in range(steps):
        returns.append(1 + discount * returns[-1])
    return returns[:0:-1]


def mean_over_ranks(value):
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=150, help="at most; it ends when the pole stays up")
    parser.add_argument("--games", type=int, default=8, help="games before each update, over all ranks")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--discount", type=float, default=0.99)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--goal", type=float, default=475.0, help="mean steps of the last 10 updates to end at")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rank, world_size = dist.get_rank(), dist.get_world_size()
    if args.games % world_size:
        parser.error(f"--games {args.games} cannot be shared out evenly to {world_size} ranks")
    if args.device == "cuda":
        torch.cuda.set_device(dist.get_node_local_rank() % max(1, torch.cuda.device_count()))

    start = time.perf_counter()
    torch.manual_seed(args.seed + rank)  # every rank plays games of its own; the weights are rank 0's
    game = CartPole(random.Random(args.seed + rank))
    policy = DistributedDataParallel(Policy(args.hidden).to(args.device))
    optimizer = torch.optim.Adam(policy.parameters(), lr=args.lr)
    lengths = []

    progress = tqdm(range(args.updates), "updates", disable=rank != 0, leave=False)
    for _ in progress:
        states, actions, returns = [], [], []
        for _ in range(args.games // world_size):
            seen, done = play(policy.module, game, args.device)
            states += seen
            actions += done
            returns += returns_of(len(seen), args.discount)

        returns = torch.tensor(returns, device=args.device)
        advantages = (returns - returns.mean()) / (returns.std() + 1e-6)  # better or worse than usual
        log_probabilities = policy(torch.tensor(states, device=args.device))
        chosen = log_probabilities.gather(1, torch.tensor(actions, device=args.device).unsqueeze(1)).squeeze(1)
        loss = -(chosen * advantages).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        lengths.append(mean_over_ranks(len(states) / (args.games // world_size)))
        recent = sum(lengths[-10:]) / len(lengths[-10:])
        progress.set_postfix_str(f"{recent:.0f} steps a game", refresh=False)
        if len(lengths) >= 10 and recent >= args.goal:  # the same on all ranks
            break

    if rank == 0:
        result = {
            "mean_steps": round(recent, 1),
            "first_mean_steps": round(lengths[0], 1),
            "updates": len(lengths),
            "world_size": world_size,
            "seconds": round(time.perf_counter() - start, 2),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()

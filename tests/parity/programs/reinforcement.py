"""Programs that learn from rewards. The games are a few lines of arithmetic, the actions drawn by `same`."""

import collections
import copy
import math

from .registry import program


def swing(state, push):
    """A pendulum near the top, in plain numbers: next state and reward."""
    angle, speed = state
    speed = 0.95 * speed + 0.1 * math.sin(angle) + 0.1 * push
    angle = angle + 0.2 * speed
    return (angle, speed), 1.0 - abs(angle)


@program
def reinforce(torch, same):
    """Policy gradient with normalized returns, one backward through a whole game."""
    nn, F = torch.nn, torch.nn.functional

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.affine1 = nn.Linear(2, 16)
            self.dropout = nn.Dropout(p=0.0)
            self.affine2 = nn.Linear(16, 2)

        def forward(self, x):
            return F.softmax(self.affine2(F.relu(self.dropout(self.affine1(x)))), dim=1)

    policy = same(Policy())
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    eps = torch.finfo(torch.float32).eps
    for _ in range(4):
        state, log_probs, rewards = (0.1, 0.0), [], []
        for _ in range(12):
            probs = policy(torch.tensor(state).unsqueeze(0))
            action = same(torch.multinomial(probs, 1))
            log_probs.append(torch.log(probs.gather(1, action)).squeeze(1))
            state, reward = swing(state, 2 * action.item() - 1)
            rewards.append(reward)
        R, returns = 0, collections.deque()
        for r in rewards[::-1]:
            R = r + 0.99 * R
            returns.appendleft(R)
        returns = torch.tensor(returns)
        returns = (returns - returns.mean()) / (returns.std() + eps)
        loss = torch.cat([-log_prob * R for log_prob, R in zip(log_probs, returns, strict=True)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@program
def actor_critic(torch, same):
    """Two heads on one body, a normal distribution written by hand, entropy bonus, smooth L1 for the values."""
    nn, F = torch.nn, torch.nn.functional

    class ActorCritic(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(2, 16)
            self.mean, self.value = nn.Linear(16, 1), nn.Linear(16, 1)
            self.log_std = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            x = torch.tanh(self.body(x))
            return self.mean(x), self.log_std.exp(), self.value(x)

    def normal_log_prob(x, mean, std):
        return -((x - mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)

    model = same(ActorCritic())
    optimizer = torch.optim.RMSprop(model.parameters(), lr=7e-3, alpha=0.99, eps=1e-5)
    for _ in range(4):
        state, steps = (0.2, 0.0), []
        for _ in range(8):
            mean, std, value = model(torch.tensor([state]))
            action = (mean + std * same(torch.randn_like(mean))).detach()
            state, reward = swing(state, action.clamp(-1, 1).item())
            steps.append((normal_log_prob(action, mean, std), value, reward))
        R, losses = 0.0, []
        for log_prob, value, reward in reversed(steps):
            R = reward + 0.95 * R
            advantage = R - value.item()
            losses.append(-log_prob * advantage + F.smooth_l1_loss(value, torch.tensor([[R]])))
        entropy = 0.5 + 0.5 * math.log(2 * math.pi) + model.log_std
        loss = torch.stack(losses).mean() - 0.01 * entropy.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.5)
        optimizer.step()
        yield loss.item()


@program
def deep_q_learning(torch, same):
    """Replay memory, target network with soft updates through state_dict, Huber loss, clipping by value."""
    nn = torch.nn

    def make():
        return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))

    policy_net, target_net = same(make()), make()
    target_net.load_state_dict(policy_net.state_dict())
    optimizer = torch.optim.AdamW(policy_net.parameters(), lr=1e-2, amsgrad=True)
    Transition = collections.namedtuple("Transition", ("state", "action", "next_state", "reward"))
    memory, state = [], (0.1, 0.0)
    for _ in range(16):
        action = same(torch.randint(0, 2, (1, 1)))
        next_state, reward = swing(state, 2 * action.item() - 1)
        ended = abs(next_state[0]) > 0.4
        memory.append(
            Transition(
                torch.tensor([state]), action, None if ended else torch.tensor([next_state]), torch.tensor([reward])
            )
        )
        state = (0.1, 0.0) if ended else next_state
    for _ in range(6):
        batch = Transition(*zip(*(memory[i] for i in same(torch.randperm(16))[:10].tolist()), strict=True))
        non_final_mask = torch.tensor([s is not None for s in batch.next_state], dtype=torch.bool)
        non_final = torch.cat([s for s in batch.next_state if s is not None])
        state_action_values = policy_net(torch.cat(batch.state)).gather(1, torch.cat(batch.action))
        next_state_values = torch.zeros(10)
        with torch.no_grad():
            next_state_values[non_final_mask] = target_net(non_final).max(1).values
        expected = next_state_values * 0.99 + torch.cat(batch.reward)
        loss = nn.SmoothL1Loss()(state_action_values, expected.unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(policy_net.parameters(), 0.1)
        optimizer.step()
        target, source = target_net.state_dict(), policy_net.state_dict()
        for key in source:
            target[key] = source[key] * 0.2 + target[key] * 0.8
        target_net.load_state_dict(target)
        yield loss.item()


@program
def ppo(torch, same):
    """Clipped ratios over several passes, generalized advantages, orthogonal initialisation, lr annealed by hand."""
    nn = torch.nn

    def layer_init(layer, std=math.sqrt(2), bias_const=0.0):
        torch.nn.init.orthogonal_(layer.weight, std)
        torch.nn.init.constant_(layer.bias, bias_const)
        return layer

    actor = same(nn.Sequential(layer_init(nn.Linear(2, 8)), nn.Tanh(), layer_init(nn.Linear(8, 2), std=0.01)))
    critic = same(nn.Sequential(layer_init(nn.Linear(2, 8)), nn.Tanh(), layer_init(nn.Linear(8, 1), std=1.0)))
    parameters = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2, eps=1e-5)
    steps, obs, actions, rewards = 10, torch.zeros(10, 2), torch.zeros(10, dtype=torch.long), torch.zeros(10)
    state = (0.1, 0.0)
    with torch.no_grad():
        for step in range(steps):
            obs[step] = torch.tensor(state)
            actions[step] = same(torch.multinomial(torch.softmax(actor(obs[step]), dim=-1), 1))[0]
            state, rewards[step] = swing(state, 2 * actions[step].item() - 1)
        values = critic(obs).flatten()
        old_log_probs = torch.log_softmax(actor(obs), dim=-1).gather(1, actions[:, None]).squeeze(1)
        advantages, last = torch.zeros_like(rewards), 0
        for t in reversed(range(steps)):
            following = values[t + 1] if t + 1 < steps else critic(torch.tensor(state)).item()
            advantages[t] = last = rewards[t] + 0.99 * following - values[t] + 0.99 * 0.95 * last
        returns = advantages + values
    for update in range(3):
        optimizer.param_groups[0]["lr"] = (1 - update / 3) * 1e-2
        for inds in same(torch.randperm(steps)).view(2, 5):
            logits = actor(obs[inds])
            log_probs = logits - logits.logsumexp(dim=-1, keepdim=True)
            entropy = -(log_probs * log_probs.exp()).sum(-1).mean()
            log_ratio = log_probs.gather(1, actions[inds].unsqueeze(1)).squeeze(1) - old_log_probs[inds]
            ratio = log_ratio.exp()
            advantage = advantages[inds]
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            pg_loss = torch.max(-advantage * ratio, -advantage * torch.clamp(ratio, 0.8, 1.2)).mean()
            v_loss = 0.5 * ((critic(obs[inds]).view(-1) - returns[inds]) ** 2).mean()
            loss = pg_loss - 0.01 * entropy + v_loss * 0.5
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 0.5)
            optimizer.step()
            yield loss.item()
            yield ((ratio - 1.0).abs() > 0.2).float().mean().item()


@program
def ddpg(torch, same):
    """Deterministic policy gradient: targets by deepcopy, Polyak averaging on .data, critic on state and action."""
    nn, F = torch.nn, torch.nn.functional

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(3, 16), nn.Linear(16, 1)

        def forward(self, x, a):
            return self.fc2(F.relu(self.fc1(torch.cat([x, a], 1))))

    actor = same(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1), nn.Tanh()))
    critic = same(Critic())
    target_actor, target_critic = copy.deepcopy(actor), copy.deepcopy(critic)
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=3e-3)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3, weight_decay=1e-2)
    states, next_states = same(torch.randn(10, 2)), same(torch.randn(10, 2))
    actions, rewards = same(torch.rand(10, 1)) * 2 - 1, same(torch.randn(10, 1))
    done = (same(torch.rand(10, 1)) > 0.7).float()
    for _ in range(5):
        with torch.no_grad():
            target = rewards + (1 - done) * 0.99 * target_critic(next_states, target_actor(next_states))
        critic_loss = F.mse_loss(critic(states, actions), target)
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()
        actor_loss = -critic(states, actor(states)).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()
        for ours, theirs in ((critic, target_critic), (actor, target_actor)):
            for param, target_param in zip(ours.parameters(), theirs.parameters(), strict=True):
                target_param.data.copy_(0.1 * param.data + 0.9 * target_param.data)
        yield critic_loss.item()
        yield actor_loss.item()

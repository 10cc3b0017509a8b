"""A SAC written for PyTorch. It runs on rl_lab with only its import lines changed: see README.md in this folder."""

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.distributions import Normal

LOG_STD_MAX, LOG_STD_MIN = 2, -5


class SoftQNetwork(nn.Module):
    def __init__(self, env):
        super().__init__()
        self.fc1 = nn.Linear(env.observation_space.shape[0] + env.action_space.shape[0], 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc3 = nn.Linear(64, 1)

    def forward(self, x, a):
        x = torch.cat([x, a], 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Actor(nn.Module):
    def __init__(self, env):
        super().__init__()
        self.fc1 = nn.Linear(env.observation_space.shape[0], 64)
        self.fc2 = nn.Linear(64, 64)
        self.fc_mean = nn.Linear(64, env.action_space.shape[0])
        self.fc_logstd = nn.Linear(64, env.action_space.shape[0])
        high, low = env.action_space.high, env.action_space.low
        self.register_buffer("action_scale", torch.tensor((high - low) / 2.0, dtype=torch.float32))
        self.register_buffer("action_bias", torch.tensor((high + low) / 2.0, dtype=torch.float32))

    def forward(self, x):
        x = F.relu(self.fc2(F.relu(self.fc1(x))))
        log_std = torch.tanh(self.fc_logstd(x))
        return self.fc_mean(x), LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (log_std + 1)

    def get_action(self, x):
        mean, log_std = self(x)
        normal = Normal(mean, log_std.exp())
        x_t = normal.rsample()
        y_t = torch.tanh(x_t)
        log_prob = normal.log_prob(x_t) - torch.log(self.action_scale * (1 - y_t.pow(2)) + 1e-6)
        return y_t * self.action_scale + self.action_bias, log_prob.sum(1, keepdim=True)


def train(updates=100, seed=1, batch_size=64, learning_starts=128, gamma=0.99, tau=0.005):
    np.random.seed(seed)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    env = gym.make("Pendulum-v1")
    env.action_space.seed(seed)
    actor = Actor(env).to(device)
    qf1, qf2, qf1_target, qf2_target = (SoftQNetwork(env).to(device) for _ in range(4))
    qf1_target.load_state_dict(qf1.state_dict())
    qf2_target.load_state_dict(qf2.state_dict())
    q_optimizer = optim.Adam(list(qf1.parameters()) + list(qf2.parameters()), lr=1e-3)
    actor_optimizer = optim.Adam(list(actor.parameters()), lr=3e-4)
    target_entropy = -torch.prod(torch.Tensor(env.action_space.shape).to(device)).item()
    log_alpha = torch.zeros(1, requires_grad=True, device=device)
    alpha = log_alpha.exp().item()
    a_optimizer = optim.Adam([log_alpha], lr=1e-3)

    stored, losses = [], []
    observation, _ = env.reset(seed=seed)
    for step in range(learning_starts + updates):
        if step < learning_starts:
            action = env.action_space.sample()
        else:
            action, _ = actor.get_action(torch.Tensor(observation[None]).to(device))
            action = action.detach().cpu().numpy()[0]
        following, reward, terminated, truncated, _ = env.step(action)
        stored.append((observation, action, np.float32(reward), following, np.float32(terminated)))
        observation = following
        if terminated or truncated:
            observation, _ = env.reset()
        if step < learning_starts:
            continue

        chosen = [stored[i] for i in np.random.randint(0, len(stored), batch_size)]
        obs, actions, rewards, next_obs, dones = (torch.tensor(np.stack(part)).to(device) for part in zip(*chosen, strict=True))
        with torch.no_grad():
            next_actions, next_log_pi = actor.get_action(next_obs)
            min_next = torch.min(qf1_target(next_obs, next_actions), qf2_target(next_obs, next_actions)) - alpha * next_log_pi
            next_q = rewards.flatten() + (1 - dones.flatten()) * gamma * min_next.view(-1)
        qf1_loss = F.mse_loss(qf1(obs, actions).view(-1), next_q)
        qf2_loss = F.mse_loss(qf2(obs, actions).view(-1), next_q)
        q_optimizer.zero_grad()
        (qf1_loss + qf2_loss).backward()
        q_optimizer.step()

        pi, log_pi = actor.get_action(obs)
        actor_loss = ((alpha * log_pi) - torch.min(qf1(obs, pi), qf2(obs, pi))).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()

        with torch.no_grad():
            _, log_pi = actor.get_action(obs)
        alpha_loss = (-log_alpha.exp() * (log_pi + target_entropy)).mean()
        a_optimizer.zero_grad()
        alpha_loss.backward()
        a_optimizer.step()
        alpha = log_alpha.exp().item()

        for network, target in ((qf1, qf1_target), (qf2, qf2_target)):
            for param, target_param in zip(network.parameters(), target.parameters(), strict=True):
                target_param.data.copy_(tau * param.data + (1 - tau) * target_param.data)
        losses.append((qf1_loss.item(), qf2_loss.item(), actor_loss.item(), alpha_loss.item()))
    return losses


if __name__ == "__main__":
    for number, loss in enumerate(train()):
        print(number, *loss)

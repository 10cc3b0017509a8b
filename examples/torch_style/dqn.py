"""A DQN written for PyTorch. It runs on rl_lab with only its import lines changed: see README.md in this folder."""

import random

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim


class QNetwork(nn.Module):
    def __init__(self, env):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(np.array(env.observation_space.shape).prod(), 64),
            nn.ReLU(),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Linear(64, env.action_space.n),
        )

    def forward(self, x):
        return self.network(x)


class ReplayBuffer:
    def __init__(self, size, env, device):
        self.observations = torch.zeros((size, *env.observation_space.shape), dtype=torch.float32, device=device)
        self.next_observations = torch.zeros_like(self.observations)
        self.actions = torch.zeros((size, 1), dtype=torch.long, device=device)
        self.rewards = torch.zeros(size, device=device)
        self.dones = torch.zeros(size, dtype=torch.bool, device=device)
        self.size = size
        self.count = 0
        self.position = 0

    def add(self, observation, action, reward, next_observation, done):
        i = self.position
        self.observations[i] = torch.as_tensor(observation)
        self.next_observations[i] = torch.as_tensor(next_observation)
        self.actions[i] = int(action)
        self.rewards[i] = float(reward)
        self.dones[i] = bool(done)
        self.position = (i + 1) % self.size
        self.count = min(self.count + 1, self.size)

    def sample(self, batch_size):
        index = torch.tensor(np.random.randint(0, self.count, batch_size))
        return (
            self.observations[index],
            self.actions[index],
            self.rewards[index],
            self.next_observations[index],
            self.dones[index],
        )


def train(updates=100, seed=1, batch_size=64, learning_starts=128, gamma=0.99, target_frequency=20):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    env = gym.make("CartPole-v1")
    env.action_space.seed(seed)
    q_network = QNetwork(env).to(device)
    target_network = QNetwork(env).to(device)
    target_network.load_state_dict(q_network.state_dict())
    optimizer = optim.Adam(q_network.parameters(), lr=1e-3)
    buffer = ReplayBuffer(1000, env, device)

    losses = []
    observation, _ = env.reset(seed=seed)
    for step in range(learning_starts + updates):
        epsilon = max(0.05, 1 - step / 200)
        if random.random() < epsilon:
            action = env.action_space.sample()
        else:
            q_values = q_network(torch.Tensor(observation).unsqueeze(0).to(device))
            action = torch.argmax(q_values, dim=1).cpu().numpy()[0]
        next_observation, reward, terminated, truncated, _ = env.step(action)
        buffer.add(observation, action, reward, next_observation, terminated)
        observation = next_observation
        if terminated or truncated:
            observation, _ = env.reset()

        if step >= learning_starts:
            observations, actions, rewards, next_observations, dones = buffer.sample(batch_size)
            with torch.no_grad():
                target_max, _ = target_network(next_observations).max(dim=1)
                td_target = rewards.flatten() + gamma * target_max * (1 - dones.float().flatten())
            old_value = q_network(observations).gather(1, actions).squeeze()
            loss = F.mse_loss(td_target, old_value)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(q_network.parameters(), 10)
            optimizer.step()
            losses.append(loss.item())
            if step % target_frequency == 0:
                for target, source in zip(target_network.parameters(), q_network.parameters(), strict=True):
                    target.data.copy_(0.9 * source.data + 0.1 * target.data)
    return losses


if __name__ == "__main__":
    for number, loss in enumerate(train()):
        print(number, loss)

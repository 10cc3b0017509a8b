"""Learning within a life: policy gradient on an evolved network, from episodes of its own.

The batch of episodes is used for several steps of the clipped surrogate objective (Schulman et al. 2017, "Proximal policy optimization
algorithms", equation 7). What an episode's return is compared with is fitted to the batch by least squares, linear in observations,
their squares and powers of time (Duan et al. 2016, "Benchmarking deep reinforcement learning for continuous control", section 3).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv

import rl_lab as rl
from agents.neat import phenotypes
from rl_lab.nn import GraphNetwork
from rl_lab.nn.utils import clip_grad_norm_
from rl_lab.policies import ActionHead
from rl_lab.population import Actions

CLIP_RANGE, MAX_GRAD_NORM, RIDGE = 0.2, 1.0, 1e-3
STEEPNESS = 5.0
"""What outputs that must keep their activation are multiplied by to be logits."""
_MONOTONE = ("sigmoid", "steepened_sigmoid", "tanh", "softplus", "clamped", "leaky_relu", "elu", "exp", "cube", "relu")


def policy_of(network: GraphNetwork, actions: Actions) -> tuple[GraphNetwork, float]:
    """A network with equal weights whose outputs, times a factor, are logits of choices, or what continuous actions are made of.

    The largest of activated outputs is the largest of the sums before a rising activation, and sums do not saturate. Where an output
    feeds other nodes it has to stay as it is.
    """
    policy = GraphNetwork.from_description(network.describe())
    if isinstance(actions.space, Box):
        return policy, 1.0
    activations = {node["name"]: node["activation"] for node in network.describe()["nodes"]}
    fed = {source for source, _ in network.edges}
    if fed & set(network.outputs) or any(activations[name] not in _MONOTONE for name in network.outputs):
        return policy, STEEPNESS
    for name in policy.outputs:
        policy.set_activation(name, "identity")
    return policy, 1.0


def actor_of(network: GraphNetwork, actions: Actions) -> GraphNetwork:
    """The network as gradient agents take it: its outputs are logits (or action values) of discrete actions, or actions of a Box."""
    policy, factor = policy_of(network, actions)
    mapping = actions.mapping
    continuous = isinstance(actions.space, Box)
    if not continuous and factor == 1.0:
        return policy
    described = policy.describe()
    for k, name in enumerate(policy.outputs):
        weight = float(mapping.scale[k]) if continuous else factor
        bias = float(mapping.offset[k] - mapping.first[k] * mapping.scale[k]) if continuous else 0.0
        described["nodes"].append({"name": f"actor{k}", "activation": "identity", "aggregation": "sum", "bias": bias})
        described["edges"].append({"source": name, "target": f"actor{k}", "weight": weight})
    described["outputs"] = [f"actor{k}" for k in range(len(policy.outputs))]
    return GraphNetwork.from_description(described)


class Batch(NamedTuple):
    """Episodes side by side, (steps, episodes, ...); ``alive`` is 0 where an episode is over. ``chosen`` is what was drawn: numbers
    of choices from 0, or outputs with noise."""

    observations: np.ndarray
    chosen: np.ndarray
    rewards: np.ndarray
    alive: np.ndarray


class PolicyGradient:
    """Trains networks by ``updates`` steps of Adam on one batch of at least ``episodes`` episodes."""

    def __init__(
        self,
        envs: VectorEnv,
        actions: Actions,
        *,
        updates: int,
        episodes: int,
        learning_rate: float,
        gamma: float,
        noise: float,
        random: np.random.Generator,
    ):
        self.envs, self.actions, self.random = envs, actions, random
        self.updates, self.episodes, self.learning_rate, self.gamma, self.noise = updates, episodes, learning_rate, gamma, noise
        self.continuous = isinstance(actions.space, Box)
        self.head = None if self.continuous else ActionHead(actions.space)

    def train(self, network: GraphNetwork) -> tuple[GraphNetwork, int]:
        """A copy of the network with trained weights and biases, and the environment steps that this took."""
        policy, factor = policy_of(network, self.actions)
        batch = self._act(policy, factor)
        self._learn(policy, factor, batch)
        trained = GraphNetwork.from_description(network.describe())
        with rl.no_grad():
            trained.weight.copy_(policy.weight.detach())
            trained.bias.copy_(policy.bias.detach())
        return trained, int(batch.alive.sum())

    def _act(self, policy: GraphNetwork, factor: float) -> Batch:
        rounds = [self._round(policy, factor) for _ in range(math.ceil(self.episodes / self.envs.num_envs))]
        longest = max(len(part.rewards) for part in rounds)

        def joined(parts: list[np.ndarray]) -> np.ndarray:
            padded = [np.concatenate([p, np.zeros((longest - len(p), *p.shape[1:]), p.dtype)]) for p in parts]
            return np.concatenate(padded, axis=1)

        return Batch(*[joined(list(parts)) for parts in zip(*rounds, strict=True)])

    def _round(self, policy: GraphNetwork, factor: float) -> Batch:
        """One episode in each environment."""
        n = self.envs.num_envs
        structures, numbers = (part[None] for part in policy.pack())
        states = np.zeros((n, int(structures[0, 0] + 2 * structures[0, 1])), np.float32)
        outputs = np.zeros((n, self.actions.outputs), np.float32)
        reset: Any = self.envs.reset
        observations, _ = reset(seed=self.random.integers(2**31, size=n).tolist())
        alive, steps = np.ones(n, bool), []
        while alive.any():
            x = np.array(observations, np.float32).reshape(n, -1)
            phenotypes.forward_each(structures, numbers, np.where(alive, 0, -1), x, states, outputs)
            if self.continuous:
                chosen = outputs + np.float32(self.noise) * self.random.standard_normal(outputs.shape, np.float32)
                taken = self.actions(chosen)
            else:
                # the largest of logits with Gumbel noise is a draw from their softmax
                taken = self.actions(np.float32(factor) * outputs + self.random.gumbel(size=outputs.shape))
                chosen = taken - self.actions.space.start
            observations, rewards, terminated, truncated, _ = self.envs.step(taken)
            steps.append((x, chosen, np.where(alive, rewards, 0.0).astype(np.float32), alive.astype(np.float32)))
            alive = alive & ~(terminated | truncated)
        return Batch(*[np.stack(parts) for parts in zip(*steps, strict=True)])

    def advantages(self, batch: Batch) -> np.ndarray:
        """Discounted returns less what was to be expected, with mean 0 and standard deviation 1 over the batch."""
        returns = np.zeros(batch.rewards.shape)
        following = np.zeros(batch.rewards.shape[1])
        for t in range(len(returns) - 1, -1, -1):
            returns[t] = following = batch.rewards[t] + self.gamma * following
        alive = batch.alive > 0
        time = np.broadcast_to(np.arange(len(returns))[:, None] / 100.0, alive.shape)[alive][:, None]
        seen = np.clip(batch.observations[alive].astype(np.float64), -10.0, 10.0)
        features = np.concatenate([seen, seen**2, time, time**2, time**3, np.ones_like(time)], 1)
        square = features.T @ features + RIDGE * len(features) * np.eye(features.shape[1])
        rest = returns[alive] - features @ np.linalg.solve(square, features.T @ returns[alive])
        result = np.zeros(returns.shape, np.float32)
        result[alive] = (rest - rest.mean()) / (rest.std() + 1e-8)
        return result

    def _learn(self, policy: GraphNetwork, factor: float, batch: Batch) -> None:
        advantages, alive = rl.tensor(self.advantages(batch)).flatten(), rl.tensor(batch.alive).flatten()
        observations, chosen = rl.tensor(batch.observations), rl.tensor(batch.chosen).flatten(0, 1)
        count, parameters = alive.sum(), [policy.weight, policy.bias]
        optimizer = rl.optim.Adam(parameters, lr=self.learning_rate)
        with rl.no_grad():
            before = self._log_probs(policy, factor, observations, chosen)
        for _ in range(self.updates):
            ratio = (self._log_probs(policy, factor, observations, chosen) - before).exp()
            clipped = ratio.clamp(1.0 - CLIP_RANGE, 1.0 + CLIP_RANGE)
            loss = -(rl.minimum(ratio * advantages, clipped * advantages) * alive).sum() / count
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(parameters, MAX_GRAD_NORM)
            optimizer.step()

    def _log_probs(self, policy: GraphNetwork, factor: float, observations: Any, chosen: Any) -> Any:
        """Of what was drawn, up to a constant; (steps * episodes,)."""
        if policy.recurrent:
            state, parts = rl.zeros(observations.shape[1], len(policy.nodes)), []
            for t in range(observations.shape[0]):
                out, state = policy(observations[t], state)
                parts.append(out)
            outputs = rl.stack(parts).flatten(0, 1)
        else:
            outputs = policy(observations.flatten(0, 1))
        if self.head is not None:
            return self.head.distribution(outputs * factor).log_prob(chosen)
        return -0.5 * (((chosen - outputs) / self.noise) ** 2).sum(1)

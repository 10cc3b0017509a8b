"""The timed workloads, written once for every library with PyTorch's names (``lib`` is rl_lab or torch)."""

from collections.abc import Callable
from typing import Any

import numpy as np

DQN_UPDATES = [((4, 64, 64, 2), 64), ((4, 120, 84, 2), 128), ((8, 256, 256, 4), 128), ((4, 64, 64, 2), 1024)]
PPO_UPDATES = [((4, 64, 64, 2), 128)]
SAC_UPDATES = [((3, 64, 64, 1), 100), ((3, 256, 256, 1), 256)]


def tanh_chain(lib: Any) -> Callable[[], Any]:
    """A function that runs ((x @ w).tanh() * y).sum().backward() on 64 x 64 tensors."""
    rng = np.random.default_rng(0)
    x, y = (lib.tensor(rng.standard_normal((64, 64)).astype(np.float32)) for _ in range(2))
    w = lib.tensor(rng.standard_normal((64, 64)).astype(np.float32) * np.float32(0.1), requires_grad=True)

    def run():
        w.grad = None
        ((x @ w).tanh() * y).sum().backward()

    return run


def add(lib: Any) -> Callable[[], Any]:
    """A function that adds two 64 x 64 tensors that require gradients."""
    x, y = lib.ones(64, 64, requires_grad=True), lib.ones(64, 64, requires_grad=True)
    return lambda: x + y


def perceptron(lib: Any, sizes: tuple[int, ...], activation: str = "ReLU") -> Any:
    """A network of linear layers with ``activation`` between them."""
    layers = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layers += [lib.nn.Linear(a, b)] + ([getattr(lib.nn, activation)()] if i < len(sizes) - 2 else [])
    return lib.nn.Sequential(*layers)


def dqn_update(lib: Any, sizes: tuple[int, ...], batch: int) -> Callable[[], Any]:
    """A function that runs one DQN update: forward of both networks, loss, backward, Adam."""
    functional = lib.nn.functional
    rng = np.random.default_rng(0)
    q, target = perceptron(lib, sizes), perceptron(lib, sizes)
    optimizer = lib.optim.Adam(q.parameters(), lr=1e-3)
    observations, following = (lib.tensor(rng.standard_normal((batch, sizes[0])).astype(np.float32)) for _ in range(2))
    actions = lib.tensor(rng.integers(0, sizes[-1], (batch, 1)))
    rewards = lib.ones(batch)
    terminated = lib.zeros(batch)

    def update():
        with lib.no_grad():
            td_target = rewards + 0.99 * (1 - terminated) * target(following).amax(1)
        q_taken = q(observations).gather(1, actions).squeeze(1)
        loss = functional.mse_loss(q_taken, td_target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return update


def ppo_update(lib: Any, sizes: tuple[int, ...], batch: int) -> Callable[[], Any]:
    """A function that runs one minibatch of PPO: actor and critic, clipped surrogate, value loss, entropy, gradient clipping, Adam."""
    functional = lib.nn.functional
    rng = np.random.default_rng(0)
    actor, critic = perceptron(lib, sizes, "Tanh"), perceptron(lib, (*sizes[:-1], 1), "Tanh")
    parameters = [*actor.parameters(), *critic.parameters()]
    optimizer = lib.optim.Adam(parameters, lr=3e-4, eps=1e-5)
    observations = lib.tensor(rng.standard_normal((batch, sizes[0])).astype(np.float32))
    actions = lib.tensor(rng.integers(0, sizes[-1], (batch, 1)))
    advantages, returns = (lib.tensor(rng.standard_normal(batch).astype(np.float32)) for _ in range(2))
    old_log_prob = lib.tensor(np.full(batch, -0.7, np.float32))

    def update():
        log_probs = functional.log_softmax(actor(observations), -1)
        log_prob = log_probs.gather(1, actions).squeeze(1)
        ratio = (log_prob - old_log_prob).exp()
        scaled = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = -lib.minimum(ratio * scaled, ratio.clamp(0.8, 1.2) * scaled).mean()
        value_loss = functional.mse_loss(critic(observations).squeeze(1), returns)
        entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
        loss = policy_loss + 0.5 * value_loss - 0.01 * entropy
        optimizer.zero_grad()
        loss.backward()
        lib.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        return loss

    return update


def sac_update(lib: Any, sizes: tuple[int, ...], batch: int) -> Callable[[], Any]:
    """A function that runs one update of SAC: twin critics, squashed Gaussian actor, learned temperature, three Adams, polyak averaging."""
    functional = lib.nn.functional
    rng = np.random.default_rng(0)
    inputs = sizes[0]
    hidden = sizes[1:-1]
    outputs = sizes[-1]
    actor = perceptron(lib, (inputs, *hidden, 2 * outputs))
    critics, targets = ([perceptron(lib, (inputs + outputs, *hidden, 1)) for _ in range(2)] for _ in range(2))
    critic_parameters = [p for critic in critics for p in critic.parameters()]
    target_parameters = [p for target in targets for p in target.parameters()]
    for p in target_parameters:
        p.requires_grad_(False)
    log_alpha = lib.zeros(1, requires_grad=True)
    actor_optimizer = lib.optim.Adam(actor.parameters(), lr=1e-3)
    critic_optimizer = lib.optim.Adam(critic_parameters, lr=1e-3)
    alpha_optimizer = lib.optim.Adam([log_alpha], lr=1e-3)
    observations, following = (lib.tensor(rng.standard_normal((batch, inputs)).astype(np.float32)) for _ in range(2))
    actions = lib.tensor(rng.uniform(-1, 1, (batch, outputs)).astype(np.float32))
    rewards = lib.ones(batch, 1)
    terminated = lib.zeros(batch, 1)

    def sample(x):
        out = actor(x)
        mean = out[:, :outputs]
        log_std = out[:, outputs:].clamp(-20.0, 2.0)
        noise = lib.randn(batch, outputs)
        u = mean + log_std.exp() * noise
        log_prob = -0.5 * noise * noise - log_std - 0.9189385
        log_prob = log_prob - 2.0 * (0.6931472 - u - functional.softplus(-2.0 * u))
        return u.tanh(), log_prob.sum(1, keepdim=True)

    def update():
        alpha = log_alpha.detach().exp()
        with lib.no_grad():
            next_actions, next_log_prob = sample(following)
            joined = lib.cat([following, next_actions], 1)
            next_q = lib.minimum(targets[0](joined), targets[1](joined)) - alpha * next_log_prob
            td_target = rewards + 0.99 * (1 - terminated) * next_q
        joined = lib.cat([observations, actions], 1)
        critic_loss = functional.mse_loss(critics[0](joined), td_target) + functional.mse_loss(critics[1](joined), td_target)
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()

        for p in critic_parameters:
            p.requires_grad_(False)
        new_actions, log_prob = sample(observations)
        joined = lib.cat([observations, new_actions], 1)
        actor_loss = (alpha * log_prob - lib.minimum(critics[0](joined), critics[1](joined))).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        actor_optimizer.step()
        for p in critic_parameters:
            p.requires_grad_(True)

        alpha_loss = -(log_alpha.exp() * (log_prob.detach() - outputs)).mean()
        alpha_optimizer.zero_grad()
        alpha_loss.backward()
        alpha_optimizer.step()
        with lib.no_grad():
            if hasattr(lib, "_foreach_lerp_"):
                lib._foreach_lerp_(target_parameters, critic_parameters, 0.005)
            else:
                lib.nn.utils.polyak_(target_parameters, critic_parameters, 0.005)
        return critic_loss, actor_loss

    return update


UPDATES: dict[str, Callable[[Any], Callable[[], Any]]] = {
    **{f"DQN {'-'.join(map(str, s))}, batch {b}": lambda lib, s=s, b=b: dqn_update(lib, s, b) for s, b in DQN_UPDATES},
    **{f"PPO {'-'.join(map(str, s))}, batch {b}": lambda lib, s=s, b=b: ppo_update(lib, s, b) for s, b in PPO_UPDATES},
    **{f"SAC {'-'.join(map(str, s))}, batch {b}": lambda lib, s=s, b=b: sac_update(lib, s, b) for s, b in SAC_UPDATES},
}

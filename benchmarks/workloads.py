"""The work that is timed, written once for any library with PyTorch's names."""

from collections.abc import Callable
from typing import Any

import numpy as np

DQN_UPDATES = [((4, 64, 64, 2), 64), ((4, 120, 84, 2), 128), ((8, 256, 256, 4), 128), ((4, 64, 64, 2), 1024)]


def tanh_chain(lib: Any) -> Callable[[], Any]:
    """((x @ w).tanh() * y).sum().backward() at 64 x 64."""
    rng = np.random.default_rng(0)
    x, y = (lib.tensor(rng.standard_normal((64, 64)).astype(np.float32)) for _ in range(2))
    w = lib.tensor(rng.standard_normal((64, 64)).astype(np.float32) * np.float32(0.1), requires_grad=True)

    def run():
        w.grad = None
        ((x @ w).tanh() * y).sum().backward()

    return run


def add(lib: Any) -> Callable[[], Any]:
    """The sum of two 64 x 64 tensors that require gradients."""
    x, y = lib.ones(64, 64, requires_grad=True), lib.ones(64, 64, requires_grad=True)
    return lambda: x + y


def forward(lib: Any) -> Callable[[Any], Any]:
    """A 4-64-64-2 policy."""
    nn = lib.nn
    return nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def dqn_update(lib: Any, functional: Any, sizes: tuple[int, ...], batch: int) -> Callable[[], Any]:
    """Target forward, forward, loss, backward, Adam."""
    nn = lib.nn

    def network():
        layers = []
        for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
            layers += [nn.Linear(a, b)] + ([nn.ReLU()] if i < len(sizes) - 2 else [])
        return nn.Sequential(*layers)

    rng = np.random.default_rng(0)
    q, target = network(), network()
    optimizer = lib.optim.Adam(q.parameters(), lr=1e-3)
    observations, following = (lib.tensor(rng.standard_normal((batch, sizes[0])).astype(np.float32)) for _ in range(2))
    actions = lib.tensor(rng.integers(0, sizes[-1], (batch, 1)))
    rewards, terminated = lib.ones(batch), lib.zeros(batch)

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

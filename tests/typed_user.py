"""A user's program with type annotations. ``mypy --strict`` must accept it against an installed rl_lab.

`assert_type` fails the type check if an expression has another type; at run time it does nothing. The program runs, too.
"""

from collections.abc import Iterator

import numpy as np
from typing_extensions import assert_type

import rl_lab as rl
from rl_lab import nn, optim
from rl_lab.distributions import Categorical, Independent, Normal, kl_divergence
from rl_lab.nn import functional as F


class Policy(nn.Module):
    """A network with two outputs: logits (batch, actions) and values (batch,)."""

    def __init__(self, inputs: int, actions: int, hidden: int = 16):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh())
        self.logits = nn.Linear(hidden, actions)
        self.value = nn.Linear(hidden, 1)

    def forward(self, observations: rl.Tensor) -> tuple[rl.Tensor, rl.Tensor]:
        features = self.body(observations)
        return self.logits(features), self.value(features).squeeze(-1)


def tensors() -> None:
    """Creation, operators and methods."""
    x = rl.tensor([[1.0, -2.0], [3.0, 4.0]], requires_grad=True)
    assert_type(x, rl.Tensor)
    assert_type(x + 1, rl.Tensor)
    assert_type(2.0 * x - x / 3, rl.Tensor)
    assert_type(x @ x, rl.Tensor)
    assert_type(-x, rl.Tensor)
    assert_type(x[0], rl.Tensor)
    assert_type(x.sum(), rl.Tensor)
    assert_type(x.mean(0).exp(), rl.Tensor)
    assert_type(x.detach().numpy(), np.ndarray)
    assert_type(rl.zeros(2, 3), rl.Tensor)
    assert_type(rl.cat([x, x]), rl.Tensor)
    assert_type(rl.where(x > 0, x, 0.0), rl.Tensor)
    assert_type(rl.as_tensor(np.ones(3, np.float32)), rl.Tensor)
    assert_type(x.shape, rl.Size)
    assert_type(x.shape[0], int)
    assert_type(x.shape[1:], rl.Size)
    assert_type(x.size(0), int)
    assert_type(x.dtype, rl.dtype)
    (gradient,) = rl.autograd.grad(x.square().sum(), x)
    assert_type(gradient, rl.Tensor)
    with rl.no_grad():
        x.mul_(0.5)


@rl.no_grad()
def greedy(policy: Policy, observations: rl.Tensor) -> rl.Tensor:
    """Greedy actions (batch,)."""
    logits, _ = policy(observations)
    return logits.argmax(-1)


def modules() -> Policy:
    """Layers, losses and the result types of calls."""
    x = rl.randn(4, 2)
    assert_type(nn.Linear(2, 3)(x), rl.Tensor)
    assert_type(nn.Sequential(nn.Linear(2, 3), nn.ReLU())(x), rl.Tensor)
    assert_type(nn.LayerNorm(2)(x), rl.Tensor)
    assert_type(nn.LSTM(2, 3)(x), tuple[rl.Tensor, tuple[rl.Tensor, rl.Tensor]])
    assert_type(nn.GRUCell(2, 3)(x), rl.Tensor)
    assert_type(nn.GraphNetwork(2, 1)(x), rl.Tensor)
    assert_type(nn.CrossEntropyLoss()(x, rl.tensor([0, 1, 0, 1])), rl.Tensor)
    assert_type(F.mse_loss(x, rl.zeros_like(x)), rl.Tensor)
    policy = Policy(2, 3)
    assert_type(policy(x), tuple[rl.Tensor, rl.Tensor])
    assert_type(policy.eval(), Policy)
    assert_type(policy.to("cpu"), Policy)
    assert_type(policy.parameters(), Iterator[nn.Parameter])
    assert_type(greedy(policy, x), rl.Tensor)
    nn.init.orthogonal_(policy.logits.weight, gain=0.01)
    nn.init.zeros_(policy.logits.bias)
    policy.load_state_dict(policy.state_dict())
    return policy.train()


def distributions(policy: Policy) -> None:
    """Samples, log-probabilities and divergences."""
    logits, values = policy(rl.randn(4, 2))
    categorical = Categorical(logits=logits)
    actions = categorical.sample()
    assert_type(actions, rl.Tensor)
    assert_type(categorical.log_prob(actions), rl.Tensor)
    assert_type(categorical.entropy(), rl.Tensor)
    normal = Independent(Normal(values.unsqueeze(-1), 1.0), 1)
    assert_type(normal.rsample(), rl.Tensor)
    assert_type(kl_divergence(categorical, categorical), rl.Tensor)


def training(policy: Policy) -> float:
    """Optimiser, schedule, clipping and a compiled step; returns the last loss."""
    optimizer = optim.Adam(policy.parameters(), lr=1e-2)
    schedule = optim.lr_scheduler.LinearLR(optimizer, total_iters=3)

    @rl.compile
    def step(observations: rl.Tensor, targets: rl.Tensor) -> rl.Tensor:
        _, values = policy(observations)
        loss = F.mse_loss(values, targets)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
        assert_type(norm, rl.Tensor)
        optimizer.step()
        return loss

    observations = rl.randn(8, 2)
    targets = observations.sum(-1)
    loss = 0.0
    assert_type(step(observations, targets), rl.Tensor)
    for _ in range(3):
        loss = step(observations, targets).item()
        schedule.step()
    return loss


if __name__ == "__main__":
    tensors()
    network = modules()
    distributions(network)
    print(f"last loss {training(network):.4f}")

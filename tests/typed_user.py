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


def families() -> None:
    """One call or more of every family of operations, as functions and as methods, with the kinds of arguments that users give."""
    x = rl.randn(2, 3)
    n, m = x.shape
    assert_type(n, int)
    assert_type(x.size(), rl.Size)
    assert_type(x.size(0), int)
    assert_type(x.shape[:1], rl.Size)
    assert_type(x.device, rl.device)
    # creation: sizes one by one, as a sequence, as an array's shape, as NumPy integers
    array = np.ones((2, 3), np.float32)
    assert_type(rl.zeros(n, m), rl.Tensor)
    assert_type(rl.ones((n, m), dtype=rl.int64), rl.Tensor)
    assert_type(rl.empty(array.shape), rl.Tensor)
    assert_type(rl.zeros(np.int64(3)), rl.Tensor)
    assert_type(rl.full((2,), 0.5, device="cpu"), rl.Tensor)
    assert_type(rl.tensor([[1, 2], [3, 4]]), rl.Tensor)
    assert_type(rl.tensor(True), rl.Tensor)
    assert_type(rl.as_tensor(array), rl.Tensor)
    assert_type(rl.from_numpy(array), rl.Tensor)
    assert_type(rl.arange(3), rl.Tensor)
    assert_type(rl.linspace(0.0, 1.0, 5), rl.Tensor)
    assert_type(rl.eye(3), rl.Tensor)
    assert_type(rl.zeros_like(x), rl.Tensor)
    assert_type(rl.FloatTensor([1.0, 2.0]), rl.Tensor)
    assert_type(rl.Tensor([1.0, 2.0]), rl.Tensor)
    assert_type(x.new_zeros(2, 2), rl.Tensor)
    # conversion
    assert_type(x.to(rl.int64), rl.Tensor)
    assert_type(x.to("cpu"), rl.Tensor)
    assert_type(x.long().float().bool(), rl.Tensor)
    assert_type(x.clone().detach(), rl.Tensor)
    # arithmetic and operators, with numbers of Python and NumPy on either side
    assert_type(x + 1, rl.Tensor)
    assert_type(1.5 - x, rl.Tensor)
    assert_type(x * np.float32(2.0), rl.Tensor)
    assert_type(x / x, rl.Tensor)
    assert_type(x**2, rl.Tensor)
    assert_type(2**x, rl.Tensor)
    assert_type(x // 2, rl.Tensor)
    assert_type(x % 2, rl.Tensor)
    assert_type(-x, rl.Tensor)
    assert_type(abs(x), rl.Tensor)
    assert_type(x.clamp(min=0.0), rl.Tensor)
    assert_type(x.clip(-1, 1), rl.Tensor)
    assert_type(rl.maximum(x, rl.zeros(3)), rl.Tensor)
    assert_type(rl.fmax(x, x), rl.Tensor)
    assert_type(rl.lerp(x, x, 0.5), rl.Tensor)
    assert_type(rl.addcmul(x, x, x, value=0.1), rl.Tensor)
    assert_type(rl.atan2(x, x), rl.Tensor)
    assert_type(x.masked_fill(x > 0, 0.0), rl.Tensor)
    assert_type(x.nan_to_num(), rl.Tensor)
    # functions of one tensor
    assert_type(rl.exp(x), rl.Tensor)
    assert_type(x.log1p().sqrt().tanh(), rl.Tensor)
    assert_type(rl.round(x, decimals=2), rl.Tensor)
    # comparisons, logic and bits
    assert_type(x == 0, rl.Tensor)
    assert_type(x != x, rl.Tensor)
    assert_type(0.0 < x, rl.Tensor)  # noqa: SIM300
    assert_type((x > 0) & (x < 1), rl.Tensor)
    assert_type(~(x > 0), rl.Tensor)
    assert_type(rl.logical_or(x > 0, x < 0), rl.Tensor)
    assert_type(rl.isnan(x), rl.Tensor)
    assert_type(rl.allclose(x, x), bool)
    assert_type(rl.equal(x, x), bool)
    # reductions: a tensor without dim, named tuples of values and positions with dim
    assert_type(x.sum(dim=(0, 1), keepdim=True), rl.Tensor)
    assert_type(x.mean(axis=0), rl.Tensor)
    assert_type(x.std(0, correction=0), rl.Tensor)
    assert_type(x.norm(), rl.Tensor)
    assert_type(x.max(), rl.Tensor)
    assert_type(x.max(0).values, rl.Tensor)
    assert_type(rl.max(x, 1).indices, rl.Tensor)
    assert_type(rl.max(x, x), rl.Tensor)
    values, indices = x.min(-1)
    assert_type(values, rl.Tensor)
    assert_type(indices, rl.Tensor)
    assert_type(x.argmax(-1), rl.Tensor)
    assert_type(x.any(), rl.Tensor)
    assert_type(rl.softmax(x, dim=-1), rl.Tensor)
    assert_type(x.log_softmax(-1), rl.Tensor)
    assert_type(x.logsumexp(-1), rl.Tensor)
    assert_type(rl.var_mean(x), tuple[rl.Tensor, rl.Tensor])
    assert_type(x.cumsum(0), rl.Tensor)
    assert_type(x.cummax(0).values, rl.Tensor)
    assert_type(rl.aminmax(x).max, rl.Tensor)
    # order
    assert_type(x.sort().values, rl.Tensor)
    assert_type(x.topk(2).indices, rl.Tensor)
    assert_type(x.argsort(), rl.Tensor)
    assert_type(x.median(), rl.Tensor)
    assert_type(x.median(0).indices, rl.Tensor)
    # layout
    assert_type(x.reshape(3, 2), rl.Tensor)
    assert_type(x.view(-1), rl.Tensor)
    assert_type(x.reshape(x.shape), rl.Tensor)
    assert_type(x.T, rl.Tensor)
    assert_type(x.t().contiguous(), rl.Tensor)
    assert_type(x.permute(1, 0), rl.Tensor)
    assert_type(x.unsqueeze(0).expand(4, -1, -1).squeeze(), rl.Tensor)
    assert_type(x.flatten(), rl.Tensor)
    assert_type(rl.stack([x, x], dim=1), rl.Tensor)
    assert_type(x.chunk(2), tuple[rl.Tensor, ...])
    assert_type(x.split([1, 1]), tuple[rl.Tensor, ...])
    assert_type(x.unbind(), tuple[rl.Tensor, ...])
    assert_type(rl.meshgrid(rl.arange(2), rl.arange(3)), tuple[rl.Tensor, ...])
    assert_type([row.sum() for row in x], list[rl.Tensor])
    # rearrangement and diagonals
    assert_type(x.repeat(2, 1), rl.Tensor)
    assert_type(x.repeat_interleave(2, dim=0), rl.Tensor)
    assert_type(rl.flip(x, (0, 1)), rl.Tensor)
    assert_type(x.roll(1, 0), rl.Tensor)
    assert_type(x.diff(), rl.Tensor)
    assert_type(rl.tril(x), rl.Tensor)
    assert_type(x.diagonal(), rl.Tensor)
    # indexing, reading and writing
    assert_type(x[0, 1:], rl.Tensor)
    assert_type(x[..., None], rl.Tensor)
    assert_type(x[x > 0], rl.Tensor)
    assert_type(x[rl.tensor([0, 1])], rl.Tensor)
    assert_type(x[np.array([0, 1])], rl.Tensor)
    assert_type(x[[0, 1], [1, 2]], rl.Tensor)
    assert_type(x[np.int64(0)], rl.Tensor)
    x[0] = 1.0
    x[:, 1] = rl.zeros(2)
    assert_type(x.gather(1, rl.zeros(2, 1, dtype=rl.int64)), rl.Tensor)
    assert_type(x.scatter(1, rl.zeros(2, 1, dtype=rl.int64), 5.0), rl.Tensor)
    assert_type(x.index_select(0, rl.tensor([0])), rl.Tensor)
    assert_type(x.nonzero(), rl.Tensor)
    assert_type(x.nonzero(as_tuple=True), tuple[rl.Tensor, ...])
    assert_type(F.one_hot(rl.tensor([0, 1]), 3), rl.Tensor)
    assert_type(F.embedding(rl.tensor([0, 1]), x), rl.Tensor)
    # products
    assert_type(x @ x.T, rl.Tensor)
    assert_type(rl.matmul(x, x.T), rl.Tensor)
    assert_type(rl.einsum("ij,kj->ik", x, x), rl.Tensor)
    assert_type(rl.addmm(rl.zeros(2, 2), x, x.T), rl.Tensor)
    assert_type(F.linear(x, rl.randn(4, 3), rl.zeros(4)), rl.Tensor)
    # composed
    assert_type(rl.quantile(x, 0.5), rl.Tensor)
    assert_type(rl.unique(rl.tensor([1, 1, 2])), rl.Tensor)
    assert_type(rl.bincount(rl.tensor([0, 1, 1])), rl.Tensor)
    assert_type(rl.searchsorted(rl.tensor([0.0, 1.0]), 0.5), rl.Tensor)
    assert_type(rl.atleast_2d(rl.zeros(3)), rl.Tensor)
    assert_type(rl.promote_types(rl.int64, rl.float32), rl.dtype)
    # networks
    image = rl.randn(1, 2, 4, 4)
    assert_type(F.conv2d(image, rl.randn(3, 2, 2, 2), stride=2, padding="valid"), rl.Tensor)
    assert_type(F.max_pool2d(image, 2), rl.Tensor)
    assert_type(F.max_pool2d(image, 2, return_indices=True), tuple[rl.Tensor, rl.Tensor])
    assert_type(F.avg_pool2d(image, (2, 2)), rl.Tensor)
    assert_type(F.layer_norm(x, 3), rl.Tensor)
    assert_type(F.batch_norm(x, None, None, training=True), rl.Tensor)
    assert_type(F.pad(x, (1, 1)), rl.Tensor)
    assert_type(F.cross_entropy(x, rl.tensor([0, 2])), rl.Tensor)
    assert_type(F.softplus(x), rl.Tensor)
    assert_type(F.gelu(x, approximate="tanh"), rl.Tensor)
    # random numbers
    assert_type(rl.randint(0, 5, (3,)), rl.Tensor)
    assert_type(rl.randperm(3), rl.Tensor)
    assert_type(rl.bernoulli(rl.full((3,), 0.5)), rl.Tensor)
    # in place
    assert_type(x.add_(1.0, alpha=2.0), rl.Tensor)
    assert_type(x.zero_(), rl.Tensor)
    assert_type(x.clamp_(0.0, 1.0), rl.Tensor)
    assert_type(x.copy_(rl.ones(3)), rl.Tensor)
    x += 1
    assert_type(x, rl.Tensor)


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
    families()
    network = modules()
    distributions(network)
    print(f"last loss {training(network):.4f}")

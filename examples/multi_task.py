"""Several tasks on one trunk: two losses over one graph, one after the other or summed, and a head that takes no part.

    python examples/multi_task.py

A network sees two numbers, tells their sum, their product, and whether the first is larger.
"""

import pytest

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab import nn


class MultiTask(nn.Module):
    """A trunk that all heads share, and one head for each task."""

    def __init__(self, seed: int, hidden: int = 64):
        super().__init__()
        stream = rl.Generator(seed)
        self.trunk = nn.Sequential(
            nn.Linear(2, hidden, generator=stream), nn.ReLU(), nn.Linear(hidden, hidden, generator=stream), nn.ReLU()
        )
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, 1, generator=stream) for name in ("sum", "product", "larger")})

    def forward(self, x: rl.Tensor) -> dict[str, rl.Tensor]:
        features = self.trunk(x)
        return {name: head(features).squeeze(1) for name, head in self.heads.items()}


def make_batch(count: int, stream: rl.Generator) -> rl.Tensor:
    return 2 * rl.rand(count, 2, generator=stream) - 1


def losses(network: MultiTask, x: rl.Tensor) -> dict[str, rl.Tensor]:
    """One loss per task, from one pass through the trunk."""
    first, second = x.unbind(1)
    answers = network(x)
    return {
        "sum": F.mse_loss(answers["sum"], first + second),
        "product": F.mse_loss(answers["product"], first * second),
        "larger": F.binary_cross_entropy_with_logits(answers["larger"], (first > second).float()),
    }


def train(network: MultiTask, seed: int, steps: int = 2000) -> None:
    stream = rl.Generator(1000 + seed)
    optimizer = rl.optim.Adam(network.parameters(), lr=3e-3)

    @rl.compile
    def step():
        optimizer.zero_grad()
        sum(losses(network, make_batch(128, stream)).values()).backward()
        optimizer.step()

    for _ in range(steps):
        step()


@rl.no_grad()
def score(network: MultiTask) -> dict[str, float]:
    """Mean absolute errors of sum and product, and the share of right answers of the third task."""
    x = make_batch(2000, rl.Generator(1))
    first, second = x.unbind(1)
    answers = network(x)
    return {
        "error of the sum": (answers["sum"] - (first + second)).abs().mean().item(),
        "error of the product": (answers["product"] - first * second).abs().mean().item(),
        "right comparisons": ((answers["larger"] > 0) == (first > second)).float().mean().item(),
    }


def gradients(network: nn.Module) -> dict[str, rl.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def in_turn_and_at_once(network: MultiTask, x: rl.Tensor) -> tuple[dict[str, rl.Tensor], dict[str, rl.Tensor]]:
    """The gradients of two losses, by two backward passes over one graph and by one pass from their sum."""
    tasks = losses(network, x)
    tasks["sum"].backward(retain_graph=True)  # the other loss needs the trunk's graph again
    tasks["product"].backward()
    in_turn = gradients(network)
    network.zero_grad()
    tasks = losses(network, x)
    (tasks["sum"] + tasks["product"]).backward()
    return in_turn, gradients(network)


def test_successive_backwards_equal_the_sum_of_the_losses():
    """Exactly, with weights and inputs in halves, whose products and sums float32 holds without rounding."""
    network = MultiTask(seed=1, hidden=8)
    with rl.no_grad():
        for parameter in network.parameters():
            parameter.copy_((2 * parameter).round() / 2)
    in_turn, at_once = in_turn_and_at_once(network, rl.randint(-2, 3, (32, 2), generator=rl.Generator(2)) / 2)
    assert in_turn.keys() == at_once.keys()
    assert all(in_turn[name].equal(at_once[name]) for name in in_turn)
    assert in_turn["trunk.0.weight"].abs().sum() > 0


def test_with_other_numbers_they_differ_by_rounding():
    in_turn, at_once = in_turn_and_at_once(MultiTask(seed=1), make_batch(32, rl.Generator(2)))
    assert all(rl.allclose(in_turn[name], at_once[name], atol=1e-6) for name in in_turn)


def test_without_retain_graph_the_second_backward_raises():
    tasks = losses(MultiTask(seed=1), make_batch(32, rl.Generator(2)))
    tasks["sum"].backward()
    with pytest.raises(RuntimeError, match="second time"):
        tasks["product"].backward()


def test_a_head_without_a_loss_has_no_gradient():
    network = MultiTask(seed=1)
    losses(network, make_batch(32, rl.Generator(2)))["sum"].backward()
    assert network.heads["larger"].weight.grad is None
    assert network.heads["sum"].weight.grad is not None
    before = network.heads["larger"].weight.clone()
    rl.optim.Adam(network.parameters(), weight_decay=0.1).step()  # an optimiser leaves such a parameter alone
    assert network.heads["larger"].weight.equal(before)


def test_one_network_learns_all_tasks():
    network = MultiTask(seed=0)
    train(network, seed=0)
    result = score(network)
    assert result["error of the sum"] < 0.03
    assert result["error of the product"] < 0.03
    assert result["right comparisons"] > 0.97


def main() -> None:
    network = MultiTask(seed=0)
    train(network, seed=0)
    for what, value in score(network).items():
        print(f"{what}: {value:.3f}")


if __name__ == "__main__":
    main()

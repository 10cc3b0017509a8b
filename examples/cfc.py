"""A sine with missing samples: cells in continuous time against a gated recurrent unit.

    python examples/cfc.py

Each sine has a random phase and frequency, and 40 of its 60 samples are lost. A network reads the remaining samples in order and predicts
each next one. `nn.CfC` and `nn.LTC` are told how long each gap is, as `timespans`; `nn.GRU` is told the same as an input.
"""

import numpy as np

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab import experiment, nn

LENGTH = 20  # samples that are left
STEP = 0.2  # between samples before the loss


def make_sines(count: int, seed: int) -> tuple[rl.Tensor, rl.Tensor, rl.Tensor]:
    """(seen, gaps, target), each (LENGTH - 1, count, 1): a sample, the time until the next one that is left, and this next one."""
    random = np.random.default_rng(seed)
    left = np.sort(random.random((3 * LENGTH, count)).argsort(0)[:LENGTH], 0) * STEP
    values = np.sin(random.uniform(0.5, 1.5, count) * left + random.uniform(0, 2 * np.pi, count))
    seen, gaps, target = values[:-1], np.diff(left, axis=0), values[1:]
    return tuple(rl.tensor(part).unsqueeze(-1) for part in (seen, gaps, target))


class Predictor(nn.Module):
    """A recurrent layer, which takes the gaps as ``timespans`` or as a second input, and a linear layer."""

    def __init__(self, cell: type[nn.Module], seed: int, hidden: int = 32):
        super().__init__()
        stream = rl.Generator(seed)
        self.continuous = cell in (nn.CfC, nn.LTC)
        options = {"backbone_units": 64} if cell is nn.CfC else {}
        self.memory = cell(1 if self.continuous else 2, hidden, generator=stream, **options)
        self.head = nn.Linear(hidden, 1, generator=stream)

    def forward(self, seen: rl.Tensor, gaps: rl.Tensor) -> rl.Tensor:
        if self.continuous:
            outputs, _ = self.memory(seen, timespans=gaps)
        else:
            outputs, _ = self.memory(rl.cat([seen, gaps], -1))
        return self.head(outputs)


def train(network: nn.Module, seed: int, steps: int = 1000) -> nn.Module:
    """Learn from new sines in every step."""
    optimizer = rl.optim.Adam(network.parameters(), lr=5e-3)
    schedule = rl.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    @rl.compile
    def step(seen, gaps, target):
        loss = F.mse_loss(network(seen, gaps), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    sines = make_sines(64 * steps, 1000 + seed)
    for batch in zip(*(part.split(64, 1) for part in sines), strict=True):
        step(*(part.contiguous() for part in batch))
        schedule.step()
    return network


@rl.no_grad()
def error(network: nn.Module, gap_factor: float = 1.0) -> float:
    """The mean squared error on new sines, after the first three samples, from which the frequency cannot be known."""
    seen, gaps, target = make_sines(1000, seed=1)
    return F.mse_loss(network(seen, gaps * gap_factor)[3:], target[3:]).item()


def learned_error(cell: type[nn.Module], seed: int) -> float:
    return error(train(Predictor(cell, seed), seed))


def test_a_closed_form_cell_predicts_better_than_a_gated_unit(full):
    seeds = range(5 if full else 1)
    closed, gated = ([learned_error(cell, seed) for seed in seeds] for cell in (nn.CfC, nn.GRU))
    assert max(closed) < 0.01
    assert np.mean(closed) < 0.4 * np.mean(gated)


def test_it_reads_the_gaps(full):
    """With every gap told to be 0, a trained network is lost."""
    network = train(Predictor(nn.CfC, 0), 0, steps=300)
    assert error(network, gap_factor=0.0) > 3 * error(network)


def test_it_remembers_in_cartpole_without_velocities(full, tmp_path):
    """Recurrent PPO with a closed-form cell as its memory; 475 of 500 is what CartPole asks for."""
    for seed in range(1, 6 if full else 2):
        run = experiment.train("recurrent_ppo", "rl_lab/CartPoleMasked-v0", seed=seed, cell="cfc", run_dir=tmp_path)
        assert experiment.evaluate(run.agent(), episodes=100).return_mean >= 475


def main() -> None:
    for cell in (nn.CfC, nn.LTC, nn.GRU):
        print(f"{cell.__name__}: mean squared error {learned_error(cell, seed=0):.4f}")


if __name__ == "__main__":
    main()

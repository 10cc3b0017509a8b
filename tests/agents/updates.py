"""Updates of every agent on given numbers, to run in both rl_lab and PyTorch.

A case is an agent, a kind of actions and settings. All numbers, initial weights and noise included, come from NumPy streams that
depend only on names and shapes, so both libraries get the same numbers.
"""

import zlib
from typing import Any, NamedTuple

import numpy as np

UPDATES = 3
STEPS, ENVS = 6, 2
SIZE = STEPS * ENVS
INPUTS = 3
MEMORY = 4
QUANTILES = 5
LOW, HIGH = np.array([-1.0, 0.0], np.float32), np.array([3.0, 2.0], np.float32)
CHOICES = {"discrete": (3,), "several": (2, 3), "box": ()}


class Case(NamedTuple):
    agent: str
    actions: str
    settings: dict[str, Any]
    masks: bool = False
    weights: bool = False


ON_POLICY = {"learning_rate": 1e-2, "max_grad_norm": 0.7, "entropy_coefficient": 0.1}
OFF_POLICY = {"learning_rate": 1e-2, "tau": 0.1}
CASES = {
    "dqn": Case("dqn", "discrete", OFF_POLICY | {"double": False, "loss": "mse"}),
    "dqn double weighted": Case("dqn", "discrete", OFF_POLICY | {"max_grad_norm": 0.7, "prioritized": True}, weights=True),
    "dqn masked": Case("dqn", "discrete", OFF_POLICY, masks=True),
    "qrdqn": Case("qrdqn", "discrete", OFF_POLICY | {"max_grad_norm": 0.7, "quantiles": QUANTILES}, masks=True),
    "qrdqn double weighted": Case(
        "qrdqn", "discrete", OFF_POLICY | {"quantiles": QUANTILES, "double": True, "prioritized": True}, weights=True
    ),
    "c51": Case(
        "qrdqn",
        "discrete",
        OFF_POLICY | {"quantiles": QUANTILES, "distribution": "categorical", "value_min": -2.0, "value_max": 1.5},
        masks=True,
    ),
    "rainbow": Case(
        "qrdqn",
        "discrete",
        OFF_POLICY
        | {"quantiles": QUANTILES, "distribution": "categorical", "value_min": -2.0, "value_max": 2.0}
        | {"double": True, "dueling": True, "prioritized": True, "max_grad_norm": 0.7},
        weights=True,
    ),
    "drqn": Case("drqn", "discrete", OFF_POLICY | {"burn_in": 2, "return_lambda": 0.7}, masks=True),
    "drqn plain": Case(
        "drqn", "discrete", OFF_POLICY | {"burn_in": 0, "return_lambda": 0.0, "double": False, "max_grad_norm": 0.7}
    ),
    "pqn": Case("pqn", "discrete", {"learning_rate": 1e-2, "max_grad_norm": 0.7, "return_lambda": 0.8}, masks=True),
    "pqn weighted": Case("pqn", "discrete", {"learning_rate": 1e-2, "return_lambda": 0.3, "layer_norm": False}, weights=True),
    "reinforce": Case("reinforce", "discrete", ON_POLICY | {"baseline_steps": 2}, masks=True),
    "reinforce plain": Case("reinforce", "several", ON_POLICY | {"baseline": False, "normalize_returns": False}),
    "reinforce box": Case("reinforce", "box", ON_POLICY | {"log_std": -0.5}),
    "a2c": Case("a2c", "discrete", ON_POLICY | {"shared": True, "gae_lambda": 0.9}, masks=True, weights=True),
    "a2c apart": Case("a2c", "several", ON_POLICY | {"shared": False, "normalize_advantages": True}),
    "a2c adam box": Case("a2c", "box", ON_POLICY | {"shared": True, "optimizer": "adam", "state_dependent_std": True}),
    "ppo": Case("ppo", "discrete", ON_POLICY),
    "ppo masked weighted": Case("ppo", "discrete", ON_POLICY, masks=True, weights=True),
    "ppo several clipped values": Case("ppo", "several", ON_POLICY | {"clip_value": 0.2, "clip_range": 0.1}),
    "ppo box": Case("ppo", "box", ON_POLICY | {"log_std": -0.5, "normalize_advantages": False}),
    "ppo state-dependent": Case("ppo", "box", ON_POLICY | {"log_std": -0.5, "state_dependent_std": True}),
    "recurrent ppo": Case("recurrent_ppo", "discrete", ON_POLICY),
    "recurrent ppo box": Case("recurrent_ppo", "box", ON_POLICY),
    "sac": Case("sac", "box", OFF_POLICY | {"temperature": 0.5}),
    "sac cold": Case("sac", "box", OFF_POLICY | {"temperature": 0.01, "target_entropy": -1.0}),
    "sac discrete": Case("sac", "discrete", OFF_POLICY | {"temperature": 0.5}, masks=True),
    "sac discrete cold": Case("sac", "discrete", OFF_POLICY | {"temperature": 0.01, "target_entropy": 0.99}),
    "sac state-dependent": Case("sac", "box", OFF_POLICY | {"use_sde": True, "log_std": -1.0}),
    "tqc": Case("tqc", "box", OFF_POLICY | {"quantiles": QUANTILES, "dropped": 1}),
    "tqc state-dependent": Case(
        "tqc", "box", OFF_POLICY | {"quantiles": QUANTILES, "critics": 3, "dropped": 2, "use_sde": True, "log_std": -1.0}
    ),
    # with relu, the gradient of the bias of a unit that is always active is rounding alone, because the next layer centres it
    "crossq": Case("crossq", "box", {"learning_rate": 1e-2, "norm_warmup": 1, "norm_momentum": 0.2, "activation": "tanh"}),
    "td3": Case("td3", "box", OFF_POLICY | {"target_noise": 0.4, "noise_clip": 0.3}),
}


def stream(*names: str) -> np.random.Generator:
    """A random generator seeded by names."""
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Initial weights, which depend only on the parameter's name and shape."""
    return stream("weights", name).normal(scale=0.5, size=shape).astype(np.float32)


class Noise:
    """A stream of standard normal numbers, the same for both libraries."""

    def __init__(self) -> None:
        self.stream = stream("noise")

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.stream.normal(size=shape).astype(np.float32)


def numbers(case: Case, update: int) -> dict[str, np.ndarray]:
    """A batch or rollout of 12 steps, with all the arrays that any agent uses.

    ``log_probs`` are near the policies' own, so that ratios are clipped in some rows and not in others.
    """
    rng = stream("numbers", case.actions, str(update))
    choices = CHOICES[case.actions]
    masks = rng.random((SIZE, 3)) < 0.6
    masks[np.arange(SIZE), rng.integers(3, size=SIZE)] = True
    actions = np.stack([rng.integers(n, size=SIZE) for n in choices], 1) if choices else rng.uniform(LOW, HIGH, (SIZE, 2))
    if case.actions == "discrete":
        allowed = [rng.choice(np.flatnonzero(row)) for row in masks] if case.masks else actions[:, 0]
        actions = np.array(allowed, np.int64)
    ends = rng.random(SIZE)
    made = {
        "observations": rng.normal(size=(SIZE, INPUTS)),
        "next_observations": rng.normal(size=(SIZE, INPUTS)),
        "actions": actions,
        "rewards": rng.normal(size=SIZE),
        "discounts": np.where(ends < 0.25, 0.0, 0.9),
        "terminated": ends < 0.15,
        "truncated": (ends >= 0.15) & (ends < 0.3),
        "values": rng.normal(size=SIZE),
        "advantages": rng.normal(size=SIZE),
        "returns": rng.normal(size=SIZE),
        "log_probs": rng.normal(-1.1 if choices else -3.0, 0.3, size=SIZE),
        "elapsed": rng.integers(3, size=SIZE),
        "first_memory": rng.normal(size=(ENVS, MEMORY)),
        "next_masks": masks[rng.permutation(SIZE)],
        "masks": masks,
        "weights": rng.uniform(0.2, 1.0, SIZE),
        "counted": rng.random(SIZE) < 0.8,
    }
    return {name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in made.items()}

"""Numbers that are not finite, injected at random places: each stops learning before a weight changes, and is named.

The default is one injection for each source of each agent; ``--injections 100`` makes 100 for each agent.
"""

import math
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import rl_lab as rl
from rl_lab import train
from rl_lab.agents import a2c, crossq, dqn, drqn, iql, ppo, pqn, qrdqn, recurrent_ppo, reinforce, sac, td3, tqc
from rl_lab.engine.errors import EnvironmentFault, NumericalError
from rl_lab.experiment.finite import numbers_of
from rl_lab.experiment.run import Run
from tests.runs import AGENTS, ENV, only_run

REPLAY = {"network": "mlp:8", "learning_starts": 20, "batch_size": 8, "buffer_size": 500, "train_frequency": 4}
BOTH = {"network": "mlp:8", "normalize_observations": True, "normalize_rewards": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "dqn": REPLAY,
    "qrdqn": REPLAY,
    "sac": REPLAY,
    "td3": REPLAY,
    "tqc": {**REPLAY, "use_sde": True},
    "crossq": {**REPLAY, "critic_network": "mlp:8", "norm_warmup": 3},
    "a2c": {**BOTH, "num_steps": 8},
    "ppo": {**BOTH, "num_steps": 16, "batch_size": 8, "epochs": 2},
    "drqn": {**REPLAY, "sequence_length": 4, "burn_in": 2, "memory": 8},
    "pqn": {**BOTH, "num_steps": 16, "batch_size": 8},
    "recurrent_ppo": {**BOTH, "num_steps": 8, "memory": 8, "batch_envs": 1, "epochs": 2},
    "reinforce": {"network": "mlp:8", "normalize_observations": True},
    "neat": {"population": 6, "lamarck": 2, "gradient_rollouts": 1, "gradient_steps": 8, "champion_episodes": 2},
    "bc": {"dataset": "random:300", "network": "mlp:8", "batch_size": 8},
    "iql": {"dataset": "random:300", "network": "mlp:8", "batch_size": 8},
    "ars": {"directions": 2},
    "es": {"pairs": 2, "network": "mlp:8", "normalize_observations": True},
    "cmaes": {"population": 4, "network": "mlp:8", "normalize_observations": True},
}
LOSSES: dict[str, tuple[Any, str]] = {
    "dqn": (dqn.F, "smooth_l1_loss"),
    "qrdqn": (qrdqn, "quantile_huber_loss"),
    "sac": (sac.F, "mse_loss"),
    "td3": (td3.F, "mse_loss"),
    "tqc": (tqc, "quantile_huber_loss"),
    "crossq": (crossq.F, "mse_loss"),
    "a2c": (a2c, "generalized_advantages"),
    "ppo": (ppo, "clipped_surrogate"),
    "recurrent_ppo": (recurrent_ppo, "clipped_surrogate"),
    "drqn": (drqn.F, "smooth_l1_loss"),
    "pqn": (pqn, "generalized_advantages"),
    "reinforce": (reinforce, "discounted_returns"),
    "iql": (iql.F, "mse_loss"),
}
"""A function on the way to each agent's loss."""
SOURCES = ("observation", "reward", "parameter", "optimizer state", "statistics", "loss", "gradient")
VALUES = (math.nan, math.inf, -math.inf)
ABSENT: dict[str, tuple[str, ...]] = {
    "ars": ("optimizer state", "loss", "gradient"),
    "es": ("loss", "gradient"),
    "cmaes": ("optimizer state", "loss", "gradient"),
    "bc": ("observation", "reward", "loss"),  # a dataset is checked when it is read: see test_datasets
    "iql": ("observation", "reward"),
}
"""Sources that an agent does not have."""


class Poisoned(gym.Wrapper):
    """Returns a number that is not finite from a chosen step on, if one is chosen."""

    due = False
    left = 0
    what = ""
    value = math.nan

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        cls = type(self)
        cls.left -= 1
        if cls.due and cls.left <= 0 and self.what == "reward":
            reward = self.value
        if cls.due and cls.left <= 0 and self.what == "observation":
            observation = observation.copy()
            observation[0] = self.value
        return observation, reward, terminated, truncated, info


def world(name: str) -> gym.Env:
    return Poisoned(gym.make(ENV[name]))


def weights(agent: Any) -> dict[str, np.ndarray]:
    """Everything that is learned. Running statistics and memories follow the data, so they change before an update."""
    if hasattr(agent, "evolution"):
        genomes = agent.evolution.genomes
        return {"weight": genomes.weight.copy(), "bias": genomes.bias.copy()}
    return {
        name: x.detach().numpy().copy()
        for name, x in numbers_of(agent).tensors
        if not {"moments", "memory", "running_mean", "running_var"} & set(name.split("."))
    }


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(left[name], right[name], equal_nan=True) for name in left)


def poison(tensor: rl.Tensor, random: np.random.Generator, value: float) -> None:
    """Set one random element."""
    flat = tensor.detach().reshape(-1)
    with rl.no_grad():
        flat[int(random.integers(flat.numel()))] = value


def inject(agent: Any, source: str, random: np.random.Generator, value: float, monkeypatch: Any) -> str:
    """Inject one number that is not finite; returns a word of its name."""
    numbers = numbers_of(agent)
    updated = {id(p): o for _, o in numbers.optimizers for group in o.param_groups for p in group["params"]}
    parameters = [(name, x) for name, x in numbers.tensors if id(x) in updated]
    parameters = parameters or [(name, x) for name, x in numbers.tensors if isinstance(x, rl.nn.Parameter)]
    if source in ("observation", "reward"):
        steps = 200 if hasattr(agent, "evolution") else 16
        Poisoned.what, Poisoned.value = source, value if source == "observation" else float(random.choice([*VALUES, 1e39]))
        Poisoned.due, Poisoned.left = True, int(random.integers(1, steps))
        return source
    if source == "parameter" and hasattr(agent, "evolution"):
        name = str(random.choice(["weight", "bias"]))
        genes = getattr(agent.evolution.genomes, name)
        genes[int(random.integers(len(genes))), 0] = value
        return f"the {name} of a gene of genome"
    if source == "parameter":
        name, tensor = parameters[int(random.integers(len(parameters)))]
        poison(tensor, random, value)
        return f"{name} is"
    if source == "optimizer state":
        states = [(f"{kind} of", x) for _, o in numbers.optimizers for s in o.state.values() for kind, x in s.items()]
        states = [(name, x) for name, x in states if x.dtype is rl.float32]
        name, tensor = states[int(random.integers(len(states)))]
        poison(tensor, random, value)
        return name
    if source == "statistics":
        moments = [(name, x) for name, x in numbers.tensors if id(x) not in updated and (updated or "moments" in name)]
        name, tensor = moments[int(random.integers(len(moments)))]
        poison(tensor, random, value)
        return name.removesuffix("count")  # from there it spreads to the mean and the variance with the next data
    if source == "loss":
        module, name = LOSSES[type(agent).__module__.rpartition(".")[2]]
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: function(*a, **k) * value)
        return "the loss that"
    name, tensor = parameters[int(random.integers(len(parameters)))]
    strange = np.zeros(tensor.shape, np.float32)
    strange.reshape(-1)[int(random.integers(strange.size))] = value
    added = rl.tensor(strange)
    tensor.register_hook(lambda gradient: gradient + added)
    return f"the gradient of {name}"


def cases() -> Iterator[tuple[str, str]]:
    for name in AGENTS:
        for source in SOURCES:
            if name == "neat" and source in ("loss", "gradient"):  # no loss of the evolution; the critic's is in test_optim
                continue
            if name in ABSENT and source in ABSENT[name]:
                continue
            yield name, source  # without running statistics it is the target networks


def pytest_generate_tests(metafunc: Any) -> None:
    if "injection" in metafunc.fixturenames:
        every = list(cases())
        count = metafunc.config.getoption("--injections")
        rounds = [
            (name, source, i)
            for name, source in every
            for i in range(max(1, math.ceil(count / sum(agent == name for agent, _ in every))))
        ]
        metafunc.parametrize("injection", rounds, ids=["-".join(map(str, case)).replace(" ", "_") for case in rounds])


def test_it_stops_before_a_weight_changes(injection, monkeypatch):
    name, source, number = injection
    random = np.random.default_rng([sum(map(ord, name + source)), number])
    Poisoned.due = False
    count = 1 if number % 2 else 2
    options = (
        {**SETTINGS[name], "compile": bool(number % 3 != 2)}
        if "compile" in AGENTS[name].Config.__dataclass_fields__
        else SETTINGS[name]
    )
    agent = AGENTS[name](lambda: world(name), seed=number + 1, num_envs=count, **options)
    agent.learn(int(random.integers(30, 90)))
    value = float(random.choice(VALUES))
    expected = inject(agent, source, random, value, monkeypatch)
    latest = [weights(agent)]
    failure = NumericalError if source not in ("observation", "reward") else EnvironmentFault
    with pytest.raises(failure) as caught:
        agent.learn(100_000, callback=lambda agent, metrics: latest.append(weights(agent)))
    assert expected in str(caught.value), str(caught.value)
    if source not in ("observation", "reward"):
        assert f"at step {agent.timesteps}" in str(caught.value)
        assert len(latest) <= 3, "learning went on"
    if name in ("sac", "td3", "tqc", "crossq", "reinforce") and source in (
        "loss",
        "gradient",
    ):  # its other networks had made a step of their own before
        owners = [o for _, o in numbers_of(agent).optimizers if any(p.hooks for g in o.param_groups for p in g["params"])]
        kept = {id(p) for o in owners for g in o.param_groups for p in g["params"]}
        names = {own for own, x in numbers_of(agent).tensors if id(x) in kept}
        assert same({own: latest[-1][own] for own in names}, weights(agent))
    else:
        assert same(latest[-1], weights(agent))


def test_the_command_ends_with_code_3_and_the_last_good_checkpoint(workplace, monkeypatch, capsys):
    step = ppo.PPO.step

    def poisoned(self):
        if self.timesteps >= 384:
            poison(next(iter(self.critic.parameters())), np.random.default_rng(1), math.inf)
        return step(self)

    monkeypatch.setattr(ppo.PPO, "step", poisoned)
    arguments = ["--agent", "ppo", "--env", "CartPole-v1", "--checkpoint-frequency", "128", "--total-timesteps", "2000"]
    assert train.main([*arguments, "--num-envs", "1", "--num-steps", "128", "--batch-size", "64"]) == 3
    error = capsys.readouterr().err
    assert "critic.0.weight is not finite at step 384" in error
    assert "the last checkpoint is intact in runs/CartPole-v1/ppo" in error
    assert Run.open(only_run()).load()["timesteps"] == 384

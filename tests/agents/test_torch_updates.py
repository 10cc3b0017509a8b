"""Losses, gradient norms and parameters of three updates of every agent equal recorded results of PyTorch."""

import importlib
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete

import rl_lab as rl
from rl_lab.agents.ppo import RolloutBatch
from rl_lab.experiment.environments import make_environments
from rl_lab.rollout import Batch
from tests.agents.torch_updates import ANSWERS
from tests.agents.updates import CASES, ENVS, HIGH, INPUTS, LOW, MEMORY, SIZE, STEPS, UPDATES, Case, Noise, numbers, weights


class Spaces(gym.Env):
    """An environment that is never stepped; only its spaces are used."""

    observation_space = Box(-np.inf, np.inf, (INPUTS,), np.float32)

    def __init__(self, actions: str):
        self.action_space = {"discrete": Discrete(3), "several": MultiDiscrete([2, 3]), "box": Box(LOW, HIGH)}[actions]

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros(INPUTS, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(INPUTS, np.float32), 0.0, False, False, {}


for kind in ("discrete", "several", "box"):
    gym.register(f"probe/Spaces-{kind}-v0", entry_point=Spaces, kwargs={"actions": kind})

PARTS = {
    "dqn": ("q_network", "target_network"),
    "qrdqn": ("network", "target_network"),
    "drqn": ("network", "target_network"),
    "pqn": ("network",),
    "reinforce": ("actor", "head", "value"),
    "a2c": ("trunk", "actor", "critic", "head"),
    "ppo": ("actor", "critic", "head"),
    "recurrent_ppo": ("encoder", "cell", "actor", "critic", "head"),
    "sac": ("actor", "critics", "target_critics"),
    "td3": ("actor", "critics", "target_actor", "target_critics"),
    "tqc": ("actor", "critics", "target_critics"),
    "crossq": ("actor", "critics"),
}


def make_agent(case: Case, **more: Any) -> Any:
    """The case's agent, with the case's weights."""
    module = importlib.import_module(f"rl_lab.agents.{case.agent}")
    (kind,) = (x for name, x in vars(module).items() if name.replace("-", "").lower() == case.agent.replace("_", ""))
    settings: dict[str, Any] = {"network": "mlp:8", "compile": False, **case.settings, **more}
    if case.agent == "a2c":
        settings["separate_losses"] = True
    if case.agent == "drqn":
        settings |= {"memory": MEMORY, "sequence_length": STEPS - case.settings["burn_in"]}
    if case.agent in ("ppo", "pqn"):
        settings |= {"num_steps": STEPS, "batch_size": SIZE}
    if case.agent == "crossq":
        settings["critic_network"] = "mlp:8"
    if case.agent == "recurrent_ppo":
        settings |= {"memory": MEMORY, "num_steps": STEPS, "batch_envs": ENVS}
    agent = kind.create(kind.Config(**settings), make_environments(f"probe/Spaces-{case.actions}-v0", ENVS), 1)
    for part in PARTS[case.agent]:
        module = getattr(agent, part)
        if module is not None:
            learned = {n: weights(f"{part}.{n}", tuple(p.shape)) for n, p in module.named_parameters()}
            module.load_state_dict(module.state_dict() | learned)
    return agent


def batch_of(case: Case, x: dict[str, Any]) -> Batch:
    """The case's transitions as a `Batch`, as a replay buffer returns them."""
    actions = x["actions"]
    if case.agent == "td3":
        actions = (actions - rl.from_numpy((LOW + HIGH) / 2)) / rl.from_numpy((HIGH - LOW) / 2)
    masks = (x["masks"], x["next_masks"]) if case.masks else (None, None)
    rest = (rl.arange(SIZE), x["weights"]) if case.weights else (None, None)
    return Batch(x["observations"], actions, x["rewards"], x["next_observations"], x["discounts"], *masks, *rest)


def one_update(case: Case, agent: Any, update: int) -> list[float]:
    """Run one update of the agent; returns the numbers that it returns or logs."""
    x: dict[str, Any] = {name: rl.from_numpy(array) for name, array in numbers(case, update).items()}
    if case.agent in ("dqn", "qrdqn", "sac", "td3", "tqc", "crossq"):
        batch = batch_of(case, x)
        agent.replay.sample = lambda size: batch
        if case.weights:
            agent.replay.update_priorities = lambda indices, differences: None
        delayed = {"td3": 3, "crossq": 5}.get(case.agent)
        results = agent.update(update == UPDATES - 1) if delayed else agent.update()
        return [result.item() for result in results] + [0.0] * (delayed - len(results) if delayed else 0)
    if case.agent == "drqn":
        batch = batch_of(case, x)
        ended = (x["terminated"] | x["truncated"]).reshape(STEPS, ENVS)
        batch = batch._replace(discounts=0.99 * (~x["terminated"]).float())
        agent.replay.sample_sequences = lambda size, length: (batch, ended, x["first_memory"])
        return [result.item() for result in agent.update()]
    if case.agent in ("reinforce", "a2c"):
        names = ["observations", "next_observations", "actions", "rewards", "terminated", "truncated"]
        rollout = {name: x[name].reshape(STEPS, ENVS, *x[name].shape[1:]) for name in names}
        if case.masks:
            rollout["action_masks"] = x["masks"].reshape(STEPS, ENVS, 3)
        if case.agent == "reinforce":
            rollout["counts"] = x["counted"].float().reshape(STEPS, ENVS)
        elif case.weights:
            rollout["valid"] = x["counted"].reshape(STEPS, ENVS)
        if case.agent == "a2c":  # these next observations are drawn: none is the observation of the following step
            rollout["bootstrap_rows"] = rl.arange(SIZE)
        return [result.item() for result in agent.update(rollout)]
    agent.sums.zero_()
    if case.agent == "pqn":
        with rl.no_grad():
            values = agent.q_values(x["observations"])
            x["values"] = (values.masked_fill(~x["masks"], -1e9) if case.masks else values).amax(1)
        names = ["observations", "next_observations", "actions", "rewards", "terminated", "truncated", "values"]
        rollout = {name: x[name].reshape(STEPS, ENVS, *x[name].shape[1:]) for name in names}
        rollout["bootstrap_rows"] = rl.arange(SIZE)
        if case.masks:
            rollout["next_action_masks"] = x["next_masks"].reshape(STEPS, ENVS, 3)
        if case.weights:
            rollout["valid"] = x["counted"].reshape(STEPS, ENVS)
        kept = ("observations", "actions", "returns", *(["weights"] if case.weights else []))
        agent.batch = {name: x[name].clone() for name in kept}
        agent.prepare(rollout)
        agent.update(rl.arange(SIZE))
        return agent.sums.tolist()
    if case.agent == "ppo":
        names = ["observations", "actions", "log_probs", "values", "advantages", "returns"]
        agent.batch = RolloutBatch(
            *(x[name] for name in names), x["counted"].float() if case.weights else None, x["masks"] if case.masks else None
        )
    else:
        names = ["observations", "actions", "log_probs", "advantages", "returns"]
        agent.batch = {name: x[name].reshape(STEPS, ENVS, *x[name].shape[1:]) for name in names}
        agent.batch["goes_on"] = (x["elapsed"] > 0).float().reshape(STEPS, ENVS)
        agent.batch["first_memory"] = x["first_memory"].unsqueeze(0)
    agent.update(rl.arange(SIZE if case.agent == "ppo" else ENVS))
    return agent.sums.tolist()


@pytest.mark.parametrize("name", CASES)
def test_three_updates_equal_those_of_pytorch(name, monkeypatch):
    case = CASES[name]
    noise = Noise()
    monkeypatch.setattr(rl, "randn", lambda *shape, generator: rl.from_numpy(noise(shape)))
    agent = make_agent(case)
    with np.load(ANSWERS) as answers:
        expected = {key.removeprefix(f"{name}/"): answers[key] for key in answers if key.startswith(f"{name}/")}
    losses = [one_update(case, agent, update) for update in range(UPDATES)]
    np.testing.assert_allclose(losses, expected.pop("losses"), rtol=1e-4, atol=1e-5)
    parts = {part: getattr(agent, part) for part in PARTS[case.agent] if getattr(agent, part) is not None}
    found = {f"{part}.{n}": p.detach().numpy() for part, module in parts.items() for n, p in module.named_parameters()}
    assert found.keys() == expected.keys()
    for key, parameter in expected.items():
        np.testing.assert_allclose(found[key], parameter, rtol=1e-4, atol=1e-4, err_msg=key)

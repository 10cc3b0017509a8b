"""Agents with choices and components together: recorded and eager training, continuation, and the expectations of SAC by hand."""

import itertools

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

import rl_lab as rl
from rl_lab.experiment.faults import Fault
from rl_lab.testing import SPACES, Probe, content
from tests.agents.test_contract import AGENTS, SMALL

MIXED = SPACES["Dict of Tuples"]


def made(name: str, space=MIXED, masked: str = "info", seed: int = 3, **changes):
    settings = {**SMALL[name], **changes}
    return AGENTS[name](lambda: Probe(space, masked), seed=seed, num_envs=2, preset=False, **settings)


def trained(agent, calls: int = 6):
    for _ in range(calls):
        agent.step()
    return agent


def state_of(agent) -> dict[str, bytes]:
    return content({name: part for name, part in agent.state_dict().items() if name != "collector"})


@pytest.mark.parametrize("name", ["ppo", "a2c", "reinforce", "recurrent_ppo", "sac"])
def test_recorded_and_eager_training_are_equal(name):
    calls = 40 if name == "sac" else 4
    recorded, eager = (state_of(trained(made(name, compile=flag), calls)) for flag in (True, False))
    assert recorded == eager


@pytest.mark.parametrize("name", ["ppo", "a2c", "recurrent_ppo", "sac"])
def test_training_continues_bit_for_bit(name, tmp_path):
    calls = 40 if name == "sac" else 3
    agent = trained(made(name), calls)
    rl.save(agent.state_dict(), tmp_path / "state")
    finals = []
    for before in (0, 2):
        twin = trained(made(name), before)
        twin.load_state_dict(rl.load(tmp_path / "state"))
        assert state_of(twin).keys() == state_of(agent).keys()
        finals.append(state_of(trained(twin, calls)))
    assert finals[0] == finals[1]


# --- SAC -----------------------------------------------------------------------------------------------------------------

SAC_SPACES = {
    "MultiDiscrete": MultiDiscrete([2, 3, 2], start=[1, 0, 4]),
    "MultiBinary": MultiBinary(3),
    "Tuple": Tuple((Discrete(3, start=1), Box(-2, 4, (2,)))),
    "Dict": Dict({"a": MultiBinary(2), "b": Box(0, 1, (1,)), "c": Discrete(3)}),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", SAC_SPACES)
def test_expectations_over_combinations(name, masked):
    """The value and the mean log-probabilities are sums over all combinations of choices, each with its own output of the critics."""
    agent = made("sac", SAC_SPACES[name], masked="", compile=False)
    rng = np.random.default_rng(0)
    observations = rl.tensor(rng.normal(size=(4, 3)).astype(np.float32))
    options = agent.mapping.num_masked
    allowed = np.ones((4, options), bool)
    if masked:
        allowed[:, 0] = False
    mask = rl.tensor(allowed) if masked else None
    stream = agent.action_stream.get_state()
    alpha = rl.tensor([0.3, 0.7]) if agent.hybrid else rl.tensor(0.3)
    with rl.no_grad():
        value, log_probs = agent.soft_values(agent.critics, observations, mask, alpha)
        agent.action_stream.set_state(stream)
        policy = agent.policy(observations, mask)
        components, component_log_prob = policy.components.rsample(agent.action_stream) if agent.hybrid else (None, rl.zeros(4))
        q = rl.minimum(*agent.q_values(agent.critics, observations, components)).numpy()
        parts = [part.probs.numpy() for part in policy.parts]
    weights = [0.3, 0.7] if agent.hybrid else [0.3, 0.0]
    expected = -weights[1] * component_log_prob.numpy()
    entropy = np.zeros(4)
    for k, choice in enumerate(itertools.product(*[range(n) for n in agent.mapping.choices])):
        p = np.prod([part[:, i] for part, i in zip(parts, choice, strict=True)], 0)
        log_p = np.log(np.maximum(p, 1e-30))
        expected = expected + p * (q[:, k] - weights[0] * log_p)
        entropy -= p * log_p
        actions = rl.tensor(np.tile([*choice, *[0.0] * agent.mapping.size], (4, 1)).astype(agent.mapping.dtype))
        assert agent.combination(actions).tolist() == [k] * 4
    assert value.numpy() == pytest.approx(expected, abs=1e-4)
    assert -log_probs[0].numpy() == pytest.approx(entropy, abs=1e-4)


def test_the_gradient_reaches_choices_and_components_through_the_critics():
    agent = made("sac", SAC_SPACES["Tuple"], masked="", compile=False)
    observations = rl.tensor(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32))
    value, _ = agent.soft_values(agent.critics, observations, None, rl.zeros(2))
    last = list(agent.actor.parameters())[-1]  # the bias of the outputs: logits, means, log standard deviations
    gradient = rl.autograd.grad(value.mean(), [last])[0].numpy()
    assert (gradient[:3] != 0).all()
    assert (gradient[3:5] != 0).all()
    assert gradient[:3].sum() == pytest.approx(0.0, abs=1e-6)  # a constant on all logits changes nothing


def test_temperatures_of_choices_and_components_are_apart():
    agent = trained(made("sac", SAC_SPACES["Tuple"], masked="", target_entropy_final=0.5), 60)
    temperatures = agent.log_temperature.detach().exp().numpy()
    assert temperatures.shape == (2,)
    assert temperatures[0] != temperatures[1]
    assert agent.target_entropy_at(0.0) == pytest.approx([0.5 * np.log(3), -2.0])
    assert agent.target_entropy_at(1.0) == pytest.approx([0.25 * np.log(3), -1.0])
    metrics = agent.step()
    assert {"losses/temperature", "losses/temperature_components"} <= metrics.keys()


def test_too_many_combinations_are_refused():
    with pytest.raises(Fault, match="2,048 here, and at most 1,024: use ppo or a2c"):
        made("sac", MultiBinary(11), masked="")

"""What every agent promises, for all that are registered: determinism, recording, continuing, acting, and one documentation."""

import dataclasses
from importlib.metadata import entry_points

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete

import rl_lab as rl
from rl_lab.experiment.checkpoint import load_checkpoint, save_checkpoint
from rl_lab.experiment.environments import make_environments

AGENTS = {entry.name: entry.load() for entry in entry_points(group="rl_lab.agents")}
SMALL = {
    "dqn": {"learning_starts": 20, "batch_size": 16, "network": "mlp:16", "prioritized": True, "n_steps": 2},
    "qrdqn": {"learning_starts": 20, "batch_size": 16, "network": "mlp:16", "quantiles": 5},
    "sac": {"learning_starts": 20, "batch_size": 16, "network": "mlp:16", "noise_colour": 0.5},
    "td3": {"learning_starts": 20, "batch_size": 16, "network": "mlp:16", "noise_colour": 0.5},
    "ppo": {"num_steps": 32, "batch_size": 32, "network": "mlp:16", "normalize_observations": True, "normalize_rewards": True},
    "a2c": {"network": "mlp:16", "separate_losses": True, "normalize_observations": True, "normalize_rewards": True},
    "reinforce": {"network": "mlp:16"},
    "recurrent_ppo": {
        "num_steps": 32,
        "batch_envs": 1,
        "network": "mlp:16",
        "memory": 8,
        "normalize_observations": True,
        "normalize_rewards": True,
    },
}
"""Settings that make a step short, and switch on what has a state of its own."""
OTHER = {"neat"}  # a step is a generation: test_neat_agent.py
assert AGENTS.keys() == SMALL.keys() | OTHER
ENVIRONMENTS = {Discrete: "CartPole-v1", Box: "Pendulum-v1"}
CASES = [
    (name, env)
    for name, agent in AGENTS.items()
    if name not in OTHER
    for kind, env in ENVIRONMENTS.items()
    if kind in agent.action_spaces and (name, env) != ("reinforce", "Pendulum-v1")
]


def make(name: str, env: str, seed: int = 3, **changes):
    config = AGENTS[name].Config(**{**SMALL[name], **changes})
    return AGENTS[name](config, make_environments(env, 2), seed)


def begin(agent, count: int):
    """The agent before the first observations of ``count`` episodes."""
    if hasattr(agent, "begin_episodes"):
        agent.begin_episodes(np.ones(count, bool))
    return agent


def content(state, path="") -> dict[str, bytes]:
    """A state's arrays and numbers as bytes, by their path."""
    if isinstance(state, dict):
        return {k: v for key, part in state.items() for k, v in content(part, f"{path}/{key}").items()}
    if isinstance(state, (list, tuple)):
        return {k: v for i, part in enumerate(state) for k, v in content(part, f"{path}/{i}").items()}
    if isinstance(state, rl.Tensor):
        state = state.detach().numpy()
    return {path: np.asarray(state).tobytes() if not isinstance(state, str) else state.encode()}


def run(agent, steps: int = 60):
    for _ in range(steps if not hasattr(agent.config, "num_steps") or agent.config.num_steps < 10 else 4):
        agent.step()
        if type(agent).__name__ == "REINFORCE" and agent.timesteps > 1000:
            break
    return agent


@pytest.mark.parametrize(("name", "env"), CASES)
def test_one_seed_one_result(name, env):
    first, second = (content(run(make(name, env)).state_dict()) for _ in range(2))
    assert first == second
    assert first != content(run(make(name, env, seed=4)).state_dict())


@pytest.mark.parametrize(("name", "env"), CASES)
def test_recorded_equals_eager_bit_for_bit(name, env):
    recorded, eager = (content(run(make(name, env, compile=flag)).state_dict()) for flag in (True, False))
    assert [key for key in recorded if recorded[key] != eager[key]] == []


@pytest.mark.parametrize(("name", "env"), CASES)
def test_a_restored_agent_continues_bit_for_bit(name, env, tmp_path):
    """With native environments everything is restored: what follows is as if nothing had happened."""
    agent = run(make(name, env), 30)
    twin = make(name, env, seed=99)
    save_checkpoint(tmp_path / "state", agent.state_dict())
    twin.load_state_dict(load_checkpoint(tmp_path / "state"))
    run(agent, 30)
    run(twin, 30)
    mine, yours = content(agent.state_dict()), content(twin.state_dict())
    assert [key for key in mine if mine[key] != yours[key]] == []


@pytest.mark.parametrize(("name", "env"), CASES)
def test_actions_are_of_the_space(name, env):
    agent, envs = run(make(name, env), 30), make_environments(env, 7)
    observations, _ = envs.reset(seed=0)
    for deterministic in (True, False):
        actions = agent.act(observations, deterministic=deterministic)
        assert actions.shape == envs.action_space.shape
        for action in actions:
            assert envs.single_action_space.contains(action.astype(envs.single_action_space.dtype))
    first, again = (begin(agent, 7).act(observations, deterministic=True) for _ in range(2))
    assert (first == again).all()
    part = begin(agent, 3).act(observations[:3], deterministic=True)
    assert part == pytest.approx(first[:3], abs=1e-5)


@pytest.mark.parametrize(("name", "env"), CASES)
def test_metrics_are_finite_and_named_by_room(name, env):
    agent = make(name, env)
    seen = {}
    for _ in range(60):
        seen |= agent.step()
    assert any(tag.startswith("losses/") for tag in seen)
    for tag, value in seen.items():
        assert tag.split("/")[0] in ("charts", "losses", "neat")
        assert np.isfinite(value), tag


@pytest.mark.parametrize("name", AGENTS)
def test_the_protocol_and_its_documentation(name):
    agent = AGENTS[name]
    assert all(hasattr(agent, part) for part in ("step", "act", "state_dict", "load_state_dict"))
    assert dataclasses.is_dataclass(agent.Config)
    assert agent.Config.__dataclass_params__.frozen
    for field in dataclasses.fields(agent.Config):
        assert field.metadata.get("help"), f"{name}: {field.name} is not documented"
    assert "total_timesteps" in {field.name for field in dataclasses.fields(agent.Config)}
    assert set(agent.action_spaces) <= {Discrete, MultiDiscrete, Box}


@pytest.mark.parametrize("name", ["dqn", "qrdqn", "ppo", "recurrent_ppo", "a2c", "sac"])
def test_masks_are_kept(name):
    """Taxi's masks: no forbidden action is taken, in training and greedily."""
    import gymnasium as gym

    taxi = max(env for env in gym.registry if env.startswith("Taxi-v"))
    agent = AGENTS[name](AGENTS[name].Config(**SMALL[name]), make_environments(taxi, 2), 1)
    for _ in range(20):
        agent.step()
    made = agent.collector.collect(50)
    allowed = np.take_along_axis(made.action_masks, made.actions[..., None], 2)
    assert allowed.all()
    envs = make_environments(taxi, 5)
    observations, info = envs.reset(seed=0)
    actions = agent.act(observations, deterministic=True, action_mask=info["action_mask"].astype(bool))
    assert info["action_mask"][np.arange(5), actions].all()


@pytest.mark.parametrize("name", SMALL)
def test_a_space_that_it_cannot_act_in(name):
    agent = AGENTS[name]
    wrong = next((env for kind, env in ENVIRONMENTS.items() if kind not in agent.action_spaces), None)
    if wrong is not None:
        with pytest.raises(TypeError, match=f"{agent.__name__} needs .* actions, not"):
            agent(agent.Config(), make_environments(wrong, 1), 1)


@pytest.mark.parametrize("name", ["dqn", "qrdqn", "sac", "ppo", "a2c", "reinforce"])
def test_environments_that_reset_in_the_next_step(name):
    """Gymnasium's own default: the step that is only a reset teaches nothing, and the agent learns on."""
    import gymnasium as gym

    given = SMALL[name] | ({"n_steps": 1} if name == "dqn" else {})
    agent = AGENTS[name](AGENTS[name].Config(**given), gym.make_vec("CartPole-v1", 3), 1)
    for _ in range(8):
        metrics = agent.step()
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("env", ["rl_lab/Catch-v0", "rl_lab/Bricks-v0"])
@pytest.mark.parametrize("name", ["dqn", "qrdqn", "ppo", "a2c", "reinforce", "recurrent_ppo", "sac"])
def test_convolutions_learn_from_pictures(name, env):
    """Recorded or not, bit for bit; the first convolution is among what is learned."""
    finals = []
    for compiled in (True, False):
        agent = AGENTS[name](
            AGENTS[name].Config(**SMALL[name] | {"network": "cnn:4:16", "compile": compiled}), make_environments(env, 2), 3
        )
        before = content(agent.state_dict())
        while agent.timesteps < 96:
            agent.step()
        finals.append(content(agent.state_dict()))
    convolutions = [path for path in before if path.endswith("0.weight") and "optimizer" not in path and "target" not in path]
    assert convolutions
    assert all(before[path] != finals[0][path] for path in convolutions)
    learned = [path for path in before if "collector" not in path and "replay" not in path]
    assert {path: finals[0][path] for path in learned} == {path: finals[1][path] for path in learned}

"""The contract of agents: the checks of `rl_lab.testing` on all registered agents, and further promises of rl_lab's own agents."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from rl_lab.experiment import Agent, Fault
from rl_lab.experiment.environments import make_environments
from rl_lab.testing import agent_checks, check_agent, content
from tests.runs import AGENTS, ENV

SMALL = {
    "dqn": {"learning_starts": 20, "batch_size": 16, "network": "mlp:16", "prioritized": True, "n_steps": 2},
    "qrdqn": {"learning_starts": 20, "batch_size": 16, "network": "mlp:16", "quantiles": 5},
    "sac": {"learning_starts": 20, "batch_size": 16, "network": "mlp:16", "noise_colour": 0.5},
    "td3": {"learning_starts": 20, "batch_size": 16, "network": "mlp:16", "noise_colour": 0.5},
    "tqc": {
        "learning_starts": 20,
        "batch_size": 16,
        "network": "mlp:16",
        "quantiles": 5,
        "use_sde": True,
        "sde_sample_freq": 5,
    },
    "crossq": {
        "learning_starts": 20,
        "batch_size": 16,
        "network": "mlp:16",
        "critic_network": "mlp:12",
        "norm_warmup": 5,
        "noise_colour": 0.5,
    },
    "drqn": {
        "learning_starts": 20,
        "batch_size": 4,
        "sequence_length": 4,
        "burn_in": 3,
        "network": "mlp:16",
        "memory": 8,
        "normalize_observations": True,
        "normalize_rewards": True,
    },
    "pqn": {"num_steps": 16, "batch_size": 8, "network": "mlp:16", "normalize_observations": True, "normalize_rewards": True},
    "ppo": {"num_steps": 16, "batch_size": 8, "network": "mlp:16", "normalize_observations": True, "normalize_rewards": True},
    "a2c": {"network": "mlp:16", "separate_losses": True, "normalize_observations": True, "normalize_rewards": True},
    "reinforce": {"network": "mlp:16", "normalize_observations": True},
    "recurrent_ppo": {
        "num_steps": 16,
        "batch_envs": 1,
        "network": "mlp:16",
        "memory": 8,
        "normalize_observations": True,
        "normalize_rewards": True,
    },
    "neat": {"population": 12, "champion_episodes": 2, "episode_limit": 50},
    "bc": {"dataset": "random:60", "batch_size": 8, "network": "mlp:8"},
    "iql": {"dataset": "random:60", "batch_size": 8, "network": "mlp:8"},
    "ars": {"directions": 3, "top_directions": 2},
    "es": {"pairs": 3, "network": "mlp:4", "normalize_observations": True},
    "cmaes": {"population": 6, "network": "mlp:4", "normalize_observations": True},
}
"""Settings with short steps, which also switch on the parts that have a state."""
assert AGENTS.keys() <= SMALL.keys()
CHECKS = [(name, check) for name in AGENTS for check in agent_checks(AGENTS[name], **SMALL[name])]


@pytest.mark.parametrize(("name", "check"), CASES := CHECKS, ids=[f"{name}-{check}".replace(" ", "_") for name, check in CASES])
def test_contract(name, check):
    check()


@pytest.mark.parametrize("name", ["ppo", "a2c", "recurrent_ppo", "sac", "tqc", "crossq"])
def test_continuous_agents_continue_bit_for_bit(name, tmp_path):
    """These agents also act in a Box, which the contract's checks do not cover: they use one environment per agent."""
    import rl_lab as rl

    def make(seed: int) -> Agent:
        return AGENTS[name]("Pendulum-v1", seed=seed, num_envs=2, preset=False, **SMALL[name])

    agent = make(3)
    twin = make(99)
    for _ in range(30):
        agent.step()
    rl.save(agent.state_dict(), tmp_path / "state")
    twin.load_state_dict(rl.load(tmp_path / "state"))
    for _ in range(30):
        agent.step()
        twin.step()
    mine, yours = content(agent.state_dict()), content(twin.state_dict())
    assert [key for key in mine if mine[key] != yours[key]] == []


@pytest.mark.parametrize("name", AGENTS)
def test_a_pickled_agent_continues_bit_for_bit(name):
    agent = AGENTS[name](ENV[name], seed=3, num_envs=2, preset=False, **SMALL[name]).learn(60)
    twin = pickle.loads(pickle.dumps(agent))
    mine, yours = content(agent.learn(60).state_dict()), content(twin.learn(60).state_dict())
    assert [key for key in mine if mine[key] != yours[key]] == []


def cartpole() -> gym.Env:
    return gym.make("CartPole-v1")


@pytest.mark.parametrize(
    "make", [lambda: cartpole, cartpole, lambda: SyncVectorEnv([cartpole] * 2)], ids=["maker", "object", "vector"]
)
def test_an_agent_is_pickled_with_its_own_environments(make):
    agent = AGENTS["dqn"](make(), seed=3, **SMALL["dqn"] | {"n_steps": 1}).learn(60)
    twin = pickle.loads(pickle.dumps(agent))
    mine, yours = content(agent.learn(60).state_dict()), content(twin.learn(60).state_dict())
    assert [key for key in mine if mine[key] != yours[key]] == []


@pytest.mark.parametrize("name", AGENTS)
def test_metrics_are_named_by_room(name):
    agent = AGENTS[name](ENV[name], num_envs=2, preset=False, **SMALL[name])
    seen = {}
    while agent.timesteps < 64:
        seen |= agent.step()
    assert {tag.split("/")[0] for tag in seen} <= {"charts", "losses", "neat"}
    assert any(tag.startswith(("losses/", "neat/")) for tag in seen)


@pytest.mark.parametrize("name", ["dqn", "qrdqn", "drqn", "pqn", "ppo", "recurrent_ppo", "a2c", "sac"])
def test_masks_are_kept(name):
    """On Taxi, neither training nor greedy actions include a forbidden action."""
    taxi = max(env for env in gym.registry if env.startswith("Taxi-v"))
    agent = AGENTS[name](taxi, num_envs=2, preset=False, **SMALL[name])
    for _ in range(20):
        agent.step()
    made = agent.collector.collect(50)
    allowed = np.take_along_axis(made.action_masks, made.actions[..., None], 2)
    assert allowed.all()
    envs = make_environments(taxi, 5)
    observations, info = envs.reset(seed=0)
    actions = agent.act(observations, deterministic=True, action_mask=info["action_mask"].astype(bool))
    assert info["action_mask"][np.arange(5), actions].all()


@pytest.mark.parametrize("name", AGENTS)
def test_a_space_that_it_cannot_act_in(name):
    agent = AGENTS[name]
    wrong = {Discrete: "CartPole-v1", Box: "Pendulum-v1"}
    env = next((env for kind, env in wrong.items() if kind not in agent.action_spaces), None)
    if env is not None:
        with pytest.raises(Fault, match=f"{name} needs .* actions, but {env} has .*: use "):
            agent(env)


@pytest.mark.parametrize("name", ["dqn", "qrdqn", "pqn", "sac", "ppo", "a2c", "reinforce"])
def test_environments_that_reset_in_the_next_step(name):
    """With Gymnasium's default, NEXT_STEP, the agent does not learn from a step that is only a reset, but learns from all others."""
    given = SMALL[name] | ({"n_steps": 1} if name == "dqn" else {})
    agent = AGENTS[name](gym.make_vec("CartPole-v1", 2), seed=1, **given)
    for _ in range(8):
        metrics = agent.step()
    assert all(np.isfinite(value) for value in metrics.values())


def sync_environments(mode: AutoresetMode) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2, autoreset_mode=mode)


def native_environments(mode: AutoresetMode) -> VectorEnv:
    return gym.make_vec("rl_lab/CartPole-v1", 2, autoreset_mode=mode)


@pytest.mark.parametrize("how", ["file", "copy"])
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("make", [sync_environments, native_environments])
def test_vector_environments_continue_where_an_episode_has_just_ended(make, mode, how, tmp_path):
    """Also where the next step must reset an environment: it does so in the restored environments, as in the others."""
    agent = AGENTS["dqn"](make(mode), seed=1, **SMALL["dqn"] | {"train_frequency": 2, "n_steps": 1})
    while "charts/episodic_return" not in agent.step():
        pass
    agent.save(tmp_path / "agent")
    twin = copy.deepcopy(agent) if how == "copy" else type(agent).load(tmp_path / "agent", make(mode))
    assert twin.continues
    for _ in range(60):
        agent.step()
        twin.step()
    mine, yours = content(agent.state_dict()), content(twin.state_dict())
    assert [key for key in mine if mine[key] != yours[key]] == []


@pytest.mark.parametrize("env", ["rl_lab/Catch-v0", "rl_lab/Bricks-v0"])
@pytest.mark.parametrize("name", ["dqn", "qrdqn", "drqn", "pqn", "ppo", "a2c", "reinforce", "recurrent_ppo", "sac"])
def test_convolutions_learn_from_pictures(name, env):
    """Recorded and eager runs are bitwise equal, and training changes the first convolution."""
    finals = []
    for compiled in (True, False):
        given = SMALL[name] | {"network": "cnn:4:16", "compile": compiled}
        agent = AGENTS[name](env, seed=3, num_envs=2, preset=False, **given)
        before = content(agent.state_dict())
        while agent.timesteps < 96:
            agent.step()
        finals.append(content(agent.state_dict()))
    convolutions = [path for path in before if path.endswith("0.weight") and "optimizer" not in path and "target" not in path]
    assert convolutions
    assert all(before[path] != finals[0][path] for path in convolutions)
    learned = [path for path in before if "collector" not in path and "replay" not in path]
    assert {path: finals[0][path] for path in learned} == {path: finals[1][path] for path in learned}


# --- the checker is checked --------------------------------------------------------------------------------------------

DQN = AGENTS["dqn"]


class Forgetful(DQN):
    saved = tuple(name for name in DQN.saved if name != "exploration")


class Unlearned(DQN):
    learned = ("target_network",)


class Untimed(DQN):
    def step(self):
        metrics = super().step()
        self.timesteps = 0
        return metrics


class Maskless(DQN):
    def greedy(self, observations, action_mask=None):
        return super().greedy(observations)


class Infinite(DQN):
    def step(self):
        return {**super().step(), "charts/luck": float("nan")}


class Sharing(DQN):
    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (Forgetful, "resuming"),
        (Unlearned, "resuming|starting"),
        (Untimed, "step"),
        (Maskless, "masks"),
        (Infinite, "luck"),
        (Sharing, "copies"),
    ],
)
def test_a_broken_agent_is_found(broken, named):
    with pytest.raises(AssertionError, match=named):
        check_agent(broken, **SMALL["dqn"])

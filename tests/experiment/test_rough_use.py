"""Unusual use: odd environments, masks that appear and disappear, full disks, runs that end twice."""

import math
import threading
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from rl_lab import evaluate as evaluate_command
from rl_lab import train
from rl_lab.agents.dqn import DQN, DQNConfig
from rl_lab.agents.ppo import PPO, PPOConfig
from rl_lab.engine.errors import EnvironmentFault
from rl_lab.engine.ops import Tensor
from rl_lab.experiment import driver
from rl_lab.experiment.checkpoint import load_checkpoint
from rl_lab.experiment.environments import make_environments
from rl_lab.experiment.evaluation import evaluate
from rl_lab.rollout import RewardScale, normalized
from rl_lab.rollout.stepper import EPISODE_LIMIT, mask_of
from tests.agents.test_contract import SMALL
from tests.runs import AGENTS, only_run


class Odd(gym.Env):
    """An environment with episodes of ``length`` steps that checks its actions; arguments and subclasses make it unusual."""

    def __init__(self, actions=None, observations=None, length=6, mask="", nan=""):
        self.action_space = Discrete(3) if actions is None else actions
        self.observation_space = Box(-1, 1, (2,), np.float32) if observations is None else observations
        self.length = length
        self.mask = mask
        self.nan = nan

    def look(self, when):
        observation = self.observation_space.sample()
        if self.nan == when or (self.nan == "end" and self.time == self.length):
            observation = observation * np.nan
        info = {}
        if self.mask:
            allowed = np.arange(3) != self.time % 3
            given = {"list": True, "reset": when == "reset", "step": when == "step", "some": self.time % 2 == 0}
            if given.get(self.mask, True):
                info["action_mask"] = allowed.tolist() if self.mask == "list" else allowed
            if self.mask == "wide":
                info["action_mask"] = np.ones(4, bool)
            if self.mask == "empty at the end" and self.time == self.length:
                info["action_mask"] = np.zeros(3, bool)
            if self.mask == "empty" and self.time == 2:
                info["action_mask"] = np.zeros(3, bool)
        return observation, info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.time = 0
        return self.look("reset")

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} of {getattr(action, 'dtype', type(action))}"
        if self.mask and self.mask in ("list", "full"):
            assert action != self.time % 3, "forbidden"
        self.time += 1
        observation, info = self.look("step")
        return observation, 1.0, self.time == self.length, False, info


def odd(name, **arguments):
    gym.register(f"odd/{name}-v0", entry_point=Odd, kwargs=arguments)
    return f"odd/{name}-v0"


def dqn_on(env, **changes):
    given = {"learning_starts": 8, "batch_size": 8, "network": "mlp:8", "train_frequency": 2, **changes}
    return DQN.create(DQNConfig(**given), make_environments(env, 2), 1)


def ten_steps_on(env):
    agent = dqn_on(env)
    for _ in range(10):
        agent.step()


# --- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", ["full", "list", "reset", "some", "empty at the end"])
def test_where_there_is_no_mask_everything_is_allowed(mask):
    """All actions are allowed where a mask is missing; otherwise their values would be -1e9."""
    agent = dqn_on(odd(f"Mask{mask.title().replace(' ', '')}", mask=mask))
    for _ in range(60):
        metrics = agent.step()
    assert metrics["losses/td_loss"] < 10.0
    masks = agent.replay.arrays.action_masks[: len(agent.replay)]
    assert masks.any(1).all()
    assert masks.all(1).any() == (mask in ("reset", "some"))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("step", "but none from reset"),
        ("wide", r"shape \(4,\) for 3 actions"),
        ("empty", "allows nothing"),
    ],
)
def test_a_mask_that_makes_no_sense_is_named(mask, message):
    with pytest.raises(EnvironmentFault, match=message):
        ten_steps_on(odd(f"BadMask{mask.title()}", mask=mask))


def test_a_mask_has_a_place_for_each_choice():
    envs = make_environments(odd("Several", actions=MultiDiscrete([2, 3])), 2)
    told = {"action_mask": [[1, 0, 1, 0, 0], [0, 1, 1, 1, 1]]}
    assert mask_of(told, envs).tolist() == [[True, False, True, False, False], [False, True, True, True, True]]
    with pytest.raises(EnvironmentFault, match="each of the 5 options"):
        mask_of({"action_mask": [[1, 0], [0, 1]]}, envs)
    assert mask_of(told, make_environments("Pendulum-v1", 2)) is None  # continuous actions are not forbidden


# --- environments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        ("Tenth", Box(np.array([0.1, 0.7]), np.array([0.3, 2.1]), dtype=np.float64)),
        ("Hundredth", Box(-0.01, 0.01, (1,), np.float64)),
    ],
)
@pytest.mark.parametrize("agent", ["ppo", "td3"])
def test_actions_stay_inside_bounds_that_are_no_float32_numbers(name, actions, agent):
    envs = make_environments(odd(f"{name}{agent}", actions=actions), 2)
    made = AGENTS[agent].create(AGENTS[agent].Config(**SMALL[agent]), envs, 1)
    for _ in range(20):
        made.step()
    made.act(np.zeros((3, 2), np.float32))


def test_boxes_of_whole_numbers_are_refused_and_single_numbers_observed(workplace, capsys):
    env = odd("Whole", actions=Box(0, 10, (2,), np.int32))
    assert train.main(["--agent", "td3", "--env", env]) == 2
    assert "int32" in capsys.readouterr().err
    assert not Path("runs").exists()
    agent = dqn_on(odd("Number", observations=Box(-1, 1, (), np.float32)))
    for _ in range(8):
        agent.step()
    assert agent.shape == (1,)


@pytest.mark.filterwarnings("ignore:.*is not within the observation space")
@pytest.mark.parametrize(("nan", "when"), [("reset", "when it was reset"), ("step", "at step 1"), ("end", "at step 6")])
def test_a_nan_is_seen_where_it_comes_from(nan, when):
    with pytest.raises(EnvironmentFault, match=f"returned the observation .nan nan. {when}"):
        ten_steps_on(odd(f"Nan{nan.title()}", nan=nan))


def test_episodes_without_end_are_cut_off(workplace, capsys):
    env = odd("Endless", length=-1)
    agent = dqn_on(env)
    result = evaluate(agent, env, 3, seed=1)
    assert (result.cut_off, result.length_mean, result.return_mean) == (3, EPISODE_LIMIT, EPISODE_LIMIT)
    assert "3 episodes were cut off after 10,000 steps" in result.remark()
    limited = evaluate(agent, odd("Ends"), 3, seed=1)
    assert limited.cut_off == 0
    assert limited.remark() == ""
    arguments = ["--agent", "reinforce", "--env", env, "--total-timesteps", "100", "--eval-episodes", "1"]
    assert train.main(arguments) == 0
    assert "cut off" in capsys.readouterr().out


def broken(**arguments):
    raise KeyError("no such file")


gym.register("odd/Broken-v0", entry_point=broken)


# --- settings --------------------------------------------------------------------------------------------------------


def test_an_environment_that_cannot_be_made(workplace, capsys):
    assert train.main(["--agent", "dqn", "--env", "odd/Broken-v0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be made: KeyError" in line
    assert not Path("runs").exists()


def test_numbers_are_read_as_they_are_written(workplace):
    plan = train.parse(["--agent", "dqn", "--env", "CartPole-v1", "--seed", "9007199254740993", "--stop-return", "-1e3"])
    assert plan.options.seed == 9007199254740993
    assert plan.options.stop_return == -1000.0
    assert train.parse(["--agent", "dqn", "--env", "CartPole-v1", "--stop-return", "none"]).options.stop_return is None
    assert train.parse(["--agent", "dqn", "--env", "CartPole-v1", "--seed", "1e3"]).options.seed == 1000


def test_without_evaluations_a_presets_stop_return_is_left_out(workplace):
    plan = train.parse(["--agent", "dqn", "--env", "CartPole-v1", "--eval-frequency", "0"])
    assert plan.options.stop_return is None


QUICK = ["--agent", "dqn", "--env", "CartPole-v1", "--total-timesteps", "300", "--eval-episodes", "2", "--network", "mlp:8"]


def test_nothing_to_learn_is_said(workplace, capsys):
    assert train.main([*QUICK, "--learning-starts", "301"]) == 0
    assert "no update will run" in capsys.readouterr().out


def test_evaluations_of_damaged_runs(workplace, capsys):
    assert train.main(QUICK) == 0
    capsys.readouterr()
    assert evaluate_command.main([str(only_run()), "--seed", "-5"]) == 2
    assert "--seed must be at least 0" in capsys.readouterr().err
    config = only_run() / "config.toml"
    config.write_text(config.read_text().replace("buffer_size = 50000", "buffer_size = 2"))
    assert evaluate_command.main([str(only_run())]) == 2
    assert "do not make an agent" in capsys.readouterr().err


def test_networks_that_do_not_fit_say_why(workplace, capsys):
    short = ["--agent", "ppo", "--total-timesteps", "64", "--eval-episodes", "1", "--num-envs", "1", "--num-steps", "32"]
    assert train.main([*short, "--env", "CartPole-v1", "--batch-size", "32", "--eval-frequency", "0"]) == 0
    assert (
        train.main([*short, "--env", "Acrobot-v1", "--batch-size", "32", "--keep-best", "false", "--network", str(only_run())])
        == 2
    )
    assert "weight" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_written_is_a_fault(workplace, capsys, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rl_lab.experiment.run.save_checkpoint", full)
    assert train.main(QUICK) == 4
    assert "cannot write a checkpoint" in capsys.readouterr().err


def test_a_tensor_that_found_no_memory_goes_quietly(capfd):
    import rl_lab as rl

    with pytest.raises((MemoryError, ValueError)):
        rl.zeros(10**14)
    assert "owner" not in capfd.readouterr().err
    assert isinstance(rl.zeros(1), Tensor)


# --- runs that end twice ---------------------------------------------------------------------------------------------


def scripted(monkeypatch, scores):
    """Short evaluations (of two episodes) give these returns."""
    from dataclasses import replace

    real = driver.evaluate
    left = iter(scores)

    def fake(agent, setup, episodes, seed, **named):
        result = real(agent, setup, 1, seed, **named)
        return replace(result, return_mean=next(left)) if episodes == 2 else result

    monkeypatch.setattr(driver, "evaluate", fake)


class Death(BaseException):
    pass


def test_the_best_state_is_not_lost_to_a_worse_one(workplace, monkeypatch):
    """The best state was saved after the last checkpoint, before the process died."""
    given = {"agent": "a2c", "env": "CartPole-v1", "backend": "gymnasium", "total_timesteps": 300, "num_envs": 1}
    given |= {"eval_frequency": 50, "short_episodes": 2, "keep_best": True, "checkpoint_frequency": 60, "eval_episodes": 1}
    given |= {"stop_return": "1e9"}
    scripted(monkeypatch, [10.0, 500.0, 20.0, 30.0, 25.0, 26.0, 27.0, 28.0, 29.0])
    step = AGENTS["a2c"].step
    with monkeypatch.context() as context:
        context.setattr(AGENTS["a2c"], "step", lambda self: die() if self.timesteps >= 105 else step(self))
        with pytest.raises(Death):
            driver.carry_out(driver.make_plan(given))
    before = load_checkpoint(only_run() / "checkpoints" / "best")
    assert before["driver"]["best"] == 500.0
    driver.carry_out(driver.make_resuming_plan(only_run(), {}))
    assert load_checkpoint(only_run() / "checkpoints" / "best")["timesteps"] == before["timesteps"]
    assert load_checkpoint(only_run() / "checkpoints" / "last")["driver"]["best"] == 500.0


def die():
    raise Death


def test_a_run_that_reached_its_goal_only_goes_on_if_it_is_made_longer(workplace):
    given = ["--agent", "ppo", "--env", "CartPole-v1", "--stop-return", "9", "--eval-frequency", "256"]
    assert train.main([*given, "--total-timesteps", "20000", "--eval-episodes", "3"]) == 0
    steps = load_checkpoint(only_run() / "checkpoints" / "last")["timesteps"]
    assert steps < 2000
    assert train.main(["--resume", str(only_run())]) == 0
    assert load_checkpoint(only_run() / "checkpoints" / "last")["timesteps"] == steps
    assert train.main(["--resume", str(only_run()), "--total-timesteps", "20001"]) == 0
    assert load_checkpoint(only_run() / "checkpoints" / "last")["timesteps"] > steps


class Unsavable(Odd):
    """An environment whose state cannot be written into a checkpoint."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def test_scaled_rewards_begin_anew_with_new_episodes():
    config = PPOConfig(num_steps=8, batch_size=16, network="mlp:8", normalize_rewards=True)
    gym.register("odd/Unsavable-v0", entry_point=Unsavable)
    agents = [
        PPO.create(config, make_environments(driver.choose_setup(env, "auto"), 2), 1)
        for env in ("odd/Unsavable-v0", "CartPole-v1")
    ]
    for agent, goes_on in zip(agents, (False, True), strict=True):
        agent.step()
        assert (agent.reward_scale._running != 0).any()
        agent.load_state_dict(agent.state_dict())
        assert (agent.reward_scale._running != 0).any() == goes_on
    scale = RewardScale(2, 0.9)
    scale(np.ones((3, 2), np.float32), np.zeros((3, 2), bool))
    scale.begin_episodes()
    assert (scale._running == 0).all()


def test_one_advantage_is_left_as_it_is():
    import rl_lab as rl

    assert normalized(rl.tensor([3.0])).tolist() == [3.0]
    assert not math.isnan(normalized(rl.tensor([3.0]), rl.ones(1)).item())
    for name, changes in {"recurrent_ppo": {"batch_envs": 1}, "a2c": {"normalize_advantages": True}}.items():
        agent = AGENTS[name].create(
            AGENTS[name].Config(num_steps=1, network="mlp:8", **changes), make_environments("CartPole-v1", 1), 1
        )
        assert all(math.isfinite(value) for value in agent.step().values())


def test_an_environment_of_a_module_beside_the_user(workplace, capsys, monkeypatch):
    """An environment ``module:id`` is found in training, in environment processes, and in an evaluation."""
    monkeypatch.syspath_prepend(str(workplace))
    (workplace / "my_worlds.py").write_text(
        "import gymnasium as gym\ngym.register('mine/Cart-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=50)\n"
    )
    assert train.main([*QUICK, "--env", "my_worlds:mine/Cart-v0", "--num-envs", "2"]) == 0
    assert evaluate_command.main([str(only_run())]) == 0
    assert "dqn on my_worlds:mine/Cart-v0" in capsys.readouterr().out
    assert train.main([*QUICK, "--env", "no_worlds:mine/Cart-v0"]) == 2
    assert "cannot be imported" in capsys.readouterr().err
    assert train.main([*QUICK, "--env", "my_worlds:mine/Card-v0"]) == 2
    assert "unknown environment" in capsys.readouterr().err

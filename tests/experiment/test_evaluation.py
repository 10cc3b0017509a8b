"""Evaluation: frugal, bounded, said, reproducible, and possible where only one environment can be open."""

import dataclasses
import random

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import rl_lab as rl
from rl_lab import check, train
from rl_lab.agents.dqn import DQN
from rl_lab.agents.ppo import PPO
from rl_lab.envs.cartpole import CartPoleVectorEnv
from rl_lab.experiment import evaluation
from rl_lab.experiment.driver import carry_out, evaluation_budget, make_plan
from rl_lab.experiment.environments import choose_setup, make_environments
from rl_lab.experiment.evaluation import evaluate, play
from rl_lab.experiment.progress import NoProgress
from rl_lab.experiment.request import read_request

counts = {"steps": 0, "open": 0, "most": 0}


class Uneven(gym.Env):
    """Episodes of ten steps, but every hundredth seed has one of a thousand; steps and open copies are counted."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, long=300, alone=False, endless=False, draws=""):
        if alone and counts["open"]:
            raise OSError("port 5005 is already in use")
        counts["open"] += 1
        counts["most"] = max(counts["most"], counts["open"])
        self.long, self.endless, self.draws = long, endless, draws

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.length = self.long if seed is not None and seed % 100 == 0 else 10
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.t += 1
        counts["steps"] += 1
        drawn = {"": lambda: 1.0, "np": np.random.random, "random": random.random}[self.draws]()
        return np.zeros(3, np.float32), drawn, self.t >= self.length and not self.endless, False, {}

    def close(self):
        counts["open"] -= 1


@pytest.fixture(autouse=True)
def registered():
    counts.update(steps=0, open=0, most=0)
    gym.register("Uneven-v0", entry_point=Uneven, max_episode_steps=2000)
    gym.register("Endless-v0", entry_point=Uneven, kwargs={"endless": True})
    yield
    del gym.registry["Uneven-v0"], gym.registry["Endless-v0"]


def agent_in(env: str, **options) -> PPO:
    return PPO(env, num_steps=16, batch_size=16, network="mlp:4", preset=False, **options)


def test_only_environments_that_owe_an_episode_are_stepped():
    agent = agent_in("Uneven-v0")
    counts["steps"] = 0
    result = evaluate(agent, episodes=100, seed=1_000_000)
    assert result.episodes == 100
    assert counts["steps"] == result.steps == 300 + 99 * 10
    assert result.return_max == 300.0
    assert counts["most"] <= 1 + evaluation.MOST_OBJECTS


@pytest.mark.parametrize("env", ["CartPole-v1", "rl_lab/Catch-v0", "MountainCar-v0"])
@pytest.mark.parametrize("num_envs", [1, 5, 12])
def test_native_environments_rest_and_give_the_same_episodes(env, num_envs):
    agent = DQN(env, network="mlp:8", preset=False)
    setup = dataclasses.replace(choose_setup(env, "gymnasium"), native=None)
    one_by_one = [play(agent, make_environments(setup, 1), 1, 50 + k) for k in range(12)]
    native = play(agent, make_environments(env, num_envs), 12, 50)
    assert native.return_mean == pytest.approx(np.mean([e.return_mean for e in one_by_one]))
    assert native.length_mean == np.mean([e.length_mean for e in one_by_one])
    assert native.steps == sum(e.steps for e in one_by_one)


def test_resting_environments_stay_where_they_are():
    envs = make_environments("CartPole-v1", 3)
    twin = make_environments("CartPole-v1", 3)
    for each in (envs, twin):
        each.reset(seed=7)
    actions = np.array([1, 1, 1])
    for _ in range(300):
        twin.step(actions)
    for awake in ([True, False, True], [False, True, False]):
        envs.awake = np.array(awake)
        for _ in range(300):
            before = envs.observations.copy()
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            resting = ~envs.awake
            assert (observations[resting] == before[resting]).all()
            for values in (rewards, terminated, truncated):
                assert not values[resting].any()
    envs.awake = None
    assert (envs.observations == twin.observations).all()
    assert (envs.elapsed == twin.elapsed).all()


def test_environments_cannot_rest_with_next_step_autoreset():
    """The loop would skip an awake environment whose episode has ended, and no new episode would begin."""
    envs = CartPoleVectorEnv(2)
    envs.reset(seed=1)
    envs.awake = np.array([True, False])
    with pytest.raises(ValueError, match="not NEXT_STEP"):
        envs.step(np.array([1, 1]))


def test_an_evaluation_is_bounded_and_says_that_it_runs(monkeypatch):
    monkeypatch.setattr(evaluation, "SILENCE", 0.0)
    agent = agent_in("Uneven-v0")
    lines: list[str] = []
    result = evaluate(agent, episodes=500, most_steps=200, seed=1, say=lines.append)
    assert 200 <= result.steps < 200 + evaluation.MOST_OBJECTS * 10
    assert result.asked == 500
    assert result.episodes < 30
    assert "no more of the 500 episodes began" in result.remark()
    assert lines
    assert "evaluating" in lines[0]
    endless = evaluate(agent_in("Endless-v0"), episodes=3, most_steps=1)
    assert (endless.cut_off, endless.episodes) == (3, 3)
    assert endless.return_mean == 10_000.0


def test_the_budget_follows_the_training():
    words = ["--agent", "ppo", "--env", "CartPole-v1"]
    for more, budget in (
        (["--total-timesteps", "10"], 20_000),
        (["--total-timesteps", "50000"], 50_000),
        (["--total-timesteps", "1e7"], 200_000),
        (["--eval-steps", "7"], 7),
    ):
        assert evaluation_budget(train.parse([*words, *more])) == budget


def test_one_environment_at_a_time_is_enough(workplace, capsys):
    words = ["--agent", "ppo", "--env", "Uneven-v0", "--env-kwargs", "alone=true", "--num-steps", "16", "--batch-size", "16"]
    assert train.main([*words, "--total-timesteps", "32", "--eval-episodes", "4", "--network", "mlp:4"]) == 0
    assert "over 4 episodes" in capsys.readouterr().out
    assert (counts["open"], counts["most"]) == (0, 1)
    assert check.main(["Uneven-v0", "--env-kwargs", "alone=true", "--steps", "30"]) == 0
    assert "only one can be open at a time" in capsys.readouterr().out


@pytest.mark.parametrize("draws", ["np", "random"])
def test_global_random_numbers_are_seeded(draws, workplace, capsys):
    words = [
        "--agent",
        "ppo",
        "--env",
        "Uneven-v0",
        "--env-kwargs",
        f"draws={draws}",
        "--num-steps",
        "16",
        "--batch-size",
        "16",
    ]
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    shown = []
    for _ in range(2):
        assert train.main([*words, "--total-timesteps", "64", "--eval-episodes", "5", "--network", "mlp:4"]) == 0
        shown.append(next(line for line in capsys.readouterr().out.splitlines() if "greedy return" in line).split(" after ")[0])
    assert shown[0] == shown[1]
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002 - the user's own stream stays where it was


def test_sampling_leaves_the_streams_of_the_agent():
    agent = agent_in("CartPole-v1")
    agent.learn(64)
    before = agent.action_stream.get_state().numpy().copy()
    one, two = (evaluate(agent, episodes=5, deterministic=False) for _ in range(2))
    assert one == two
    assert one.sampled
    assert (agent.action_stream.get_state().numpy() == before).all()
    assert isinstance(agent.action_stream, rl.Generator)


# --- the check before training ---------------------------------------------------------------------------------------


def test_check_says_what_will_happen(capsys):
    assert check.main(["Uneven-v0"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "Gymnasium's checker",
        "observations: Box",
        "actions: Discrete(2)",
        "agents that take it: a2c, ",
        " dqn, ",
        "episodes ended",
    ):
        assert words in shown, words
    assert "it can be trained" in shown.splitlines()[-1]
    assert check.main(["Uneven-v0", "--env-kwargs", "draws=np", "--steps", "40"]) == 0
    shown = capsys.readouterr().out
    assert "to mend: two runs from the same seed differ" in shown
    assert "global np.random" in shown


def test_check_names_failures(workplace, capsys, monkeypatch):
    (workplace / "failing_world.py").write_text(
        "import gymnasium as gym\nimport numpy as np\nfrom gymnasium import spaces\n"
        "class World(gym.Env):\n"
        "    observation_space = spaces.Box(0, 255, (6, 6, 6), np.uint8)\n    action_space = spaces.Discrete(2)\n"
        "    def reset(self, seed=None, options=None):\n        super().reset(seed=seed)\n"
        "        return np.zeros((6, 6, 6), np.uint8), {}\n"
        "    def step(self, action):\n        return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(str(workplace))
    assert check.main(["failing_world:World"]) == 3
    shown = capsys.readouterr().out
    assert "--channels first or --channels last" in shown
    assert "it cannot be trained" in shown.splitlines()[-1]
    assert "ZeroDivisionError" in shown
    assert "failing_world.py, line 11" in shown
    assert check.main(["failing_world:Wordl"]) == 2
    assert check.main(["CartPole-v1", "--steps", "0"]) == 2
    assert check.main(["CartPole-v1", "--no-such-option", "0"]) == 2


def test_steps_of_evaluations_during_training_are_counted(workplace, capsys):
    """The short evaluations and the full one that confirms the stop count as selection steps, the evaluation at the end does not."""
    words = ["--agent", "ppo", "--env", "Uneven-v0", "--total-timesteps", "96", "--num-steps", "16", "--batch-size", "16"]
    words += ["--backend", "gymnasium", "--eval-frequency", "32", "--short-episodes", "2", "--eval-episodes", "5"]
    counts["steps"] = 0
    result = carry_out(make_plan(read_request([*words, "--stop-return", "400"], "rl_lab.train")), NoProgress())
    evaluations = counts["steps"] - result.timesteps
    assert result.timesteps == 96
    assert result.selection_steps == 3 * (300 + 10)
    assert evaluations == result.selection_steps + result.evaluation.steps
    found = result.run.scalars()
    logged = found[found.tag == "charts/selection_steps"]
    assert logged[["step", "value"]].values.tolist() == [[32, 310], [64, 620], [96, 930]]
    capsys.readouterr()
    assert train.main([*words, "--stop-return", "60"]) == 0
    short, full = 300 + 10, 300 + 4 * 10
    assert "after 32 steps in" in (said := capsys.readouterr().out)
    assert f"; the evaluations during training took {short + full} more" in said


def test_without_evaluations_during_training_nothing_is_said_of_them(workplace, capsys):
    words = ["--agent", "ppo", "--env", "Uneven-v0", "--total-timesteps", "32", "--num-steps", "16", "--batch-size", "16"]
    assert train.main([*words, "--eval-episodes", "1"]) == 0
    assert "the evaluations during training" not in capsys.readouterr().out

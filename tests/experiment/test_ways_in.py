"""One way in for every environment: ids, classes, arguments, wrappers, packages that register late, vector entry points."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from rl_lab import evaluate, train
from rl_lab.agents.ppo import PPO
from rl_lab.experiment import finding, trust
from rl_lab.experiment.config import read_toml
from rl_lab.experiment.driver import load_run
from rl_lab.experiment.driver import train as train_run
from rl_lab.experiment.environments import Setup, choose_setup, make_environments, open_environments, spaces_of
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.vector import close_environments
from rl_lab.experiment.wrapping import as_arguments, as_texts, split_assignments, typed, written
from tests.runs import only_run

WORLD = '''
import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class World(gym.Env):
    """Pays ``pay`` in each of ``size`` steps."""

    metadata = {"render_modes": ["rgb_array"]}
    action_space = spaces.Discrete(2)

    def __init__(self, size=3, pay=1.0, names=(), render_mode=None):
        self.size, self.pay, self.names, self.render_mode = size, pay, names, render_mode
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(2, self.t / self.size, np.float32), self.pay, self.t >= self.size, False, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


def make(size=4):
    return World(size, 10.0)


class Outer:
    class Inner(World):
        pass


class Twice(gym.RewardWrapper):
    def __init__(self, env, factor=2.0, plus=0.0):
        super().__init__(env)
        self.factor, self.plus = factor, plus

    def reward(self, reward):
        return reward * self.factor + self.plus


class Batch(VectorEnv):
    """Steps all its copies in one call, and resets in the step after the end; its reset knows no mask."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    single_observation_space, single_action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)

    def __init__(self, num_envs=1, length=6, max_episode_steps=None):
        self.num_envs, self.length, self.t = num_envs, length, np.zeros(num_envs, int)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, seed=None, options=None):
        self.t[:] = 0
        return np.zeros((self.num_envs, 2), np.float32), {}

    def step(self, actions):
        self.t = np.where(self.t >= self.length, 0, self.t + 1)
        over = self.t >= self.length
        return np.zeros((self.num_envs, 2), np.float32), (self.t > 0) * 1.0, over, np.zeros(self.num_envs, bool), {}


if "Mine-v0" not in gym.registry:
    gym.register("Mine-v0", entry_point=f"{__name__}:World", kwargs={"size": 5})
    gym.register("deep/Vector-v0", vector_entry_point=f"{__name__}:Batch", max_episode_steps=50)
'''
SHORT = ["--total-timesteps", "64", "--num-steps", "16", "--batch-size", "16", "--network", "mlp:4", "--eval-episodes", "3"]


@pytest.fixture
def world(workplace, monkeypatch):
    """A module of the user's in the working directory; gone from Python's modules and Gymnasium's registry afterwards."""
    Path("my_world.py").write_text(WORLD)
    monkeypatch.syspath_prepend(str(workplace))
    before = set(gym.registry)
    yield "my_world"
    for name in [name for name in sys.modules if name.startswith(("my_world", "tiny_", "late"))]:
        del sys.modules[name]
    for name in set(gym.registry) - before:
        del gym.registry[name]


def greedy_return(capsys, *words: str) -> float:
    capsys.readouterr()
    assert train.main(["--agent", "ppo", *SHORT, *words]) == 0
    shown = capsys.readouterr().out
    return float(shown.split("greedy return ")[1].split()[0])


# --- ids, classes, functions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("my_world:Mine-v0", 5.0),
        ("my_world:World", 3.0),
        ("my_world:make", 40.0),
        ("my_world:Outer.Inner", 3.0),
        ("my_world:Batch", 6.0),
        ("my_world:deep/Vector-v0", 6.0),
    ],
)
def test_every_way_to_name_an_environment(env, expected, world, capsys):
    assert greedy_return(capsys, "--env", env, "--num-envs", "2") == expected
    run = only_run()
    assert evaluate.main([str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["return_mean"] == expected
    assert train.main(["--resume", str(run), "--total-timesteps", "128"]) == 0


def test_every_object_that_is_an_environment(world):
    __import__("my_world")
    module = sys.modules["my_world"]
    settings = {"num_steps": 16, "batch_size": 16, "network": "mlp:4"}
    given = [
        ("my_world:World", {}),
        (module.World, {"env_kwargs": {"size": 7}}),
        (module.make, {"env_kwargs": ["size=7"]}),
        (module.World(size=7), {}),
        (lambda: module.World(size=7), {}),
        (module.Batch(2), {}),
        (module.Batch, {"num_envs": 2, "env_kwargs": {"length": 3}}),
    ]
    for env, options in given:
        agent = PPO(env, **settings, **options)
        agent.learn(32)
        assert agent.timesteps >= 32


def test_what_is_no_environment_is_refused(world):
    for env, words in (
        ("my_world:Wordl", "did you mean 'World'"),
        ("my_world:Twice", "--wrapper my_world:Twice"),
        ("my_world:WORLD", "did you mean 'World'"),
        ("my_world:spaces", "not a class of environments"),
        ("my_world:", "choose from Batch, World"),
        ("no_such_world:World", "no module 'no_such_world'"),
    ):
        with pytest.raises(Fault) as caught:
            choose_setup(env)
        assert words in str(caught.value), caught.value
    with pytest.raises(Fault, match=r"not a gymnasium\.Env"):
        open_environments(lambda: "nothing")


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        7,
        -3,
        0.5,
        1e-7,
        True,
        False,
        None,
        "8x8",
        "7",
        "true",
        "None",
        "a=b,c",
        [1, 2],
        (1, "x"),
        {"a": [1, None]},
        "",
        " a ",
        "1e",
    ],
)
def test_arguments_survive_as_text(value):
    found = typed(written(value))
    assert found == value
    assert type(found) is type(value)


def test_arguments_are_typed():
    given = ["size=7", "low=-0.5", "slippery=false", "desc=None", "map_name=8x8", "shape=[84, 84]", 'name="7"', "many=1_000"]
    expected = {"size": 7, "low": -0.5, "slippery": False, "desc": None, "map_name": "8x8", "shape": [84, 84], "name": "7"}
    assert as_arguments(given) == {**expected, "many": 1000}
    assert as_arguments(as_texts(expected)) == expected
    assert as_arguments(expected) == expected
    assert split_assignments("a=1,b=[2,3],c='x,y',d=(1,2)") == ["a=1", "b=[2,3]", "c='x,y'", "d=(1,2)"]
    for wrong in ("size", "=7", "si ze=7", 7):
        with pytest.raises(Fault, match="--env-kwargs"):
            as_arguments([wrong] if isinstance(wrong, str) else wrong)
    with pytest.raises(Fault, match="cannot be written"):
        as_texts({"size": object()})


def test_arguments_arrive_and_are_recorded(world, capsys):
    words = ("--env", "my_world:Mine-v0", "--env-kwargs", "size=7", "--env-kwargs", "pay=2")
    assert greedy_return(capsys, *words) == 14.0
    assert read_toml(only_run() / "config.toml")["env_kwargs"] == ["size=7", "pay=2"]
    run = train_run(
        "ppo", "my_world:World", env_kwargs={"size": 4, "names": ["a"]}, num_steps=16, batch_size=16, total_timesteps=32
    )
    assert load_run(run.path).agent().envs.envs[0].unwrapped.names == ["a"]
    assert greedy_return(capsys, "--config", str(run.path / "config.toml"), "--env-kwargs", "size=9") == 9.0


def test_an_unknown_argument_is_named(world):
    with pytest.raises(Fault, match="takes no argument 'sise', did you mean 'size'"):
        choose_setup("my_world:World", env_kwargs={"sise": 3})
    assert choose_setup("my_world:World", env_kwargs={"max_episode_steps": 2}).env_kwargs == {"max_episode_steps": 2}
    limited = make_environments(choose_setup("my_world:World", env_kwargs={"max_episode_steps": 2}), 1)
    limited.reset(seed=1)
    assert [bool(limited.step(np.zeros(1, int))[3][0]) for _ in range(2)] == [False, True]


def test_native_environments_take_the_arguments_of_their_world():
    setup = choose_setup("CartPole-v1", env_kwargs={"sutton_barto_reward": True})
    assert setup.native is not None
    envs = make_environments(setup, 2)
    assert (envs.states[:, -3] == 1.0).all()
    assert choose_setup("FrozenLake-v1", env_kwargs={"desc": None, "is_slippery": False}).native is None
    with pytest.raises(Fault, match="does not take a wrapper"):
        choose_setup("CartPole-v1", "native", wrapper="gymnasium.wrappers:ClipReward")
    shorter = make_environments(choose_setup("CartPole-v1", env_kwargs={"max_episode_steps": 9}), 1)
    assert shorter.max_episode_steps == 9


# --- wrappers --------------------------------------------------------------------------------------------------------


def test_wrappers_are_applied_in_order_and_recorded(world, capsys):
    words = ("--env", "my_world:World", "--wrapper", "my_world:Twice:factor=3", "--wrapper", "my_world:Twice:factor=1.0,plus=5")
    assert train.main(["--agent", "ppo", *SHORT, *words]) == 0
    assert read_toml(only_run() / "config.toml")["wrapper"] == ["my_world:Twice:factor=3", "my_world:Twice:factor=1.0,plus=5"]
    envs = load_run(only_run()).agent().envs
    envs.reset(seed=1)
    assert envs.step(np.zeros(1, int))[1][0] == 1.0 * 3 + 5
    assert evaluate.main([str(only_run())]) == 0
    assert "greedy return 3.0" in capsys.readouterr().out  # the game's own score


def test_wrappers_of_all_kinds(world):
    __import__("my_world")
    module = sys.modules["my_world"]
    made, setup = open_environments("my_world:World", wrapper=lambda env: module.Twice(env, 4.0))
    made.reset(seed=1)
    assert made.step(np.zeros(1, int))[1][0] == 4.0
    assert setup.describe() is None
    described = choose_setup("my_world:World", wrapper=["my_world:Twice"], env_kwargs={"size": 2}).describe()
    assert Setup.from_description(json.loads(json.dumps(described))) == choose_setup(**described)
    for wrapper, words in (
        ("my_world:Twise", "did you mean 'Twice'"),
        ("my_world", "module:Class"),
        ("my_world:np", "not a class of wrappers"),
        ("gymnasium.wrappers.vector:ClipReward", "name the wrapper for one environment"),
        (7, "--wrapper"),
    ):
        with pytest.raises(Fault) as caught:
            choose_setup("my_world:World", wrapper=wrapper)
        assert words in str(caught.value), caught.value
    with pytest.raises(Fault, match="name each as module:Class"):
        train_run("ppo", "my_world:World", wrapper=module.Twice)
    with pytest.raises(Fault, match="--wrapper wraps single environments"):
        choose_setup("my_world:Batch", wrapper="my_world:Twice")


# --- packages --------------------------------------------------------------------------------------------------------


def test_a_package_that_announces_its_environments(world, monkeypatch):
    Path("tiny_package.py").write_text(
        "import gymnasium as gym\ndef register_envs():\n    gym.register('Tiny/World-v0', entry_point='my_world:World')\n"
        "    gym.register('Plain-v3', entry_point='my_world:World')\n"
    )
    info = Path("tiny_package-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gymnasium.envs]\nTiny = tiny_package:register_envs\n")
    monkeypatch.setattr(finding, "_loaded", set())
    for env in ("Tiny/World-v0", "Tiny/Plain-v3"):
        assert spaces_of(choose_setup(env))[0].shape == (2,)
    (info / "entry_points.txt").write_text("[gymnasium.envs]\nTiny = tiny_package:no_such_function\n")
    monkeypatch.setattr(finding, "_loaded", set())
    with pytest.raises(Fault, match="cannot register it"):
        choose_setup("Tiny/Other-v0")
    assert choose_setup("CartPole-v1")  # nobody asked for the broken package


@pytest.mark.parametrize("how", ["import", "register_envs", "register_late_environments"])
def test_a_module_named_like_the_namespace(how, world):
    body = "gym.register('late_worlds/World-v0', entry_point='my_world:World')"
    text = f"import gymnasium as gym\n{body}\n" if how == "import" else f"import gymnasium as gym\ndef {how}():\n    {body}\n"
    Path("late_worlds.py").write_text(text)
    assert spaces_of(choose_setup("late_worlds/World-v0"))[0].shape == (2,)


def test_missing_packages_are_named_with_their_command(monkeypatch):
    from rl_lab.experiment import suggestions

    monkeypatch.setattr(suggestions.importlib.util, "find_spec", lambda name: None)
    for env, words in (
        ("ALE/Breakout-v5", "pip install ale-py"),
        ("BreakoutNoFrameskip-v4", "pip install ale-py"),
        ("Breakout", "ALE/Breakout-v5"),
        ("MinAtar/Pong-v1", "pip install minatar"),
        ("MiniGrid-DoorKey-5x5-v0", "pip install minigrid"),
        ("highway-fast-v0", "pip install highway-env"),
        ("PandaReach-v3", "pip install panda-gym"),
    ):
        with pytest.raises(Fault) as caught:
            finding.find_environment(env)
        assert words in str(caught.value), caught.value


# --- trust -----------------------------------------------------------------------------------------------------------


def test_files_of_others_call_nothing(world, capsys):
    """Of a module that is imported already, only environments and wrappers may be made, never functions called."""
    __import__("my_world")
    harmless = [
        {"env": "my_world:World"},
        {"env": "CartPole-v1", "wrapper": ["gymnasium.wrappers:ClipReward:min_reward=-1"]},
        {"env": "my_world:World", "wrapper": ["my_world:Twice:factor=2"]},
        {"env": "ALE/Pong-v5"},
    ]
    harmful = [
        {"env": "os:abort"},
        {"env": "subprocess:run", "env_kwargs": ["args=touch it_ran"]},
        {"env": "my_world:make"},
        {"env": "rl_lab.serialization:create_file"},
        {"env": "CartPole-v1", "wrapper": ["os:system:command=touch it_ran"]},
        {"env": "CartPole-v1", "wrapper": ["gymnasium.wrappers:RecordVideo:video_folder=here"]},
        {"env": "CartPole-v1", "wrapper": "not_imported_yet:Wrapper"},
    ]
    for config in harmless:
        trust.require_harmless(config, Path("config.toml"))
    for config in harmful:
        with pytest.raises(Fault, match="--trust"):
            trust.require_harmless(config, Path("config.toml"))
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in config.items())
        Path("config.toml").write_text(f'agent = "ppo"\n{lines}')
        assert train.main(["--config", "config.toml", *SHORT]) == 2
    assert not Path("it_ran").exists()


def test_own_runs_with_wrappers_need_no_trust(world, capsys):
    words = ["--agent", "ppo", "--env", "my_world:World", "--wrapper", "my_world:Twice", *SHORT]
    assert subprocess.run([sys.executable, "-m", "rl_lab.train", *words], capture_output=True).returncode == 0
    done = subprocess.run([sys.executable, "-m", "rl_lab.evaluate", str(only_run())], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    config = (only_run() / "config.toml").read_text()
    (only_run() / "config.toml").write_text(config.replace("my_world:Twice", "my_world:Twice:factor=9"))
    done = subprocess.run([sys.executable, "-m", "rl_lab.evaluate", str(only_run())], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--trust" in done.stderr


# --- processes -------------------------------------------------------------------------------------------------------


def test_processes_give_what_one_process_gives(world):
    given = {"num_envs": 2, "num_steps": 16, "batch_size": 16, "network": "mlp:4", "wrapper": "my_world:Twice"}
    one, several = (PPO("my_world:World", vectorization=how, **given) for how in ("sync", "async"))
    try:
        for _ in range(3):
            assert one.step() == several.step()
    finally:
        close_environments(several.envs)


def test_a_script_registers_and_steps_in_processes(world):
    Path("script.py").write_text(
        "import gymnasium as gym\nimport my_world\n"
        "class Own(my_world.World):\n    pass\n"
        "gym.register('Own-v0', entry_point=Own)\n"
        "def main():\n    from rl_lab.experiment.driver import train\n"
        "    train('ppo', 'Own-v0', num_envs=2, vectorization='async', num_steps=16, batch_size=16, total_timesteps=64)\n"
        "GUARD\n    main()\n"
    )
    text = Path("script.py").read_text()
    for guard, code in (("if __name__ == '__main__':", 0), ("if True:", 1)):
        Path("script.py").write_text(text.replace("GUARD", guard))
        done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
    said = [line for line in done.stderr.splitlines() if "resource_tracker" not in line]  # Python may have the last word
    assert "__name__ == '__main__'" in said[-1]

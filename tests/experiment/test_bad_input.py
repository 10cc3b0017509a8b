"""Mistakes on the command line and in files: each gives one line and exit code 2, without a traceback, and creates no file."""

import dataclasses
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from rl_lab import evaluate, train
from rl_lab.experiment import suggestions
from rl_lab.experiment.config import field_types, option_name
from rl_lab.experiment.driver import Options
from rl_lab.experiment.sweeps.sweep import Sweep
from tests.runs import AGENTS, ENV


def refused(capsys, command, words) -> str:
    """The message with which a command refuses the arguments ``words``."""
    capsys.readouterr()
    code = command(list(words))
    shown = capsys.readouterr()
    assert code == 2, (words, code, shown.err)
    assert len(shown.err.splitlines()) == 1, shown.err
    assert "Traceback" not in shown.err
    assert not Path("runs").exists()
    return shown.err


def settings_of(agent: str, *kinds: type) -> list[str]:
    """The options of an agent, and of runs, whose values are of these kinds."""
    found = []
    for config in (Options, AGENTS[agent].Config):
        types = field_types(config)
        found += [field.name for field in dataclasses.fields(config) if types[field.name] in kinds]
    return found


@pytest.mark.parametrize("agent", AGENTS)
def test_every_number_is_finite(agent, workplace, capsys):
    names = settings_of(agent, float, int)
    assert len(names) > 15
    for name in names:
        for value in ("inf", "-inf", "nan", "1e39", "-1e39", "1e400"):
            line = refused(capsys, train.main, ["--agent", agent, "--env", ENV[agent], f"{option_name(name)}={value}"])
            assert option_name(name) in line, (name, value, line)


@pytest.mark.parametrize("agent", AGENTS)
def test_every_integer_has_64_bits(agent, workplace, capsys):
    for name in settings_of(agent, int):
        for value in ("9" * 20, "1" + "0" * 400, "1e30", "9" * 5000, "-" + "9" * 20):
            line = refused(capsys, train.main, ["--agent", agent, "--env", ENV[agent], f"{option_name(name)}={value}"])
            assert option_name(name) in line
            assert len(line) < 300


@pytest.mark.parametrize("agent", AGENTS)
def test_every_setting_in_a_file_has_its_type(agent, workplace, capsys):
    """TOML distinguishes words, numbers, tables and lists, and so do settings."""
    for config, table in ((Options, ""), (AGENTS[agent].Config, "[hyperparameters]\n")):
        for name, kind in field_types(config).items():
            if name in ("agent", "env", "start_from"):
                continue
            for value in ("[[1]]", "{ a = 1 }", "1979-05-27", '"\\u0000"', '"wo\\nrds"'):
                Path("some.toml").write_text(f"{table}{name} = {value}\n")
                line = refused(capsys, train.main, ["--agent", agent, "--env", ENV[agent], "--config", "some.toml"])
                assert option_name(name) in line, (name, value, line)
            for value in ("true",) if kind in (int, float, str) else ():
                Path("some.toml").write_text(f"{table}{name} = {value}\n")
                refused(capsys, train.main, ["--agent", agent, "--env", ENV[agent], "--config", "some.toml"])


@pytest.mark.parametrize("agent", AGENTS)
def test_sizes_beyond_all_memory(agent, workplace, capsys):
    """The operating system would kill a process that allocates more memory than there is."""
    names = {field.name for config in (Options, AGENTS[agent].Config) for field in dataclasses.fields(config)}
    short = ["--agent", agent, "--env", ENV[agent], "--eval-episodes", "1", "--total-timesteps", "1"]
    for name in names.intersection(("num_envs", "frame_stack", "buffer_size", "population", "quantiles", "memory")):
        for value in ("1e12", "2e18"):
            refused(capsys, train.main, [*short, option_name(name), value])
    if "network" in names:
        for value in ("mlp:1000000,10000000", "mlp:9223372036854775807", "mlp:" + "9" * 400, "mlp:64,,", "cnn:4:4"):
            if value != "mlp:64,,":
                refused(capsys, train.main, [*short, "--network", value])


MEANT = {
    "ppo": {
        "--lr": "--learning-rate", "--n-steps": "--num-steps", "--ent-coef": "--entropy-coefficient", "--n_steps": "--num-steps",
        "--timesteps": "--total-timesteps", "--n-envs": "--num-envs", "--vf-coef": "--value-coefficient", "--num_envs": "--num-envs",
        "--n-epochs": "--epochs", "--update-epochs": "--epochs", "--clip-coef": "--clip-range", "--cliprange": "--clip-range",
        "--minibatch-size": "--batch-size", "--discount": "--gamma", "--lam": "--gae-lambda", "--max-norm": "--max-grad-norm",
        "--total-steps": "--total-timesteps", "--algo": "--agent", "--env-id": "--env", "--logdir": "--run-dir",
        "--hidden-sizes": "--network", "--net-arch": "--network", "--eval-freq": "--eval-frequency", "--checkpoint": "--resume",
        "--save-freq": "--checkpoint-frequency", "--n-eval-episodes": "--eval-episodes", "--norm-adv": "--normalize-advantages",
        "--anneal-lr": "--learning-rate-final", "--random-seed": "--seed", "--learningrate": "--learning-rate",
        "--LEARNING-RATE": "--learning-rate", "--learning_rate": "--learning-rate", "--entropy": "--entropy-coefficient",
        "--stack": "--frame-stack", "--vec-env": "--vectorization", "--load": "--resume", "--lerning-rate": "--learning-rate",
        "--device": "CPU", "--cuda": "CPU", "--num-gpus": "CPU", "--framework": "engine of its own", "--set": "rl_lab.sweep",
        "--train-batch-size": "--batch-size", "--sgd-minibatch-size": "--batch-size", "--num-rollout-workers": "--num-envs",
        "--rollout-fragment-length": "--num-steps", "--kl-coeff": "--target-kl", "--env-config": "--env-kwargs",
        "--evaluation-interval": "--eval-frequency", "--evaluation-duration": "--eval-episodes", "--lambda": "--gae-lambda",
        "--training-num": "--num-envs", "--test-num": "--eval-episodes", "--repeat-per-collect": "--epochs", "--optimize": "rl_lab.sweep",
        "--step-per-collect": "--num-steps", "--step-per-epoch": "--eval-frequency", "--eps-clip": "--clip-range",
        "--n-trials": "rl_lab.sweep",
        "--threads": "NUMBA_NUM_THREADS", "--progress": "leave it out", "--save-model": "saves checkpoints",
        "\u2013-lr": "--learning-rate", "\u2014seed": "type --seed", "\u2212lr": "--learning-rate",
    },
    "dqn": {
        "--replay-size": "--buffer-size", "--buffer_size": "--buffer-size", "--memory-size": "--buffer-size", "--lr": "--learning-rate",
        "--start-e": "--exploration-initial", "--exploration-final-eps": "--exploration-final", "--per": "--prioritized",
        "--target-network-frequency": "--target-update-interval", "--train-freq": "--train-frequency", "--polyak": "--tau",
        "--double-dqn": "--double", "--multi-step": "--n-steps", "--warmup-steps": "--learning-starts",
        "--epsilon": "--exploration-initial",
    },
    "sac": {"--alpha": "--temperature", "--ent-coef": "--temperature", "--autotune": "--learn-temperature"},
    "td3": {"--policy-noise": "--target-noise", "--policy-frequency": "--policy-delay", "--action-noise": "--exploration-noise"},
    "tqc": {
        "--n-quantiles": "--quantiles", "--n-critics": "--critics", "--top-quantiles-to-drop-per-net": "--dropped",
        "--sde-sample-frequency": "--sde-sample-freq", "--utd-ratio": "--gradient-steps", "--sde": "--use-sde",
        "--log-std-init": "--log-std",
    },
    "crossq": {"--batch-norm-momentum": "--norm-momentum", "--policy-frequency": "--policy-delay", "--utd": "--gradient-steps"},
    "drqn": {"--seq-len": "--sequence-length", "--lstm-hidden-size": "--memory", "--burnin": "--burn-in", "--double-dqn": "--double"},
    "pqn": {"--lam": "--return-lambda", "--q-lambda": "--return-lambda", "--norm-type": "--layer-norm"},
    "qrdqn": {
        "--n-quantiles": "--quantiles", "--num-atoms": "--quantiles", "--v-min": "--value-min", "--vmax": "--value-max",
        "--per": "--prioritized", "--noisynet": "--noisy",
    },
    "recurrent_ppo": {"--lstm-hidden-size": "--memory"},
    "neat": {"--pop-size": "--population", "--generations": "--total-timesteps"},
}  # fmt: skip


@pytest.mark.parametrize(
    "typed", ["--use-gae", "--callback", "--framing", "--version", "--list", "--name", "--use-sde", "--stats-window-size"]
)
def test_nothing_is_suggested_where_nothing_is_alike(typed, workplace, capsys):
    """A wrong suggestion is worse than none."""
    line = refused(capsys, train.main, ["--agent", "ppo", "--env", "CartPole-v1", typed, "1"])
    assert "did you mean" not in line
    assert "--help lists the options" in line


WRITTEN = {
    "1e-3,": "1e-3", "0,99": "0.99", "10%": "0.1", ".5;": "0.5", "1/3": None, "3e-4x": None, ",": None, "%": None,
}  # fmt: skip


@pytest.mark.parametrize(("typed", "meant"), WRITTEN.items())
def test_numbers_in_other_notations(typed, meant, workplace, capsys):
    line = refused(capsys, train.main, ["--agent", "ppo", "--env", "CartPole-v1", "--gamma", typed])
    assert line.rstrip().endswith(f"write {meant}") if meant else "write" not in line


@pytest.mark.parametrize(
    "words", [["--agent", "x" * 50_000], ["--agent", "dqn", "--env", "x" * 50_000], ["--config", "x" * 50_000]]
)
def test_a_message_about_a_long_word_is_short(words, workplace, capsys):
    assert len(refused(capsys, train.main, ["--agent", "dqn", "--env", "CartPole-v1", *words])) < 1_200


def test_a_key_of_very_many_parts_is_refused_at_once(workplace, capsys):
    """Python's reader of TOML takes time that grows with the square of their number."""
    begin = time.perf_counter()
    for text in ("a" + ".b" * 50_000 + " = 1", '"a"' + " . 'b'" * 50_000 + " = 1", "x = {a" + ".b" * 50_000 + " = 1}"):
        Path("deep.toml").write_text(text)
        assert "too many levels" in refused(
            capsys, train.main, ["--agent", "dqn", "--env", "CartPole-v1", "--config", "deep.toml"]
        )
    assert time.perf_counter() - begin < 10.0


@pytest.mark.parametrize("agent", MEANT)
def test_names_of_other_libraries(agent, workplace, capsys):
    for typed, meant in MEANT[agent].items():
        line = refused(capsys, train.main, ["--agent", agent, "--env", ENV[agent], typed, "1"])
        assert meant in line.replace(f"option '{typed}'", ""), line


def test_the_table_of_other_names_holds_settings_that_exist():
    names = {field.name for agent in AGENTS.values() for field in dataclasses.fields(agent.Config)}
    names |= {field.name for settings in (Options, Sweep) for field in dataclasses.fields(settings)}
    names |= {"resume", "config", "episodes", "video", "json"}
    assert set(suggestions._OPTIONS) <= names
    assert set(suggestions._AGENTS) <= {entry.name for entry in entry_points(group="rl_lab.agents")}
    for table in (suggestions._OPTIONS, suggestions._AGENTS):
        words = " ".join(table.values()).split()
        assert all(word == suggestions._plain(word) for word in words)


AGENT_WORDS = {
    "rainbow": "dqn", "Double-DQN": "dqn", "ppo2": "ppo", "a3c": "a2c", "ddpg": "td3", "c51": "qrdqn", "vpg": "reinforce",
    "truncated-quantile-critics": "tqc", "cross-q": "crossq", "parallelised-q-network": "pqn", "r2d2": "drqn",
    "RecurrentPPO": "recurrent_ppo", "ppo-lstm": "recurrent_ppo", "qr-dqn": "qrdqn", "dqnn": "dqn", "hyperneat": "neat", "": "dqn",
    "openai-es": "es", "cma-es": "cmaes", "behaviour-cloning": "bc", "cql": "iql", "augmented_random_search": "ars",
}  # fmt: skip


@pytest.mark.parametrize(("typed", "meant"), AGENT_WORDS.items())
def test_names_of_agents(typed, meant, workplace, capsys):
    assert meant in refused(capsys, train.main, ["--agent", typed, "--env", "CartPole-v1"]).replace(f"{typed!r}", "")


ENVIRONMENT_WORDS = {
    "CartPole": "'CartPole-v1'", "cartpole-v1": "'CartPole-v1'", "CartPol-v1": "'CartPole-v1'", "LunarLander-v2": "'LunarLander-v3'",
    "CartPole-v9": "'CartPole-v1'", "lunarlander": "'LunarLander-v3'", "Taxi-v2": "'Taxi-v", "Taxi": "'Taxi-v", "pendulum": "'Pendulum-v1'",
    "BipedalWalker-v2": "'BipedalWalker-v3'", "MountainCar": "'MountainCar-v0'", "HalfCheetah-v9": "'HalfCheetah-v5'",
    "ALE/Pong-v5": "pip install ale-py", "PongNoFrameskip-v4": "pip install ale-py", "Breakout-v0": "pip install ale-py",
    "Pong": "pip install ale-py", "MinAtar/Pong-v1": "pip install minatar", "MiniGrid-Empty-5x5-v0": "pip install minigrid",
    "highway-fast-v0": "pip install highway-env", "FetchReach-v3": "pip install gymnasium-robotics", "DoublePole": "'rl_lab/DoublePole-v0'",
    "Acrobat-v1": "'Acrobot-v1'", "gymnasium:CartPole-v0x": "'gymnasium:CartPole-v1'", "Frozen-Lake": "'FrozenLake-v1'",
}  # fmt: skip


@pytest.mark.parametrize("typed", ["my_agent", "my_agent.py", "./my_agent.py"])
def test_a_module_needs_the_class_in_it(typed, workplace, capsys):
    (workplace / "my_agent.py").write_text("raise SystemExit('imported')")
    said = refused(capsys, train.main, ["--agent", typed, "--env", "CartPole-v1"])
    assert said.endswith("is a module: name the class in it, too, such as my_agent:MyAgent\n")


@pytest.mark.parametrize(("typed", "meant"), ENVIRONMENT_WORDS.items())
def test_names_of_environments(typed, meant, workplace, capsys, monkeypatch):
    monkeypatch.setattr(suggestions.importlib.util, "find_spec", lambda name: None)
    assert meant in refused(capsys, train.main, ["--agent", "ppo", "--env", typed]), typed


def test_a_suggestion_names_the_package_and_the_id_of_today(monkeypatch):
    monkeypatch.setattr(suggestions.importlib.util, "find_spec", lambda name: None)
    hint = suggestions.nearest_environment("pong", ["CartPole-v1"])
    assert hint == ": it comes with the package ale-py: pip install ale-py, then --env ALE/Pong-v5"


def test_suggested_environments_can_be_typed(workplace, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(workplace))
    Path("of_mine.py").write_text(
        "import gymnasium as gym\n"
        "for name in ('Swim-v0', 'Swim-v3', 'deep/Dive-v2'):\n"
        "    gym.register(name, entry_point='gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=20)\n"
    )
    words = {
        "Siwm-v0": "Swim-v0",
        "Swim-v1": "Swim-v3",
        "Swim": "Swim-v3",
        "deep/Dive-v0": "deep/Dive-v2",
        "Dive-v2": "deep/Dive-v2",
    }
    for typed, meant in words.items():
        line = refused(capsys, train.main, ["--agent", "dqn", "--env", f"of_mine:{typed}"])
        assert f"did you mean 'of_mine:{meant}'?" in line


BROKEN = {
    "half": "def (\n",
    "sums": "1 / 0\n",
    "leaves": "raise SystemExit(7)\n",
    "wants": "import a_module_that_is_not_there\n",
    "latin": "x = 'caf\xe9'\n",
    "silent": "raise KeyError\n",
    "lines": "raise RuntimeError('one\\ntwo\\nthree')\n",
}


@pytest.mark.parametrize("module", [*BROKEN, "absent", ".beside", "..", "a b", "x" * 300, "0", "os.path.", "\x00"])
def test_modules_that_cannot_be_imported(module, workplace, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(workplace))
    for name, text in BROKEN.items():
        Path(f"{name}.py").write_bytes(text.encode("latin-1"))
    for words in (["--agent", "dqn", "--env", f"{module}:World-v0"], ["--agent", f"{module}:Agent", "--env", "CartPole-v1"]):
        assert "cannot be imported" in refused(capsys, train.main, words)


FILES = {
    "bad.toml": b"gamma = = 3",
    "latin.toml": b"gamma = 0.9 # caf\xe9\n",
    "null.toml": b"\x00",
    "deep.toml": b"a = " + b"{a = " * 3000,
    "deep list.toml": b"a = " + b"[" * 100_000,
    "digits.toml": b"seed = " + b"9" * 5000,
    "large.toml": b"# " + b"x" * (1 << 21),
    "unknown.toml": b"gama = 0.9\n",
    "words.toml": b"agent = 3\n",
    "table.toml": b"hyperparameters = [1]\n",
    "twice.toml": b"gamma = 0.9\ngamma = 0.8\n",
    "json.toml": b'{"gamma": 0.9}',
}


@pytest.mark.parametrize("name", [*FILES, "a folder", "nowhere", "x" * 300, "\udcff", "a\x00b", "words.toml/deeper", ""])
def test_files_of_settings(name, workplace, capsys):
    for file, content in FILES.items():
        Path(file).write_bytes(content)
    Path("a folder").mkdir()
    if name:
        refused(capsys, train.main, ["--agent", "ppo", "--env", "CartPole-v1", "--config", name])
    refused(capsys, evaluate.main, [name])
    refused(capsys, train.main, ["--resume", name])
    refused(capsys, train.main, ["--agent", "dqn", "--env", "CartPole-v1", "--start-from", name or "."])
    refused(capsys, train.main, ["--agent", "dqn", "--env", "CartPole-v1", "--network", name])


def test_a_byte_order_mark_is_no_mistake(workplace):
    Path("mark.toml").write_bytes(b"\xef\xbb\xbfgamma = 0.9\n")
    assert train.parse(["--agent", "ppo", "--env", "CartPole-v1", "--config", "mark.toml"]).config.gamma == 0.9


@pytest.mark.parametrize("value", ["\udcff", "a\x00b", "a\nb", "\x1b[31m"])
@pytest.mark.parametrize(
    "option", ["--run-dir", "--env", "--agent", "--loss", "--backend", "--network", "--seed", "--keep-best"]
)
def test_characters_that_are_no_text(option, value, workplace, capsys):
    line = refused(capsys, train.main, ["--agent", "dqn", "--env", "CartPole-v1", option, value])
    assert line.isprintable() or line[:-1].isprintable()

"""`benchmarks.results` keeps what it measured, repeats nothing, measures changed presets anew, and writes the page from the data."""

import json
import math

import pytest

from benchmarks import results
from benchmarks.results import (
    FIRST_SEED,
    Data,
    earlier_rows,
    hash_of,
    main,
    page,
    present_settings,
    presets,
    readme_table,
    rows_of,
)
from rl_lab.experiment.config import read_toml

SMALL = ("total_timesteps=256", "num_envs=4", "num_steps=16", "batch_size=64", "eval_frequency=128", "eval_episodes=2")
COLUMNS = (
    "agent | environment | seeds | interquartile mean | 95 % interval | worst seed | training steps | all environment steps | seconds | "
    "processor seconds | highest published"
)


@pytest.fixture
def measure(tmp_path, capfd):
    """Measure two seeds of PPO on CartPole-v1 with small settings. Returns what was printed, the data's lines, and the page."""

    def measure(*words, settings=SMALL, seeds=2):
        data, docs = tmp_path / "data.jsonl", tmp_path / "page.md"
        given = ["--only", "ppo/CartPole-v1", "--seeds", str(seeds), "--data", str(data), "--docs", str(docs)]
        assert main([*given, *words, "--set", *settings]) == 0
        lines = [json.loads(line) for line in data.read_text().splitlines()] if data.exists() else []
        return capfd.readouterr().out, lines, docs.read_text()

    return measure


def test_finished_seeds_are_kept_and_not_repeated(measure):
    assert measure("--seconds", "0") == ("", [], page([], Data()))
    said, lines, text = measure("--workers", "2")
    assert sorted(line.split(":")[0] for line in said.splitlines()) == [
        f"ppo/CartPole-v1, seed {FIRST_SEED + i}" for i in (0, 1)
    ]
    floor, settings, *runs = lines
    assert (floor["agent"], floor["env"]) == ("random", "CartPole-v1")
    assert 15 < floor["return_mean"] < 30
    assert settings["values"]["total_timesteps"] == 256
    assert hash_of(settings["values"]) == settings["settings"]
    for run in runs:
        assert run["settings"] == settings["settings"]
        assert run["steps"] == 256
        assert run["environment_steps"] == 256 + run["selection_steps"] > 256  # two evaluations
        assert run["final_steps"] == pytest.approx(2 * run["return_mean"])  # a reward of 1 in each step
        assert run["seconds"] > 0
        assert run["processor_seconds"] > 0
        assert run["version"]
        assert run["machine"]
    assert {run["seed"] for run in runs} == {FIRST_SEED, FIRST_SEED + 1}
    assert f"| {COLUMNS} |" in text
    assert "| `ppo` | CartPole-v1 | 2 of 10 |" in text
    assert measure() == ("", lines, text)
    assert measure("--table") == ("", lines, text)


def test_changed_settings_are_measured_anew(measure):
    _, lines, _ = measure(seeds=1)
    said, more, text = measure(settings=(*SMALL, "gamma=0.9"), seeds=1)
    assert said.count("\n") == 1
    assert more[: len(lines)] == lines
    settings, run = more[len(lines) :]
    assert settings["values"]["gamma"] == 0.9
    assert run["settings"] == settings["settings"] != lines[-1]["settings"]
    assert "| 1 of 10 |" in text
    assert measure(seeds=1)[:2] == ("", more)


def test_a_seed_that_cannot_run_is_named(tmp_path, capfd, monkeypatch):
    """Its numbers are not kept, the other seeds of its preset are left out, and the exit code says that something is missing."""
    monkeypatch.setenv("RL_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(results, "given_settings", lambda key, more: {"agent": key[0], "env": key[1], "num_envs": 0, **more})
    path = tmp_path / "data.jsonl"
    assert main(["--only", "ppo/CartPole-v1", "--data", str(path), "--seeds", "3"]) == 1
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"ppo/CartPole-v1, seed {FIRST_SEED}: ")
    assert "--num-envs must be at least 1" in said[0]
    assert not path.exists()


def data_with(returns: dict[tuple[str, str], list[float]]) -> Data:
    """Data with the given returns, made with the presets as they are."""
    data = Data(random={"CartPole-v1": 20.0, "Acrobot-v1": -500.0, "Bricks-v0": 1.0})
    facts = {"machine": "a machine", "threads": 1, "version": "0.2.0", "seconds": 2.0, "processor_seconds": 1.0}
    for (agent, env), values in returns.items():
        settings, _ = present_settings((agent, env))
        data.settings[hash_of(settings)] = settings
        for number, value in enumerate(values):
            steps = {"steps": 1000 + number, "selection_steps": 500, "environment_steps": 1500 + number}
            found = {"agent": agent, "env": env, "seed": FIRST_SEED + number, "settings": hash_of(settings), **steps, **facts}
            data.runs.append({**found, **({"return_mean": value} if math.isfinite(value) else {"failed": "NaN"})})
    return data


def test_the_page_says_what_fails():
    given = {
        ("dqn", "CartPole-v1"): [500.0] * 9 + [470.0],
        ("rainbow", "CartPole-v1"): [500.0, 232.0],
        ("a2c", "CartPole-v1"): [500.0, -math.inf, 500.0, 500.0],
        ("dqn", "Bricks-v0"): [20.0, 19.5],
        ("ppo", "Bricks-v0"): [15.0],
    }
    data = data_with(given)
    rows = rows_of(data, presets(), {})
    lines = {
        line.split(" | ")[0]: line for line in page(rows, data).splitlines() if "CartPole-v1" in line and line.startswith("|")
    }
    assert lines["| `dqn`"] == (
        "| `dqn` | CartPole-v1 | 10 | 500.0 | 495.0 to 500.0 | 470.0 | 1,004 | 1,504 | 2.0 | 1.0 | 500.0 (DQN, PPO, A2C: rl-zoo) |"
    )
    assert "| 2 of 10 | 366.0 | 232.0 to 500.0 | **232.0** |" in lines["| `qrdqn` with `--config rainbow`"]
    assert "| **not finite** |" in lines["| `a2c`"]
    text = page(rows, data)
    assert "`qrdqn` with `--config rainbow` on CartPole-v1 (232.0)" in text
    assert "`ppo` on Bricks-v0 (15.0)." in text  # the best row counts where nothing is published
    assert "on one thread of a machine" in text
    assert text == page(rows_of(data, presets(), {}), data)


def test_rows_of_the_earlier_script_are_replaced():
    old, _, new = page([], Data()).partition("## Measured with an earlier version, evaluation steps not counted")
    assert "| `" not in old
    assert "| `dqn` | CartPole-v1 |" in new
    data = data_with({("dqn", "CartPole-v1"): [500.0]})
    rows = rows_of(data, presets(), {})
    assert page(rows, data).count("| `dqn` | CartPole-v1 |") == 1
    assert len(earlier_rows([row.key for row in rows])) == len(earlier_rows([])) - 1
    shown = readme_table(rows)
    assert shown[2] == "| `dqn` | CartPole-v1 | 1 | 500.0 | 500.0 | 500.0 (DQN, PPO, A2C: rl-zoo) |"
    measured = [*[row.key for row in rows], *[(row["agent"], row["env"]) for row in earlier_rows([])]]
    assert len(shown) == 2 + sum(key in measured for key in results.HEADLINE)


def test_a_setting_that_came_later_has_its_default():
    data = data_with({("dqn", "CartPole-v1"): [500.0]})
    (settings,) = data.settings.values()
    del settings["noisy"]  # did not exist yet; the preset leaves it at its default
    assert len(rows_of(data, presets(), {})) == 1
    del settings["tau"]  # the preset has another value than the default
    assert rows_of(data, presets(), {}) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "dqn/CartPole"], "no preset is called 'dqn/CartPole': write agent/environment"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--set", "gamma=0.9"], "--set needs --data"),
        (["--set", "gamma", "--data", "x"], "--set takes settings as name=value"),
        (["--data", "nowhere/x"], "nowhere is not a directory"),
        (["--only", "dqn/CartPole-v1", "--set", "gama=0.9", "--data", "x"], "unknown setting 'gama'"),
    ],
)
def test_bad_words_are_refused(words, message, workplace, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert list(workplace.iterdir()) == []


def test_a_damaged_line_is_named(workplace):
    (workplace / "x").write_text('{"agent": "dqn", "en')
    with pytest.raises(SystemExit, match="x, line 1: not a line of this script"):
        main(["--data", "x", "--table", "--docs", "page.md"])
    assert [path.name for path in workplace.iterdir()] == ["x"]


def test_the_committed_page_comes_from_the_data():
    data = Data.read(results.DATA)
    rows = rows_of(data, presets(), {})
    assert results.DOCS.read_text(encoding="utf-8") == page(rows, data)
    readme = results.README.read_text(encoding="utf-8")
    assert results.with_table(readme, readme_table(rows)) == readme
    tables = read_toml(results.ROOT / "agents" / "presets.toml")
    silent = [row.key for row in rows if row.fails and "note" not in tables.get(row.key[0], {}).get(row.key[1], {"note": ""})]
    assert silent == [], "presets that fail with a seed need a note"

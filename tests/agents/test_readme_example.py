"""The example agent in agents/README.md is short, meets the contract, solves CartPole-v1, and starts from another run."""

import importlib.util
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from rl_lab import train
from rl_lab.experiment import evaluate
from rl_lab.testing import agent_checks

PAGE = Path(__file__).parents[2] / "agents" / "README.md"
CODE = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[0]


def load():
    spec = importlib.util.spec_from_loader("agent_of_the_readme", loader=None)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module here
    exec(compile(CODE, str(PAGE), "exec"), vars(module))
    return module.ActorCritic


ACTOR_CRITIC = load()


def test_it_is_short():
    assert len([line for line in CODE.splitlines() if line.strip()]) <= 45


@pytest.mark.parametrize("check", agent_checks(ACTOR_CRITIC), ids=lambda check: str(check).replace(" ", "_"))
def test_contract(check):
    check()


def test_it_solves_cartpole(learning_seed, learned):
    agent = ACTOR_CRITIC("CartPole-v1", seed=learning_seed, num_envs=8)
    agent.learn(300_000)
    learned(evaluate(agent, episodes=100).return_mean, 500.0, within=25.0)  # 500 is the largest possible return


def test_it_runs_from_a_file_and_starts_from_its_own_run(workplace, capsys, learning_seed, learned):
    Path("my_agent.py").write_text(CODE, encoding="utf-8")
    words = ["--agent", "my_agent:ActorCritic", "--env", "CartPole-v1", "--num-envs", "8", "--eval-episodes", "20"]
    words += ["--seed", str(learning_seed)]
    assert train.main(words) == 0
    (run,) = Path("runs").glob("*/*/*")
    before = float(re.search(r"greedy return ([\d.]+)", capsys.readouterr().out).group(1))
    assert train.main([*words, "--total-timesteps", "128", "--start-from", str(run), "--run-dir", "second"]) == 0
    after = float(re.search(r"greedy return ([\d.]+)", capsys.readouterr().out).group(1))
    learned(before, 500.0, within=25.0, what="first run")
    learned(after, 500.0, within=250.0, what="second run, of one update")  # an untrained agent has a return of about 10


def test_the_table_names_every_agent():
    """The table lists the agents that this project registers; other packages may register more."""
    names = {entry.name for entry in entry_points(group="rl_lab.agents") if entry.value.startswith("rl_lab.agents.")}
    rows = re.findall(r"^\| `([^|]*)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {name for row in rows for name in re.split(r"`, `", row)} == names


def test_an_agent_that_does_not_exist(workplace, capsys):
    assert train.main(["--agent", "nowhere:Agent", "--env", "CartPole-v1"]) == 2
    assert "nowhere" in capsys.readouterr().err
    Path("no_agent.py").write_text("class Agent: pass\n", encoding="utf-8")
    assert train.main(["--agent", "no_agent:Agent", "--env", "CartPole-v1"]) == 2
    assert "no agent 'Agent'" in capsys.readouterr().err

"""The agent of agents/README.md does what the page says: it trains from the command line, learns, and can be evaluated."""

import json
import re
from pathlib import Path

from rl_lab import evaluate, train

PAGE = Path(__file__).parents[2] / "agents" / "README.md"


def test_the_example_is_an_agent(workplace, capsys, learning_seed):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S).group(1)
    assert 50 <= len([line for line in code.splitlines() if line.strip()]) <= 62
    Path("my_agent.py").write_text(code, encoding="utf-8")
    given = ["--agent", "my_agent:ActorCritic", "--env", "CartPole-v1", "--num-envs", "8", "--eval-episodes", "20"]
    assert train.main([*given, "--total-timesteps", "60000", "--seed", str(learning_seed)]) == 0
    run = next(Path("runs").rglob("config.toml")).parent
    capsys.readouterr()
    assert evaluate.main([str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["return_mean"] > 60  # a random policy has 22


def test_every_agent_is_in_the_table():
    from importlib.metadata import entry_points

    table = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert sorted(table) == sorted(
        entry.name for entry in entry_points(group="rl_lab.agents") if entry.value.startswith("rl_lab.agents.")
    )


def test_an_agent_that_is_not_there(workplace, capsys):
    assert train.main(["--agent", "nowhere:Agent", "--env", "CartPole-v1"]) == 2
    assert "nowhere" in capsys.readouterr().err
    Path("half.py").write_text("class Agent: pass\n", encoding="utf-8")
    assert train.main(["--agent", "half:Agent", "--env", "CartPole-v1"]) == 2
    assert "no agent 'Agent'" in capsys.readouterr().err

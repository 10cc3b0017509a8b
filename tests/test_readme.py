"""README and docs/: the quick start has the required form, the code runs, and links and names exist."""

import ast
import contextlib
import importlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

import rl_lab as rl

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run(code: str) -> dict:
    scope: dict = {}
    exec(compile(code, "page.md", "exec"), scope)
    return scope


def test_the_quick_start_is_two_commands():
    lines = blocks(README, "bash")[0].strip().splitlines()
    assert lines == [
        "# quick start",
        "pip install -e . && python -m rl_lab.train --agent dqn --env CartPole-v1",
        'pip install -e ".[test]" && pytest',
    ]


def test_an_agent_learns_from_python(workplace, capsys):
    code, _ = blocks(README, "python")
    scope = run(code.replace("20_000", "2_000"))
    assert scope["action"] in (0, 1)
    assert Path("agent.safetensors").is_file()
    assert "return_mean" in capsys.readouterr().out


def test_the_tour_runs_and_learns(capsys, learning_seed, learned):
    rl.manual_seed(learning_seed)
    _, tour = blocks(README, "python")
    assert len([line for line in tour.splitlines() if line.strip()]) <= 20
    scope = run(tour.replace("rl.Generator(1)", f"rl.Generator({learning_seed})"))
    learned(scope["loss"].item(), 0.0, within=0.01)
    assert len(scope["step"].programs) == 1
    assert "matmul" in capsys.readouterr().out


def test_the_evolution_runs_and_solves(learning_seed):
    (evolution,) = blocks((ROOT / "docs" / "evolution.md").read_text(encoding="utf-8"), "python")
    seeded = evolution.replace("target=12)", f"target=12, seed={learning_seed - 1})")  # the page leaves the seed at 0
    assert seeded != evolution
    scope = run(seeded)
    assert scope["result"].solved
    assert len(scope["network"].nodes) == scope["result"].champion.hidden + 2


def test_the_environments_exist():
    import gymnasium as gym

    from rl_lab.experiment.finding import own_id

    for name in re.findall(r"(?:[A-Z]\w+/)?[A-Z]\w+-v\d", README):
        assert name in gym.registry or own_id(name) in gym.registry, name
    env = gym.make("rl_lab/Catch-v0", render_mode="rgb_array")
    env.reset(seed=0)
    assert np.ndim(env.render()) == 3


FILES = {
    path.name for top in ("rl_lab", "agents", "envs", "benchmarks", "examples", "tests") for path in (ROOT / top).rglob("*.*")
}


def exists(dotted: str) -> bool:
    """Whether a dotted name of rl_lab is a module or an attribute of a module."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        try:
            for name in parts[count:]:
                found = getattr(found, name)
        except AttributeError:
            return False
        return True
    return False


def missing_names(text: str, folder: Path) -> list[str]:
    """Paths, file names, modules and links on a page that do not exist; ``folder`` is the folder of the page."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    paths = re.findall(r"`((?:rl_lab|agents|envs|benchmarks|examples|tests|docs)/[\w./]*)`", prose)
    files = re.findall(r"`([\w]+\.(?:py|pyi|toml|ipynb))`", prose)
    modules = re.findall(r"(?<![\w./-])(rl_lab(?:\.\w+)+)", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", prose) if "://" not in link]
    faults = [name for name in paths if not (ROOT / name).exists()]
    faults += [
        name for name in files if name not in {*FILES, "my_agent.py", "policy.py", "sweep.toml", "best.toml"}
    ]  # of users, of runs
    faults += [name for name in modules if not exists(name)]
    return faults + [link for link in links if not (folder / link).exists()]


def unknown_names(text: str) -> list[str]:
    """Names below ``rl`` in the code of a page, such as rl.nn.Linear, that do not exist."""
    code = "\n".join(re.findall(r"```python\n.*?```|`[^`\n]+`|^    .*$", text, flags=re.DOTALL | re.MULTILINE))
    names = set(re.findall(r"(?<![\w.])rl((?:\.[A-Za-z_]\w*)+)", code))
    return sorted(f"rl{name}" for name in names if not exists(f"rl_lab{name}"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_below_rl_exists(page):
    assert unknown_names(page.read_text(encoding="utf-8")) == []


def test_an_unknown_name_below_rl_is_found():
    block = "```python\nx = rl.zeros(2).sum()\ny = rl.nn.Nothing(1)\n```\n    rl.compile(rl.also_nothing)\n"
    text = f"`rl.nn.Linear` `rl.nothing` rl.words\n{block}"
    assert unknown_names(text) == ["rl.also_nothing", "rl.nn.Nothing", "rl.nothing"]


NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
COMMANDS = {path.stem for path in (ROOT / "rl_lab").glob("*.py") if "def main(arguments" in path.read_text(encoding="utf-8")}
"""Modules that can be run."""
DOCS = ROOT / "docs"


def test_every_agent_has_a_page():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    agents = set(re.findall(r'^(\w+) = "rl_lab\.agents\.', project, flags=re.MULTILINE))
    assert {"dqn", "ppo", "sac", "neat"} <= agents
    index = (ROOT / "agents" / "README.md").read_text(encoding="utf-8")
    presets = (ROOT / "agents" / "presets.toml").read_text(encoding="utf-8")
    for name in agents:
        page = (DOCS / "agents" / f"{name}.md").read_text(encoding="utf-8")
        for part in (
            "## Equations",
            "$$",
            f"<!-- settings: {name} -->",
            f"--agent {name} ",
        ):
            assert part in page, (name, part)
        assert (f"<!-- presets: {name} -->" in page) or f"[{name}." not in presets, name
        assert f"agents/{name}.md" in NAVIGATION
        assert f"`{name}`" in index
    assert {path.stem for path in (DOCS / "agents").glob("*.md")} == agents | {"index"}


def test_curves_of_agents_are_shown():
    source = (ROOT / "examples" / "readme_pictures.py").read_text(encoding="utf-8")
    curves = ast.literal_eval(re.search(r"^CURVES = ({.*?^})", source, flags=re.DOTALL | re.MULTILINE)[1])
    assert {"sac", "neat"} <= set(curves)
    for name, (env, steps) in curves.items():
        page = (DOCS / "agents" / f"{name}.md").read_text(encoding="utf-8")
        assert re.search(rf"!\[Greedy return of .* on {env} over {steps:,} steps\]\(../images/agents/{name}.png\)", page), name


def test_every_command_has_a_page():
    """A page shows the options of a command by the comment that the build replaces."""
    assert {"train", "evaluate", "sweep", "compare", "export", "check"} <= COMMANDS
    pages = {path: path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")}
    for name in COMMANDS:
        found = [path for path, text in pages.items() if f"<!-- help: {name} -->" in text]
        assert len(found) == 1, name
        assert f"python -m rl_lab.{name}" in pages[found[0]]
        assert str(found[0].relative_to(DOCS)) in NAVIGATION


def options_of(command: str) -> set[str]:
    """The options that the help of a command shows; of train, also those of every agent."""
    agents = (
        sorted(path.stem for path in (DOCS / "agents").glob("*.md") if path.stem != "index") if command == "train" else [""]
    )
    found: set[str] = set()
    for agent in agents:
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            importlib.import_module(f"rl_lab.{command}").main([*(["--agent", agent] if agent else []), "--help"])
        found |= set(re.findall(r"--[a-z][\w-]*", text.getvalue()))
    return found


def test_every_option_in_the_docs_exists():
    known = {command: options_of(command) for command in COMMANDS}
    every = set().union(*known.values())
    others = {"--strict", "--full", "--logdir", "--check", "--out", "--seeds", "--parts", "--quick", "--env-id", "--track"}
    others |= {"--capture-video", "--only", "--threads", "--table", "--peers"}  # of other programs and libraries
    for path in DOCS.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            for command, rest in re.findall(r"python -m rl_lab\.(\w+)([^`|]*)", line):
                wrong = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", rest)) - known[command] - others
                assert not wrong, (path.name, line)
        named = {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
        assert named - every <= others, (path.name, named - every - others)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_on_a_page_exists(page):
    assert missing_names(page.read_text(encoding="utf-8"), page.parent) == []


def test_a_name_that_does_not_exist_is_found():
    text = "`rl_lab/no/` `nothing.py` rl_lab.nothing rl_lab.nn.Nothing [page](none.md) `rl_lab/nn/` `dqn.py` rl_lab.nn.Linear"
    assert missing_names(text, ROOT) == ["rl_lab/no/", "nothing.py", "rl_lab.nothing", "rl_lab.nn.Nothing", "none.md"]

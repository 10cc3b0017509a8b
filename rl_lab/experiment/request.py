"""The settings of a training, from the command line and from the file of ``--config``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl_lab.experiment.agent import find_agent, preset_for, registered_name
from rl_lab.experiment.arguments import Parser
from rl_lab.experiment.config import read_toml
from rl_lab.experiment.driver import FACTS, Options
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.progress import tell
from rl_lab.experiment.run import check_recorded
from rl_lab.experiment.trust import require_harmless

_FILES = ("config", "resume", "checkpoint", "trust")
"""Options that say where settings come from; they are not settings."""


def resumed_path(arguments: Sequence[str]) -> str:
    """The path after ``--resume``; empty if the option, or a question for help, says otherwise. Raises Fault for an empty path."""
    known, rest = _first_look(arguments)
    return known.resume or "" if {"-h", "--help"}.isdisjoint(rest) else ""


def _first_look(arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """The words that decide which other options there are, and the rest. Raises Fault for an empty path."""
    first = Parser(prog="rl_lab", add_help=False)
    for name in ("--agent", "--env", "--config", "--resume"):
        first.add_argument(name)
    first.add_argument("--trust", action="store_true")
    known, rest = first.parse_known_args(arguments)
    for name in ("config", "resume"):
        if getattr(known, name) == "":
            raise Fault(f"--{name} needs the path of a {'file' if name == 'config' else 'run'}, not an empty word")
    return known, rest


def read_request(
    arguments: Sequence[str], command: str, description: str = "Train an agent in a Gymnasium environment.", *more: type
) -> dict[str, Any]:
    """The settings of a training as they were given, by name: text from the command line, values from the file of ``--config``.

    ``more`` are further dataclasses of settings that the ``command`` takes, such as those of a sweep. Raises Fault for options or files
    that cannot be used.
    """
    known, rest = _first_look(arguments)
    file = _read_settings(Path(known.config), known.agent, known.env or "") if known.config else {}
    check_recorded(file, Path(known.config or ""))
    if not known.trust:
        require_harmless({key: value for key, value in file.items() if not getattr(known, key, None)}, Path(known.config or ""))
    own = file.pop("hyperparameters", {})
    file = {**{k: v for k, v in file.items() if k not in FACTS}, **own}
    agent = registered_name(known.agent or file.get("agent") or "")
    env = known.env or file.get("env")
    asks_help = not {"-h", "--help"}.isdisjoint(rest)
    parser = Parser(prog=f"python -m {command}", description=description)
    parser.add_argument(
        "--config", metavar="FILE", help="settings from a TOML file, such as a run's config.toml; neat also reads neat-python's"
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="continue a run from its last checkpoint; --total-timesteps and options of evaluation, logging and checkpoints may change",
    )
    parser.add_argument("--checkpoint", metavar="NAME", help="with --resume: the checkpoint to continue from, such as best")
    parser.add_argument("--trust", action="store_true", help="import the modules that the files of --config and --resume name")
    for settings in more:
        parser.add_settings(settings, settings.__name__.lower())
    if asks_help and not agent:
        parser.add_settings(Options, "run")
        parser.epilog = "Name an agent (--agent dqn --help) to see its hyperparameters."
        parser.parse(["--help"])
    if not agent or not (env or asks_help):
        parser.refuse_slips(rest, ("--agent", "--env", "--config", "--resume"))
        raise Fault(f"name an agent and an environment, as in: python -m {command} --agent dqn --env CartPole-v1")
    agent_class = find_agent(agent)
    preset = preset_for(agent_class, agent, env) if env else {}
    parser.add_settings(Options, "run", preset)
    parser.add_settings(agent_class.Config, f"hyperparameters of {agent}", preset)  # type: ignore[attr-defined]
    given = parser.parse(arguments)
    if given.get("checkpoint"):
        raise Fault("--checkpoint names the checkpoint from which a run continues: give --resume RUN as well")
    given = {name: value for name, value in given.items() if name not in _FILES}
    return {**file, **given, "agent": agent, "env": env}


def _read_settings(path: Path, agent: str | None, env: str) -> dict[str, Any]:
    """Settings from a TOML file, or from another file that the agent's ``read_config`` reads; prints the remarks of the agent."""
    if not agent or path.suffix == ".toml":
        return read_toml(path)
    settings, remarks = find_agent(agent).read_config(path, env)
    for remark in remarks:
        tell(f"{path}: {remark}")
    return settings

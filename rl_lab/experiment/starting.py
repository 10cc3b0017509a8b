"""Starting from what an earlier run has learned: ``--network RUN`` with a run of the same agent."""

from pathlib import Path
from typing import Any

from rl_lab.engine.errors import ShapeError
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.run import Run

SHAPING = (
    "network",
    "activation",
    "shared",
    "dueling",
    "noisy",
    "quantiles",
    "baseline",
    "state_dependent_std",
    "normalize_observations",
)
"""Hyperparameters that decide which parameters there are: they come with the run."""

LEARNED = (
    *("actor", "critic", "critics", "head", "parts", "value", "q_network", "moments"),
    *("target_network", "target_actor", "target_critics", "log_temperature"),
)
"""What is taken of a checkpoint; optimisers, replay and streams begin anew."""


def from_saved_run(given: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, with the settings of the run that it starts from. Fault if that is another agent's or none."""
    path, asked = Path(str(given.get("network", ""))), dict(given)
    if "network" in given and (path / "config.toml").is_file() and not (path / "actor.json").is_file():
        asked["start_from"] = str(path)
    if not asked.get("start_from"):
        return given
    run = Run.open(Path(asked["start_from"]))
    if run.config.get("agent") != given["agent"]:
        raise Fault(f"{run.path} is a run of {run.config.get('agent')}, and {given['agent']} cannot start from its networks")
    return {**asked, **{name: value for name, value in run.config["hyperparameters"].items() if name in SHAPING}}


def take_over(agent: Any, path: Path) -> None:
    """Let an agent that has not begun have what the run at ``path`` learned, its best state if it kept one. Fault if that does not fit."""
    run = Run.open(path)
    state, own = run.load("best" if run.holds("best") else "last"), agent.state_dict()
    try:
        agent.load_state_dict({**own, **{name: state[name] for name in LEARNED if name in own and name in state}})
    except (KeyError, RuntimeError, TypeError, ShapeError) as error:
        raise Fault(f"the networks of {path} do not fit here: {str(error).splitlines()[0]}") from None

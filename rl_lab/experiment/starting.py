"""Starting from the networks of an earlier run: ``--network RUN`` with a run of the same agent, or of NEAT."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rl_lab.experiment.agent import Agent
from rl_lab.experiment.config import option_name, parse_value
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.run import Run
from rl_lab.nn.graph.files import load_graph, save_graph
from rl_lab.nn.networks import KINDS, evolved_path

NETWORK = "network"
"""Name of the copy of an evolved network in the directory of a run that started from it."""


def from_saved_run(given: dict[str, Any], known: Iterable[dataclasses.Field]) -> dict[str, Any]:
    """Add the settings that determine the shape of networks, from the run that ``given`` starts from, to ``given``.

    ``known`` are the fields of the options and hyperparameters. Raises Fault if the directory is not a run of the same agent, or if
    ``given`` asks for another shape.
    """
    asked = dict(given)
    network = str(given.get("network", ""))
    path = Path(network)
    named = network.partition(":")[0] not in ("", *KINDS)
    if named and (path / "config.toml").is_file() and not (path / "actor.json").is_file():
        asked["start_from"] = network
        del asked["network"]
    if not asked.get("start_from"):
        return given
    run = Run.open(Path(str(asked["start_from"])))
    if run.config.get("agent") != given["agent"]:
        raise Fault(f"{run.path} is a run of {run.config.get('agent')}, and {given['agent']} cannot start from its networks")
    recorded = {**run.config, **hyperparameters_of(run)}
    for field in known:
        name = field.name
        if not field.metadata.get("shapes") or name not in recorded:
            continue
        value = recorded[name]
        read = field.metadata.get("read")
        if name in asked and (
            read(asked[name]) != read(value) if read else parse_value(option_name(name), type(value), asked[name]) != value
        ):
            raise Fault(f"{option_name(name)} comes with the networks of {run.path}, where it is {value}: leave it out")
        asked[name] = value
    return asked


def hyperparameters_of(run: Run) -> dict[str, Any]:
    """Return the recorded hyperparameters, with the path of the run's own copy of an evolved network.

    The original of the network may have been moved. Raises Fault if the run has no copy and the network is a path out of the run.
    """
    recorded = dict(run.config.get("hyperparameters", {}))
    copy = run.path / f"{NETWORK}.json"
    if copy.is_file():
        return {**recorded, "network": str(copy)}
    network = recorded.get("network")
    if isinstance(network, str) and evolved_path(network) is not None:
        raise Fault(f"{run.path / 'config.toml'}: the network {network!r} is outside the run, which holds no copy of it")
    return recorded


def keep_network(config: object, run: Run) -> None:
    """Copy the evolved network that a run starts from into its directory."""
    path = _evolved_network(config)
    if path is not None:
        save_graph(load_graph(path), run.path / NETWORK)


def _evolved_network(config: object) -> Path | None:
    """Path of the evolved network that a config names; None for others, and for the configs of agents without a network."""
    network = getattr(config, "network", None)
    return None if network is None else evolved_path(network)


def take_over(agent: Agent, path: Path) -> None:
    """Load the learned parts of the run at ``path`` into a new agent, from its best checkpoint if there is one.

    Raises Fault if they do not fit.
    """
    if not agent.learned:
        raise Fault(f"{type(agent).__name__} declares no learned parts, so it cannot start from {path}")
    run = Run.open(path)
    require_same_units(agent, run)
    state = run.load(run.preferred())
    try:
        agent.load_learned(state)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines()]  # the first names the module that the second is about
        raise Fault(f"the networks of {path} do not fit here: {' '.join(lines[:2])}") from None


def require_same_units(agent: Agent, run: Run) -> None:
    """Raise Fault if the policy of a run gives actions in units of the environment, as policies did before version 0.2."""
    recorded = str(run.config.get("versions", {}).get("rl_lab", "0.1"))
    scaled = bool((agent.mapping.centre != 0).any() or (agent.mapping.radius != 1).any())
    # agents without a collector map the outputs of their networks themselves
    if recorded.startswith("0.1") and scaled and agent.collector is not None:
        raise Fault(
            f"{run.path} was trained by rl_lab {recorded}, whose policies gave actions in units of the environment; this version's give "
            "them in [-1, 1]: train it again, or use that version"
        )


def require_network_units(agent: Agent) -> None:
    """Apply `require_same_units` to the evolved network that an agent starts from, if the network is in a run directory."""
    path = _evolved_network(agent.config)
    if path is not None and (path.parent / "config.toml").is_file():
        require_same_units(agent, Run.open(path.parent))

"""python -m rl_lab.train --agent dqn --env CartPole-v1: train an agent in a run directory, or continue a run (--resume RUN)."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl_lab.experiment.agent import find_agent, preset_for, registered_name
from rl_lab.experiment.arguments import Parser
from rl_lab.experiment.command import run_command
from rl_lab.experiment.config import read_toml
from rl_lab.experiment.driver import FACTS, Options, Plan, carry_out, make_plan, make_resuming_plan
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.progress import tell
from rl_lab.experiment.run import LAST, Run, check_recorded
from rl_lab.experiment.trust import require_harmless


def parse(arguments: Sequence[str]) -> Plan:
    """Make a checked plan from the command line. Raises Fault for arguments or files that cannot be used."""
    first = Parser(prog="rl_lab.train", add_help=False)
    for name in ("--agent", "--env", "--config", "--resume"):
        first.add_argument(name)
    first.add_argument("--trust", action="store_true")
    known, rest = first.parse_known_args(arguments)
    for name in ("config", "resume"):
        if getattr(known, name) == "":
            raise Fault(f"--{name} needs the path of a {'file' if name == 'config' else 'run'}, not an empty word")
    if known.resume and {"-h", "--help"}.isdisjoint(rest):
        return _parse_resume(arguments)
    file = _read_settings(Path(known.config), known.agent, known.env or "") if known.config else {}
    check_recorded(file, Path(known.config or ""))
    if not known.trust:
        require_harmless({key: value for key, value in file.items() if not getattr(known, key, None)}, Path(known.config or ""))
    own = file.pop("hyperparameters", {})
    file = {**{k: v for k, v in file.items() if k not in FACTS}, **own}
    agent = registered_name(known.agent or file.get("agent") or "")
    env = known.env or file.get("env")
    asks_help = not {"-h", "--help"}.isdisjoint(rest)
    parser = Parser(prog="python -m rl_lab.train", description="Train an agent in a Gymnasium environment.")
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
    if asks_help and not agent:
        parser.add_settings(Options, "run")
        parser.epilog = "Name an agent (--agent dqn --help) to see its hyperparameters."
        parser.parse(["--help"])
    if not agent or not (env or asks_help):
        parser.refuse_slips(rest, ("--agent", "--env", "--config", "--resume"))
        raise Fault("name an agent and an environment, as in: python -m rl_lab.train --agent dqn --env CartPole-v1")
    agent_class = find_agent(agent)
    preset = preset_for(agent_class, agent, env) if env else {}
    parser.add_settings(Options, "run", preset)
    parser.add_settings(agent_class.Config, f"hyperparameters of {agent}", preset)  # type: ignore[attr-defined]
    given = parser.parse(arguments)
    if given.get("checkpoint"):
        raise Fault("--checkpoint names the checkpoint from which a run continues: give --resume RUN as well")
    given = {name: value for name, value in given.items() if name not in ("config", "resume", "checkpoint", "trust")}
    return make_plan({**file, **given, "agent": agent, "env": env})


def _parse_resume(arguments: Sequence[str]) -> Plan:
    """Make the plan of a run that continues; agent, environment and settings come from the files of the run."""
    parser = Parser(prog="python -m rl_lab.train")
    parser.add_argument("--resume")
    parser.add_argument("--checkpoint", default=LAST)
    parser.add_argument("--trust", action="store_true")
    known, _ = parser.parse_known_args(arguments)
    path = Path(known.resume)
    run = Run.open(path)
    if not known.trust:
        require_harmless(run.config, path / "config.toml")
    parser.add_settings(Options, "run")
    parser.add_settings(find_agent(run.config.get("agent", "")).Config, "hyperparameters")  # type: ignore[attr-defined]
    given = parser.parse(arguments)
    changes = {name: value for name, value in given.items() if name not in ("resume", "checkpoint", "trust")}
    return make_resuming_plan(path, changes, known.checkpoint, known.trust)


def _read_settings(path: Path, agent: str | None, env: str) -> dict[str, Any]:
    """Settings from a TOML file, or from another file that the agent's ``read_config`` reads; prints the remarks of the agent."""
    if not agent or path.suffix == ".toml":
        return read_toml(path)
    settings, remarks = find_agent(agent).read_config(path, env)
    for remark in remarks:
        tell(f"{path}: {remark}")
    return settings


def body(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code. Raises Fault."""
    plan = parse(arguments)
    options = plan.options
    environments = "1 environment" if options.num_envs == 1 else f"{options.num_envs:,} environments"
    tell(f"{options.agent} on {options.env}, seed {options.seed}, {environments}: {plan.setup}")
    if plan.resumes is not None:
        tell(f"continues {plan.resumes}")
    else:
        tell(f"preset: {plan.preset}" if plan.preset else "no preset for this agent and environment: default settings")
    result = carry_out(plan)
    path = result.run.path
    again = f"python -m rl_lab.evaluate {path}"
    if result.evaluation is None:
        tell(
            f"stopped at step {result.timesteps:,}; the agent is saved. Evaluate: {again}   "
            f"continue: python -m rl_lab.train --resume {path}"
        )
        return result.exit_code
    e = result.evaluation
    board = f"tensorboard --logdir {options.run_dir}"
    if importlib.util.find_spec("tensorboard") is None:
        board = f"pip install tensorboard && {board}"
    tell(
        f"greedy return {e.return_mean:.1f} (std {e.return_std:.1f}, min {e.return_min:.1f}) over {e.episodes} episodes "
        f"after {result.timesteps:,} steps in {result.seconds:.1f} s{e.remark()}"
    )
    trained = result.training_return
    if trained is not None and e.return_mean < trained - max(0.5 * abs(trained), 2 * e.return_std):
        tell(f"training ended at a return of {trained:.1f}, with sampled actions: {again} --stochastic samples them")
    tell(f"curves: {board}   evaluate again: {again}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(body, arguments)


if __name__ == "__main__":
    sys.exit(main())

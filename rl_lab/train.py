"""python -m rl_lab.train --agent dqn --env CartPole-v1: train an agent in a run directory, or continue a run (--resume RUN).

With ``--seeds N`` it trains once with each of N seeds, as ``python -m rl_lab.sweep`` does.
"""

import importlib.util
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rl_lab import sweep
from rl_lab.experiment.agent import find_agent
from rl_lab.experiment.arguments import Parser
from rl_lab.experiment.command import run_command
from rl_lab.experiment.driver import Options, Plan, carry_out, make_plan, make_resuming_plan
from rl_lab.experiment.progress import tell
from rl_lab.experiment.request import read_request, resumed_path
from rl_lab.experiment.run import LAST, Run
from rl_lab.experiment.trust import require_harmless


def parse(arguments: Sequence[str]) -> Plan:
    """Make a checked plan from the command line. Raises Fault for arguments or files that cannot be used."""
    resumed = resumed_path(arguments)
    return _parse_resume(arguments) if resumed else make_plan(read_request(arguments, "rl_lab.train"))


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


def body(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code. Raises Fault."""
    if any(word.partition("=")[0] == "--seeds" for word in arguments):
        return sweep.body(arguments)
    plan = parse(arguments)
    options = plan.options
    environments = "1 environment" if options.num_envs == 1 else f"{options.num_envs:,} environments"
    tell(f"{options.agent} on {options.env}, seed {options.seed}, {environments}: {plan.setup}")
    if plan.resumes is not None:
        tell(f"continues {plan.resumes}")
    else:
        tell(f"preset: {plan.preset}" if plan.preset else "no preset for this agent and environment: default settings")
        if plan.note:
            tell(f"note on this preset: {plan.note}")
    words = shlex.join(["python", "-m", "rl_lab.train", *arguments])
    result = carry_out(replace(plan, command=words))
    path = result.run.path
    again = shlex.join(["python", "-m", "rl_lab.evaluate", str(path)])
    if result.evaluation is None:
        tell(
            f"stopped at step {result.timesteps:,}; the agent is saved. Evaluate: {again}   "
            f"continue: {shlex.join(['python', '-m', 'rl_lab.train', '--resume', str(path)])}"
        )
        return result.exit_code
    e = result.evaluation
    board = shlex.join(["tensorboard", "--logdir", str(options.run_dir)])
    if importlib.util.find_spec("tensorboard") is None:
        board = f"pip install tensorboard && {board}"
    spent = f"; the evaluations during training took {result.selection_steps:,} more" if result.selection_steps else ""
    tell(
        f"greedy return {e.return_mean:.1f} (std {e.return_std:.1f}, min {e.return_min:.1f}) over {e.episodes} episodes "
        f"after {result.timesteps:,} steps in {result.seconds:.1f} s{spent}{e.remark()}"
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

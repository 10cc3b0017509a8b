"""python -m rl_lab.sweep --agent ppo --env CartPole-v1 --seeds 10: train with many seeds and settings, or continue (--resume SWEEP)."""

import importlib.util
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_lab.experiment.arguments import Parser
from rl_lab.experiment.command import run_command
from rl_lab.experiment.progress import tell
from rl_lab.experiment.request import read_request, resumed_path
from rl_lab.experiment.sweeps.sweep import Sweep, SweepPlan, carry_out_sweep, make_sweep, open_sweep

DESCRIPTION = "Train an agent with many seeds and settings, on all cores or on a Ray cluster, and compare."


def parse(arguments: Sequence[str]) -> SweepPlan:
    """Make a checked plan from the command line. Raises Fault for arguments or files that cannot be used."""
    resumed = resumed_path(arguments)
    if not resumed:
        return make_sweep(read_request(arguments, "rl_lab.sweep", DESCRIPTION, Sweep))
    parser = Parser(prog="python -m rl_lab.sweep")
    parser.add_argument("--resume")
    parser.add_argument("--trust", action="store_true")
    parser.add_settings(Sweep, "sweep")
    given = parser.parse(arguments)
    changes = {name: value for name, value in given.items() if name not in ("resume", "trust")}
    return open_sweep(Path(resumed), changes, given["trust"])


def body(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code. Raises Fault."""
    plan = parse(arguments)
    sweep = plan.sweep
    seeds = f"{len(sweep.seeds)} seed{'s' if len(sweep.seeds) > 1 else ''}"
    trials = f", after {sweep.optimize} trials with {len(plan.tuned_seeds)} other seeds" if sweep.optimize else ""
    settings = f"{len(plan.variants)} combinations of settings, " if len(plan.variants) > 1 else ""
    tell(f"{plan.agent} on {plan.env}: {settings}{seeds}{trials}")
    result = carry_out_sweep(plan)
    for statistics in result.statistics:
        tell(str(statistics))
    if result.failures:
        tell(
            f"{len(result.failures)} failed: {', '.join(result.failures)}; again: "
            + shlex.join(["python", "-m", "rl_lab.sweep", "--resume", str(result.path)])
        )
    board = shlex.join(["tensorboard", "--logdir", str(result.path)])
    if importlib.util.find_spec("tensorboard") is None:
        board = f"pip install tensorboard && {board}"
    tell(f"results: {result.path}   curves: {board}")
    return result.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(body, arguments)


if __name__ == "__main__":
    sys.exit(main())

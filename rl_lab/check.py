"""python -m rl_lab.check ENV: check an environment with Gymnasium's checks and ours, and report how agents would use it."""

import sys
from collections.abc import Sequence

from rl_lab.experiment.arguments import Parser
from rl_lab.experiment.checking import STEPS, check
from rl_lab.experiment.command import run_command
from rl_lab.experiment.config import make_config, parse_value
from rl_lab.experiment.driver import Options
from rl_lab.experiment.environments import choose_setup
from rl_lab.experiment.faults import NUMERICAL, Fault
from rl_lab.experiment.finding import full_id
from rl_lab.experiment.progress import tell

TAKEN = ("frame_stack", "time_aware", "env_kwargs", "wrapper", "preprocess", "channels", "seed")
"""Options of `rl_lab.train` that change the environment, and the seed."""


def body(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(prog="python -m rl_lab.check", description="Check an environment before training in it.")
    parser.add_argument("env", metavar="ENV", help="an id, module:Id or module:Class")
    parser.add_argument("--steps", default=str(STEPS), help=f"steps with random actions (default: {STEPS})")
    parser.add_settings(Options, "environment", only=TAKEN)
    given = parser.parse(arguments)
    steps = parse_value("--steps", int, given.pop("steps"))
    if steps < 1:
        raise Fault(f"--steps must be at least 1, got {steps}")
    env = full_id(given.pop("env"))
    options = make_config(Options, given)
    setup = choose_setup(
        env,
        "gymnasium",
        "sync",
        options.frame_stack,
        options.time_aware,
        options.env_kwargs,
        options.wrapper,
        options.preprocess,
        options.channels,
    )
    report = check(setup, options.seed, steps)
    for line in report.lines():
        tell(line)
    return NUMERICAL if report.failure else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with faults reported in one line; returns the exit code."""
    return run_command(body, arguments)


if __name__ == "__main__":
    sys.exit(main())

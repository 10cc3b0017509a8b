"""python -m rl_lab.export RUN --format onnx|numpy|c: write the greedy policy of a run to a file of its own."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rl_lab.experiment.arguments import Parser
from rl_lab.experiment.command import run_command
from rl_lab.experiment.driver import restore
from rl_lab.experiment.export import FORMATS, SUFFIXES, check_target, export, format_of
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.progress import tell
from rl_lab.experiment.run import Run
from rl_lab.experiment.vector import close_environments


def body(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code. Raises Fault."""
    parser = Parser(prog="python -m rl_lab.export", description="Write a trained policy to a file that runs without rl_lab.")
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("--format", default=None, help=f"{', '.join(FORMATS)} (default: by the suffix of --output)")
    parser.add_argument(
        "--output", metavar="FILE", default=None, help="file to write (default: policy.onnx, .py or .c in the run)"
    )
    parser.add_argument(
        "--checkpoint", default=None, help="last, best, or the name of an older checkpoint (default: best, else last)"
    )
    parser.add_argument("--trust", action="store_true", help="import the modules that the files of the run name")
    given = parser.parse(arguments)
    if given["format"] is None and given["output"] is None:
        raise Fault(f"give the format: --format {'|'.join(FORMATS)}")
    path = Path(given["run"])
    output = None if given["output"] is None else Path(given["output"])
    kind = format_of(output or Path(), given["format"])
    Run.open(path)
    if output is None:
        output = path / f"policy{next(suffix for suffix, name in SUFFIXES.items() if name == kind)}"
    check_target(output, kind)
    agent, plan = restore(path, given["checkpoint"], given["trust"])
    try:
        export(agent, output, kind)
    finally:
        close_environments(agent.envs)
    for remark in plan.remarks:
        print(f"rl_lab: {remark}", file=sys.stderr)
    tell(f"{plan.options.agent} on {plan.options.env}, {agent.timesteps:,} steps, as {kind}: {output}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(body, arguments)


if __name__ == "__main__":
    sys.exit(main())

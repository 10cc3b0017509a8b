"""python -m rl_lab.record RUN --episodes N: record episodes of a trained agent as a dataset, for the agents that learn from data."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_lab.experiment.arguments import Parser
from rl_lab.experiment.command import run_command
from rl_lab.experiment.config import LARGEST_INTEGER, parse_value
from rl_lab.experiment.datasets import MINARI, check_minari_id, check_new_folder, record_agent, write_dataset, write_minari
from rl_lab.experiment.driver import restore
from rl_lab.experiment.evaluation import evaluation_seed
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.progress import tell
from rl_lab.experiment.run import Run
from rl_lab.experiment.vector import close_environments


def body(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code. Raises Fault."""
    parser = Parser(prog="python -m rl_lab.record", description="Record episodes of a trained agent as a dataset.")
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("--episodes", default="100", help="number of episodes (default: 100)")
    parser.add_argument("--seed", default=None, help="seed of the first episode (default: as in the evaluation after training)")
    parser.add_argument("--stochastic", action="store_true", help="sample the actions as in training, not the greedy ones")
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        default=None,
        help="new folder for the dataset, or minari:ID for a dataset of the package minari (default: dataset in the run)",
    )
    parser.add_argument(
        "--checkpoint", default=None, help="last, best, or the name of an older checkpoint (default: best, else last)"
    )
    parser.add_argument("--trust", action="store_true", help="import the modules that the files of the run name")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse(arguments)
    numbers = {
        name: None if given[name] is None else parse_value(f"--{name}", int, given[name]) for name in ("episodes", "seed")
    }
    for name, least in (("episodes", 1), ("seed", 0)):
        number = numbers[name]
        if number is not None and number < least:
            raise Fault(f"--{name} must be at least {least}, got {number}")
        if number is not None and number > LARGEST_INTEGER:
            raise Fault(f"--{name} must be an integer of 64 bits, at most {LARGEST_INTEGER}")
    path = Path(given["run"])
    Run.open(path)
    output = given["output"] or str(path / "dataset")
    if output.startswith(MINARI):
        check_minari_id(output.removeprefix(MINARI))
    else:
        check_new_folder(Path(output))
    agent, plan = restore(path, given["checkpoint"], given["trust"])
    close_environments(agent.envs)  # some environments, such as a robot, can be open only once
    options = plan.options
    seed = evaluation_seed(options.seed) if numbers["seed"] is None else numbers["seed"]
    assert numbers["episodes"] is not None
    dataset = record_agent(agent, plan.setup, numbers["episodes"], seed, not given["stochastic"])
    about = {
        "agent": options.agent,
        "env": options.env,
        "run": str(path),
        "checkpoint": plan.checkpoint,
        "seed": seed,
        "stochastic": given["stochastic"],
    }
    if output.startswith(MINARI):
        write_minari(dataset, output.removeprefix(MINARI), plan.setup, agent.envs, about)
    else:
        write_dataset(dataset, Path(output), agent.envs, about)
    for remark in plan.remarks:
        print(f"rl_lab: {remark}", file=sys.stderr)
    if given["json"]:
        facts = {"episodes": len(dataset.lengths), "steps": int(dataset.lengths.sum())}
        tell(json.dumps({**about, **facts, "return_mean": float(dataset.returns.mean()), "dataset": output}))
    else:
        tell(f"{options.agent} on {options.env}: {dataset}")
        tell(f"dataset: {output}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with faults reported in one line; returns the exit code."""
    return run_command(body, arguments)


if __name__ == "__main__":
    sys.exit(main())

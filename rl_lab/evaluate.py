"""python -m rl_lab.evaluate RUN: evaluate the trained agent of a run directory over whole episodes."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rl_lab.experiment.arguments import Parser
from rl_lab.experiment.command import run_command
from rl_lab.experiment.config import LARGEST_INTEGER, parse_value
from rl_lab.experiment.driver import evaluation_budget, restore
from rl_lab.experiment.evaluation import evaluate, evaluation_seed
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.page import write_page
from rl_lab.experiment.progress import tell
from rl_lab.experiment.vector import close_environments
from rl_lab.experiment.video import check_pictures, check_render, check_video, film, film_gif

UNLIMITED = 2**62
"""Limit of steps if ``--episodes`` is given without ``--steps``."""


def body(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(prog="python -m rl_lab.evaluate", description="Evaluate a trained agent, greedily by default.")
    parser.add_argument("run", metavar="RUN", help="a run directory")
    parser.add_argument("--episodes", default=None, help="number of episodes (default: as at the end of training)")
    parser.add_argument("--seed", default=None, help="seed of the first episode (default: as at the end of training)")
    parser.add_argument("--steps", default=None, help="environment steps after which no further episode begins")
    parser.add_argument(
        "--stochastic", action="store_true", help="sample the actions as in training, for example if greedy episodes do not end"
    )
    parser.add_argument(
        "--video", action="store_true", help="film the first episode; the file is written to videos/ in the run directory"
    )
    parser.add_argument(
        "--render",
        "--watch",
        action="store_true",
        help="show the episodes in a window, at the speed of the environment (then one episode by default)",
    )
    parser.add_argument("--gif", metavar="FILE", default=None, help="film the first episode as a GIF")
    parser.add_argument(
        "--html",
        metavar="FILE",
        default=None,
        help="write a page on the first episode: frames, observations, the policy's outputs and values, and what they depend on",
    )
    parser.add_argument(
        "--checkpoint",
        default=None,
        help="last, best, or the name of an older checkpoint (default: best if it exists, else last)",
    )
    parser.add_argument("--trust", action="store_true", help="import the modules that the files of the run name")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse(arguments)
    numbers = {
        name: None if given[name] is None else parse_value(f"--{name}", int, given[name])
        for name in ("episodes", "seed", "steps")
    }
    for name, least in (("episodes", 1), ("seed", 0), ("steps", 1)):
        number = numbers[name]
        if number is not None and number < least:
            raise Fault(f"--{name} must be at least {least}, got {number}")
        if number is not None and number > LARGEST_INTEGER:
            raise Fault(f"--{name} must be an integer of 64 bits, at most {LARGEST_INTEGER}")
    files = {name: Path(given[name]) for name in ("gif", "html") if given[name] is not None}
    for name, path in files.items():
        if path.is_dir() or not path.parent.is_dir():
            raise Fault(f"--{name} names a file in a directory that exists, got {given[name]!r}")
    agent, plan = restore(Path(given["run"]), given["checkpoint"], given["trust"])
    options = plan.options
    seed = evaluation_seed(options.seed) if numbers["seed"] is None else numbers["seed"]
    if given["video"]:
        check_video(plan.setup)
    if given["render"]:
        check_render(replace(plan.setup, native=None))
    if files:
        check_pictures(plan.setup)
    close_environments(agent.envs)  # some environments, such as a robot, can be open only once
    greedy = not given["stochastic"]
    result = evaluate(
        agent,
        plan.setup,
        numbers["episodes"] or (1 if given["render"] else options.eval_episodes),
        seed,
        greedy,
        most_steps=numbers["steps"] or (UNLIMITED if numbers["episodes"] else evaluation_budget(plan)),
        say=lambda line: print(f"rl_lab: {line}", file=sys.stderr, flush=True),
        render=given["render"],
    )
    facts = {"agent": options.agent, "env": options.env, **result.as_dict(), "timesteps": agent.timesteps}
    if given["video"]:
        facts["video"] = str(film(agent, plan.setup, seed, Path(given["run"]) / "videos", greedy))
    if "gif" in files:
        facts["gif"] = str(film_gif(agent, plan.setup, seed, files["gif"], greedy))
    if "html" in files:
        facts["html"] = str(write_page(agent, plan.setup, seed, files["html"], f"{options.agent} on {options.env}", greedy))
    for remark in plan.remarks:
        print(f"rl_lab: {remark}", file=sys.stderr)
    if given["json"]:
        tell(json.dumps(facts))
    else:
        tell(
            f"{options.agent} on {options.env}: {result.kind} return {result.return_mean:.1f} (std {result.return_std:.1f}, "
            f"min {result.return_min:.1f}) over {result.episodes} episodes, trained for {agent.timesteps:,} steps{result.remark()}"
        )
        for name in ("video", "gif", "html"):
            if name in facts:
                tell(f"{name}: {facts[name]}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with faults reported in one line; returns the exit code."""
    return run_command(body, arguments)


if __name__ == "__main__":
    sys.exit(main())

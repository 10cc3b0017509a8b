"""Presets over several seeds: the returns that they reach, and the steps and seconds that they need.

    python -m benchmarks.learning --only dqn/CartPole-v1,ppo/CartPole-v1 --seeds 10 --workers 2

Each run is a process of its own. The table has the interquartile mean and the worst seed of the greedy return over 100 episodes,
and medians of the training steps, of the seconds, and of the steps to the first short evaluation that reached the bar.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rl_lab.experiment.analysis import interquartile_mean

BARS = {
    ("dqn", "CartPole-v1"): 475,
    ("ppo", "CartPole-v1"): 475,
    ("a2c", "CartPole-v1"): 475,
    ("reinforce", "CartPole-v1"): 475,
    ("sac", "CartPole-v1"): 475,
    ("pqn", "CartPole-v1"): 475,
    ("drqn", "CartPoleMasked-v0"): 475,
    ("dqn", "Acrobot-v1"): -76,
    ("ppo", "Acrobot-v1"): -74,
    ("pqn", "Acrobot-v1"): -74,
    ("dqn", "MountainCar-v0"): -101,
    ("ppo", "MountainCar-v0"): -110,
    ("pqn", "MountainCar-v0"): -101,
    ("sac", "Pendulum-v1"): -150,
    ("td3", "Pendulum-v1"): -152,
    ("ppo", "Pendulum-v1"): -165,
    ("tqc", "Pendulum-v1"): -151,
    ("crossq", "Pendulum-v1"): -151,
    ("sac", "MountainCarContinuous-v0"): 94.7,
    ("dqn", "LunarLander-v3"): 266,
    ("ppo", "LunarLander-v3"): 260,
}
"""Agents and environments of the table, and the bar of each: the return that the run should reach."""


def run(agent: str, env: str, seed: int, folder: str, extra: list[str]) -> dict:
    """Train in a new process and return its results, as `one` prints them."""
    begin = [sys.executable, "-m", "benchmarks.learning", "--one", agent, env, str(seed), folder, *extra]
    done = subprocess.run(begin, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{agent} on {env}, seed {seed}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one(agent: str, env: str, seed: int, folder: str, extra: list[str]) -> None:
    """Train with the preset and print the results of the final evaluation as JSON."""
    from rl_lab.experiment.driver import carry_out, make_plan
    from rl_lab.experiment.progress import NoProgress

    given = dict(word.split("=", 1) for word in extra)
    result = carry_out(make_plan({"agent": agent, "env": env, "seed": seed, "run_dir": folder, **given}), progress=NoProgress())
    assert result.evaluation is not None
    # the facts come last: an evaluation has steps, too
    facts = {"agent": agent, "env": env, "seed": seed, "steps": result.timesteps, "seconds": result.seconds}
    print(json.dumps({**result.evaluation.as_dict(), **facts, "first": first_step(result.run.path, BARS.get((agent, env)))}))


def first_step(path: Path, bar: float | None) -> int | None:
    """The step of the first evaluation in a run's event file that reached ``bar``, or None."""
    from rl_lab.experiment.analysis import read_events

    events = read_events(path)
    reached = events[(events.tag == "eval/return_mean") & (events.value >= (np.inf if bar is None else bar))]
    return int(reached.step.min()) if len(reached) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="agent/environment pairs, separated by commas; default: all")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds: 1 to SEEDS")
    parser.add_argument("--workers", type=int, default=1, help="number of parallel runs")
    parser.add_argument(
        "--out", default="", help="file to which the results of each run are appended, one JSON object per line"
    )
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--set", nargs="*", default=[], help="settings that override the preset, such as learning_rate=1e-3")
    arguments = parser.parse_args()
    if arguments.one:
        agent, env, seed, folder, *extra = arguments.one
        one(agent, env, int(seed), folder, extra)
        return
    pairs = [tuple(word.split("/", 1)) for word in arguments.only.split(",") if word] or list(BARS)
    print(
        "| agent | environment | IQM | worst | bar | steps | to the bar | seconds |\n|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.workers) as pool:
        for agent, env in pairs:
            seeds = range(1, arguments.seeds + 1)
            facts = list(pool.map(lambda s, a=agent, e=env: run(a, e, s, folder, arguments.set), seeds))
            if arguments.out:
                with Path(arguments.out).open("a") as file:
                    file.writelines(json.dumps(fact) + "\n" for fact in facts)
            returns = [fact["return_mean"] for fact in facts]
            firsts = [np.inf if fact["first"] is None else fact["first"] for fact in facts]
            steps, seconds = (np.median([fact[name] for fact in facts]) for name in ("steps", "seconds"))
            bar = BARS.get((agent, env), "")
            print(
                f"| {agent} | {env} | {interquartile_mean(returns):.1f} | {min(returns):.1f} | {bar} | {steps:,.0f} "
                f"| {np.median(firsts):,.0f} | {seconds:.1f} |  {' '.join(f'{r:.0f}' for r in returns)}",
                flush=True,
            )


if __name__ == "__main__":
    main()

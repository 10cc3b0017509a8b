"""An agent with its preset over several seeds: python -m benchmarks.learning --agent dqn --env CartPole-v1 --seeds 1,2,3,4,5."""

import argparse
import tempfile

import numpy as np

from rl_lab.experiment.driver import make_plan, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="dqn")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    arguments = parser.parse_args()
    print("| seed | greedy mean | min | steps | seconds |\n|---|---|---|---|---|")
    means = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in map(int, arguments.seeds.split(",")):
            plan = make_plan({"agent": arguments.agent, "env": arguments.env, "seed": seed, "run_dir": folder})
            result = train(plan, progress=_Silent())
            assert result.evaluation is not None
            e = result.evaluation
            means.append(e.return_mean)
            print(
                f"| {seed} | {e.return_mean:.1f} | {e.return_min:.0f} | {result.timesteps:,} | {result.seconds:.1f} |",
                flush=True,
            )
    ordered = np.sort(means)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    print(f"interquartile mean {middle.mean():.1f}, worst seed {ordered[0]:.1f}")


class _Silent:
    def update(self, timesteps: int, rate: float, episodic_return: float | None) -> None: ...

    def say(self, line: str) -> None: ...

    def close(self) -> None: ...


if __name__ == "__main__":
    main()

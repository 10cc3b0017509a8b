"""Make the pictures of the README: learning curves of two agents, and a network that evolved.

    python -m examples.readme_pictures [--out docs/images] [--seeds 5]

Both are results of real runs: `examples.learning_curves` trains DQN and PPO on CartPole-v1, and NEAT evolves a network that balances two
poles without seeing velocities.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rl_lab.agents.neat.agent import NEAT
from rl_lab.experiment import load_run, train
from rl_lab.nn import GraphNetwork
from rl_lab.nn.graph.picture import draw_network

ENV = "DoublePoleNoVelocity-v0"
NAMES = {"input0": "cart position", "input1": "long pole's angle", "input2": "short pole's angle", "output0": "force"}
"""What the observations and actions of the environment are."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs/images")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    evolve(out / "evolved_network.png")
    curves = ["--seeds", str(arguments.seeds), "--out", str(out / "learning_curves.png")]
    subprocess.run([sys.executable, "-m", "examples.learning_curves", *curves], check=True)


def evolve(path: Path) -> None:
    """Evolve a network for CartPole-v1 and draw it, with its inputs and outputs labelled."""
    with tempfile.TemporaryDirectory() as folder:
        run = train("neat", ENV, seed=1, run_dir=folder, eval_episodes=1, add_node=0.2, add_connection=0.3)
        agent = load_run(run.path).agent()
    assert isinstance(agent, NEAT)
    title = f"Two poles balanced without velocities, evolved in {agent.timesteps:,} steps"
    figure = draw_network(renamed(agent.network()), title)
    figure.savefig(path, dpi=140)
    print(path)


def renamed(network: GraphNetwork) -> GraphNetwork:
    """The same network with the names of `NAMES` for its inputs and outputs."""

    def replace(value: Any) -> Any:
        if isinstance(value, str):
            return NAMES.get(value, value)
        if isinstance(value, dict):
            return {replace(key): replace(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(replace(part) for part in value)
        return value

    return GraphNetwork.from_description(replace(network.describe()))


if __name__ == "__main__":
    main()

"""Make the pictures of the README and of the pages on agents: learning curves, and a network that evolved.

    python -m examples.readme_pictures [--out docs/images] [--only learning_curves evolved_network sac ...]

All are results of real runs with the shipped presets. Together they take about ten minutes of processor time.
"""

import argparse
import tempfile
from pathlib import Path

from examples.learning_curves import draw
from rl_lab.agents.neat.agent import NEAT
from rl_lab.experiment import load_run, train
from rl_lab.experiment.names import node_names
from rl_lab.nn.graph.picture import draw_network
from rl_lab.record import main as record

POLES = "DoublePoleNoVelocity-v0"
EVOLUTION = {"seed": 6, "add_node": 0.1, "eval_frequency": 20_000, "short_episodes": 1, "stop_return": 1_000.0}
"""Settings of the evolution, which ends when the poles stay up for 1,000 steps. This seed ends with a network small enough to be read."""
WIDTH = 7.5
"""Width of the network's picture in inches; at 110 pixels an inch it is as wide as the text of the README."""
CURVES = {
    "sac": ("Pendulum-v1", 20_000),
    "td3": ("Pendulum-v1", 20_000),
    "neat": ("CartPole-v1", 400_000),
    "reinforce": ("CartPole-v1", 200_000),
    "a2c": ("CartPole-v1", 200_000),
    "recurrent_ppo": ("CartPole-v1", 200_000),
    "qrdqn": ("CartPole-v1", 50_000),
    "pqn": ("CartPole-v1", 200_000),
    "crossq": ("Pendulum-v1", 20_000),
    "tqc": ("Pendulum-v1", 20_000),
    "drqn": ("CartPoleMasked-v0", 50_000),
    "ars": ("CartPole-v1", 50_000),
    "es": ("CartPole-v1", 200_000),
    "cmaes": ("CartPole-v1", 100_000),
}
"""Environment and steps of the curve on an agent's page; the pages of dqn and ppo show that of the README."""
FROM_DATA = {
    "bc": ("CartPole-v1", 300_000, "ppo", ["--episodes", "20"]),
    "iql": ("Pendulum-v1", 2_560_000, "sac", ["--episodes", "50", "--stochastic"]),
}
"""For an agent that learns from data: environment, transitions, the agent whose preset gives the data, and options of `rl_lab.record`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs/images", type=Path)
    parser.add_argument("--only", nargs="*", default=["evolved_network", "learning_curves", *CURVES, *FROM_DATA])
    given = parser.parse_args()
    (given.out / "agents").mkdir(parents=True, exist_ok=True)
    for name in given.only:
        if name == "evolved_network":
            evolve(given.out / f"{name}.png")
        elif name == "learning_curves":
            draw(["dqn", "ppo"], "CartPole-v1", 50_000, 5, given.out / f"{name}.png")
        elif name in FROM_DATA:
            learn_from_data(name, given.out / "agents" / f"{name}.png")
        else:
            env, steps = CURVES[name]
            draw([name], env, steps, 3, given.out / "agents" / f"{name}.png")


def learn_from_data(name: str, path: Path) -> None:
    """Train one agent, record its episodes, and draw how another one learns from them."""
    env, steps, teacher, options = FROM_DATA[name]
    with tempfile.TemporaryDirectory() as folder:
        run = train(teacher, env, run_dir=folder)
        data = f"{folder}/data"
        record([str(run.path), "--output", data, *options])
        draw([name], env, steps, 3, path, f"from episodes of {teacher.upper()}", dataset=data, total_timesteps=steps)


def evolve(path: Path) -> None:
    """Evolve a network that balances two poles without seeing velocities, and draw it."""
    with tempfile.TemporaryDirectory() as folder:
        run = train("neat", POLES, run_dir=folder, eval_episodes=1, **EVOLUTION)
        agent = load_run(run.path).agent()
    assert isinstance(agent, NEAT)
    network = agent.network()
    title = f"Two poles balanced without velocities, evolved in {agent.timesteps:,} steps"
    draw_network(network, title, WIDTH, node_names(agent, network)).savefig(path, dpi=200)
    print(path, flush=True)


if __name__ == "__main__":
    main()

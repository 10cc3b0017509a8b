"""Figures of other libraries and papers, and what rl_lab reaches: python -m benchmarks.targets writes docs/targets.md.

Returns are read from benchmarks/results.jsonl. Speeds were copied from the output of the command that each row names. A figure that is
missed, or not measured, stands on the page with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import DATA, PUBLISHED, Data, Row, label, number, presets, rows_of

DOCS = Path(__file__).parents[1] / "docs" / "targets.md"


@dataclass(frozen=True)
class Bar:
    """A return that an agent should reach in an environment, after at most ``steps`` training steps."""

    agent: str
    env: str
    mean: float
    steps: int
    source: str
    worst: float | None = None
    """The return that every seed should reach."""
    reason: str = ""
    """Why the bar is missed."""


BARS = (
    Bar("dqn", "CartPole-v1", 500.0, 50_000, "500 (rl-zoo, 50 k), 488.7 (CleanRL)", 475.0),
    Bar("ppo", "CartPole-v1", 500.0, 100_000, "500 (rl-zoo, 100 k), 490.0 (CleanRL)", 475.0),
    Bar("a2c", "CartPole-v1", 500.0, 200_000, "500 (rl-zoo, 500 k)", 475.0),
    Bar("reinforce", "CartPole-v1", 500.0, 200_000, "483 (SLM-Lab, 200 k)", 475.0),
    Bar("sac", "CartPole-v1", 500.0, 100_000, "406 (SLM-Lab)", 475.0),
    Bar("dqn", "Acrobot-v1", -76.0, 100_000, "-76.6 (rl-zoo, 100 k), -91.5 (CleanRL)"),
    Bar("ppo", "Acrobot-v1", -74.0, 1_000_000, "-73.5 (rl-zoo, 1 M), -86.4 (CleanRL)"),
    Bar("dqn", "MountainCar-v0", -101.0, 120_000, "-100.8 (rl-zoo, 120 k), -195 (CleanRL)"),
    Bar("ppo", "MountainCar-v0", -110.0, 1_000_000, "-110.4 (rl-zoo, 1 M), -200 (CleanRL)"),
    Bar("sac", "Pendulum-v1", -150.0, 20_000, "-157.0 (rl-zoo, 20 k), -151 (SLM-Lab, 300 k)"),
    Bar("ppo", "Pendulum-v1", -165.0, 100_000, "-172.2 (rl-zoo, 100 k), -175 (SLM-Lab)"),
    Bar("sac", "MountainCarContinuous-v0", 94.7, 50_000, "94.7 (rl-zoo, 50 k)"),
    Bar(
        "dqn",
        "LunarLander-v3",
        266.0,
        300_000,
        "154 (rl-zoo, 100 k), DDQN+PER 265.9 (SLM-Lab, 300 k)",
        reason="The target is a figure of prioritized replay; the preset has none",
    ),
    Bar("ppo", "LunarLander-v3", 260.0, 1_000_000, "242 (rl-zoo, 1 M), 183 (SLM-Lab)"),
)
LEEWAY = 1.02
"""Training ends with the first rollout after the last step, so a run may be a little longer than its bar."""


PENDULUM = (
    "--agent sac --env Pendulum-v1 --learning-rate 1e-3 --network mlp:64,64 --batch-size 100 --learning-starts 100 "
    "--eval-frequency 500 --short-episodes 100"
)


@dataclass(frozen=True)
class Speed:
    """A speed or a number of steps: the work, the figures of others, the target, and what the command printed here."""

    work: str
    peers: str
    target: str
    found: str
    met: bool
    command: str


UPDATES, AGENTS, EAGER = (f"python -m benchmarks.{name}" for name in ("update_step", "agents", "eager"))
SPEEDS = (
    Speed("DQN update, 4-64-64-2, batch 64", "torch 620-780 us; JAX scan 48", "36 us", "33 us", True, UPDATES),
    Speed(
        "DQN update, 4-120-84-2, batch 128",
        "torch 740; JAX scan 137",
        "100 us, both cores",
        "118 us; one core 147; JAX scan 159 in the same run",
        False,
        UPDATES,
    ),
    Speed(
        "DQN update, 8-256-256-4, batch 128",
        "torch 1,500; JAX scan 656",
        "450 us, both cores",
        "473 us; one core 724; JAX scan 611 in the same run",
        False,
        UPDATES,
    ),
    Speed(
        "DQN update, 4-64-64-2, batch 1024",
        "torch 1,260; JAX scan 657",
        "330 us, both cores",
        "274 us; one core 425",
        True,
        UPDATES,
    ),
    Speed("one observation, recorded 4-64-64-2, from Python", "torch 28-33 us", "2 us", "1.8 us", True, EAGER),
    Speed("eager `((x@w).tanh()*y).sum().backward()`, 64x64", "torch 116 us", "60 us", "57 us", True, EAGER),
    Speed("eager add of two 64x64 with grad", "torch 3.5 us", "3 us", "3.4 us; torch 2.5 in the same run", False, EAGER),
    Speed(
        "PPO CartPole-v1, steps/s",
        "SB3 3.0 k, sbx 5.7 k, CleanRL 4.7 k, PureJaxRL 129 k",
        "200 k",
        "216 k; SB3 5.2 k, sbx 5.3 k",
        True,
        AGENTS,
    ),
    Speed(
        "DQN CartPole-v1, rl-zoo settings, steps/s", "SB3 780, sbx 2,150", "5 k", "5.3 k; SB3 1.2 k, sbx 2.8 k", True, AGENTS
    ),
    Speed("SAC Pendulum-v1, 256-256, steps/s", "SB3 72, sbx 163", "250", "265; SB3 98, sbx 168", True, AGENTS),
    Speed(
        "SAC Pendulum-v1, 64-64, batch 100, rounds/s",
        "RLtools 4.4 k, without fast-math 3.7 k",
        "4 k",
        "3.4 k; 4.6 k at full clock",
        False,
        AGENTS,
    ),
    Speed("PPO Pendulum-v1, 4 x 1024, steps/s", "RLtools 481 k, without OpenBLAS 57 k", "400 k", "436 k", True, AGENTS),
    Speed(
        "CartPole step, random policy, batch of 1,024",
        "Gymnasium 8.1 us, its vector version 0.09, gymnax 0.04",
        "0.03 us",
        "0.02 us",
        True,
        "python -m benchmarks.environments",
    ),
    Speed(
        "NEAT, XOR, population 150, a generation",
        "neat-python 11 ms",
        "0.5 ms",
        "0.43 ms",
        True,
        "python -m benchmarks.neat --parts xor",
    ),
    Speed(
        "NEAT, CartPole, network and environment step",
        "neat-python with Gymnasium 11-16 us",
        "0.15 us",
        "0.06 us",
        True,
        "python -m benchmarks.neat --parts cartpole",
    ),
    Speed(
        "shell to a solved CartPole-v1, caches warm, PPO",
        "SB3 36 s, PureJaxRL 9 s and imports",
        "3 s",
        "3.9 s (2.5 at full clock); SB3 8.3 s",
        False,
        AGENTS,
    ),
    Speed("the same, DQN", "", "6 s", "3.7 s", True, AGENTS),
    Speed(
        "first run, cold caches, DQN on CartPole-v1, to its end",
        "",
        "20 s",
        "12.5 to 13.6 s",
        True,
        "python -m rl_lab.train --agent dqn --env CartPole-v1",
    ),
    Speed(
        "CartPole-v1, training steps until 498 over 100 episodes, DQN",
        "MyZero 8,741, PPO 122,880 until 475 (only_torch)",
        "20,000 until 475",
        "19,000, median of 10 seeds",
        True,
        "python -m benchmarks.results",
    ),
    Speed("the same, PPO", "", "40,000 until 475", "20,480, median of 10 seeds", True, "python -m benchmarks.results"),
    Speed(
        "Pendulum-v1, SAC 64-64, steps until -200 over 100 episodes",
        "RLtools 4,000, median of 10 seeds",
        "4,000",
        "3,500, worst of 10 seeds 4,000",
        True,
        f"python -m rl_lab.train {PENDULUM}",
    ),
    Speed(
        "NEAT, XOR, evaluations, mean",
        "4,755 (Stanley and Miikkulainen 2002)",
        "4,755",
        "2,640 (100 seeds, all solved)",
        True,
        "python -m benchmarks.neat --parts xor",
    ),
    Speed(
        "NEAT, two poles with velocities, evaluations, mean",
        "3,600",
        "3,600",
        "2,067 (50 seeds, all solved)",
        True,
        "python -m benchmarks.neat --parts poles",
    ),
    Speed(
        "NEAT, two poles without velocities, evaluations, mean",
        "33,184",
        "33,184",
        "18,075 (20 seeds, all solved)",
        True,
        "python -m benchmarks.neat --parts hidden",
    ),
)
_MUJOCO = "a million steps of SAC with 256-256 networks take 1.2 hours a seed on one core (205 to 244 steps/s)"
UNMEASURED = {
    "BipedalWalker-v3": "half a million steps of TQC take more than an hour a seed on one core",
    "BipedalWalkerHardcore-v3": "two million steps of TQC take several hours a seed on one core",
    **dict.fromkeys(("Ant-v5", "Swimmer-v5"), _MUJOCO),
}
"""Environments with a published figure and without a run, and the reason."""
MISSED = {
    env: f"PPO, whose figure in rl-zoo is {figure}. SAC and TQC are not measured: {_MUJOCO}"
    for env, figure in (("HalfCheetah-v5", "5,819"), ("Hopper-v5", "2,410"), ("Walker2d-v5", "3,479"))
}
"""Why the best agent here misses the highest published figure, where that is known."""


def judged(bar: Bar, row: Row | None) -> list[str]:
    """The cells of a bar's line."""
    cells = [label(bar.agent), bar.env, bar.source, f"{bar.mean:,.0f} in {bar.steps:,} steps"]
    if row is None:
        return [*cells, "", "", "", bar.reason or "not measured yet"]
    steps = row.median("steps")
    missed = []
    if round(row.mean, 1) < bar.mean:
        missed.append(f"mean {number(row.mean)}")
    if bar.worst is not None and min(row.returns) < bar.worst:
        missed.append(f"a seed with {number(min(row.returns))}")
    if float(steps.replace(",", "")) > LEEWAY * bar.steps:
        missed.append(f"{steps} steps")
    verdict = "met" if not missed else f"**missed**: {' and '.join(missed)}" + (f". {bar.reason}" if bar.reason else "")
    return [*cells, f"{number(row.mean)} ({len(row.runs)})", number(min(row.returns)), steps, verdict]


def bars_table(rows: Sequence[Row]) -> list[str]:
    """The lines of the table of returns by agent."""
    found = {row.key: row for row in rows}
    names = [
        "agent",
        "environment",
        "others",
        "target",
        "interquartile mean (seeds)",
        "worst seed",
        "training steps",
        "verdict",
    ]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return lines + ["| " + " | ".join(judged(bar, found.get((bar.agent, bar.env)))) + " |" for bar in BARS]


def highest_table(rows: Sequence[Row]) -> list[str]:
    """The lines of the table of the highest published figures."""
    names = ["environment", "highest published", "best agent here", "interquartile mean (seeds)", "worst seed", "verdict"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for env, (highest, source) in PUBLISHED.items():
        cells = [env, f"{highest:,.1f} ({source})"]
        own = [row for row in rows if row.key[1] == env]
        if own:
            best = max(own, key=lambda row: row.mean)
            verdict = "met"
            if round(best.mean, 1) < highest:
                verdict = f"**missed** by {number(highest - best.mean)}" + (f". {MISSED[env]}" if env in MISSED else "")
            cells += [label(best.key[0]), f"{number(best.mean)} ({len(best.runs)})", number(min(best.returns)), verdict]
        else:
            cells += ["", "", "", f"not measured: {UNMEASURED.get(env, 'no run yet')}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def speeds_table() -> list[str]:
    """The lines of the table of speeds."""
    lines = ["| work | others | target | here | verdict | command |", "|---" * 6 + "|"]
    for s in SPEEDS:
        verdict = "met" if s.met else "**missed**"
        lines.append(f"| {s.work} | {s.peers} | {s.target} | {s.found} | {verdict} | `{s.command}` |")
    return lines


INTRODUCTION = """# Figures to reach

The figures of other libraries and papers against which rl_lab is measured, row by row, also where it falls short. This page is written by
`python -m benchmarks.targets`.
"""
RETURNS = """## Returns of the same agents

The published figures are single runs (rl-zoo), means of three seeds (CleanRL, 500 k steps) or of four sessions (SLM-Lab). The target is an
interquartile mean over seeds of 100 greedy episodes each; on CartPole-v1 every seed must also reach 475. [Results](results.md) has the
intervals, all environment steps and the commands.
"""
HIGHEST = """## The highest published figure of each environment

By whatever agent, at whatever number of steps; most of the published figures are one run. The row shows the agent with the highest
interquartile mean here.
"""
SPEED = """## Speed

Copied from the output of the commands, on a machine with two AVX-512 cores that other work shared and whose clock was about half of its
full speed (products of 512 x 512 at 106 GFLOP/s a core). The targets were set on a machine with 190 GFLOP/s for both cores, so ratios
to the peer in the same run say more than times; [Speed](speed.md) has them.
"""


def page(data: Data) -> str:
    """docs/targets.md."""
    rows = rows_of(data, presets(), {})
    parts = [INTRODUCTION, RETURNS, *bars_table(rows), "", HIGHEST, *highest_table(rows), "", SPEED, *speeds_table(), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    DOCS.write_text(page(Data.read(DATA)), encoding="utf-8")

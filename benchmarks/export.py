"""Microseconds that exported policies take for one observation: python -m benchmarks.export

C is compiled with ``cc -O3 -march=native`` and times itself; the others are called from Python. The weights are untrained: the time of a
step does not depend on them, except for an evolved network, whose champion after some generations is taken.
"""

import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import alternate
from rl_lab.experiment.agent import find_agent
from rl_lab.experiment.export.checking import observations_like, run

POLICIES = (
    ("dqn", "CartPole-v1"),
    ("ppo", "CartPole-v1"),
    ("neat", "CartPole-v1"),
    ("recurrent_ppo", "CartPole-v1"),
    ("sac", "Pendulum-v1"),
    ("dqn", "rl_lab/Bricks-v0"),
)
GENERATIONS = 10


def microseconds_in_c(file: Path) -> float:
    """Median of three runs of the test in an exported C file. Raises CalledProcessError if it differs from the agent."""
    compiler = shutil.which("cc") or "gcc"
    program = file.with_suffix("")
    subprocess.run([compiler, "-O3", "-march=native", "-DPOLICY_MAIN", str(file), "-lm", "-o", str(program)], check=True)
    found = [subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout for _ in range(3)]
    return statistics.median(float(re.findall(r"([\d.]+) us a step", text)[0]) for text in found)


def main() -> None:
    """Print one line for each policy."""
    print(f"{'policy':30s} {'C':>9s} {'NumPy':>9s} {'onnxruntime':>12s} {'agent.predict':>14s}   us a step")
    for name, env in POLICIES:
        agent = find_agent(name)(env)
        for _ in range(GENERATIONS if name == "neat" else 0):
            agent.advance()
        x = observations_like(agent, 1)
        with tempfile.TemporaryDirectory() as folder:
            files = {
                kind: agent.export(Path(folder) / f"p{suffix}")
                for kind, suffix in (("c", ".c"), ("numpy", ".py"), ("onnx", ".onnx"))
            }
            in_c = microseconds_in_c(files["c"]) if shutil.which("cc") or shutil.which("gcc") else float("nan")
            functions = {kind: run(files[kind].read_bytes(), kind) for kind in ("numpy", "onnx")}
        memory = tuple(np.asarray(part.numpy()) for part in agent.greedy_step()[1])
        calls = {kind: lambda f=f: f(x, memory) for kind, f in functions.items()}
        times = alternate({**calls, "predict": lambda: agent.predict(x)}, rounds=5, budget=0.02)
        found = {kind: statistics.median(each) for kind, each in times.items()}
        label = f"{name} on {env}"
        print(f"{label:30s} {in_c:9.3f} {found['numpy']:9.1f} {found['onnx']:12.1f} {found['predict']:14.1f}")


if __name__ == "__main__":
    main()

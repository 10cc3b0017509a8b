"""Costs of steps, seeds, individuals and generations, and what follows for many machines.

    python -m benchmarks.scaling [--parts costs,payloads,local,machines,plots] [--data benchmarks/scaling.json] [--images docs/images]

- costs: processor time on one thread while a size grows, and the fit of fixed + linear terms;
- payloads: messages and bytes that sweeps and NEAT's tasks send, from the serialised objects themselves;
- local: sweeps and NEAT's tasks with one and two workers of this machine against the simulation (wall time; needs Ray, and a machine
  without other work);
- machines: the simulation of 1 to 1,000 machines (`benchmarks.cluster_simulation`), with and without delays and failures;
- plots: pictures of the costs and of the machines.

The parts keep their figures in ``--data``; machines and plots need only this file.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import gymnasium as gym
import numba
import numpy as np

import rl_lab as rl
from benchmarks.cluster_simulation import Cluster, Outcome, Round, Trouble, simulate
from benchmarks.measure import machine
from benchmarks.workloads import dqn_update
from rl_lab.agents.neat import Evolution, NEATConfig, Networks
from rl_lab.agents.neat.agent import NEAT
from rl_lab.agents.ppo import PPO
from rl_lab.experiment import players
from rl_lab.experiment.environments import choose_setup, make_environments
from rl_lab.experiment.sweeps.executors import ONE_THREAD
from rl_lab.experiment.sweeps.sweep import carry_out_sweep, make_sweep
from rl_lab.experiment.sweeps.table import NoTable
from rl_lab.experiment.sweeps.worker import perform
from rl_lab.rollout import Stepper
from rl_lab.rollout.population import Played

PARTS = ("costs", "payloads", "local", "machines", "plots")
DATA = Path(__file__).with_suffix(".json")
IMAGES = Path(__file__).parents[1] / "docs" / "images"
SEED_RANGE = 2**31
MACHINES = (1, 3, 10, 30, 100, 300, 1000)
SHOWN = (1, 10, 100, 1000)


class Waiting(gym.Wrapper):
    """An environment whose step waits for half a millisecond, as for another program. Waiting needs no core."""

    def step(self, action: Any) -> Any:
        time.sleep(0.0005)
        return self.env.step(action)


# --- costs -----------------------------------------------------------------------------------------------------------


def cost_of(run: Callable[[], object], budget: float = 0.2, least: int = 3) -> float:
    """Median processor time of a call, in microseconds, over at least ``least`` calls and ``budget`` seconds."""
    run()
    begin = time.process_time()
    run()
    calls = max(1, int(0.02 / max(time.process_time() - begin, 1e-6)))
    taken: list[float] = []
    end = time.process_time() + budget
    while len(taken) < least or time.process_time() < end:
        begin = time.process_time()
        for _ in range(calls):
            run()
        taken.append((time.process_time() - begin) / calls * 1e6)
    return statistics.median(taken)


class Fit(NamedTuple):
    """A model ``terms[0] + terms[1] * x[0] + ...`` of costs."""

    terms: tuple[float, ...]
    r2: float
    """Share of the variance that the model explains."""
    median: float
    """Median of the relative errors."""
    worst: float
    """Largest relative error."""

    def __call__(self, *x: float) -> float:
        return self.terms[0] + sum(t * value for t, value in zip(self.terms[1:], x, strict=True))


def fit(sizes: Sequence[Sequence[float]], costs: Sequence[float]) -> Fit:
    """Least squares of relative errors, with no term below 0. Row k of ``sizes`` has the sizes at which ``costs[k]`` was measured."""
    design = np.column_stack([np.ones(len(costs)), np.asarray(sizes, float)])
    y = np.asarray(costs, float)
    kept = list(range(design.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(design[:, kept] / y[:, None], np.ones(len(y)), rcond=None)
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    terms = np.zeros(design.shape[1])
    terms[kept] = found
    errors = np.abs(design @ terms - y)
    r2 = 1.0 - float((errors**2).sum() / ((y - y.mean()) ** 2).sum())
    return Fit(tuple(map(float, terms)), r2, float(np.median(errors / y)), float((errors / y).max()))


def vector_steps() -> dict[str, Any]:
    """A step of n environments from Python, native and Gymnasium's."""
    rows = {}
    for backend, counts in (("native", (1, 4, 16, 64, 256, 1024)), ("gymnasium", (1, 4, 16, 64, 256))):
        found = []
        for count in counts:
            stepper = Stepper(make_environments(choose_setup("CartPole-v1", backend=backend), count))
            stepper.reset([*range(count)])
            actions = np.random.default_rng(0).integers(0, 2, (16, count))
            turn = iter(range(10**9))
            found.append(([count], cost_of(lambda: stepper.step(actions[next(turn) % 16]))))
        rows[f"step of n environments, CartPole {backend}"] = series("environments", found)
    return rows


def updates() -> dict[str, Any]:
    """A recorded DQN update: growth with the batch, and with the network."""
    by_batch = []
    for batch in (16, 32, 64, 128, 256, 512, 1024):
        by_batch.append(([batch], cost_of(rl.compile(dqn_update(rl, (4, 64, 64, 2), batch)))))
    by_network = []
    for width in (16, 32, 64, 128, 256, 512):
        sizes = (4, width, width, 2)
        weights = sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))
        by_network.append(([weights], cost_of(rl.compile(dqn_update(rl, sizes, 128)))))
    return {
        "DQN update, 4-64-64-2, batch n": series("transitions", by_batch),
        "DQN update, batch 128, n weights": series("weights", by_network),
    }


def iterations() -> dict[str, Any]:
    """An iteration of PPO: 128 steps of n environments, 4 epochs of 4 minibatches."""
    found = []
    for count in (1, 2, 4, 8, 16, 32, 64):
        agent = PPO(
            "CartPole-v1", preset=False, num_envs=count, num_steps=128, batch_size=32 * count, epochs=4, network="mlp:64,64"
        )
        found.append(([count], cost_of(agent.step)))
    return {"PPO iteration, 128 steps of n environments": series("environments", found)}


def runs() -> dict[str, Any]:
    """A run of a sweep: one seed with n training steps, its evaluations and its checkpoints included."""
    found = []
    for steps in (2_500, 5_000, 10_000, 20_000, 40_000):
        taken = []
        for seed in (1, 2, 3):
            begin = time.process_time()
            one_run("ppo", steps, seed)
            taken.append((time.process_time() - begin) * 1e6)
        found.append(([steps], statistics.median(taken)))
    return {"run of PPO, n training steps": series("steps", found)}


def one_run(agent: str, steps: int, seed: int, tell: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
    """Carry out a run of a sweep in this process, with the preset and without an early stop.

    Returns its result, its task, and the size of its directory.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = {"agent": agent, "env": "CartPole-v1", "total_timesteps": steps, "stop_return": "none", "seeds": str(seed)}
        (variant,) = make_sweep({**given, "seeds": f"{seed},{seed + 1}", "run_dir": folder}).variants
        task = variant.task(Path(folder), seed, "")
        result = perform(task, tell or (lambda event: False))
        if result["state"] != "finished":
            raise RuntimeError(f"the run ended as {result}")
        size = sum(file.stat().st_size for file in Path(task.folder).rglob("*") if file.is_file())
        return {"result": result, "task": asdict(task), "directory": size}


def process_start() -> float:
    """Processor seconds of a process that imports what a run needs."""
    taken = []
    for _ in range(3):
        before = os.times()
        subprocess.run(
            [sys.executable, "-c", "import rl_lab.experiment.sweeps.worker, rl_lab.agents.ppo"],
            check=True,
            env={**os.environ, **ONE_THREAD},
        )
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(taken)


def generations() -> dict[str, Any]:
    """A generation of NEAT on CartPole by individuals and environment steps, native and Gymnasium's, and its breeding alone."""
    rows = {}
    for backend, sizes, count in (("native", (50, 100, 200, 400, 800, 1600), 8), ("gymnasium", (25, 50, 100, 200), 4)):
        found = []
        for population in sizes:
            agent = NEAT("CartPole-v1", preset=False, backend=backend, num_envs=8, population=population, seed=1)
            agent.step()
            for _ in range(count):
                before = agent.timesteps
                begin = time.process_time()
                agent.step()
                taken = (time.process_time() - begin) * 1e6
                found.append(([population, agent.timesteps - before], taken))
        rows[f"generation of n individuals, CartPole {backend}"] = series("individuals, steps", found)
    breeding = []
    for population in (50, 100, 200, 400, 800, 1600, 3200):
        evolution = Evolution(4, 2, NEATConfig(population=population), 1)
        random = np.random.default_rng(0)
        for _ in range(10):
            evolution.advance(random.random(population))
        taken = []
        for _ in range(10):
            begin = time.process_time()
            evolution.advance(random.random(population))
            evolution.networks()
            taken.append((time.process_time() - begin) * 1e6)
        breeding.append(([population], statistics.median(taken)))
    rows["breeding of n individuals"] = series("individuals", breeding)
    return rows


def activations() -> dict[str, Any]:
    """One answer of one evolved network with n connections, among 150 networks and 64 observations."""
    found = []
    for hidden in (0, 4, 8, 16, 32, 64, 128):
        config = NEATConfig(population=150, initial_hidden=hidden, compatibility_threshold=1e9)
        networks = Networks(Evolution(8, 4, config, 1).genomes, False)
        x = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
        connections = float(networks.genomes.enabled.sum(1).mean())
        found.append(([connections], cost_of(lambda: networks(x)) / (150 * 64)))
    return {"answer of an evolved network, n connections": series("connections", found)}


def series(unit: str, found: list[tuple[Sequence[float], float]]) -> dict[str, Any]:
    """Measured costs in microseconds, and their fit."""
    sizes, costs = [list(map(float, s)) for s, _ in found], [cost for _, cost in found]
    return {"unit": unit, "sizes": sizes, "costs": costs, "fit": fit(sizes, costs)._asdict()}


def costs(data: dict[str, Any]) -> None:
    """Measure the costs, and print them with their fits."""
    rows: dict[str, Any] = {}
    for measure in (vector_steps, updates, iterations, generations, activations, runs):
        rows |= measure()
    data["costs"] = rows
    data["process_start"] = process_start()
    print_costs(data)


def print_costs(data: dict[str, Any]) -> None:
    print("\n| cost | sizes n | fixed | and for each | R2 | error, median (worst) |\n|---|---|---|---|---|---|")
    for name, row in data["costs"].items():
        model = Fit(**row["fit"])
        sizes = sorted({size[0] for size in row["sizes"]})
        units = row["unit"].split(", ")
        linear = ", ".join(
            f"{us(t)} a{'n' if u[0] in 'aeiou' else ''} {u.rstrip('s')}" for t, u in zip(model.terms[1:], units, strict=True)
        )
        print(
            f"| {name} | {sizes[0]:,.0f} to {sizes[-1]:,.0f} | {us(model.terms[0])} | {linear} | {model.r2:.3f} "
            f"| {model.median:.0%} ({model.worst:.0%}) |"
        )
    print(f"| start of a process that imports the library | | {data['process_start']:.2f} s | | | |", flush=True)


def us(value: float) -> str:
    """Microseconds with three digits, in a unit that suits them."""
    for unit, size in (("s", 1e6), ("ms", 1e3), ("us", 1.0)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e3:.3g} ns"


# --- payloads --------------------------------------------------------------------------------------------------------


def length(value: Any) -> int:
    """Bytes of an object as Ray serialises it: cloudpickle with the buffers of arrays beside the stream."""
    buffers: list[Any] = []
    stream = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return len(stream) + sum(buffer.raw().nbytes for buffer in buffers)


class Counted:
    """Stands in Ray's place: plays tasks here, one after the other, and notes their bytes, steps and seconds."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.received: list[int] = []
        self.steps: list[int] = []
        self.seconds: list[float] = []

    def remote(self, *arguments: Any) -> Any:
        self.sent.append(length(arguments))
        begin = time.process_time()
        result = players.play_part(*cloudpickle.loads(cloudpickle.dumps(arguments)))
        self.seconds.append(time.process_time() - begin)
        self.received.append(length(result))
        self.steps.append(int(result[0].lengths.sum()))
        return result

    def get(self, results: list[Any]) -> list[Any]:
        return results


def remote_players(env: str, num_envs: int, counted: Any, **more: Any) -> Any:
    """`_Remote` of NEAT's players with ``counted`` in Ray's place, or with Ray if it is None."""
    setup = choose_setup(env, **{"backend": "gymnasium", **more})
    remote = players._Remote(setup, num_envs, "identity", None)
    if counted is not None:
        remote._ray = remote._task = counted
    return remote


def agent_at(env: str, population: int, generation: int) -> NEAT:
    """NEAT after so many generations in the native environment."""
    agent = NEAT(env, num_envs=64, population=population, seed=1)
    for _ in range(generation):
        agent.step()
    return agent


def payloads_of_neat() -> dict[str, Any]:
    """Tasks of a generation: their number, bytes, steps and seconds, and the same for the champion's episodes."""
    rows = {}
    for env, population, generation, episodes in (
        ("CartPole-v1", 150, 1, 1),
        ("CartPole-v1", 150, 30, 1),
        ("CartPole-v1", 1000, 1, 1),
        ("LunarLander-v3", 150, 1, 3),
        ("LunarLander-v3", 150, 30, 3),
        ("LunarLander-v3", 1000, 1, 3),
    ):
        agent = agent_at(env, population, generation)
        networks = agent.evolution.networks()
        seeds = np.random.default_rng(0).integers(SEED_RANGE, size=(population, episodes))
        warm = Counted()
        remote_players(env, 8, warm).play(networks, np.arange(8), seeds[:8, 0], None, False)
        counted = Counted()
        remote = remote_players(env, 8, counted)
        told: dict[str, list[float]] = {}
        remote.play(networks, np.repeat(np.arange(population), episodes), seeds.ravel(), told, False)
        first = len(counted.sent)
        remote.play(networks, np.full(20, 0), np.arange(20), None, False)
        evolved = agent.evolution
        begin = time.process_time()
        evolved.advance(np.random.default_rng(0).random(population))
        breeding = time.process_time() - begin
        rows[f"{env}, {population} genomes, generation {generation}"] = {
            "env": env,
            "population": population,
            "generation": generation,
            "tasks": first,
            "sent": counted.sent[:first],
            "received": counted.received[:first],
            "steps": counted.steps[:first],
            "seconds": counted.seconds[:first],
            "champion_sent": counted.sent[first:],
            "champion_received": counted.received[first:],
            "champion_seconds": counted.seconds[first:],
            "connections": float(networks.genomes.enabled.sum(1).mean()),
            "genome_bytes": float(networks.structures[0].nbytes + networks.numbers[0].nbytes),
            "breeding": breeding,
        }
    return rows


def payloads_of_sweeps() -> dict[str, Any]:
    """What a run of a sweep sends, with the presets of CartPole."""
    rows = {}
    for agent, steps in (("ppo", 50_000), ("a2c", 50_000), ("dqn", 20_000), ("neat", 100_000)):
        events: list[tuple[str, int]] = []
        kinds = {"saved": 0}

        def tell(event: dict[str, Any], events: list[tuple[str, int]] = events) -> bool:
            events.append((event["kind"], length({**event, "key": "s1"})))
            return False

        one_run(agent, 5_000, 1)
        begin = time.process_time()
        run = one_run(agent, steps, 1, tell)
        seconds = time.process_time() - begin
        kinds = {kind: [size for name, size in events if name == kind] for kind in sorted({name for name, _ in events})}
        rows[agent] = {
            "steps": steps,
            "seconds": seconds,
            "task": length(run["task"]),
            "result": length(run["result"]),
            "directory": run["directory"],
            "events": {kind: {"count": len(sizes), "bytes": sum(sizes)} for kind, sizes in kinds.items()},
        }
    return rows


def payloads(data: dict[str, Any]) -> None:
    """Measure and print what is sent."""
    data["sweeps"] = payloads_of_sweeps()
    data["neat"] = payloads_of_neat()
    print_payloads(data)


def print_payloads(data: dict[str, Any]) -> None:
    print(
        "\n| a run of a sweep, CartPole-v1 | seconds | task, bytes | result, bytes | progress: messages, a second, bytes each "
        "| evaluations: messages, bytes each | run directory, bytes |\n|---|---|---|---|---|---|---|"
    )
    for agent, row in data["sweeps"].items():
        progress = row["events"].get("progress", {"count": 0, "bytes": 0})
        evaluated = row["events"].get("evaluated", {"count": 0, "bytes": 0})
        print(
            f"| `{agent}`, {row['steps']:,} steps | {row['seconds']:.1f} | {row['task']:,} | {row['result']:,} "
            f"| {progress['count']:,}, {progress['count'] / row['seconds']:,.0f}, {progress['bytes'] / max(progress['count'], 1):.0f} "
            f"| {evaluated['count']:,}, {evaluated['bytes'] / max(evaluated['count'], 1):.0f} | {row['directory']:,} |"
        )
    print(
        "\n| a generation of NEAT as tasks | connections a genome | tasks | sent, bytes | a genome | received, bytes "
        "| champion's tasks | sent and received, bytes | messages in all |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, row in data["neat"].items():
        tasks, champion = row["tasks"], len(row["champion_sent"])
        print(
            f"| {name} | {row['connections']:.1f} | {tasks} | {sum(row['sent']):,} | {sum(row['sent']) / row['population']:,.0f} "
            f"| {sum(row['received']):,} | {champion} | {sum(row['champion_sent']) + sum(row['champion_received']):,} "
            f"| {2 * (tasks + champion)} |"
        )
    sys.stdout.flush()


# --- one machine, and the simulation ---------------------------------------------------------------------------------


def slowdown() -> float:
    """How many times as long a computing process takes while a second one computes, with caches and clocks shared."""
    code = (
        "import time, numpy as np\nfor _ in range(2): x = np.random.default_rng(0).random((300, 300)).astype('f')\n"
        "print(flush=True); input()\nb = time.perf_counter()\nn = 0\nwhile time.perf_counter() - b < 2.0:\n"
        "    sum(i * i for i in range(20000)); n += 1\nprint(n)"
    )

    def count(processes: int) -> float:
        started = [
            subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return statistics.mean(float(process.communicate()[0]) for process in started)

    return statistics.median(count(1) / count(2) for _ in range(3))


def answer(*arguments: Any) -> tuple[Played, dict[str, list[float]]]:
    """A task that plays nothing, with arguments and a result of the usual size."""
    seeds = arguments[4]
    inputs = arguments[2][0]
    count = len(seeds)
    none = np.zeros((0, 2, inputs))
    return Played(np.zeros(count), np.zeros(count, np.int64), np.zeros((count, inputs), np.float32), none), {}


class Timed:
    """A task of Ray that is measured in the worker: `play_part`, and the seconds that it took."""

    def __init__(self, task: Any, ray: Any):
        self.task = task
        self.ray = ray

    def remote(self, *arguments: Any) -> Any:
        return self.task.remote(*arguments)

    def get(self, references: list[Any]) -> list[Any]:
        return self.ray.get(references)


def overheads(ray: Any, networks: Networks, population: int) -> dict[str, float]:
    """Seconds of a task that plays nothing: the time for each in a burst, a round trip, and the driver's processor time for each."""
    task = ray.remote(num_cpus=1, runtime_env={"env_vars": ONE_THREAD})(answer)
    remote = remote_players("CartPole-v1", 8, Timed(task, ray))
    chosen, seeds = np.arange(population), np.arange(population)
    for _ in range(3):
        remote.play(networks, chosen, seeds, None, False)
    bursts, drivers, trips = [], [], []
    for _ in range(20):
        begin, used = time.perf_counter(), time.process_time()
        remote.play(networks, chosen, seeds, None, False)
        tasks = math.ceil(population / math.ceil(population / players.TASKS))
        bursts.append((time.perf_counter() - begin) / tasks)
        drivers.append((time.process_time() - used) / tasks)
        begin = time.perf_counter()
        remote.play(networks, chosen[:1], seeds[:1], None, False)
        trips.append(time.perf_counter() - begin)
    return {
        "burst": statistics.median(bursts),
        "driver": statistics.median(drivers),
        "trip": statistics.median(trips),
    }


def mailbox_seconds(ray: Any) -> float:
    """Seconds in which the mailbox of a sweep takes a message, in bursts."""
    from rl_lab.experiment.sweeps.cluster import Mailbox

    mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
    event = {"kind": "progress", "steps": 12_800, "rate": 52_314.2, "return": 187.4, "key": "s1"}
    ray.get(mailbox.put.remote(event))
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        ray.get([mailbox.put.remote(event) for _ in range(2000)][-1])
        taken.append((time.perf_counter() - begin) / 2000)
        ray.get(mailbox.take.remote())
    ray.kill(mailbox)
    return statistics.median(taken)


POPULATION = 150
GENERATIONS = {"computing": 12, "waiting": 3}
PLACES = {"computing": 8, "waiting": 1}
"""Environments of a worker; those of one process wait one after the other."""
RUNS = 8
RUN_STEPS = 20_000


def local(data: dict[str, Any]) -> None:
    """Measure one and two workers of this machine, and predict them by the simulation from costs that were measured apart."""
    from rl_lab.experiment.sweeps.cluster import connect

    found: dict[str, Any] = {"slowdown": slowdown(), "load": os.getloadavg()[0]}
    agent = agent_at("CartPole-v1", POPULATION, 1)
    networks = agent.evolution.networks()
    seeds = np.random.default_rng(1).integers(SEED_RANGE, size=(max(GENERATIONS.values()), POPULATION))
    kinds: dict[str, dict[str, Any]] = {"computing": {}, "waiting": {"wrapper": "benchmarks.scaling:Waiting"}}
    # the tasks alone, in this process
    alone: dict[str, list[list[float]]] = {}
    for kind, more in kinds.items():
        counted = Alone()
        remote = remote_players("CartPole-v1", PLACES[kind], counted, **more)
        remote.play(networks, np.arange(8), seeds[0, :8], None, False)
        alone[kind] = []
        for row in seeds[: GENERATIONS[kind]]:
            counted.seconds = []
            remote.play(networks, np.arange(POPULATION), row, None, False)
            alone[kind].append(counted.seconds)
    found["alone"] = {kind: [sum(row) for row in rows] for kind, rows in alone.items()}
    for workers in (1, 2):
        ray = connect("", workers)
        try:
            found[f"overheads {workers}"] = overheads(ray, networks, POPULATION)
            print(f"one machine, {workers} workers: overheads", file=sys.stderr, flush=True)
            if workers == 1:
                found["mailbox"] = mailbox_seconds(ray)
            for kind, more in kinds.items():
                remote = remote_players("CartPole-v1", PLACES[kind], None, **more)
                begin = time.perf_counter()
                remote.play(networks, np.arange(POPULATION), seeds[0], None, False)
                found[f"first {kind} {workers}"] = time.perf_counter() - begin
                taken = []
                for row in seeds[: GENERATIONS[kind]]:
                    begin = time.perf_counter()
                    remote.play(networks, np.arange(POPULATION), row, None, False)
                    taken.append(time.perf_counter() - begin)
                found[f"measured {kind} {workers}"] = taken
        finally:
            ray.shutdown()
    found["tasks"] = alone
    found["slowdown after"] = slowdown()
    # sweeps: one run alone, in a process of its own; then all of them
    found["run"] = statistics.median(swept(1, "101-101", "local") for _ in range(3))
    for workers in (1, 2):
        found[f"sweep local {workers}"] = swept(workers, f"1-{RUNS}", "local")
    ray = connect("", 2)
    try:
        found["sweep ray 2"] = swept(2, f"1-{RUNS}", "ray")
        found["sweep ray 2 warm"] = swept(2, f"11-{10 + RUNS}", "ray")
    finally:
        ray.shutdown()
    data["local"] = found
    print_local(data)


class Alone(Counted):
    """Plays tasks here and notes their wall time."""

    def remote(self, *arguments: Any) -> Any:
        begin = time.perf_counter()
        result = players.play_part(*arguments)
        self.seconds.append(time.perf_counter() - begin)
        return result


def swept(workers: int, seeds: str, executor: str) -> float:
    """Wall seconds of a sweep."""
    with tempfile.TemporaryDirectory() as folder:
        plan = make_sweep(
            {
                "agent": "ppo",
                "env": "CartPole-v1",
                "seeds": seeds,
                "workers": workers,
                "executor": executor,
                "total_timesteps": RUN_STEPS,
                "stop_return": "none",
                "run_dir": folder,
            }
        )
        begin = time.perf_counter()
        result = carry_out_sweep(plan, NoTable())
        if result.failures:
            raise RuntimeError(f"runs failed: {result.failures}")
        return time.perf_counter() - begin


def cluster_of(found: dict[str, Any], machines: int, latency: float = 0.0) -> Cluster:
    """A cluster with the overheads that were measured here; ``latency`` is that of a network between machines."""
    one = found["overheads 1"]
    driver = one["driver"]
    own = max(0.0, (one["burst"] - driver) / 2)
    return Cluster(machines, dispatch=driver / 2, receive=driver / 2, message=found["mailbox"], latency=own + latency)


def print_local(data: dict[str, Any]) -> None:
    """Compare what was measured on this machine with the simulation."""
    found = data["local"]
    crowd = statistics.mean([found["slowdown"], found["slowdown after"]])
    one, two = found["overheads 1"], found["overheads 2"]
    print("\n| overhead | measured |\n|---|---|")
    print(f"| task of Ray that plays nothing, in a burst on one worker | {one['burst'] * 1e3:.2f} ms |")
    print(f"| the same on two workers | {two['burst'] * 1e3:.2f} ms |")
    print(f"| one such task, there and back | {one['trip'] * 1e3:.2f} ms |")
    print(f"| processor time of the driver for a task | {one['driver'] * 1e3:.2f} ms |")
    print(f"| a message to the mailbox of a sweep | {found['mailbox'] * 1e3:.3f} ms |")
    print(f"| factor by which a second computing process slows the first | {crowd:.2f} |")
    print(f"| load of the machine before the start | {found['load']:.1f} |")
    print("\n| case | workers | measured, s | simulated, s | error |\n|---|---|---|---|---|")
    for kind, name in (
        ("computing", "NEAT, CartPole of Gymnasium"),
        ("waiting", "NEAT, the same with a step that waits 0.5 ms"),
    ):
        for workers in (1, 2):
            measured = sum(found[f"measured {kind} {workers}"])
            cluster = replace(cluster_of(found, 1), cores=workers, slowdown=crowd if kind == "computing" else 1.0)
            expected = simulate([Round(row) for row in found["tasks"][kind]], cluster).seconds
            compare(f"{name}, {GENERATIONS[kind]} generations", workers, measured, expected)
    for workers in (1, 2):
        expected = simulate([Round([found["run"]] * RUNS)], Cluster(1, cores=workers, slowdown=crowd)).seconds
        compare(f"sweep of {RUNS} runs of PPO, local", workers, found[f"sweep local {workers}"], expected)
    sys.stdout.flush()


def compare(name: str, workers: int, measured: float, expected: float) -> None:
    print(f"| {name} | {workers} | {measured:.2f} | {expected:.2f} | {expected / measured - 1:+.0%} |")


# --- many machines ---------------------------------------------------------------------------------------------------

LATENCY = 0.0005
"""Seconds of a message in one direction on the network of a data centre; an assumption."""
BANDWIDTH = 125e6
"""Bytes a second of the driver's network, 1 Gbit/s; an assumption."""
TROUBLE = Trouble(delay=0.005, stragglers=0.02, factor=3.0, lifetime=24 * 3600.0, repair=600.0, detection=30.0)
"""Assumptions: messages delayed by 5 ms on average, 2% of tasks three times as slow, a machine lost once in 24 hours for 10 minutes."""


class Scenario(NamedTuple):
    """Work for a cluster of machines with one worker each."""

    name: str
    rounds: list[Round]
    start: float


def scenarios(data: dict[str, Any]) -> list[Scenario]:
    """A sweep of short and one of long runs, and generations of NEAT, from what was measured."""
    start = data["process_start"]
    ppo = data["sweeps"]["ppo"]
    events = ppo["events"]
    pieces = max(1, events["evaluated"]["count"])
    progress = events["progress"]
    each = (progress["bytes"] + events["evaluated"]["bytes"]) / pieces
    about = {
        "pieces": pieces,
        "checkpoints": pieces // 2,
        "messages": math.ceil(progress["count"] / pieces),
        "task_bytes": ppo["task"],
    }
    short = Round([ppo["seconds"]] * 2_000, report_bytes=each, **about)
    hours = 3600.0 / ppo["seconds"]  # a run of an hour reports and sends as often a second
    long = Round(
        [3600.0] * 2_000, report_bytes=each * hours, **{**about, "messages": round(progress["count"] * hours / pieces)}
    )
    made = [
        Scenario(f"sweep of 2,000 runs of {ppo['seconds']:.1f} s (PPO, CartPole, {ppo['steps']:,} steps)", [short], start),
        Scenario("sweep of 2,000 runs of 1 hour that report as often a second", [long], start),
    ]
    for key, slow, text in (
        ("CartPole-v1, 150 genomes, generation 30", 0.0, "as measured"),
        ("LunarLander-v3, 1000 genomes, generation 1", 0.0, "as measured"),
        ("LunarLander-v3, 1000 genomes, generation 1", 0.02, "with steps of 20 ms"),
    ):
        row = data["neat"][key]
        own = row["seconds"] if not slow else [slow * steps for steps in row["steps"]]
        each_step = sum(row["seconds"]) / sum(row["steps"])
        champion = [s * (slow / each_step if slow else 1.0) for s in row["champion_seconds"]]
        first = Round(own, task_bytes=statistics.mean(row["sent"]), report_bytes=statistics.mean(row["received"]))
        last = Round(
            champion,
            serial=row["breeding"],
            task_bytes=statistics.mean(row["champion_sent"]),
            report_bytes=statistics.mean(row["champion_received"]),
        )
        made.append(
            Scenario(f"50 generations of NEAT, {row['env']}, {row['population']} genomes, {text}", [first, last] * 50, start)
        )
    return made


def play(scenario: Scenario, data: dict[str, Any], machines: int, trouble: Trouble, seed: int) -> Outcome:
    """Simulate a scenario on so many machines."""
    cluster = replace(cluster_of(data["local"], machines, LATENCY), bandwidth=BANDWIDTH, start=scenario.start)
    return simulate(scenario.rounds, cluster, trouble, seed)


def many(data: dict[str, Any]) -> None:
    """Simulate many machines, and print the table."""
    data["machines"] = []
    for scenario in scenarios(data):
        row: dict[str, Any] = {"name": scenario.name, "tasks": [len(r.seconds) for r in scenario.rounds[:2]], "points": []}
        for count in MACHINES:
            if len(scenario.rounds) == 1 and len(scenario.rounds[0].seconds) < count:
                continue
            calm = play(scenario, data, count, Trouble(), 0)
            found = [play(scenario, data, count, TROUBLE, seed) for seed in range(3)]
            rough = sorted(found, key=lambda out: out.seconds)[1]
            row["points"].append(
                {
                    "machines": count,
                    "seconds": calm.seconds,
                    "efficiency": calm.efficiency,
                    "driver": calm.driver / calm.seconds,
                    "messages": calm.messages,
                    "bytes": calm.bytes,
                    "rough_seconds": rough.seconds,
                    "rough_efficiency": rough.efficiency,
                    "rough_repeated": rough.repeated / rough.computed,
                    "rough_retried": rough.retried,
                    "rough_failed": rough.failed,
                }
            )
        data["machines"].append(row)
    print_machines(data)


def print_machines(data: dict[str, Any]) -> None:
    print(
        "\n| work | machines | time | efficiency | driver busy | messages a second | bytes a second | time with trouble | efficiency "
        "| work repeated | tasks begun again |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for row in data["machines"]:
        for point in row["points"]:
            if point["machines"] not in SHOWN:
                continue
            print(
                f"| {row['name']} | {point['machines']:,} | {clock(point['seconds'])} | {point['efficiency']:.0%} | {point['driver']:.0%} "
                f"| {point['messages'] / point['seconds']:,.0f} | {point['bytes'] / point['seconds']:,.0f} "
                f"| {clock(point['rough_seconds'])} | {point['rough_efficiency']:.0%} | {point['rough_repeated']:.1%} "
                f"| {point['rough_retried']:,} |"
            )
    sys.stdout.flush()


def clock(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


# --- pictures --------------------------------------------------------------------------------------------------------

SHOWN_COSTS = (
    ("step of n environments, CartPole native", "step of n environments, CartPole gymnasium"),
    ("DQN update, 4-64-64-2, batch n",),
    ("DQN update, batch 128, n weights",),
    ("PPO iteration, 128 steps of n environments",),
    ("breeding of n individuals",),
    ("answer of an evolved network, n connections",),
    ("run of PPO, n training steps",),
    ("generation of n individuals, CartPole native", "generation of n individuals, CartPole gymnasium"),
)


def plots(data: dict[str, Any], images: Path) -> None:
    """Draw the costs as they grow, and what more machines bring."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(2, 4, figsize=(15, 6.5), layout="constrained")
    for axis, names in zip(axes.flat, SHOWN_COSTS, strict=True):
        for k, name in enumerate(names):
            row = data["costs"][name]
            model = Fit(**row["fit"])
            last = len(row["sizes"][0]) - 1  # a generation is drawn by its steps
            x = [size[last] for size in row["sizes"]]
            label = name.rsplit(" ", 1)[-1] if len(names) > 1 else "measured"
            axis.plot(x, row["costs"], "o", markersize=4, color=f"C{k}", label=label)
            order = np.argsort(x)
            drawn = np.array([model(*row["sizes"][i]) for i in order])
            style = "-" if last == 0 else "x"
            axis.plot(
                np.array(x)[order],
                drawn,
                style,
                color=f"C{k}",
                alpha=0.6,
                markersize=4,
                label=f"{label}: fit" if len(names) > 1 else "fit",
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())  # its labels would overlap
        axis.set_title(names[0] if len(names) == 1 else names[0].rsplit(" ", 1)[0], fontsize=9)
        axis.set_xlabel(row["unit"].split(", ")[-1], fontsize=8)
        axis.set_ylabel("microseconds", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(images / "scaling_costs.png", dpi=80)
    plt.close(figure)

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    for k, row in enumerate(data["machines"]):
        x = [point["machines"] for point in row["points"]]
        for prefix, style in (("", "-"), ("rough_", "--")):
            label = row["name"] if not prefix else None
            left.plot(
                x,
                [point[f"{prefix}seconds"] for point in row["points"]],
                style,
                color=f"C{k}",
                marker="o",
                markersize=3,
                label=label,
            )
            right.plot(
                x,
                [100 * point[f"{prefix}efficiency"] for point in row["points"]],
                style,
                color=f"C{k}",
                marker="o",
                markersize=3,
            )
    left.set_ylabel("seconds")
    right.set_ylabel("efficiency, percent")
    left.set_yscale("log")
    right.set_ylim(0, 103)
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xlabel("machines with one worker each")
        axis.grid(alpha=0.3)
    right.plot([], [], "k-", label="without trouble")
    right.plot([], [], "k--", label="with delays, stragglers and losses")
    right.legend(fontsize=8, loc="lower left")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", fontsize=8, ncol=2)
    figure.savefig(images / "scaling_machines.png", dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="parts to run, separated by commas")
    parser.add_argument("--data", type=Path, default=DATA, help="file in which the parts keep their figures")
    parser.add_argument("--images", type=Path, default=IMAGES, help="directory for the pictures")
    parser.add_argument("--show", action="store_true", help="print the tables of the kept figures without measuring again")
    arguments = parser.parse_args()
    chosen = arguments.parts.split(",")
    for part in chosen:
        if part not in PARTS:
            parser.error(f"--parts has no part {part!r}; its parts are {', '.join(PARTS)}")
    data = json.loads(arguments.data.read_text()) if arguments.data.is_file() else {}
    needed = {"machines": ("costs", "sweeps", "neat", "local"), "plots": ("costs", "machines")}
    measured = {"costs": "costs", "payloads": "neat", "local": "local", "machines": "machines"}
    if arguments.show:
        needed |= {part: (key,) for part, key in measured.items()}
    coming = {measured[part] for part in chosen if part in measured} | ({"sweeps"} if "payloads" in chosen else set())
    for part in chosen:
        missing = [key for key in needed.get(part, ()) if key not in data and (arguments.show or key not in coming)]
        if missing:
            parser.error(
                f"part {part} needs figures that {arguments.data} does not have ({missing[0]}): run the other parts first"
            )
    if not arguments.images.is_dir():
        parser.error(f"--images {arguments.images} is not a directory")
    if arguments.show:
        shown = {"costs": print_costs, "payloads": print_payloads, "local": print_local, "machines": print_machines}
        for part in chosen:
            if part in shown:
                shown[part](data)
        return
    numba.set_num_threads(1)
    print(machine())
    for part in chosen:
        if part == "plots":
            plots(data, arguments.images)
            continue
        {"costs": costs, "payloads": payloads, "local": local, "machines": many}[part](data)
        data["machine"] = machine()
        arguments.data.write_text(json.dumps(data, indent=None, separators=(",", ":"), default=float) + "\n")


if __name__ == "__main__":
    main()

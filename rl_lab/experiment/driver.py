"""The driver: it owns the loop. Step, log, evaluate, checkpoint, stop."""

import math
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from envs import world
from rl_lab.engine import primitive
from rl_lab.engine.errors import ShapeError
from rl_lab.experiment.agent import check_spaces, find_agent
from rl_lab.experiment.config import as_plain, make_config, read_toml, setting
from rl_lab.experiment.environments import (
    BACKENDS,
    VECTORIZATIONS,
    Setup,
    choose_setup,
    find_environment,
    full_id,
    make_environments,
    spaces_of,
)
from rl_lab.experiment.evaluation import Evaluation, evaluate, evaluation_seed, validation_seed
from rl_lab.experiment.faults import INTERRUPTED, NUMERICAL, TERMINATED, Fault
from rl_lab.experiment.logger import Logger
from rl_lab.experiment.progress import Progress, make_progress
from rl_lab.experiment.run import Run
from rl_lab.experiment.starting import from_saved_run, take_over
from rl_lab.nn.graph_files import save_graph

LAST, BEST = "last", "best"
"""Names of checkpoints: the state at the end, and the one that did best in a short evaluation."""


@dataclass(frozen=True)
class Options:
    """What the driver is told, besides the agent's hyperparameters."""

    agent: str = setting("", "the algorithm")
    env: str = setting("", "a registered Gymnasium environment")
    start_from: str = setting("", "a run of the same agent whose networks to begin with; --network RUN is the same")
    seed: int = setting(1, "of all randomness in the run", least=0)
    num_envs: int = setting(1, "environments stepped together", least=1)
    backend: str = setting(
        "auto", "of the environments: native twins where there are any, or one insisted on", choices=BACKENDS
    )
    vectorization: str = setting(
        "sync", "of Gymnasium's environments: in this process, or a process each", choices=VECTORIZATIONS
    )
    frame_stack: int = setting(1, "observations, the latest last, that make up what the agent sees", least=1)
    time_aware: bool = setting(False, "append the share of the time limit that is used up to the observation")
    run_dir: str = setting("runs", "where run directories are made")
    eval_episodes: int = setting(100, "greedy episodes of the evaluation at the end", least=1)
    eval_frequency: int = setting(0, "environment steps between short evaluations during training; 0 for none", least=0)
    short_episodes: int = setting(10, "greedy episodes of those short evaluations", least=1)
    keep_best: bool = setting(False, "end with the state that did best in a short evaluation; needs eval-frequency")
    stop_return: float | None = setting(
        None, "end training once a greedy evaluation (short, then confirmed in full) has this mean return; needs eval-frequency"
    )
    checkpoint_frequency: int = setting(25_000, "environment steps between checkpoints; 0 for one at the end", least=0)
    log_frequency: int = setting(250, "environment steps between points in the log", least=1)


@dataclass(frozen=True)
class Plan:
    """A checked request: nothing has been created yet."""

    options: Options
    setup: Setup
    agent_class: Any
    config: Any
    preset: str


def preset_for(agent_class: type, agent: str, env: str) -> dict[str, Any]:
    """The settings tuned for this pair, from ``presets.toml`` in the agent's package or beside its module; empty if there are none."""
    package = sys.modules[agent_class.__module__.partition(".")[0]]
    path = Path(str(package.__file__)).with_name("presets.toml")
    return read_toml(path).get(agent, {}).get(env.removeprefix("rl_lab/"), {}) if path.is_file() else {}


def make_plan(given: dict[str, Any]) -> Plan:
    """Options and hyperparameters from what was given, over the preset, over the defaults. Fault for anything wrong."""
    agent_class: Any = find_agent(given.get("agent", ""))
    env = full_id(given.get("env", ""))
    find_environment(env)
    preset = preset_for(agent_class, given["agent"], env)
    given = {**given, "env": env}
    given = from_saved_run(given)
    values = {**preset, **given}
    own = {field.name for field in fields(Options)}
    options = make_config(Options, {k: v for k, v in values.items() if k in own})
    config = make_config(agent_class.Config, {k: v for k, v in values.items() if k not in own})
    if options.keep_best and not options.eval_frequency:
        raise Fault("--keep-best needs --eval-frequency: without evaluations no state is the best")
    setup = choose_setup(env, options.backend, options.vectorization, options.frame_stack, options.time_aware)
    check_spaces(agent_class, options.agent, env, *spaces_of(setup))
    used = ", ".join(f"{key} {value}" for key, value in preset.items() if key not in given)
    return Plan(options, setup, agent_class, config, used)


def run_config(plan: Plan) -> dict[str, Any]:
    """What config.toml records: enough to do the same run again."""
    libraries = {name: version(name) for name in ("rl_lab", "numpy", "numba", "gymnasium")}
    return {
        **as_plain(plan.options),
        "hyperparameters": as_plain(plan.config),
        "versions": {"python": sys.version.split()[0], **libraries},
    }


class _StopRequest:
    """Notes Ctrl-C and SIGTERM, to stop between two steps; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.code = 0
        self._previous: dict[int, Any] = {}

    def _note(self, number: int, frame: Any) -> None:
        if self.code:
            raise KeyboardInterrupt
        self.code = INTERRUPTED if number == signal.SIGINT else TERMINATED

    def __enter__(self) -> "_StopRequest":
        try:
            self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            pass  # not the main thread: whoever runs us there handles signals
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class _ShortEvaluations:
    """Greedy evaluations during training, which may end it and decide which state is kept."""

    def __init__(self, agent: Any, plan: Plan, run: Run, logger: Logger):
        self.agent, self.plan, self.run, self.logger = agent, plan, run, logger
        self.best = -math.inf

    def evaluate(self) -> bool:
        """Log an evaluation; whether it, and then a full one, both on seeds of their own, reached ``stop_return``."""
        options = self.plan.options
        result = evaluate(self.agent, self.plan.setup, options.short_episodes, validation_seed(options.seed))
        self.logger.record({"eval/return_mean": result.return_mean}, self.agent.timesteps)
        if options.keep_best and result.return_mean > self.best:
            self.best = result.return_mean
            self.run.save(self.agent.state_dict(), BEST)
        if options.stop_return is None or result.return_mean < options.stop_return:
            return False
        full = evaluate(self.agent, self.plan.setup, options.eval_episodes, validation_seed(options.seed))
        return full.return_mean >= options.stop_return


class _Means:
    """Means of metrics between two points of the log."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, metrics: dict[str, float]) -> None:
        for tag, value in metrics.items():
            total, count = self._sums.get(tag, (0.0, 0))
            self._sums[tag] = (total + value, count + 1)

    def take(self) -> dict[str, float]:
        means = {tag: total / count for tag, (total, count) in self._sums.items()}
        self._sums.clear()
        return means


@dataclass(frozen=True)
class Result:
    """How a run ended; ``exit_code`` is 0 unless a signal stopped it."""

    run: Run
    evaluation: Evaluation | None
    timesteps: int
    seconds: float
    exit_code: int = 0


def train(plan: Plan, progress: Progress | None = None) -> Result:
    """Carry out a plan in a run directory of its own, made when the agent stands."""
    options, total = plan.options, plan.config.total_timesteps
    progress = progress or make_progress(total)
    announced = False

    def compiling(name: str) -> None:
        nonlocal announced
        if not announced:
            progress.say("compiling kernels: this happens once, they are kept for later runs")
            announced = True

    previous = primitive.on_compile
    primitive.on_compile = world.on_compile = compiling
    begin = time.perf_counter()
    run = envs = None
    try:
        envs = make_environments(plan.setup, options.num_envs)
        try:
            agent = plan.agent_class(plan.config, envs, options.seed)
        except MemoryError as error:
            raise Fault(f"not enough memory for these settings: {error}") from None
        except (ValueError, ShapeError) as error:
            raise Fault(str(error)) from error
        if options.start_from:
            take_over(agent, Path(options.start_from))
        run = Run.create(Path(options.run_dir), run_config(plan))
        logger = Logger(run.path)
        try:
            exit_code = _loop(agent, plan, run, logger, progress.update, total)
            evaluation, timesteps = None, agent.timesteps
            if exit_code == 0:
                if options.keep_best:
                    agent.load_state_dict(run.load(BEST))
                evaluation = evaluate(agent, plan.setup, options.eval_episodes, evaluation_seed(options.seed))
                logger.record({"eval/return_mean": evaluation.return_mean}, timesteps)
        finally:
            logger.close()
    finally:
        primitive.on_compile = world.on_compile = previous
        progress.close()
        if envs is not None:
            envs.close()
        if run is not None:
            run.close()
    return Result(run, evaluation, timesteps, time.perf_counter() - begin, exit_code)


def _loop(agent: Any, plan: Plan, run: Run, logger: Logger, show: Callable[..., None], total: int) -> int:
    """Steps until the total is reached or a signal comes; returns the exit code."""
    options, means = plan.options, _Means()
    begin, first = time.perf_counter(), agent.timesteps
    next_log = next_checkpoint = next_evaluation = agent.timesteps
    latest: float | None = None
    short = _ShortEvaluations(agent, plan, run, logger)
    with _StopRequest() as stop:
        while agent.timesteps < total and not stop.code:
            metrics = agent.step()
            for tag, value in metrics.items():
                if not math.isfinite(value):
                    raise Fault(
                        f"{tag} became {value} at step {agent.timesteps} of {run.path}: lower the learning rate or clip harder; "
                        + ("the last checkpoint is intact" if run.holds(LAST) else "no checkpoint had been written yet"),
                        NUMERICAL,
                    )
            means.add(metrics)
            latest = metrics.get("charts/episodic_return", latest)
            now = agent.timesteps
            rate = (now - first) / (time.perf_counter() - begin)
            if now >= next_log:
                logger.record({**means.take(), "charts/SPS": rate}, now)
                show(now, rate, latest)
                next_log = now + options.log_frequency
            if options.eval_frequency and now >= next_evaluation + options.eval_frequency:
                next_evaluation = now
                if short.evaluate():
                    break
            if options.checkpoint_frequency and now >= next_checkpoint + options.checkpoint_frequency:
                run.save(agent.state_dict())
                _log_pictures(agent, logger)
                _save_networks(agent, run)
                next_checkpoint = now
        if agent.timesteps > first:
            logger.record({**means.take(), "charts/SPS": rate}, now)
        if options.keep_best and agent.timesteps > next_evaluation and not stop.code:
            short.evaluate()
        run.save(agent.state_dict())
        _log_pictures(agent, logger)
        _save_networks(agent, run)
        return stop.code


def _log_pictures(agent: Any, logger: Logger) -> None:
    """What an agent has to show, if it has: its ``pictures()`` are images by tag."""
    if hasattr(agent, "pictures"):
        logger.images(agent.pictures(), agent.timesteps)


def _save_networks(agent: Any, run: Run) -> None:
    """Networks that are to be read by people and by other agents: an agent's ``saved_networks()`` by name, if it has any."""
    if hasattr(agent, "saved_networks"):
        for name, network in agent.saved_networks().items():
            save_graph(network, run.path / name)


def restore(path: Path) -> tuple[Any, Plan]:
    """The agent of a run as its last checkpoint left it, and the run's plan. Fault if the files do not hold one."""
    run = Run.open(path)
    state = run.load(BEST if run.holds(BEST) else LAST)
    content = dict(run.config)
    for fact in ("versions", "start_from"):
        content.pop(fact, None)
    hyperparameters = content.pop("hyperparameters", {})
    plan = make_plan({**content, **hyperparameters})
    envs = make_environments(plan.setup, plan.options.num_envs)
    agent = plan.agent_class(plan.config, envs, plan.options.seed)
    try:
        agent.load_state_dict(state)
    except (KeyError, RuntimeError, TypeError) as error:
        raise Fault(f"the checkpoint of {path} does not fit its config.toml: {error}") from None
    return agent, plan

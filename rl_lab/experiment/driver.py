"""The driver: the loop that steps an agent, logs, evaluates, writes checkpoints and stops."""

import math
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import rl_lab
from rl_lab.engine.errors import EnvironmentFault, NumericalError
from rl_lab.engine.kernels import usual
from rl_lab.experiment import dashboard
from rl_lab.experiment.agent import Agent, find_agent, name_in_run, note_of_preset, preset_for, registered_name
from rl_lab.experiment.config import as_complete, as_plain, make_config, option_name, setting
from rl_lab.experiment.environments import (
    BACKENDS,
    CHANNELS,
    VECTORIZATIONS,
    Setup,
    choose_setup,
    make_environments,
    spaces_of,
    summary_of,
)
from rl_lab.experiment.evaluation import MOST_STEPS, Evaluation, evaluate, evaluation_seed, validation_seed
from rl_lab.experiment.faults import NUMERICAL, STORAGE, Fault, Interrupted, first_line, interrupts_return
from rl_lab.experiment.finding import find_environment, full_id
from rl_lab.experiment.logger import Logger, cut_log
from rl_lab.experiment.memory import within_free_memory
from rl_lab.experiment.names import node_names
from rl_lab.experiment.preprocessing import PRESETS, as_presets, settings_of
from rl_lab.experiment.progress import NoProgress, Progress, make_progress
from rl_lab.experiment.run import BEST, DRIVER, LAST, Run
from rl_lab.experiment.starting import (
    from_saved_run,
    hyperparameters_of,
    keep_network,
    require_network_units,
    require_same_units,
    take_over,
)
from rl_lab.experiment.tables import as_forms, require_forms
from rl_lab.experiment.trust import require_harmless
from rl_lab.experiment.vector import abandon_environments, close_environments
from rl_lab.experiment.video import check_render, check_strip, check_video, film, frames_of_episode
from rl_lab.experiment.wrapping import as_arguments, as_texts, recordable_wrappers, seeded_globals
from rl_lab.native.ahead import helped
from rl_lab.nn.graph.files import save_graph
from rl_lab.nn.graph.picture import save_pictures_beside

CHANGEABLE = (
    *("total_timesteps", "eval_episodes", "eval_steps", "eval_frequency", "short_episodes", "keep_best", "stop_return"),
    *("checkpoint_frequency", "keep_checkpoints", "log_frequency", "log", "histogram_frequency", "video_frequency", "video"),
)
"""Settings that may change when a run is resumed: its length, and options of evaluation, logging and checkpoints."""
FACTS = ("versions", "spaces")
"""Tables of config.toml that record facts about a run; they are not settings."""
LEAST_STEPS = 20_000
"""Smallest default of ``eval_steps``: even after a short training, episodes may begin for this many environment steps."""
RECENT = 0.1
"""Weight of the latest mean return in `Result.training_return`."""
_ELSEWHERE = ("run_dir", "start_from", *FACTS, *CHANGEABLE)
"""Entries of config.toml that may differ between two configurations of the same run."""


@dataclass(frozen=True)
class Options:
    """Settings of a run besides the hyperparameters of its agent."""

    agent: str = setting("", "name of a registered agent, or module:Class")
    env: str = setting("", "id of a registered Gymnasium environment, or module:id")
    start_from: str = setting("", "run of the same agent whose networks are the initial ones; --network RUN does the same")
    seed: int = setting(1, "seed of the agent, of its environments and of the evaluations", least=0)
    num_envs: int = setting(1, "number of environments that are stepped together", least=1)
    backend: str = setting(
        "auto", "implementation of the environments; auto: native where it exists, else gymnasium", choices=BACKENDS
    )
    vectorization: str = setting(
        "sync",
        "where Gymnasium's environments run; sync: in this process, async: in one process each, own: in their own vector environment",
        choices=VECTORIZATIONS,
    )
    env_kwargs: tuple[str, ...] = setting(
        (),
        "keyword argument of the environment; can be repeated",
        read=lambda v: as_texts(as_arguments(v)),
        metavar="NAME=VALUE",
    )
    wrapper: tuple[str, ...] = setting(
        (),
        "wrapper of the environment; can be repeated, the first one is the innermost",
        read=recordable_wrappers,
        metavar="MODULE:CLASS[:NAME=VALUE,...]",
        shapes=True,
    )
    preprocess: tuple[str, ...] = setting(
        (),
        f"preprocessing with the usual settings: {', '.join(PRESETS)}; can be repeated",
        read=as_presets,
        metavar="|".join(PRESETS),
        shapes=True,
    )
    channels: str = setting(
        "auto", "dimension of pictures that holds the channels; auto: found by a rule", choices=CHANNELS, shapes=True
    )
    frame_stack: int = setting(
        1, "number of successive observations that the agent sees together, the latest last", least=1, shapes=True
    )
    time_aware: bool = setting(False, "append the elapsed share of the time limit to each observation", shapes=True)
    run_dir: str = setting("runs", "directory in which run directories are created")
    eval_episodes: int = setting(100, "number of greedy episodes in the evaluation at the end", least=1)
    eval_steps: int | None = setting(
        None,
        "environment steps after which no further episode of an evaluation begins; by default as many as the training has, within "
        f"{LEAST_STEPS:,} and {MOST_STEPS:,}",
        least=1,
    )
    eval_frequency: int = setting(
        0, "environment steps between short evaluations during training; 0: no short evaluations", least=0
    )
    short_episodes: int = setting(10, "number of greedy episodes in a short evaluation", least=1)
    keep_best: bool = setting(False, "keep the state with the best short evaluation and end with it; needs --eval-frequency")
    stop_return: float | None = setting(
        None, "mean return that ends training once a short and then a full evaluation reach it; needs --eval-frequency"
    )
    checkpoint_frequency: int = setting(25_000, "environment steps between checkpoints; 0: one checkpoint at the end", least=0)
    keep_checkpoints: int = setting(2, "number of latest checkpoints to keep besides the best one", least=1)
    log_frequency: int = setting(250, "environment steps between two points of the log", least=1)
    log: tuple[str, ...] = setting(
        (),
        "forms of the log besides TensorBoard's: csv, jsonl, wandb, separated by commas",
        read=as_forms,
        metavar="FORM,...",
    )
    histogram_frequency: int = setting(
        0, "environment steps between histograms of weights and gradients; 0: no histograms", least=0
    )
    video_frequency: int = setting(
        0, "environment steps between greedy episodes that are logged as images; 0: no images", least=0
    )
    video: bool = setting(False, "film a greedy episode at the end of training, as MP4 in videos/ of the run")
    render: bool = setting(False, "show the first environment live in a window; the environments are then Gymnasium's")


@dataclass(frozen=True)
class Plan:
    """A checked request: nothing has been created yet."""

    options: Options
    setup: Setup
    agent_class: type[Agent]
    config: Any
    preset: str
    """The settings of the preset that are used, for a line of output; empty if there are none."""
    resumes: Path | None = None
    """Directory of the run to resume; None for a new run."""
    checkpoint: str = LAST
    """Name of the checkpoint from which the run is resumed."""
    remarks: tuple[str, ...] = ()
    """Lines to print: settings that differ from those of the checkpoint."""
    spaces: dict[str, str] = field(default_factory=dict)
    """The spaces of an environment in a few words each, for config.toml."""
    place: Path | None = None
    """Directory of a new run; None for a new one below ``run_dir``."""
    command: str = ""
    """The command line that made the plan, for the log; empty for a plan that was made from Python."""
    note: str = ""
    """What a user of the preset should know, such as that it fails with some seeds."""


def make_plan(given: dict[str, Any], pixels: bool = True) -> Plan:
    """Check the given settings and complete them by those of the preset, then by the defaults. Raises Fault for anything wrong.

    ``pixels`` is False for runs of older versions, which saw uint8 and bool observations as float32.
    """
    given = {**given, "agent": registered_name(given.get("agent", ""))}
    agent_class = find_agent(given["agent"])
    env = full_id(given.get("env", ""))
    find_environment(env)
    preset = preset_for(agent_class, given["agent"], env)
    given = {**given, "env": env}
    given = from_saved_run(given, [*fields(Options), *fields(agent_class.Config)])
    own = {field.name for field in fields(Options)}
    clash = sorted(own & {field.name for field in fields(agent_class.Config)})
    if clash:
        raise Fault(
            f"the setting {clash[0]} of {agent_class.Config.__name__} has the name of an option of every run: rename it"
        )
    values = {**_settings_of_preprocessing({**preset, **given}, agent_class), **preset, **given}
    options = make_config(Options, {k: v for k, v in values.items() if k in own})
    config: Any = make_config(agent_class.Config, {k: v for k, v in values.items() if k not in own})
    if not options.eval_frequency:
        if options.keep_best and given.get("keep_best") is not None:
            raise Fault("--keep-best needs --eval-frequency: without evaluations no state is the best")
        if options.stop_return is not None and given.get("stop_return") is not None:
            raise Fault("--stop-return needs --eval-frequency: without evaluations there is no return to stop at")
        options = replace(options, keep_best=False, stop_return=None)  # the preset's
        preset = {key: value for key, value in preset.items() if key not in ("keep_best", "stop_return")}
    if options.render:
        if options.backend == "native":
            raise Fault("native environments have no windows: leave out --backend native to use --render")
        options = replace(options, backend="gymnasium")
    setup = choose_setup(
        env,
        options.backend,
        options.vectorization,
        options.frame_stack,
        options.time_aware,
        options.env_kwargs,
        options.wrapper,
        options.preprocess,
        options.channels,
        pixels,
    )
    spaces = spaces_of(setup)
    agent_class.check_spaces(env, *spaces)
    if options.video_frequency:
        check_strip(setup)
    if options.video:
        check_video(setup)
    if options.render:
        check_render(setup)
        setup = replace(setup, render=True)
    used = ", ".join(f"{key} {value}" for key, value in preset.items() if key not in given)
    note = note_of_preset(agent_class, given["agent"], env)
    return Plan(options, setup, agent_class, config, used, spaces=summary_of(*spaces), note=note if used else "")


def _settings_of_preprocessing(given: dict[str, Any], agent_class: type[Agent]) -> dict[str, Any]:
    """The settings of an agent that go with the preprocessing. Raises Fault if the agent cannot carry it out."""
    settings = settings_of(as_presets(given.get("preprocess", ())))
    known = {field.name for field in fields(agent_class.Config)}  # type: ignore[arg-type]
    if "normalize_observations" in settings and "normalize_observations" not in known:
        raise Fault(f"{given['agent']} has no setting normalize_observations: leave out --preprocess normalize, or use ppo")
    return {name: value for name, value in settings.items() if name in known}


def recorded_plan(run: Run, trust: bool = False, **changes: Any) -> Plan:
    """Return the plan that the config.toml of a run records, with ``changes``.

    Raises Fault if the agent or environment does not exist here, and if the file names a module outside the package, unless ``trust``.
    """
    own = {name: value for name, value in run.config.items() if name not in (*FACTS, "start_from", "hyperparameters")}
    if not trust:
        require_harmless(run.config, run.path / "config.toml")
    plan = make_plan({**own, **hyperparameters_of(run), **changes}, pixels="channels" in run.config)
    _require_same_spaces(plan, run)
    return plan


def _require_same_spaces(plan: Plan, run: Run) -> None:
    """Raise Fault if the environment has other spaces than it had when the run was made."""
    recorded = run.config.get("spaces", {})
    for kind, now in plan.spaces.items():
        before = recorded.get(kind, now) if isinstance(recorded, dict) else now
        if before != now:
            raise Fault(f"{plan.options.env} has changed since {run.path} was made: its {kind} was {before}, and is {now} now")


def make_resuming_plan(path: Path, changes: dict[str, Any], checkpoint: str = LAST, trust: bool = False) -> Plan:
    """Return the plan that resumes the run at ``path`` from one of its checkpoints, with changes among `CHANGEABLE`.

    Schedules follow a changed length of the training. Raises Fault if the directory is not a run, if it has no such checkpoint, or for
    changes of other settings.
    """
    run = Run.open(path)
    if checkpoint == LAST and not run.holds(LAST):
        raise Fault(
            f"{path} holds no checkpoint to resume from: start the run again with --config {shlex.quote(str(path / 'config.toml'))}"
        )
    run.require(checkpoint)
    for name in changes:
        if name not in (*CHANGEABLE, "render"):
            raise Fault(
                f"{option_name(name)} cannot change when a run is resumed: --resume takes --total-timesteps, and options of "
                "evaluation, logging and checkpoints"
            )
    if "render" in changes and recorded_plan(run, trust).setup.native is not None:
        raise Fault(
            f"--render needs Gymnasium's environments, but {path} has native ones, which cannot be exchanged in mid-episode"
        )
    plan = recorded_plan(run, trust, **changes)
    before = {**run.config, **run.config.get("hyperparameters", {})}
    after = {**as_plain(plan.options), **as_plain(plan.config)}
    changed = [
        f"{name} {before.get(name)} -> {after[name]}"
        for name in changes
        if name != "render" and after.get(name) != before.get(name)
    ]
    remarks = (*(["changed: " + ", ".join(changed)] if changed else []), *altered_settings(run, checkpoint))
    return replace(plan, resumes=path, preset="", note="", checkpoint=checkpoint, remarks=remarks)


def altered_settings(run: Run, checkpoint: str) -> tuple[str, ...]:
    """Return one line on the settings in config.toml that differ from those of a checkpoint; empty if none differs."""
    record = run.recorded(checkpoint)
    if record is None:
        place = run.path / "checkpoints" / checkpoint
        return (f"{place / 'run.json'} is damaged or missing: whether config.toml was changed cannot be told",)
    recorded = record.get("config")
    if not isinstance(recorded, dict):
        return ()
    own, now = _settings(recorded), _settings(run.config)
    different = [f"{name} {own.get(name)} -> {now.get(name)}" for name in {**own, **now} if own.get(name) != now.get(name)]
    return (f"{run.path / 'config.toml'} was changed after this checkpoint: {', '.join(different)}",) if different else ()


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration that must not change during a run, hyperparameters among the others."""
    inner = config.get("hyperparameters", {})
    both = {
        **{name: value for name, value in config.items() if name != "hyperparameters"},
        **(inner if isinstance(inner, dict) else {}),
    }
    return {name: value for name, value in both.items() if name not in _ELSEWHERE}


def run_config(plan: Plan) -> dict[str, Any]:
    """Return the content of config.toml, from which the same run can be started again."""
    libraries = {name: version(name) for name in ("numpy", "numba", "gymnasium")}
    return {
        **{name: value for name, value in as_complete(plan.options).items() if name != "render"},
        "hyperparameters": as_complete(plan.config),
        "spaces": plan.spaces,
        "versions": {"python": sys.version.split()[0], "rl_lab": rl_lab.__version__, **libraries},
    }


class _StopRequest:
    """Handles SIGINT, SIGTERM and SIGHUP for as long as a run is carried out.

    While the loop ``waits`` for them, the first signal is noted in ``code`` and the loop stops between two steps. At any other time there
    is nothing to save, and the first signal interrupts. A second signal interrupts at once, a third one ends the process.
    """

    def __init__(self) -> None:
        self.code = 0
        self.waits = False
        self._count = 0
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._returns = interrupts_return(self._forget)

    def _forget(self) -> None:
        """Uncount a signal whose exception was discarded: the signal is raised again."""
        self._count -= 1

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self.code = 128 + number
        if self._count > 2:
            os._exit(self.code)
        if self._count > 1 or not self.waits:
            raise Interrupted(self.code)

    def __enter__(self) -> "_StopRequest":
        self._returns.__enter__()
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        try:
            for number in numbers:
                if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:  # nohup ignores SIGHUP: so do we
                    self._previous[number] = signal.signal(number, self._note)
        except ValueError:
            pass  # Python handles signals in the main thread alone, which another program owns here
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._returns.__exit__(None, None, None)


@dataclass(frozen=True)
class Result:
    """How a run ended; ``exit_code`` is 0 unless a signal stopped it.

    ``seconds`` passed until the end of training, ``training_return`` is the mean return there. ``timesteps`` counts the environment
    steps of training, ``selection_steps`` those of the evaluations during training: the short ones, and the full ones that confirm
    ``stop_return``. The evaluation at the end counts in neither; its steps are ``evaluation.steps``.
    """

    run: Run
    evaluation: Evaluation | None
    timesteps: int
    seconds: float
    exit_code: int = 0
    training_return: float | None = None
    selection_steps: int = 0


def train(agent: str | type[Agent], env: str, *, progress: bool = False, **settings: Any) -> Run:
    """Train an agent in a run directory, as ``python -m rl_lab.train`` does, and return the `Run`.

    ``settings`` are the options of the command by name: hyperparameters, ``seed``, ``num_envs``, ``run_dir``, ``eval_frequency`` and so on.
    Raises Fault for settings that the command refuses, before anything is created.
    """
    plan = make_plan({**settings, "agent": name_in_run(agent), "env": env})
    shown = make_progress(plan.config.total_timesteps) if progress else NoProgress()
    return carry_out(plan, shown).run


def evaluation_budget(plan: Plan) -> int:
    """Environment steps after which no further episode of an evaluation begins: a short training ends with a short evaluation."""
    steps = plan.options.eval_steps
    return max(LEAST_STEPS, min(MOST_STEPS, plan.config.total_timesteps)) if steps is None else steps


def load_run(path: Path | str) -> Run:
    """Open a run directory: ``run.agent()``, ``run.config``, ``run.scalars()``. Raises Fault if the directory is not a run."""
    return Run.open(Path(path))


def carry_out(plan: Plan, progress: Progress | None = None) -> Result:
    """Carry out a plan: in a new run directory, created once the agent exists, or in the directory of the run that it resumes."""
    shown = progress or make_progress(plan.config.total_timesteps)

    def tell() -> None:
        shown.say("compiling kernels: this happens once, later runs load them from the cache")

    with _StopRequest() as stop, seeded_globals(plan.options.seed), helped(usual.__name__, tell):
        return _carry_out(plan, shown, stop)


def _carry_out(plan: Plan, progress: Progress, stop: _StopRequest) -> Result:
    options = plan.options
    begin = time.perf_counter()
    run = envs = None
    require_forms(options.log)
    try:
        with within_free_memory():
            envs = make_environments(plan.setup, options.num_envs)
            agent = plan.agent_class.create(plan.config, envs, options.seed, plan.setup)
        for line in (*plan.remarks, *agent.notes, *agent.remarks(), *disk_estimate(agent, plan)):
            progress.say(line)
        require_network_units(agent)
        if options.start_from:
            take_over(agent, Path(options.start_from))
        if plan.resumes is None:
            run = Run.create(Path(options.run_dir), run_config(plan), plan.place)
            keep_network(plan.config, run)
            loop = _Loop(agent, plan, run, progress)
        else:
            run = Run.open(plan.resumes)
            run.lock()
            loop = _Loop(agent, plan, run, progress)
            loop.resume()
        first = None if plan.resumes is None else agent.timesteps + 1
        logger = Logger(run.path, first, progress.say, options.log, run.config)
        try:
            loop.introduce(logger)
            exit_code = loop(logger, progress.update, stop)
            seconds = time.perf_counter() - begin
            evaluation, timesteps = None, agent.timesteps
            if exit_code == 0:
                if options.keep_best and run.holds(BEST):
                    agent.load_state_dict(_agent_part(run.load(BEST)))
                close_environments(envs)  # a robot or a port can be open only once
                evaluation = evaluate(
                    agent,
                    plan.setup,
                    options.eval_episodes,
                    evaluation_seed(options.seed),
                    most_steps=evaluation_budget(plan),
                    say=progress.say,
                )
                logger.record({**numbers_of_evaluation(evaluation), **loop.spent()}, timesteps)
                logger.add(dashboard.success(), timesteps)
                if options.video:
                    _film(agent, plan, run, progress.say)
        finally:
            logger.close()
    except BaseException:
        if envs is not None:
            abandon_environments(envs)
        raise
    finally:
        progress.close()
        if envs is not None:
            close_environments(envs)
        if run is not None:
            run.close()
    return Result(run, evaluation, timesteps, seconds, exit_code, loop.training_return, loop.selection_steps)


def _film(agent: Agent, plan: Plan, run: Run, say: Callable[[str], None]) -> None:
    """Film an episode of a trained agent. The training is already saved, so a failure only prints a warning."""
    try:
        path = film(agent, plan.setup, evaluation_seed(plan.options.seed), run.path / "videos")
        say(f"video: {path}")
    except Exception as error:  # whatever the environment's pictures or the encoder raise
        say(f"warning: no video was made: {first_line(error)}")


def numbers_of_evaluation(evaluation: Evaluation) -> dict[str, float]:
    """The numbers of an evaluation that are logged, by tag."""
    names = ("return_mean", "return_std", "return_min", "return_max", "length_mean")
    return {f"eval/{name}": getattr(evaluation, name) for name in names}


def disk_estimate(agent: Agent, plan: Plan) -> list[str]:
    """A line on the disk that a large replay buffer needs in checkpoints; none for smaller ones."""
    size = 0 if agent.replay is None else agent.replay.nbytes
    if size < LARGE_REPLAY:
        return []
    options = plan.options
    kept = max(1, options.keep_checkpoints) + options.keep_best + 1
    place = Path(options.run_dir).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    warns = "warning: " if kept * size > free else ""
    return [
        f"{warns}the replay buffer needs up to {size / 1e9:.1f} GB in a checkpoint; {kept} checkpoints (one of them being written) share "
        f"what has not changed, so together up to {kept * size / 1e9:.1f} GB on disk, {free / 1e9:.1f} GB are free"
    ]


LARGE_REPLAY = 10**8
"""Bytes from which the size of a replay buffer on disk is worth a line."""


class _Loop:
    """Steps an agent until the training ends or a signal arrives. Its own state is saved with that of the agent."""

    def __init__(self, agent: Agent, plan: Plan, run: Run, progress: Progress):
        self.agent = agent
        self.plan = plan
        self.run = run
        self.progress = progress
        self.say = progress.say
        self.said_storage = False
        self.means = _Means()
        self.next_log = agent.timesteps
        self.last_checkpoint = self.last_evaluation = agent.timesteps
        self.last_pictures = -1  # the step at which pictures were logged
        self.last_histograms = self.last_video = agent.timesteps
        self.drawn = False  # whether the graph was logged
        self.best = -math.inf  # mean return of a short evaluation
        self.pending: dict[str, float] | None = None
        """Numbers of a short evaluation that are not logged yet: if training ends here, the evaluation at the end takes its place."""
        self.selection_steps = 0
        """Environment steps of the evaluations during training. They are not among the agent's ``timesteps``."""
        self.finished = False  # by ``stop_return``
        self.training_return: float | None = None
        """Mean return of the latest episodes of training, exponentially weighted."""

    def introduce(self, logger: Logger) -> None:
        """Log what is known before training: settings, configuration, versions, command, and the layout of custom charts.

        A resumed run has logged them already. It replaces its settings, and logs texts again only if its settings differ from those of
        its checkpoint, so that its log depends on the checkpoint and the settings alone.
        """
        plan, step = self.plan, self.agent.timesteps
        texts = dashboard.texts(self.run.config, plan.command, str(self.run.path))
        logger.settings(dashboard.hyperparameters(self.run.config))
        if plan.resumes is None:
            logger.add([*dashboard.layout(self.agent, plan.options.agent), *texts], step)
        elif (self.run.recorded(plan.checkpoint) or {}).get("config") != self._recorded_config():
            logger.add(texts, step + 1)  # a resumed run drops log entries at the step of its checkpoint

    def __call__(self, logger: Logger, show: Callable[..., None], stop: _StopRequest) -> int:
        """Train and return the exit code. Metrics are logged as means over the steps between two points of the log."""
        stop.waits = True
        try:
            self._train(logger, show, stop)
        finally:
            stop.waits = False
        return stop.code

    def _train(self, logger: Logger, show: Callable[..., None], stop: _StopRequest) -> None:
        agent = self.agent
        options = self.plan.options
        total = self.plan.config.total_timesteps
        begin, first = time.perf_counter(), agent.timesteps
        rate, latest = 0.0, None
        if agent.timesteps < total and not self.finished:
            self._log_pending(logger)
        while agent.timesteps < total and not stop.code and not self.finished:
            try:
                metrics = agent.advance()
            except EnvironmentFault:
                if stop.code:  # the signal reached the environments' processes, too
                    break
                raise
            except NumericalError as error:
                kept = "the last checkpoint is intact" if self.run.holds(LAST) else "no checkpoint had been written yet"
                raise Fault(f"{error}; {kept} in {self.run.path}", NUMERICAL) from error
            self.means.add(metrics)
            latest = metrics.get("charts/episodic_return", latest)
            if latest is not None and "charts/episodic_return" in metrics:
                before = self.training_return
                self.training_return = latest if before is None else before + RECENT * (latest - before)
            now = agent.timesteps
            rate = (now - first) / (time.perf_counter() - begin)
            show(now, rate, latest)
            if now >= self.next_log:
                logger.record({**self._numbers(), "charts/SPS": rate}, now)
                self.next_log = now + options.log_frequency
            if options.histogram_frequency and now >= self.last_histograms + options.histogram_frequency:
                self.last_histograms = now
                logger.add(dashboard.histograms(agent), now)
            if options.video_frequency and now >= self.last_video + options.video_frequency:
                self.last_video = now
                self._film(logger)
            if options.eval_frequency and now >= self.last_evaluation + options.eval_frequency:
                self._evaluate(logger)
                if self.finished:
                    break
                if now < total:
                    self._log_pending(logger)
            if options.checkpoint_frequency and total > now >= self.last_checkpoint + options.checkpoint_frequency:
                self.last_checkpoint = now
                self._save(logger)
        if stop.code:
            if agent.timesteps < total and not self.finished:  # else it waits for the evaluation at the end, after a resume
                self._log_pending(logger)
        else:
            speed = {"charts/SPS": rate} if agent.timesteps > first else {}
            logger.record({**self._numbers(), **speed}, agent.timesteps)  # the means may come from the checkpoint
            if options.keep_best and agent.timesteps > self.last_evaluation:
                self._evaluate(logger)
        self._save(logger, last=True)

    def _numbers(self) -> dict[str, float]:
        """The numbers of a point of the log: means since the last one, the running return, and norms of gradients; or none."""
        numbers = self.means.take()
        if not numbers:
            return numbers
        collector = self.agent.collector
        if collector is not None and (running := collector.running_return) is not None:
            numbers["charts/episodic_return_100"] = running
        if not any("grad_norm" in tag for tag in numbers):
            numbers |= dashboard.gradient_norms(self.agent)
        return numbers

    def _film(self, logger: Logger) -> None:
        """Log a greedy episode as a strip of frames and as an animation."""
        seed = evaluation_seed(self.plan.options.seed)
        frames = frames_of_episode(self.agent, self.plan.setup, seed)
        if frames:
            logger.images({"eval/strip": dashboard.strip(frames)}, self.agent.timesteps)
            logger.add([dashboard.animation(frames, "eval/episode")], self.agent.timesteps)

    def _log_pending(self, logger: Logger) -> None:
        if self.pending is not None:
            logger.record({**self.pending, **self.spent()}, self.agent.timesteps)
            self.pending = None

    def spent(self) -> dict[str, float]:
        """The number of environment steps that the evaluations during training took, by tag; empty without such evaluations."""
        return {"charts/selection_steps": float(self.selection_steps)} if self.selection_steps else {}

    def _evaluate(self, logger: Logger) -> None:
        """Evaluate greedily in a few episodes. Keep the best state; set ``finished`` if a full evaluation confirms ``stop_return``."""
        options = self.plan.options
        self.last_evaluation = self.agent.timesteps
        seed, budget = validation_seed(options.seed), evaluation_budget(self.plan)
        result = evaluate(self.agent, self.plan.setup, options.short_episodes, seed, most_steps=budget, say=self.say)
        self.selection_steps += result.steps
        self.pending = numbers_of_evaluation(result)
        self.progress.evaluated(self.last_evaluation, result.return_mean)
        own = {**self.state_dict(), "best": result.return_mean}
        if options.keep_best and result.return_mean > self.best and self._store(BEST, own, logger.settle()):
            self.best = result.return_mean
        if options.stop_return is None or result.return_mean < options.stop_return:
            return
        full = evaluate(self.agent, self.plan.setup, options.eval_episodes, seed, most_steps=budget, say=self.say)
        self.selection_steps += full.steps
        self.finished = full.return_mean >= options.stop_return
        if self.finished and options.keep_best:
            self._store(BEST, self.state_dict(), logger.settle())

    def _save(self, logger: Logger, last: bool = False) -> None:
        """Write a checkpoint, and the networks and pictures of the agent beside it.

        The log is flushed to the disk first, so that a run resumed from this checkpoint has every point before it. If the disk takes no
        checkpoint, training continues after one message, but the ``last`` save raises Fault.
        """
        if self.last_pictures != self.agent.timesteps:  # a run that is resumed at its end has them in its log
            self.last_pictures = self.agent.timesteps
            logger.images(self.agent.pictures(), self.agent.timesteps)
        if not self.drawn and (last or dashboard.is_learning(self.agent)):
            self.drawn = True
            logger.graph(dashboard.graph(self.agent), self.agent.timesteps)
        if self._store(LAST, self.state_dict(), logger.settle(), must=last):
            self.progress.saved(self.run.path)

    def _recorded_config(self) -> dict[str, Any]:
        """The configuration in the record of a checkpoint."""
        return {name: value for name, value in run_config(self.plan).items() if name not in ("run_dir", "versions")}

    def _store(self, name: str, own: dict[str, Any], log: dict[str, int] | None = None, must: bool = False) -> bool:
        """Write a checkpoint with the driver's ``own`` state and return whether the disk took it. Raises Fault if it ``must``."""
        record = {
            "config": self._recorded_config(),
            "log": log or {},
        }
        try:
            self.run.save({**self.agent.state_dict(), DRIVER: own}, name, record, self.plan.options.keep_checkpoints)
            if name == LAST:
                for file, network in self.agent.saved_networks().items():
                    save_graph(network, self.run.path / file)
                    save_pictures_beside(network, self.run.path / file, node_names(self.agent, network))
        except (OSError, Fault) as error:
            fault = error if isinstance(error, Fault) else Fault(f"cannot write to {self.run.path}: {error.strerror}", STORAGE)
            if must or fault.code != STORAGE:
                raise fault from None
            if not self.said_storage:
                self.say(f"{fault}; training continues, and the last good checkpoint stays")
            self.said_storage = True
            return False
        return True

    def resume(self) -> None:
        """Continue from a checkpoint of the run: its state, its log and its record. Raises Fault if they do not fit."""
        run, plan = self.run, self.plan
        state = run.load(plan.checkpoint)
        own = state.pop(DRIVER, None)
        require_same_units(self.agent, run)
        _load(self.agent, state, run.path)
        if not isinstance(own, dict) or "means" not in own:
            raise Fault(f"the checkpoint {plan.checkpoint} of {run.path} cannot be continued: it holds no state of the driver")
        try:
            self.load_state_dict(own)
            if run.holds(BEST):  # it may have been written after that checkpoint
                self.best = self._best_of(run)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _misfit(error, run.path) from None
        if not self.agent.continues:
            self.say(
                f"{plan.options.env} cannot be saved in the middle of an episode: new episodes begin, unlike in an uninterrupted run"
            )
        run.recover(plan.options.keep_checkpoints, self.agent.timesteps if plan.checkpoint == LAST else None)
        settings, recorded = as_complete(plan.options), run.config.get("hyperparameters", {})
        same_goal = settings.get("stop_return") == run.config.get("stop_return")
        self.finished = self.finished and same_goal and plan.config.total_timesteps <= recorded["total_timesteps"]
        cut_log(run.path, (run.recorded(plan.checkpoint) or {}).get("log"))
        changeable = {name: settings[name] for name in CHANGEABLE if name in settings}
        total_now = {**recorded, "total_timesteps": plan.config.total_timesteps}
        run.record({**run.config, **changeable, "hyperparameters": total_now, "versions": run_config(plan)["versions"]})

    def _best_of(self, run: Run) -> float:
        """The return of the best state. If that checkpoint is damaged, the best state is chosen anew."""
        try:
            return max(self.best, float(run.load(BEST, offers=False).get(DRIVER, {}).get("best", -math.inf)))
        except Fault as fault:
            self.say(f"{fault}; the next evaluation chooses the best state anew")
            return -math.inf

    def state_dict(self) -> dict[str, Any]:
        counters = {name: getattr(self, name) for name in _COUNTERS}
        return {**counters, "means": self.means.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _COUNTERS:
            setattr(self, name, state.get(name, getattr(self, name)))
        if isinstance(self.pending, float):  # of an older version
            self.pending = {"eval/return_mean": self.pending}
        self.means.load_state_dict(state["means"])


_COUNTERS = (
    *("next_log", "last_checkpoint", "last_evaluation", "last_pictures", "best", "finished", "pending"),
    *("training_return", "last_histograms", "last_video", "drawn", "selection_steps"),
)
"""Attributes of the loop that a checkpoint holds."""


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

    def state_dict(self) -> dict[str, list[float]]:
        return {tag: [total, count] for tag, (total, count) in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self._sums = {tag: (total, int(count)) for tag, (total, count) in state.items()}


def restore(path: Path, checkpoint: str | None = None, trust: bool = False) -> tuple[Agent, Plan]:
    """Load the agent of a run from a checkpoint, by default the best one, else the last. Returns the agent and the plan of the run.

    Raises Fault if the files do not hold an agent, and if they name a module outside the package, unless ``trust``.
    """
    run = Run.open(path)
    name = checkpoint or run.preferred()
    state, plan = run.load(name), recorded_plan(run, trust)
    try:
        with within_free_memory():
            envs = make_environments(plan.setup, plan.options.num_envs)
            agent = plan.agent_class.create(plan.config, envs, plan.options.seed, plan.setup)
    except (Fault, MemoryError) as error:
        raise Fault(f"the settings in {path / 'config.toml'} do not make an agent: {error}") from None
    require_same_units(agent, run)
    _load(agent, _agent_part(state), path)
    return agent, replace(plan, checkpoint=name, remarks=altered_settings(run, name))


def _agent_part(state: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint without the state of the driver."""
    return {name: part for name, part in state.items() if name != DRIVER}


def _load(agent: Agent, state: dict[str, Any], path: Path) -> None:
    """Load a state that may come from somebody else. Raises Fault if it does not fit the agent."""
    try:
        agent.load_state_dict(state)
    except MemoryError:
        raise
    except Exception as error:  # of any kind: an agent of somebody else loads its parts itself
        raise _misfit(error, path) from error


def _misfit(error: Exception, path: Path) -> Fault:
    return Fault(f"the checkpoint of {path} does not fit its config.toml: {first_line(error)}")

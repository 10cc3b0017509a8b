"""``--optimize``: Optuna looks for better settings. A trial trains with several seeds, and none of them is among those of the final figure.

The short evaluations of the seeds that run together, averaged, are the intermediate values by which Optuna prunes a trial. The value of a
trial is the mean of the evaluations at the end of its runs.
"""

import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w

from rl_lab.experiment.agent import Agent, find_agent
from rl_lab.experiment.config import Between, Search, field_types, make_config, parse_value
from rl_lab.experiment.driver import Options, make_plan
from rl_lab.experiment.faults import NUMERICAL, Fault, code_of, first_line
from rl_lab.experiment.suggestions import nearest_option
from rl_lab.experiment.sweeps.sweep import Runner, SweepPlan, Variant, complete
from rl_lab.experiment.sweeps.worker import FAILED, FINISHED, PRUNED
from rl_lab.serialization import write_file

if TYPE_CHECKING:
    from optuna import Study, Trial

PRESET = "best.toml"
EVALUATIONS = 10
"""Short evaluations during a trial, unless --eval-frequency gives at least `FEWEST`."""
FEWEST = 3
_OWNER = "sweep"
"""Attribute of a trial that names the sweep to which it belongs."""


def require_optuna() -> ModuleType:
    """Optuna. Raises Fault, with the command that installs it, if it is missing."""
    try:
        import optuna
    except ImportError:
        raise Fault("--optimize needs Optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


# --- where to look -------------------------------------------------------------------------------------------------------


def search_space(agent_class: type[Agent], asked: Sequence[str] = ()) -> dict[str, Search]:
    """Where to look for each setting: what was ``asked`` for with --search, else what the agent declares.

    Raises Fault for a setting that does not exist, or a value that it does not take.
    """
    if not asked:
        found = agent_class.search_space()
        if not found:
            raise Fault(
                f"{agent_class.__name__} declares no search space: say where to look, as in --search learning_rate=1e-5:1e-2:log"
            )
        return found
    space: dict[str, Search] = {}
    for text in asked:
        name, _, given = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        space[name] = _read_range(agent_class, name, given.strip())
    return space


def _read_range(agent_class: type[Agent], name: str, given: str) -> Search:
    """Where --search says to look for one setting: ``LOW:HIGH``, ``LOW:HIGH:log`` or values. Raises Fault."""
    owners = (agent_class.Config, Options)
    kinds = {key: (kind, owner) for owner in reversed(owners) for key, kind in field_types(owner).items()}
    if name in ("agent", "env", "seed", "run_dir"):
        raise Fault(f"--search takes the settings of an agent or a run, not {name}")
    if name not in kinds:
        known = [field.name for owner in owners for field in fields(owner)]  # type: ignore[arg-type]
        raise Fault(f"--search: unknown setting {name!r}{nearest_option(name, known)}")
    kind, owner = kinds[name]
    parts = [part.strip() for part in given.split(":")]
    if kind in (int, float) and len(parts) in (2, 3):
        low, high = (parse_value(f"--search {name}", kind, part) for part in parts[:2])
        if parts[2:] not in ([], ["log"]) or not low < high:
            raise Fault(f"--search takes {name}=LOW:HIGH or {name}=LOW:HIGH:log, with LOW below HIGH, not {given!r}")
        if parts[2:] and low <= 0:
            raise Fault(f"--search {name}: a logarithmic range begins above 0, not at {low:g}")
        space: Search = Between(low, high, bool(parts[2:]))
    else:
        space = tuple(part.strip() for part in given.split("|" if "|" in given else ",") if part.strip())
    for value in space[:2] if isinstance(space, Between) else space:
        make_config(owner, {name: value})
    return space


def _suggest(trial: "Trial", name: str, space: Search) -> Any:
    if not isinstance(space, Between):
        return trial.suggest_categorical(name, list(space))
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(name, space.low, space.high, log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


def _within(value: Any, space: Search) -> bool:
    if isinstance(space, Between):
        return isinstance(value, (int, float)) and space.low <= value <= space.high
    return value in space


# --- trials --------------------------------------------------------------------------------------------------------------


@dataclass
class _Open:
    """A trial whose runs go on."""

    trial: "Trial"
    keys: dict[str, int]
    """The seed of each run, by the place of the run."""
    reported: int = 0
    """Intermediate values that Optuna knows."""
    pruned: bool = False
    values: dict[str, list[float]] = field(default_factory=dict)
    """Mean returns of the short evaluations of each run."""


class _Tuner:
    def __init__(self, plan: SweepPlan, path: Path, runner: Runner):
        self.plan = plan
        self.path = path
        self.runner = runner
        self.optuna = require_optuna()
        self.base = dict(plan.variants[0].settings)
        self.space = search_space(find_agent(plan.agent), plan.sweep.search)
        total = int(self.base["total_timesteps"])
        if not 0 < int(self.base["eval_frequency"]) <= total // FEWEST:
            self.base["eval_frequency"] = max(1, total // EVALUATIONS)
        self.open: dict[int, _Open] = {}
        self.study = self._study()

    def _study(self) -> "Study":
        """Open the study of the sweep, or begin it with the settings that the agent has now."""
        optuna = self.optuna
        url = self.plan.sweep.storage or f"sqlite:///{(self.path / 'study.db').absolute()}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study = optuna.create_study(
                    storage=url,
                    study_name=f"{self.plan.env}/{self.plan.agent}/{self.path.name}",
                    sampler=optuna.samplers.TPESampler(seed=self.plan.tuned_seeds[0], constant_liar=True),
                    pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
                    direction="maximize",
                    load_if_exists=True,
                )
        except Exception as error:
            raise Fault(f"Optuna cannot use the storage {url.partition('@')[2] or url}: {first_line(error)}") from None
        if not study.trials:
            study.enqueue_trial(
                {name: self.base[name] for name, space in self.space.items() if _within(self.base[name], space)}
            )
        return study

    def __call__(self) -> dict[str, Any]:
        """Carry out the trials and return the best settings. Raises Fault if no trial finished."""
        state = self.optuna.trial.TrialState
        for frozen in self.study.get_trials(states=(state.RUNNING,)):
            if frozen.user_attrs.get(_OWNER) == self.path.name:  # the sweep was interrupted
                self._begin(self.optuna.trial.Trial(self.study, frozen._trial_id), dict(frozen.params))
        while self.open or self._asked() < self.plan.sweep.optimize:
            together = max(1, self.runner.executor.places() // len(self.plan.tuned_seeds))
            while len(self.open) < together and self._asked() < self.plan.sweep.optimize:
                trial = self.study.ask()
                self.runner.begun = True
                trial.set_user_attr(_OWNER, self.path.name)
                self._begin(trial, {name: _suggest(trial, name, space) for name, space in self.space.items()})
            if self.runner.busy:
                for event in self.runner.poll():
                    if event["kind"] == "evaluated":
                        self._note(event)
            for number, one in list(self.open.items()):
                if one.keys.keys() <= self.runner.results.keys():
                    del self.open[number]
                    self._end(one)
        if not self.study.get_trials(states=(state.COMPLETE,)):
            raise Fault(
                f"none of the {self._asked()} trials finished: see the messages above, and --resume {shlex.quote(str(self.path))}",
                NUMERICAL,
            )
        best = self.study.best_trial
        self.runner.table.say(
            f"best trial: {best.number} of {len(self.study.trials)}, mean return {best.value:.1f} on its seeds"
        )
        return dict(best.params)

    def _asked(self) -> int:
        """The number of trials that began, of those of this sweep."""
        waiting = self.optuna.trial.TrialState.WAITING
        return sum(trial.state != waiting for trial in self.study.get_trials(deepcopy=False))

    def _begin(self, trial: "Trial", chosen: dict[str, Any]) -> None:
        """Give the runs of a trial to the runner. Settings that do not fit together fail the trial."""
        name = f"trial-{trial.number:04d}"
        label = f"trial {trial.number}"
        try:
            make_plan({**self.base, **chosen, "seed": self.plan.tuned_seeds[0]})
        except Fault as fault:
            self.runner.table.say(f"{label} failed: {fault}")
            self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
            return
        variant = Variant(name, label, {**self.base, **chosen})
        tasks = [variant.task(self.path, seed, self.plan.sweep.store) for seed in self.plan.tuned_seeds]
        self.open[trial.number] = _Open(trial, {task.key: int(task.settings["seed"]) for task in tasks})
        for task in tasks:
            self.runner.add(task, label)

    def _note(self, event: dict[str, Any]) -> None:
        """Report the mean of a short evaluation to Optuna once the seeds that run together have it; prune the trial if Optuna says so."""
        one = next((one for one in self.open.values() if event["key"] in one.keys), None)
        if one is None or one.pruned:
            return
        one.values[event["key"]] = event["returns"]
        together = list(one.keys)[: max(1, self.runner.executor.places())]
        reached = min(len(one.values.get(key, ())) for key in together)
        while one.reported < reached and not one.pruned:
            mean = float(np.mean([one.values[key][one.reported] for key in together]))
            one.reported += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a trial that continues reports again what Optuna knows, and ignores
                one.trial.report(mean, one.reported)
            one.pruned = one.trial.should_prune()
        if one.pruned:
            for key in one.keys:
                self.runner.drop(key)

    def _end(self, one: _Open) -> None:
        """Tell Optuna how a trial ended."""
        states = self.optuna.trial.TrialState
        results = [self.runner.results[key] for key in one.keys]
        if all(result["state"] == FINISHED for result in results):
            value = float(np.mean([result["return_mean"] for result in results]))
            self.study.tell(one.trial, value)
            self.runner.table.say(f"trial {one.trial.number}: mean return {value:.1f} over {len(results)} seeds")
        elif any(result["state"] == FAILED for result in results):
            self.study.tell(one.trial, state=states.FAIL)
        else:
            assert any(result["state"] == PRUNED for result in results)
            self.study.tell(one.trial, state=states.PRUNED)


def tune(plan: SweepPlan, path: Path, runner: Runner) -> Variant:
    """Look for better settings and return them, to be trained with the seeds of the final figure.

    Writes the settings as a preset, ``best.toml``, and figures of the search. Raises Fault if no trial finished.
    """
    tuner = _Tuner(plan, path, runner)
    chosen = make_plan({**plan.variants[0].settings, **tuner(), "seed": plan.sweep.seeds[0]})
    settings = complete(chosen)
    own = {field.name for field in fields(Options)}
    options = {name: value for name, value in settings.items() if name in own}
    seeds = ", ".join(map(str, plan.tuned_seeds))
    text = f"# found in {len(tuner.study.trials)} trials on the seeds {seeds}: measure it on others\n"
    text += tomli_w.dumps({**options, "hyperparameters": {name: v for name, v in settings.items() if name not in own}})
    try:
        write_file(path / PRESET, [text.encode()])
        _draw(tuner.study, path)
    except OSError as error:
        raise Fault(f"cannot write to {path}: {error.strerror}", code_of(error)) from None
    except ImportError:
        runner.table.say("the figures of the search are left out, because they need matplotlib: pip install matplotlib")
    runner.table.say(f"preset: --config {shlex.quote(str(path / PRESET))}")
    return Variant("best", f"best of {len(tuner.study.trials)} trials", settings)


# --- figures -------------------------------------------------------------------------------------------------------------


def _draw(study: "Study", path: Path) -> None:
    """Draw the value of each trial to ``history.png``, and how much each setting matters to ``importance.png``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    figure = Figure(figsize=(7.0, 4.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    numbers = [trial.number for trial in done]
    values = np.array([trial.value for trial in done], float)
    axes.plot(numbers, values, "o", alpha=0.6, label="trial")
    axes.step(numbers, np.maximum.accumulate(values), where="post", label="best so far")
    pruned = [trial.number for trial in study.trials if trial.state.name == "PRUNED"]
    if pruned:
        last = [list(study.trials[n].intermediate_values.values() or [np.nan])[-1] for n in pruned]
        axes.plot(pruned, last, "x", alpha=0.6, label="pruned, at its last evaluation")
    axes.set(xlabel="trial", ylabel="mean return")
    axes.legend()
    figure.savefig(path / "history.png")

    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (RuntimeError, ValueError):
        return  # too few trials, or no difference between them
    figure = Figure(figsize=(7.0, 1.0 + 0.4 * len(found)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(reversed(found))
    axes.barh(names, [found[name] for name in names])
    axes.set(xlabel="importance (PED-ANOVA)")
    figure.savefig(path / "importance.png")

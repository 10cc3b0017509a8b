"""`check_agent`: check that an agent class keeps the contract of `rl_lab.experiment.Agent`.

    from rl_lab.testing import check_agent
    check_agent(MyAgent)

With pytest, each check can be a test of its own:

    @pytest.mark.parametrize("check", agent_checks(MyAgent), ids=str)
    def test_contract(check):
        check()
"""

import copy
import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple

import rl_lab as rl
from rl_lab.experiment import Agent, Fault
from rl_lab.experiment.agent import adopt
from rl_lab.experiment.config import Between, make_config
from rl_lab.rollout.actions import ActionMapping, choices_of, single

SPACES: dict[str, Space] = {
    "Discrete": Discrete(3, start=2),
    "MultiDiscrete": MultiDiscrete([2, 3], start=[0, 5]),
    "MultiDiscrete of rank 2": MultiDiscrete(np.array([[2, 3], [4, 2]])),
    "MultiBinary": MultiBinary(3),
    "MultiBinary of rank 2": MultiBinary((2, 2)),
    "Box": Box(np.array([-3.0, 0.0], np.float32), np.array([1.0, 0.5], np.float32)),
    "Box of float16": Box(-0.1, 0.3, (2,), np.float16),
    "Box of float64 and rank 2": Box(-1e6, 2e6, (2, 2), np.float64),
    "Box without bounds": Box(-np.inf, np.inf, (2,)),
    "Box with one bound": Box(np.array([5.0, -np.inf], np.float32), np.array([np.inf, -7.0], np.float32)),
    "Box of integers": Box(-1, 2, (2,), np.int32),
    "Box of many integers": Box(-5000, 10, (2,), np.int64),
    "Tuple": Tuple((Discrete(2), Box(-1.0, 1.0, (2,)))),
    "Dict": Dict({"which": Discrete(2), "how far": Box(0.0, 4.0, (1,))}),
    "Dict of Tuples": Dict({"a": Tuple((MultiBinary(2), Discrete(3, start=-1))), "b": Dict({"c": Box(2.0, 3.0, (1,))})}),
}
"""Action spaces of each kind, with starts, bounds and types other than the usual ones."""

MASKS = ("info", "method", "observation")
"""Ways in which a `Probe` gives its mask: in ``info["action_mask"]``, by a method ``action_masks()``, or in a Dict observation."""


class Probe(gym.Env):
    """An environment that checks actions: reward 1 in each of the 7 steps of an episode, random observations float32 (3,).

    `step` raises AssertionError if an action is not in the action space, or if a mask does not allow the action.

    With ``masked``, one of `MASKS`, a random mask allows some options of each choice.
    """

    def __init__(self, action_space: Space, masked: str = ""):
        self.observation_space: Space = Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = action_space
        self.masked = masked
        self._choices = choices_of(action_space)
        self._step = 0
        if masked == "method":
            self.action_masks = lambda: self._mask
        if masked == "observation":
            mask = MultiBinary(sum(self._choices))
            self.observation_space = Dict({"action_mask": mask, "observation": self.observation_space})

    def _show(self) -> tuple[Any, dict[str, Any]]:
        observation = self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)
        if not self.masked:
            return observation, {}
        rows = [self.np_random.random(count) < 0.5 for count in self._choices]
        for row in rows:
            row[self.np_random.integers(len(row))] = True
        self._mask = np.concatenate(rows)
        if self.masked == "observation":
            return {"action_mask": self._mask.astype(np.int8), "observation": observation}, {}
        return observation, {"action_mask": self._mask.copy()} if self.masked == "info" else {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self._show()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"the agent took {action!r}, which is not in {self.action_space}"
        if self.masked:
            assert _allowed(self.action_space, action, self._mask), f"the agent took {action!r}, which its mask forbids"
        self._step += 1
        observation, info = self._show()
        return observation, 1.0, self._step >= 7, False, info


def _allowed(space: Space, action: Any, mask: np.ndarray) -> bool:
    """Whether a mask (options,) allows the choices of one action of a space."""
    mapping = ActionMapping(space)
    chosen = mapping.to_policy(_batch_of_one(action)).reshape(-1)[: len(mapping.choices)].astype(np.int64)
    rows = np.split(mask, np.cumsum(mapping.choices)[:-1])
    return all(row[i] for row, i in zip(rows, chosen, strict=True))


def _batch_of_one(action: Any) -> Any:
    if isinstance(action, tuple):
        return tuple(_batch_of_one(part) for part in action)
    if isinstance(action, dict):
        return {name: _batch_of_one(part) for name, part in action.items()}
    return np.asarray(action)[None]


class Check:
    """One check of one agent class. A call runs the check; it raises AssertionError, or any exception of the agent, if it fails."""

    def __init__(self, name: str, function: Callable[..., None], agent_class: type[Agent], settings: dict[str, Any]):
        self.name = name
        self._function = function
        self._agent_class = agent_class
        self._settings = settings

    def __call__(self) -> None:
        self._function(self._agent_class, self._settings)

    def __str__(self) -> str:
        return self.name


def check_agent(agent_class: type, **settings: Any) -> None:
    """Run all checks of the agent contract.

    ``settings`` are hyperparameters for the checks; choose small networks and short rollouts to save time. Raises AssertionError
    for the first check that fails, with the name of the check and the reason.
    """
    for check in agent_checks(agent_class, **settings):
        try:
            check()
        except AssertionError as error:
            raise AssertionError(f"{agent_class.__name__} fails {check.name}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{agent_class.__name__} fails {check.name}: {type(error).__name__}: {error}") from error


def agent_checks(agent_class: type, **settings: Any) -> list[Check]:
    """All checks of the agent contract for one agent class."""
    adopted = adopt(agent_class)
    return [Check(name, function, adopted, settings) for name, function in _CHECKS.items()]


# --- helpers -----------------------------------------------------------------------------------------------------------


def _environment(agent_class: type[Agent]) -> str:
    """The id of a native environment whose actions the agent supports."""
    return "CartPole-v1" if issubclass(Discrete, agent_class.action_spaces) else "Pendulum-v1"


def _make(
    agent_class: type[Agent],
    settings: dict[str, Any],
    env: Callable[[], gym.Env] | None = None,
    num_envs: int | None = 2,
    seed: int = 3,
    **more: Any,
) -> Agent:
    made = _environment(agent_class) if env is None else env
    return agent_class(made, seed=seed, num_envs=num_envs, preset=False, **{**settings, **more})


def _train(agent: Agent, steps: int = 6, least: int = 48) -> Agent:
    """Call ``agent.step()`` at least ``steps`` times, and until the agent has taken ``least`` environment steps."""
    taken = 0
    while taken < steps or agent.timesteps < least:
        agent.step()
        taken += 1
        assert taken < 10_000, (
            f"10,000 calls of step() took fewer than {least} environment steps: does step() advance timesteps?"
        )
    return agent


def content(state: Any, path: str = "") -> dict[str, bytes]:
    """The tensors, arrays, numbers and texts of a nested state, as bytes by their path."""
    if isinstance(state, dict):
        return {k: v for key, part in state.items() for k, v in content(part, f"{path}/{key}").items()}
    if isinstance(state, (list, tuple)):
        return {k: v for i, part in enumerate(state) for k, v in content(part, f"{path}/{i}").items()}
    if isinstance(state, rl.Tensor):
        state = state.detach().numpy()
    return {path: state.encode() if isinstance(state, str) else np.asarray(state).tobytes()}


def _assert_equal(first: Any, second: Any, what: str) -> None:
    one = content(first)
    two = content(second)
    different = [key for key in {**one, **two} if one.get(key) != two.get(key)]
    assert not different, f"{what}: {', '.join(different[:5])} differ"


def _action(agent: Agent, observations: np.ndarray) -> Any:
    predicted = agent.predict(observations)
    return predicted[0] if agent.acting_memory is not None else predicted


def _refusal(action: Callable[[], object]) -> str | None:
    """The message of the ValueError or RuntimeError that a call raises; None if it raises neither."""
    try:
        action()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return None


# --- the checks --------------------------------------------------------------------------------------------------------


def _declarations(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    config = agent_class.Config
    assert dataclasses.is_dataclass(config), "Config must be a dataclass"
    assert config.__dataclass_params__.frozen, "Config must be a frozen dataclass"  # type: ignore[attr-defined]
    for field in dataclasses.fields(config):
        assert field.metadata.get("help"), f"Config.{field.name} has no help: declare it with setting(default, help)"
    assert "total_timesteps" in {field.name for field in dataclasses.fields(config)}, "Config needs total_timesteps"
    for name, space in agent_class.search_space().items():
        for value in space[:2] if isinstance(space, Between) else space:
            refusal = _refusal(functools.partial(make_config, config, {name: value}))
            assert refusal is None, f"search_space() looks for {name} at {value!r}, which Config does not take: {refusal}"
    assert agent_class.learned, "learned is empty, so --start-from could take nothing from a run: name the parts of the policy"
    agent = _make(agent_class, settings)
    missing = [name for name in (*agent_class.learned, *agent_class.saved) if not hasattr(agent, name)]
    assert not missing, f"build() does not make the declared part {missing[0]!r}"
    doubled = set(agent_class.learned) & set(agent_class.saved)
    assert not doubled, f"{sorted(doubled)[0]!r} is declared as learned and as saved"


def _eager(agent_class: type[Agent], settings: dict[str, Any], eager: bool = True) -> dict[str, Any]:
    """The settings with ``compile`` off, if the agent has this setting."""
    known = "compile" in {field.name for field in dataclasses.fields(agent_class.Config)}
    return {**settings, "compile": False} if known and eager else settings


def _takes(agent_class: type[Agent], space: Space) -> bool:
    """Whether the agent accepts a space: it must accept the kind of space and, for a Box of integers, also choices."""
    try:
        agent_class.check_spaces("the environment", Box(-1.0, 1.0, (3,)), space)
    except ValueError:
        return False
    return True


def _spaces(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    for name, space in SPACES.items():
        if _takes(agent_class, space):
            recorded = isinstance(space, (Discrete, Dict))  # eager steps are shorter, and `_recording` compares the two
            env = functools.partial(Probe, space)
            agent = _train(_make(agent_class, _eager(agent_class, settings, not recorded), env=env), steps=2, least=30)
            for deterministic in (True, False):
                action = single(agent.act(np.zeros((1, 3), np.float32), deterministic))
                assert space.contains(action), f"act() gave {action!r}, which is not in {space}"
            continue
        refusal = _refusal(functools.partial(_make, agent_class, settings, env=functools.partial(Probe, space)))
        assert refusal is not None, f"{space} ({name}) is not in action_spaces, but the agent accepts it"
        assert type(space).__name__ in refusal, f"the message about {space} does not name the space: {refusal}"


def _masks(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    for shown in MASKS if _takes(agent_class, SPACES["Discrete"]) else ():
        _train(_make(agent_class, settings, env=functools.partial(Probe, SPACES["Discrete"], shown)))
    for k, (name, space) in enumerate(SPACES.items()):
        if name != "Discrete" and choices_of(space) and _takes(agent_class, space):
            shown = MASKS[k % len(MASKS)]
            env = functools.partial(Probe, space, shown)
            _train(_make(agent_class, _eager(agent_class, settings), env=env), steps=1, least=16)
    if not issubclass(Discrete, agent_class.action_spaces):
        return
    agent = _train(_make(agent_class, settings, env=lambda: Probe(Discrete(4, start=1), "info")), least=96)
    for allowed in range(4):
        mask = np.zeros((5, 4), bool)
        mask[:, allowed] = True
        agent.begin_episodes(np.ones(5, bool))
        for deterministic in (True, False):
            actions = agent.act(np.zeros((5, 3), np.float32), deterministic, action_mask=mask)
            assert (actions == allowed + 1).all(), f"act() took a forbidden action (deterministic={deterministic})"


def _several_environments(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    for count in (1, 4):
        agent = _make(agent_class, settings, num_envs=count)
        before = agent.timesteps
        agent.step()
        taken = agent.timesteps - before
        assert taken > 0, "step() did not advance timesteps"


def _determinism(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    first, second = (_train(_make(agent_class, settings, seed=3)).state_dict() for _ in range(2))
    _assert_equal(first, second, "two agents with the same seed")
    other = _train(_make(agent_class, settings, seed=4)).state_dict()
    assert content(first) != content(other), "another seed gives the same result"


def _recording(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    if "compile" not in {field.name for field in dataclasses.fields(agent_class.Config)}:
        return
    recorded, eager = (_train(_make(agent_class, settings, compile=flag)).state_dict() for flag in (True, False))
    _assert_equal(recorded, eager, "compile=True and compile=False")


def _resuming(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    agent = _train(_make(agent_class, settings))
    twin = _make(agent_class, settings, seed=99)
    with tempfile.TemporaryDirectory() as folder:
        rl.save(agent.state_dict(), Path(folder) / "state")
        twin.load_state_dict(rl.load(Path(folder) / "state"))
    _assert_equal(agent.state_dict(), twin.state_dict(), "a state, and the state of an agent that loaded it")
    _assert_equal(_train(agent).state_dict(), _train(twin).state_dict(), "an uninterrupted training and a resumed one")


def _copies(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    agent = _train(_make(agent_class, settings))
    state = copy.deepcopy(agent.state_dict())
    twin = copy.deepcopy(agent)
    _train(twin)
    _assert_equal(state, agent.state_dict(), "an agent before and after its copy was trained")
    _train(agent)
    _assert_equal(agent.state_dict(), twin.state_dict(), "an agent and its copy, after the same training")


def _files(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    agent = _train(_make(agent_class, settings))
    observation = np.asarray(agent.envs.single_observation_space.sample(), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        agent.save(Path(folder) / "agent")
        twin = agent_class.load(Path(folder) / "agent")
    assert np.array_equal(_action(agent, observation), _action(twin, observation)), "a loaded agent predicts another action"
    _assert_equal(
        _train(agent).state_dict(),
        _train(twin).state_dict(),
        "an agent and the agent loaded from its file, after the same training",
    )


def _starting(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    agent = _train(_make(agent_class, settings))
    twin = _make(agent_class, settings, seed=11)
    twin.load_learned(agent.state_dict())
    observations = np.stack([agent.envs.single_observation_space.sample() for _ in range(16)]).astype(np.float32)
    assert np.array_equal(_action(agent, observations), _action(twin, observations)), (
        "an agent that loaded the learned parts acts differently"
    )


def _predicting(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    agent = _train(_make(agent_class, settings))
    space = agent.space
    observations = np.stack([agent.envs.single_observation_space.sample() for _ in range(3)]).astype(np.float32)
    before = copy.deepcopy(agent.state_dict())
    batch = _action(agent, observations)
    _assert_equal(before, agent.state_dict(), "predict() changes the agent")
    for i, observation in enumerate(observations):
        action = _action(agent, observation)
        assert space.contains(action), f"predict() gave {action!r} for one observation, which is not in {space}"
        assert np.allclose(action, batch[i], atol=1e-4), "predict() differs for one observation and for a batch that holds it"
    if agent.acting_memory is not None:
        _, state = agent.predict(observations[0])
        following, _ = agent.predict(observations[1], state)
        assert space.contains(following), f"predict() with a state gave {following!r}"
        _remembering(agent, observations)
    other = np.zeros((2, *(n + 1 for n in agent.shape)), np.float32)
    assert _refusal(lambda: agent.predict(other)) is not None, "predict() accepts observations of another shape"


def _remembering(agent: Agent, observations: np.ndarray) -> None:
    """Episodes begin without a memory of others, and `greedy_step`, from which an export is made, acts as `predict` does."""
    begins = np.ones(len(observations), bool)
    seen = []
    for _ in range(2):
        agent.begin_episodes(begins)
        agent.act(observations, True)
        seen.append(copy.deepcopy(getattr(agent, str(agent.acting_memory))))
    what = "what an agent remembers after one step, whether or not episodes went before: begin_episodes() must clear it"
    _assert_equal(seen[0], seen[1], what)
    try:
        function, memory = agent.greedy_step()
    except Fault:  # it cannot be exported, and says so
        return
    state = None
    for row in observations:
        action, state = agent.predict(row, state)
        with rl.no_grad():
            scaled, *after = function(rl.from_numpy(row[None]), *memory, None)
        memory = tuple(after)
        exported = single(agent.mapping.of_scaled(scaled))
        assert np.allclose(exported, action, atol=1e-3), f"greedy_step() gave {exported!r}, predict() {action!r}"


def _learning(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    agent = _make(agent_class, settings)
    seen: list[dict[str, float]] = []
    returned = agent.learn(40, callback=lambda agent, metrics: seen.append(metrics))
    assert returned is agent, "learn() does not return the agent"
    assert agent.timesteps >= 40, f"learn(40) took {agent.timesteps} steps"
    for metrics in seen:
        for tag, value in metrics.items():
            assert "/" in tag, f"the metric {tag!r} has no group; name it like losses/{tag}"
            assert np.isfinite(value), f"the metric {tag!r} is {value}"
    seen.clear()

    def stop(agent: Agent, metrics: dict[str, float]) -> bool:
        seen.append(metrics)
        return False

    agent.learn(10_000, callback=stop)
    assert len(seen) == 1, "learn() goes on after its callback returned False"


def _settings(agent_class: type[Agent], settings: dict[str, Any]) -> None:
    refusal = _refusal(lambda: _make(agent_class, settings, total_timestep=10))
    assert refusal is not None, "a setting that does not exist is accepted"
    assert "total" in refusal, f"the message for a misspelt setting does not suggest the right one: {refusal}"


_CHECKS: dict[str, Callable[[type[Agent], dict[str, Any]], None]] = {
    "declarations": _declarations,
    "spaces": _spaces,
    "masks": _masks,
    "several environments": _several_environments,
    "determinism": _determinism,
    "recording": _recording,
    "resuming": _resuming,
    "copies": _copies,
    "files": _files,
    "starting from another run": _starting,
    "predicting": _predicting,
    "learning": _learning,
    "settings": _settings,
}

"""Datasets of whole episodes: recorded from an agent, written to a folder, and read from one or from a Minari dataset.

A folder holds ``dataset.json``, which describes the data, and ``data.safetensors`` with these arrays:

- ``observations``, (steps + episodes, ...): the observations of each episode, its final one included, one episode after the other;
- ``actions``, (steps, ...): as a policy gives them, see `rl_lab.rollout.actions`: choices counted from 0, components in [-1, 1];
- ``rewards``, float64 (steps,);
- ``lengths``, int64 (episodes,): steps of each episode;
- ``terminated``, bool (episodes,): False where an episode was truncated.
"""

import copy
import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import Space
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict, Tuple
from gymnasium.vector import VectorEnv
from safetensors import SafetensorError
from safetensors.numpy import load, save

import rl_lab as rl
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.experiment.agent import Agent
from rl_lab.experiment.config import number_of
from rl_lab.experiment.environments import Setup, copy_for_evaluation, make_environments
from rl_lab.experiment.faults import Fault, first_line
from rl_lab.experiment.files import LARGEST_CONFIG, read_file
from rl_lab.experiment.vector import SerialVectorEnv, close_environments
from rl_lab.rollout import EPISODE_LIMIT, ActionMapping, Stepper, Transitions, longest_episode
from rl_lab.rollout.actions import options_of
from rl_lab.rollout.observations import ObservationMapping
from rl_lab.rollout.storage import stored_dtype

FORMAT = "rl_lab dataset 1"
DESCRIPTION, DATA = "dataset.json", "data.safetensors"
LARGEST_DATA = 1 << 36
"""Bytes of the largest file of data that is read."""
SIDE_BY_SIDE = 8
"""Environments in which episodes are recorded at the same time."""
RANDOM, MINARI = "random:", "minari:"
"""Beginnings of a description that is not a folder, see `find_dataset`."""


@dataclass(frozen=True)
class Dataset:
    """Whole episodes, in the arrays that the module's docstring lists."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray

    @property
    def returns(self) -> np.ndarray:
        """The undiscounted return of each episode, float64 (episodes,)."""
        return np.add.reduceat(self.rewards, np.cumsum(self.lengths) - self.lengths)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in self.__dataclass_fields__}

    def fingerprint(self) -> str:
        """A digest of the data, by which a resumed run knows its dataset."""
        digest = hashlib.sha256()
        for array in self.arrays().values():
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def transitions(self) -> Transitions:
        """All steps as transitions, in their order."""
        steps = int(self.lengths.sum())
        episode = np.repeat(np.arange(len(self.lengths)), self.lengths)
        row = np.arange(steps) + episode  # each episode has one observation more than steps
        last = np.zeros(steps, bool)
        last[np.cumsum(self.lengths) - 1] = True
        ends = self.terminated[episode]
        return Transitions(
            self.observations[row],
            self.actions,
            self.rewards.astype(np.float32),
            self.observations[row + 1],
            last & ends,
            last & ~ends,
        )

    def __str__(self) -> str:
        steps, returns = int(self.lengths.sum()), self.returns
        return f"{len(returns):,} episodes of {steps:,} steps, return {returns.mean():.1f} (std {returns.std():.1f})"


# --- recording -------------------------------------------------------------------------------------------------------


def record_agent(agent: Agent, setup: Setup, episodes: int, seed: int, deterministic: bool = True) -> Dataset:
    """Play episodes with the seeds ``seed``, ``seed + 1``, ... and return them. Raises EnvironmentFault if an environment fails."""
    setup = copy_for_evaluation(setup)
    envs = make_environments(setup, 1 if setup.once else min(episodes, SIDE_BY_SIDE), or_fewer=True)
    streams = {name: value.get_state() for name, value in vars(agent).items() if isinstance(value, rl.Generator)}
    try:
        stepper = Stepper(envs, longest_episode(envs))

        def act() -> Any:
            mask = stepper.action_mask
            return agent.act(stepper.observations, deterministic, **({} if mask is None else {"action_mask": mask}))

        return _record(stepper, agent.mapping, act, episodes, math.inf, seed, agent.begin_episodes)
    finally:
        close_environments(envs)
        for name, state in streams.items():
            getattr(agent, name).set_state(state)


def record_random(envs: VectorEnv, steps: int, seed: int = 0) -> Dataset:
    """At least ``steps`` steps of whole episodes with uniformly random actions; the same for the same environments and ``seed``."""
    stepper = Stepper(envs, longest_episode(envs))
    mapping = ActionMapping(envs.single_action_space)
    random = np.random.default_rng(seed)
    splits = np.cumsum(mapping.choices)[:-1]

    def act() -> Any:
        count = envs.num_envs
        weights = random.random((count, mapping.num_masked))
        if stepper.action_mask is not None:
            weights = np.where(stepper.action_mask, weights, -1.0)
        groups = np.split(weights, splits, axis=1) if mapping.choices else []
        chosen = [group.argmax(1) for group in groups]
        rows = np.stack([*chosen, *random.uniform(-1.0, 1.0, (mapping.size, count))], 1)
        return mapping(rl.tensor(rows.astype(mapping.dtype).reshape(count, *mapping.shape)))

    return _record(stepper, mapping, act, EPISODE_LIMIT * steps, steps, seed, lambda begins: None)


def _record(
    stepper: Stepper,
    mapping: ActionMapping,
    act: Callable[[], Any],
    episodes: int,
    most: float,
    seed: int,
    begin: Callable[[np.ndarray], None],
) -> Dataset:
    """Record ``episodes`` episodes in the order of their beginnings; none begins after ``most`` steps."""
    count = stepper.num_envs
    playing = np.arange(count)  # number of the episode that each environment plays, -1 for none
    playing[episodes:] = -1
    begun, taken = min(count, episodes), 0
    reseeds = isinstance(
        stepper.envs, (SerialVectorEnv, NativeVectorEnv)
    )  # vector environments of other packages go on by themselves
    rows: dict[int, list[tuple[np.ndarray, np.ndarray, float]]] = {}
    ends: dict[int, tuple[np.ndarray, bool]] = {}
    stepper.reset(seed)
    begin(np.ones(count, bool))
    while (playing >= 0).any():
        seen = stepper.observations.copy()
        actions = act()
        given = mapping.to_policy(actions)
        step = stepper.step(actions, counted=playing >= 0)
        begin(step.ended)
        seeds: list[int | None] = [None] * count
        for i in map(int, np.flatnonzero((playing >= 0) & step.valid)):
            rows.setdefault(int(playing[i]), []).append((seen[i], given[i], float(step.rewards[i])))
            taken += 1
            if not step.ended[i]:
                continue
            ends[int(playing[i])] = (step.observations[i].copy(), bool(step.terminated[i]))
            playing[i] = -1
            if begun < episodes and taken < most:
                playing[i] = begun
                seeds[i] = seed + begun
                begun += 1
        again = np.array([given is not None for given in seeds])
        if again.any() and reseeds:
            stepper.reset(seeds, again)
    order = sorted(rows)
    return Dataset(
        np.stack([x for k in order for x in (*[row[0] for row in rows[k]], ends[k][0])]),
        np.stack([row[1] for k in order for row in rows[k]]),
        np.array([row[2] for k in order for row in rows[k]]),
        np.array([len(rows[k]) for k in order]),
        np.array([ends[k][1] for k in order]),
    )


# --- folders ---------------------------------------------------------------------------------------------------------


def check_new_folder(folder: Path) -> None:
    """Raise Fault if a dataset cannot be written to ``folder``: it exists, or its parent does not."""
    if folder.exists():
        raise Fault(f"{folder} exists: give --output a folder that does not")
    if not folder.absolute().parent.is_dir():
        raise Fault(f"{folder.absolute().parent} is not a directory: --output names a folder in a directory that exists")


def write_dataset(dataset: Dataset, folder: Path, envs: VectorEnv, about: dict[str, Any]) -> None:
    """Write a dataset to a new folder; ``about`` is added to its description. Raises OSError if the disk does not take it.

    The folder appears when it is complete.
    """
    described = {
        "format": FORMAT,
        "observation_space": str(envs.single_observation_space),
        "action_space": str(envs.single_action_space),
        "episodes": len(dataset.lengths),
        "steps": int(dataset.lengths.sum()),
        "return_mean": float(dataset.returns.mean()),
        **about,
    }
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    beside.mkdir()
    try:
        (beside / DATA).write_bytes(save(dataset.arrays()))
        (beside / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n")
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def find_dataset(description: str, envs: VectorEnv) -> Dataset:
    """The dataset of a description, for an agent in environments like ``envs``.

    The description is a folder that `write_dataset` wrote, the folder of a Minari dataset, ``minari:`` and the id of a local Minari
    dataset, or ``random:`` and a number of steps with random actions, which are taken in ``envs``. Raises Fault, naming the reason, if
    there is no such dataset or if it does not fit the spaces of the environments.
    """
    observations, actions = envs.single_observation_space, envs.single_action_space
    if not description:
        raise Fault(
            "give the data to learn from: --dataset FOLDER, which python -m rl_lab.record RUN writes, or --dataset minari:ID"
        )
    if description.startswith(RANDOM):
        steps = number_of(int, description.removeprefix(RANDOM))
        if steps is None or steps < 1:
            raise Fault(f"--dataset random: takes a number of steps, as in random:1000, got {description!r}")
        return record_random(envs, int(steps))
    if description.startswith(MINARI) or (Path(description) / "data" / "metadata.json").is_file():
        dataset = _from_minari(description, envs)
    else:
        about, dataset = _read_folder(Path(description))
        # actions are scaled to the bounds of their space and counted from its starts
        if about.get("action_space", str(actions)) != str(actions):
            raise Fault(f"the actions of {description} are {about['action_space']}, those of the environment {actions}")
    _require_fit(dataset, description, observations, ActionMapping(actions))
    return dataset


def read_dataset(folder: Path) -> Dataset:
    """The dataset in a folder. Raises Fault if the folder does not hold one, or if its parts contradict each other."""
    return _read_folder(folder)[1]


def _read_folder(folder: Path) -> tuple[dict[str, Any], Dataset]:
    """The description of a dataset, and the dataset. Raises as `read_dataset` does."""
    try:
        about = json.loads(read_file(folder / DESCRIPTION, LARGEST_CONFIG))
        arrays = load(read_file(folder / DATA, LARGEST_DATA))
    except OSError as error:
        raise Fault(f"{folder} holds no dataset: {Path(error.filename or folder).name}: {error.strerror}") from None
    except (ValueError, RecursionError, SafetensorError) as error:
        raise Fault(f"the dataset in {folder} is damaged: {first_line(error)}") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise Fault(f"{folder / DESCRIPTION} does not describe a dataset of this version of rl_lab")
    missing = [name for name in Dataset.__dataclass_fields__ if name not in arrays]
    if missing:
        raise Fault(f"the dataset in {folder} is damaged: it has no {missing[0]}")
    dataset = Dataset(**{name: arrays[name] for name in Dataset.__dataclass_fields__})
    lengths = dataset.lengths
    sound = lengths.ndim == 1 and lengths.dtype == np.int64 and len(lengths) and (lengths > 0).all()
    sound = sound and (lengths <= len(dataset.actions)).all()  # whose sum could not be computed
    steps = int(lengths.sum()) if sound else 0
    if (
        not sound
        or len(dataset.observations) != steps + len(lengths)
        or len(dataset.actions) != steps
        or dataset.rewards.shape != (steps,)
        or dataset.terminated.shape != lengths.shape
        or dataset.terminated.dtype != bool
    ):
        raise Fault(f"the dataset in {folder} is damaged: its arrays do not have the same numbers of steps and episodes")
    return about, dataset


def _require_fit(dataset: Dataset, name: str, observations: Any, mapping: ActionMapping) -> None:
    """Raise Fault if a dataset does not fit the spaces of an agent, or has numbers that are not finite."""
    shape = tuple(observations.shape or ())
    if dataset.observations.shape[1:] != shape:
        raise Fault(f"the observations of {name} have shape {dataset.observations.shape[1:]}, those of the environment {shape}")
    if dataset.actions.shape[1:] != mapping.shape:
        raise Fault(f"the actions of {name} have shape {dataset.actions.shape[1:]}, those of the environment {mapping.shape}")
    for part in ("observations", "actions", "rewards"):
        array = getattr(dataset, part)
        if array.dtype.kind not in "fiub" or not _is_finite(array):
            raise Fault(
                f"the {part} of {name} have the dtype {array.dtype} or hold NaN, infinity or numbers beyond float32: "
                "record them as finite numbers"
            )
    stored = stored_dtype(observations)
    seen = dataset.observations
    scaled = stored is not np.float32 and not np.array_equal(seen, seen.astype(stored))
    if scaled or (seen.dtype == np.uint8 and observations.dtype.kind == "f" and (seen > observations.high).any()):
        raise Fault(
            f"the observations of {name} are {seen.dtype} in [{seen.min()}, {seen.max()}], those of the environment "
            f"{observations.dtype} in [{observations.low.min()}, {observations.high.max()}]: record them as the environment returns them"
        )
    chosen = dataset.actions.reshape(len(dataset.actions), -1)[:, : len(mapping.choices)]
    if mapping.choices and ((chosen < 0) | (chosen >= np.array(mapping.choices))).any():
        raise Fault(f"the actions of {name} are not in {mapping.space}")


def _is_finite(array: np.ndarray) -> bool:
    """Whether float32 holds all numbers of an array."""
    if array.dtype.kind != "f":
        return True
    largest = np.finfo(np.float32).max
    return bool(((array >= -largest) & (array <= largest)).all())


# --- Minari ----------------------------------------------------------------------------------------------------------


def require_minari() -> None:
    """Raise Fault, with the pip command, unless the package minari can read and write datasets."""
    if find_spec("minari") is None or find_spec("h5py") is None:
        raise Fault('Minari datasets need the package minari: pip install "minari[hdf5]"')


def check_minari_id(name: str) -> None:
    """Raise Fault if Minari cannot write a dataset under an id, or has one already."""
    require_minari()
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):  # an id without a version is converted to a number
        raise Fault(f"a Minari id is like cartpole/ppo-v0, with a namespace of two letters or more, got {name!r}") from None
    if _minari_folder(name).exists():
        raise Fault(f"there is a local Minari dataset {name}: give another id, or remove it by: minari delete {name}")


def _minari_folder(name: str) -> Path:
    """Where Minari keeps a local dataset."""
    from minari.storage import get_dataset_path

    return Path(get_dataset_path(name))


def _from_minari(description: str, envs: VectorEnv) -> Dataset:
    """Read a local Minari dataset, whose observations are flattened as those of the environment are. Nothing is downloaded.

    Raises Fault if there is no such dataset, if its spaces are others, or if it is damaged.
    """
    require_minari()
    import minari

    try:
        if description.startswith(MINARI):
            name = description.removeprefix(MINARI)
            if not _minari_folder(name).is_dir():
                raise Fault(f"there is no local Minari dataset {name}; list those that exist by: minari list local")
            found = minari.load_dataset(name)
        else:
            found = minari.MinariDataset(Path(description) / "data")
    except Fault:
        raise
    except Exception as error:  # of any kind: the file belongs to somebody else
        raise Fault(f"{description} is not a local Minari dataset: {first_line(error)}") from None
    if found.action_space != envs.single_action_space:
        raise Fault(
            f"the actions of {description} are {found.action_space}, those of the environment {envs.single_action_space}"
        )
    flat = _flattening(description, found.observation_space, envs)
    try:
        return _joined(found.iterate_episodes(), flat, ActionMapping(envs.single_action_space))
    except Exception as error:
        raise Fault(f"the Minari dataset {description} is damaged: {first_line(error)}") from None


def _flattening(description: str, space: Space, envs: VectorEnv) -> ObservationMapping:
    """How observations of ``space`` become those of the environments. Raises Fault if that is not known.

    The mapping of the environments finds the parts of a Dict by their names: Minari sorts them, an environment need not.
    """
    own = getattr(envs, "observation_mapping", None) or ObservationMapping(envs.single_observation_space)
    if _is_alike(space, own.space):
        return own
    if _parts(space) > 1:
        raise Fault(f"the observations of {description} are {space}, those of the environment {own.space}")
    return ObservationMapping(space, options_of(envs.single_action_space))


def _is_alike(space: Space, other: Space) -> bool:
    """Whether two spaces have the same parts, in whatever order a Dict names them, and numbers of the same shapes."""
    if isinstance(space, Dict) and isinstance(other, Dict):
        alike = [name in other.spaces and _is_alike(part, other.spaces[name]) for name, part in space.spaces.items()]
        return len(alike) == len(other.spaces) and all(alike)
    if isinstance(space, Tuple) and isinstance(other, Tuple):
        return len(space.spaces) == len(other.spaces) and all(map(_is_alike, space.spaces, other.spaces))
    if isinstance(space, Box) and isinstance(other, Box):
        return space.shape == other.shape
    return space == other


def _parts(space: Space) -> int:
    """Number of the spaces in nested Dicts and Tuples."""
    if isinstance(space, (Dict, Tuple)):
        return sum(map(_parts, space.spaces.values() if isinstance(space, Dict) else space.spaces))
    return 1


def _joined(episodes: Iterable[Any], flat: ObservationMapping, mapping: ActionMapping) -> Dataset:
    """Minari's episodes as a dataset. Raises ValueError, or whatever its arrays raise, if they contradict each other."""
    rows: dict[str, list[np.ndarray]] = {"observations": [], "actions": [], "rewards": []}
    lengths, terminated = [], []
    for episode in episodes:
        seen, count = episode.observations, len(episode.rewards)
        wanted = {
            "observations": (seen, count + 1),
            "actions": (episode.actions, count),
            "terminations": (episode.terminations, count),
        }
        for name, (values, number) in wanted.items():
            if any(length != number for length in _lengths(values)) or not count:
                raise ValueError(f"episode {episode.id} has {count} rewards, but not {number} {name}")
        rewards = np.asarray(episode.rewards)
        if rewards.dtype.kind not in "fiub" or rewards.size != count:
            raise ValueError(f"the rewards of episode {episode.id} are {rewards.dtype} of shape {rewards.shape}")
        each = seen if flat.is_identity else np.stack([flat.array(_row(seen, t)) for t in range(count + 1)])
        rows["observations"].append(np.asarray(each))
        rows["actions"].append(mapping.to_policy(episode.actions))
        rows["rewards"].append(rewards.reshape(count).astype(np.float64))
        lengths.append(count)
        terminated.append(bool(episode.terminations[-1]))
    if not lengths:
        raise ValueError("it holds no episodes")
    return Dataset(
        **{name: np.concatenate(parts) for name, parts in rows.items()},
        lengths=np.array(lengths),
        terminated=np.array(terminated),
    )


def _lengths(values: Any) -> Iterator[int]:
    """The length of each array in nested dicts and tuples."""
    if isinstance(values, (dict, tuple)):
        for part in values.values() if isinstance(values, dict) else values:
            yield from _lengths(part)
    else:
        yield len(values)


def _row(values: Any, t: int) -> Any:
    """Element ``t`` of each array in nested dicts and tuples."""
    if isinstance(values, dict):
        return {name: _row(part, t) for name, part in values.items()}
    if isinstance(values, tuple):
        return tuple(_row(part, t) for part in values)
    return values[t]


def write_minari(dataset: Dataset, name: str, setup: Setup, envs: VectorEnv, about: dict[str, Any]) -> None:
    """Write a dataset in Minari's format under the id ``name``, such as cartpole/ppo-v0, in Minari's local directory."""
    require_minari()
    import minari
    from minari.data_collector import EpisodeBuffer

    mapping = ActionMapping(envs.single_action_space)
    buffers = []
    step = row = 0
    for k, length in enumerate(map(int, dataset.lengths)):
        given = rl.tensor(np.ascontiguousarray(dataset.actions[step : step + length]))
        ends = np.arange(length) == length - 1
        buffers.append(
            EpisodeBuffer(
                id=k,
                observations=dataset.observations[row : row + length + 1],  # type: ignore[arg-type]
                actions=mapping(given),
                rewards=dataset.rewards[step : step + length],  # type: ignore[arg-type]
                terminations=ends & dataset.terminated[k],  # type: ignore[arg-type]
                truncations=ends & ~dataset.terminated[k],  # type: ignore[arg-type]
            )
        )
        step += length
        row += length + 1
    folder = _minari_folder(name)
    is_new = not folder.exists()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari asks for an author and a link to the code
            minari.create_dataset_from_buffers(
                name,
                buffers,
                env=_environment_of(setup, envs),
                observation_space=envs.single_observation_space,
                action_space=envs.single_action_space,
                algorithm_name=str(about.get("agent", "")),
                description=f"recorded by rl_lab from {about.get('run', '')}",
                data_format="hdf5",
                jpeg_encoding=False,  # which changes the pictures
            )
    except BaseException as error:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        raise Fault(f"Minari does not take the dataset {name!r}: {first_line(error)}") from None


def _environment_of(setup: Setup, envs: VectorEnv) -> EnvSpec | None:
    """The specification by which Minari makes the environment again. None if it would make another one, without our wrappers."""
    flat = getattr(envs, "observation_mapping", None)
    changed = setup.wrapper or setup.preprocess or setup.time_aware or setup.frame_stack > 1
    if setup.maker is not None or changed or (flat is not None and not flat.is_identity):
        return None
    try:
        spec = copy.deepcopy(gym.spec(setup.env_id))
        spec.kwargs.update(setup.env_kwargs)
        spec.to_json()
        return spec
    except Exception:  # an id of somebody's module, or arguments that are not plain
        return None

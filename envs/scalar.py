"""NativeEnv: a native world as a single Gymnasium environment."""

import operator
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from rl_lab.envs import world as w
from rl_lab.envs.picture import Window
from rl_lab.envs.stream import set_stream, stream_words
from rl_lab.envs.vector import NativeVectorEnv


class NativeEnv(gym.Env):
    """A single environment of a world. With equal seeds its states equal those of an environment of `NativeVectorEnv`.

    ``parameters`` are those of the world, such as gravity; they are also attributes of the environment that can be read and set.
    ``render_mode`` is None, "rgb_array" or "human". The environment does not truncate: `gymnasium.make` wraps it in TimeLimit. Raises
    ValueError for an unknown render mode, TypeError for an unknown parameter.
    """

    world: ClassVar[w.World]
    _batch: NativeVectorEnv

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        modes = [] if cls.world.draw is None else ["rgb_array", "human"]
        cls.metadata = {"render_modes": modes, "render_fps": cls.world.frames_per_second}

    def __init__(self, render_mode: str | None = None, **parameters: float):
        world = self.world
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"render_mode of {world.name} must be {' or '.join([*modes, 'None'])}, got {render_mode!r}")
        self.render_mode = render_mode
        self.observation_space: Box = world.observation_space
        self.action_space: Discrete | Box = world.action_space
        self._generator: np.random.Generator | None = None
        self._window: Window | None = None
        one = type(world.name, (NativeVectorEnv,), {"world": world})
        self._batch = one(1, autoreset_mode=AutoresetMode.DISABLED, **parameters)

    # --- Gymnasium ---------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a new episode; return (observation, {}). ``options`` are those of the world. Raises ValueError for an unknown option."""
        batch = self._batch
        if self._generator is not None:
            batch.streams[0, :4] = stream_words(self._generator)
        observations, _ = batch.reset(seed=seed, options=options)
        self._keep_up()
        if self.render_mode == "human":
            self.render()
        return observations[0], {}

    def step(self, action: int | np.integer | np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one step; return (observation, reward, terminated, False, {}).

        Raises ResetNeeded before the first reset and after the end of an episode; NativeFault if the action is outside the action space
        or a result is not finite.
        """
        batch = self._batch
        if not batch.is_ready:
            raise ResetNeeded("call reset before step")
        if batch.ended[0]:
            raise ResetNeeded(f"the episode of {self.world.name} has ended: call reset before the next step")
        if isinstance(self.action_space, Discrete):
            batch.actions[0] = operator.index(action) - int(self.action_space.start)
        else:
            batch.actions[0] = np.asarray(action, np.float32).reshape(batch.actions[0].shape)
        if self._generator is not None:
            batch.streams[0, :4] = stream_words(self._generator)
        batch.run(w.DISABLED)
        self._keep_up()
        if self.render_mode == "human":
            self.render()
        return batch.observations[0].copy(), float(batch.rewards[0]), bool(batch.terminated[0]), False, {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Return a picture, uint8 (height, width, 3), in mode "rgb_array"; show it in a window in mode "human"."""
        if self.render_mode is None or self.world.draw is None:
            gym.logger.warn(f'{self.world.name} cannot render: create it with render_mode="rgb_array" or "human"')
            return None
        picture = self.world.draw(self._batch.states[0])
        if self.render_mode == "rgb_array":
            return picture
        if self._window is None:
            self._window = Window(self.world.name, self.world.frames_per_second)
        self._window.show(picture)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    # --- random numbers ----------------------------------------------------------------------------------------------
    # The random stream of the batch is the source. Once a caller has asked for ``np_random``, the stream and this generator are kept
    # in the same state, so a number is never drawn twice.

    @property  # type: ignore[misc]
    def _np_random(self) -> np.random.Generator | None:  # type: ignore[override]
        if self._batch.seeds[0] is None:
            return None
        if self._generator is None:
            self._generator = np.random.Generator(np.random.PCG64())
            self._keep_up()
        return self._generator

    @_np_random.setter
    def _np_random(self, generator: np.random.Generator | None) -> None:
        if generator is not None:
            self._batch.streams[0, :4] = stream_words(generator)
        self._generator = generator

    @property  # type: ignore[misc]
    def _np_random_seed(self) -> int | None:  # type: ignore[override]
        return self._batch.seeds[0]

    @_np_random_seed.setter
    def _np_random_seed(self, seed: int | None) -> None:
        self._batch.seeds[0] = seed

    def _keep_up(self) -> None:
        """Set the generator, if there is one, to the state of the stream."""
        if self._generator is not None:
            set_stream(self._generator, self._batch.streams[0])

    # --- attributes and saving ---------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """Return a parameter of the world, or ``state``. Raises AttributeError for another name."""
        if not name.startswith("_") and (name == "state" or name in self.world.parameters):
            return self._batch.get_attr(name)[0]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        if name == "state" or name in self.world.parameters:
            self._batch.set_attr(name, [value])
        else:
            super().__setattr__(name, value)

    def get_state(self) -> dict[str, np.ndarray]:
        """Return everything that is needed to continue bitwise identically."""
        return self._batch.get_state()

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state that `get_state` returned. Raises ValueError if it is the state of another world."""
        self._batch.set_state(state)
        self._keep_up()

"""The contract of rl_lab's environments, tested on every registered one."""

import copy
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import FrameStackObservation, TimeAwareObservation
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from rl_lab.envs.vector import NativeFault, NativeVectorEnv
from tests.envs.alike import MODES, NAMES, OWN, assert_alike, assert_observations, make_native, make_scalars, world_of

DRAWN = [name for name in NAMES if "Probe" not in name]
VECTORS = [name for name in NAMES if len(world_of(name).observation_space.shape) == 1]
# environments whose first observation shows the random numbers of the reset
RANDOM = [
    n for n in NAMES if not any(word in n for word in ("DoublePole", "Constant", "Delayed", "Action", "Endless", "Starts"))
]


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def test_everything_that_is_registered_is_tested():
    assert sorted(NAMES) == sorted(name for name in gym.registry if name.startswith("rl_lab/"))


@pytest.mark.parametrize("name", NAMES)
def test_the_checker_of_gymnasium_is_content(name):
    env = gym.make(name, disable_env_checker=True).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error" if name in OWN else "ignore")
        check_env(env)


# --- the vector environment is the scalar one, many times -----------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_vector_and_scalars_agree(name, mode):
    """Observations, rewards, flags, infos and episode statistics are bitwise equal, also with a short time limit."""
    assert assert_alike(
        name, make_native(name, mode=mode, max_episode_steps=13), make_scalars(name, mode=mode, max_episode_steps=13), 60
    )


@pytest.mark.parametrize("name", OWN)
def test_vector_and_scalars_agree_under_the_registered_limit(name):
    native = make_native(name, 4)
    scalars = make_scalars(name, 4)
    assert_alike(name, native, scalars, 250, seed=3)
    assert gym.spec(name).max_episode_steps == native.max_episode_steps


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_those_of_the_vector_wrapper(name, mode):
    native = make_native(name, 4, mode, max_episode_steps=9)
    wrapped = RecordEpisodeStatistics(make_native(name, 4, mode, max_episode_steps=9), stats_key="expected")
    native.reset(seed=5)
    wrapped.reset(seed=5)
    native.action_space.seed(5)
    for _ in range(40):
        actions = native.action_space.sample()
        info, expected = native.step(actions)[4], wrapped.step(actions)[4]
        assert ("episode" in info) == ("expected" in expected)
        if "episode" in info:
            np.testing.assert_array_equal(info["_episode"], expected["_expected"])
            for key in ("r", "l"):
                np.testing.assert_array_equal(info["episode"][key], expected["expected"][key])
    assert wrapped.episode_count > 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VECTORS)
def test_stacked_frames_and_time_are_those_of_the_wrappers(name, mode):
    def wrap(env: gym.Env) -> gym.Env:
        return FrameStackObservation(TimeAwareObservation(env, normalize_time=True), 3)

    native = make_native(name, mode=mode, max_episode_steps=11, frame_stack=3, time_aware=True)
    scalars = make_scalars(name, mode=mode, wrap=wrap, max_episode_steps=11)
    if "Acrobot" in name:
        pytest.skip("its first frames stay in the stack, and are equal to the last bit only")
    assert assert_alike(name, native, scalars, 40)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in VECTORS])
def test_stacked_pictures_are_those_of_the_wrapper(name):
    native = make_native(name, max_episode_steps=11, frame_stack=2)
    scalars = make_scalars(name, wrap=lambda env: FrameStackObservation(env, 2), max_episode_steps=11)
    assert assert_alike(name, native, scalars, 40)
    with pytest.raises(ValueError, match="time_aware needs observations that are vectors"):
        make_native(name, max_episode_steps=11, time_aware=True)


def test_a_limit_that_is_not_there_cannot_be_seen():
    with pytest.raises(ValueError, match="time_aware needs max_episode_steps"):
        make_native("rl_lab/ProbeMemory-v0", time_aware=True)


# --- seeds and states -----------------------------------------------------------------------------------------------------


def played(env: NativeVectorEnv, steps: int, seed: int = 1) -> list[np.ndarray]:
    env.action_space.seed(seed)
    return [np.concatenate([part.ravel() for part in env.step(env.action_space.sample())[:4]]) for _ in range(steps)]


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_one_course(name):
    runs = []
    for seed in (4, 4, 5):
        env = make_native(name, max_episode_steps=12)
        first, _ = env.reset(seed=seed)
        runs.append(np.array([first.ravel(), *[part[: first.size] for part in played(env, 40)]]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (name in RANDOM) <= (not np.array_equal(runs[0], runs[2]))


@pytest.mark.parametrize("name", NAMES)
def test_seeds_by_environment(name):
    env = make_native(name)
    single = gym.make(name, disable_env_checker=True)
    observations, _ = env.reset(seed=[7, None, 9])
    assert env.np_random_seed[0::2] == (7, 9)
    for i in (0, 2):
        assert_observations(name, observations[i : i + 1], single.reset(seed=7 + i)[0][None], slice(None))
        assert env.np_random[i].bit_generator.state == single.unwrapped.np_random.bit_generator.state
    with pytest.raises(ValueError, match="3 environments need 3 seeds, got 2"):
        env.reset(seed=[1, 2])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("name", NAMES)
def test_a_saved_state_goes_on_bit_for_bit(name, mode):
    env = make_native(name, mode=mode, max_episode_steps=9, frame_stack=2)
    env.reset(seed=8)
    played(env, 23)
    state = {key: value.copy() for key, value in env.get_state().items()}
    expected = played(env, 30, seed=2)
    other = make_native(name, mode=mode, max_episode_steps=9, frame_stack=2)
    other.set_state(state)
    np.testing.assert_array_equal(played(other, 30, seed=2), expected)
    assert other.np_random_seed == (8, 9, 10)
    with pytest.raises(ValueError, match="has shape"):
        make_native(name, 4, frame_stack=2).set_state(state)


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_goes_on_by_itself(name):
    env = make_native(name, max_episode_steps=9, frame_stack=2)
    env.reset(seed=8)
    played(env, 12)
    other = copy.deepcopy(env)
    expected = played(env, 20, seed=2)
    np.testing.assert_array_equal(played(other, 20, seed=2), expected)
    if name in OWN:
        single = gym.make(name, disable_env_checker=True)
        single.reset(seed=1)
        twin = copy.deepcopy(single)
        action = single.action_space.sample()
        first = single.step(action)
        single.reset(seed=5)
        second = twin.step(action)
        np.testing.assert_array_equal(first[0], second[0])
        assert first[1:] == second[1:]
        assert twin.unwrapped.np_random_seed == 1


@pytest.mark.parametrize("name", OWN)
def test_a_scalar_state_goes_on_bit_for_bit(name):
    env, other = (gym.make(name, disable_env_checker=True).unwrapped for _ in range(2))
    env.reset(seed=8)
    state = env.get_state()
    other.set_state(state)
    env.action_space.seed(0)
    for _ in range(50):
        action = env.action_space.sample()
        mine, theirs = env.step(action), other.step(action)
        np.testing.assert_array_equal(mine[0], theirs[0])
        assert mine[1:4] == theirs[1:4]
        if mine[2]:
            np.testing.assert_array_equal(env.reset()[0], other.reset()[0])
    assert env.np_random.bit_generator.state == other.np_random.bit_generator.state


@pytest.mark.parametrize("name", OWN)
def test_the_generator_of_a_scalar_environment_is_its_stream(name):
    """The environment's draws advance ``np_random``, and draws from ``np_random`` advance the environment's stream."""
    env, plain = (gym.make(name, disable_env_checker=True).unwrapped for _ in range(2))
    env.reset(seed=3)
    plain.reset(seed=3)
    generator = env.np_random
    env.reset()
    plain.reset()
    assert generator.bit_generator.state == plain.np_random.bit_generator.state
    generator.random(2)
    assert env.np_random.random() != plain.np_random.random()
    fresh = gym.make(name, disable_env_checker=True).unwrapped
    assert isinstance(fresh.np_random.random(), float)
    assert fresh.np_random_seed is not None
    other = np.random.Generator(np.random.PCG64(77))
    fresh.np_random = other
    fresh.reset()
    assert fresh.np_random is other


# --- parameters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_parameters_by_name(name):
    env = make_native(name)
    env.reset(seed=1)
    for parameter, value in env.world.parameters.items():
        assert env.get_attr(parameter) == (value,) * 3
        env.set_attr(parameter, [value, value + 0.5, value])
        assert env.get_attr(parameter) == (value, value + 0.5, value)
        env.set_attr(parameter, value)
        assert env.get_attr(parameter) == env.call(parameter) == (value,) * 3
        assert make_native(name, **{parameter: value + 1}).get_attr(parameter) == (value + 1,) * 3
    assert len(env.get_attr("state")[0]) == env.world.state_size
    with pytest.raises(AttributeError, match="no attribute 'gravitas' that can be set"):
        env.set_attr("gravitas", 1.0)
    with pytest.raises(AttributeError, match="gravitas"):
        env.get_attr("gravitas")
    with pytest.raises(ValueError, match="3 environments need 3 values of 'state', got 2"):
        env.set_attr("state", [0.0, 1.0])
    with pytest.raises(TypeError, match="no parameter 'gravitas'"):
        make_native(name, gravitas=1.0)
    with pytest.raises(ValueError, match="no reset option 'gravitas'"):
        env.reset(options={"gravitas": 1.0})


@pytest.mark.parametrize("name", OWN)
def test_parameters_of_a_scalar_environment(name):
    env = gym.make(name, disable_env_checker=True)
    for parameter, value in env.unwrapped.world.parameters.items():
        assert env.get_wrapper_attr(parameter) == value
        env.set_wrapper_attr(parameter, value + 0.25)
        assert getattr(env.unwrapped, parameter) == value + 0.25
    with pytest.raises(AttributeError, match="gravitas"):
        env.get_wrapper_attr("gravitas")
    with pytest.raises(TypeError, match="no parameter 'gravitas'"):
        gym.make(name, gravitas=1.0)


def test_an_option_holds_for_one_reset():
    env = make_native("rl_lab/Catch-v0")
    env.reset(seed=1, options={"balls": np.array([1.0, 2.0, 3.0])})
    assert [state[4] for state in env.get_attr("state")] == [1, 2, 3]
    env.reset()
    assert [state[4] for state in env.get_attr("state")] == [10, 10, 10]


# --- pictures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
def test_pictures(name):
    env = make_native(name, 2, render_mode="rgb_array")
    single = gym.make(name, render_mode="rgb_array", disable_env_checker=True)
    env.reset(seed=3)
    single.reset(seed=3)
    pictures = env.render()
    assert len(pictures) == 2
    assert pictures[0].dtype == np.uint8
    assert pictures[0].ndim == pictures[0].shape[2] == 3
    np.testing.assert_array_equal(pictures[0], single.render())
    later = [
        (env.step(np.full_like(env.actions, 1.0, env.action_space.dtype).reshape(env.action_space.shape)), env.render())[1]
        for _ in range(5)
    ]
    assert any(not np.array_equal(pictures[0], frames[0]) for frames in later)
    np.testing.assert_array_equal(env.call("render")[0], later[-1][0])
    assert make_native(name).render() is None


@pytest.mark.parametrize("name", [name for name in OWN if name in DRAWN])
def test_a_window(name):
    env = gym.make(name, render_mode="human", disable_env_checker=True)
    env.reset(seed=1)
    env.step(env.action_space.sample())
    assert env.render() is None
    env.close()
    env.close()


@pytest.mark.filterwarnings("ignore:.*not in the possible render_modes")
def test_what_has_no_picture_says_so():
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=r"render_mode of (a )?ProbeMemory (batch )?must be"):
            make(
                "rl_lab/ProbeMemory-v0",
                render_mode="rgb_array",
                **({} if make is gym.make_vec else {"disable_env_checker": True}),
            )


def test_rendering_without_pygame_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)
    env = gym.make("rl_lab/Catch-v0", render_mode="rgb_array", disable_env_checker=True)
    env.reset()
    with pytest.raises(gym.error.DependencyNotInstalled, match=r"^rendering needs pygame: pip install pygame$"):
        env.render()


# --- faults ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_step_before_a_reset(name):
    env = make_native(name)
    with pytest.raises(ResetNeeded):
        env.step(env.action_space.sample())
    single = gym.make(name, disable_env_checker=True).unwrapped
    if name in OWN:
        with pytest.raises(ResetNeeded):
            single.step(single.action_space.sample())


@pytest.mark.parametrize("name", NAMES)
def test_a_step_after_an_end_that_nobody_reset(name):
    env = make_native(name, mode=AutoresetMode.DISABLED, max_episode_steps=3)
    env.reset(seed=1)
    with pytest.raises(ResetNeeded, match="reset_mask"):
        played(env, 4)
    for mask in (np.array([True, False]), np.zeros(3, bool), [True, True, True]):
        with pytest.raises(ValueError, match="reset_mask must be"):
            env.reset(options={"reset_mask": mask})


@pytest.mark.parametrize("name", [name for name in OWN if "Endless" not in name])
def test_a_scalar_step_after_the_end(name):
    env = gym.make(name, disable_env_checker=True).unwrapped
    env.reset(seed=1)
    for _ in range(3000):
        if env.step(env.action_space.sample())[2]:
            break
    with pytest.raises(ResetNeeded, match="has ended"):
        env.step(env.action_space.sample())
    env.reset()
    env.step(env.action_space.sample())


def outside(space: gym.Space) -> list[np.ndarray]:
    if isinstance(space, gym.spaces.Discrete):
        return [np.array(space.start + space.n), np.array(space.start - 1)]
    return [np.full(space.shape, value, np.float32) for value in (np.nan, 1.5 * space.high.max(), 1.5 * space.low.min())]


@pytest.mark.parametrize("name", NAMES)
def test_an_action_outside_its_space_names_who_got_it(name):
    """The error names the environment. Twins of Gymnasium's continuous environments clip actions as the originals do; NaN is an error."""
    env = make_native(name)
    clips = env.world.clips
    for action in outside(env.single_action_space)[: 1 if clips else None]:
        env.reset(seed=20)
        actions = env.action_space.sample()
        if "ProbeMemory" in name:
            env.step(actions)
        actions[1] = action
        step = 2 if "ProbeMemory" in name else 1
        with pytest.raises(
            NativeFault, match=rf"environment 1 of \w+ \(seed 21\) was given the action .* at step {step} of its episode"
        ):
            env.step(actions)
        if name in OWN:
            single = gym.make(name, disable_env_checker=True)
            single.reset(seed=20)
            with pytest.raises(NativeFault, match=r"environment 0 of \w+ \(seed 20\) was given the action"):
                single.step(action)


@pytest.mark.parametrize("action", [0.5, None, "left", np.zeros(2)])
def test_what_is_no_action_at_all(action):
    env = gym.make("rl_lab/Catch-v0", disable_env_checker=True)
    env.reset(seed=1)
    with pytest.raises(TypeError):
        env.step(action)


def test_odd_numbers_of_environments():
    with pytest.raises(ValueError, match="at least 1"):
        make_native("rl_lab/Catch-v0", 0)
    with pytest.raises(ValueError, match="at least 1"):
        make_native("rl_lab/Catch-v0", frame_stack=0)

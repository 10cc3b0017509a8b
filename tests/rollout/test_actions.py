"""The mapping between a policy's actions and those of a space: round trips, bounds, scale and masks, for any space."""

import inspect

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import rl_lab as rl
from rl_lab.experiment.environments import make_environments
from rl_lab.rollout import ActionMapping
from rl_lab.rollout.actions import MOST_CHOICES, OutputMapping, choices_of, mask_row, options_of, single
from rl_lab.testing import SPACES, content
from tests.agents.test_contract import AGENTS, SMALL

BOUNDS = st.one_of(
    st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
    st.sampled_from([-np.inf, np.inf, float(np.finfo(np.float32).max), -float(np.finfo(np.float32).max), 1e17, -1e17]),
)


@st.composite
def float_boxes(draw) -> Box:
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    shape = draw(array_shapes(max_dims=3, max_side=3))
    pairs = np.array([sorted([draw(BOUNDS), draw(BOUNDS)]) for _ in range(int(np.prod(shape)))])
    with np.errstate(over="ignore"):
        low, high = (pairs[:, k].reshape(shape).astype(dtype) for k in (0, 1))
    low = np.where(low == np.inf, dtype(0), low)  # a bound on the wrong side is no bound
    high = np.where(high == -np.inf, dtype(0), high)
    return Box(np.minimum(low, high), np.maximum(low, high), dtype=dtype)


@st.composite
def integer_boxes(draw) -> Box:
    dtype = draw(st.sampled_from([np.int8, np.uint8, np.int16, np.int32, np.int64]))
    limits = np.iinfo(dtype)
    low = draw(st.integers(int(limits.min), int(limits.max) - 1))
    width = draw(st.one_of(st.integers(0, 6), st.integers(0, int(limits.max) - low)))
    return Box(low, min(low + width, int(limits.max)), draw(array_shapes(max_dims=2, max_side=2)), dtype)


SMALL_INTEGERS = [
    st.just(Discrete(3, start=-1, dtype=kind))  # type: ignore[call-arg]
    for kind in (np.int8, np.int32)
    if "dtype" in inspect.signature(Discrete).parameters  # since Gymnasium 1.4
]
LEAVES = st.one_of(
    st.builds(Discrete, st.integers(1, 5), start=st.integers(-3, 3)),
    *SMALL_INTEGERS,
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(MultiDiscrete),
    st.just(MultiDiscrete([[2, 3], [4, 2]], start=[[1, -1], [0, 5]])),
    array_shapes(max_dims=2, max_side=2).map(MultiBinary),
    float_boxes(),
    integer_boxes(),
)
ANY_SPACE = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(Tuple),
        st.dictionaries(st.sampled_from(["a", "b", "c"]), parts, min_size=1, max_size=3).map(Dict),
    ),
    max_leaves=4,
)


def drawn(mapping: ActionMapping, seed: int, batch: int = 3) -> np.ndarray:
    """A batch of a policy's actions: choices, and components in [-1, 1]."""
    rng = np.random.default_rng(seed)
    choices = [rng.integers(count, size=batch) for count in mapping.choices]
    rows = (
        np.stack([*choices, *rng.uniform(-1, 1, (mapping.size, batch))], 1) if choices or mapping.size else np.zeros((batch, 0))
    )
    return rows.astype(mapping.dtype).reshape(batch, *mapping.shape)


def rows_of(actions, k: int):
    if isinstance(actions, tuple):
        return tuple(rows_of(part, k) for part in actions)
    if isinstance(actions, dict):
        return {name: rows_of(part, k) for name, part in actions.items()}
    return actions[k]


# --- round trips -----------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(ANY_SPACE, st.integers(0, 1000))
def test_actions_lie_in_the_space_and_return(space, seed):
    mapping = ActionMapping(space)
    actions = drawn(mapping, seed)
    made = mapping(rl.tensor(actions))
    for k in range(len(actions)):
        assert space.contains(rows_of(made, k)), (space, rows_of(made, k))
    back = mapping.to_policy(made)
    assert back.shape == actions.shape
    assert back.dtype == actions.dtype
    count = len(mapping.choices)
    flat, returned = actions.reshape(len(actions), -1), back.reshape(len(back), -1)
    assert (flat[:, :count] == returned[:, :count]).all()
    again = mapping(rl.tensor(back))
    assert all(same(rows_of(made, k), rows_of(again, k), space) for k in range(len(actions)))


def same(one, two, space: Space) -> bool:
    """Whether two actions are equal up to the rounding of float32, or of the space's dtype if it is coarser."""
    if isinstance(space, Tuple):
        return all(same(a, b, part) for a, b, part in zip(one, two, space.spaces, strict=True))
    if isinstance(space, Dict):
        return all(same(one[name], two[name], part) for name, part in space.spaces.items())
    if not isinstance(space, Box):
        return np.array_equal(one, two)
    with np.errstate(all="ignore"):
        low, high = (
            np.asarray(bound, np.float64) for bound in (space.low, space.high)
        )  # the least int64 has no absolute value
        width = high - low
    scale = np.where(np.abs(width) < 1e18, np.maximum(np.abs(low), np.abs(high)), 1e7)
    step = 1e-2 if space.dtype == np.float16 else 1e-5
    slack = step * scale + (0.51 if np.issubdtype(space.dtype, np.integer) else 1e-6)
    return bool((np.abs(np.asarray(one, np.float64) - np.asarray(two, np.float64)) <= slack).all())


@settings(max_examples=60, deadline=None)
@given(float_boxes())
def test_the_ends_of_the_interval_are_the_bounds(space):
    mapping = ActionMapping(space)
    low, high = (mapping(rl.full((1, mapping.size), end))[0] for end in (-1.0, 1.0))
    both = (np.abs(np.asarray(space.low, np.float64)) < 1e18) & (np.abs(np.asarray(space.high, np.float64)) < 1e18)
    tolerance = 1e-2 if space.dtype == np.float16 else 1e-5
    for found, bound in ((low, space.low), (high, space.high)):
        width = np.maximum(np.abs(space.low), np.abs(space.high)).astype(np.float64)
        assert (np.abs(found.astype(np.float64) - bound) <= tolerance * width)[both].all()
    without = ~np.isfinite(space.low) & ~np.isfinite(space.high)
    assert (low[without] == -1).all()
    assert (high[without] == 1).all()


@pytest.mark.parametrize(("low", "high", "centre"), [(5.0, np.inf, 6.0), (-np.inf, -7.0, -8.0), (-np.inf, np.inf, 0.0)])
def test_a_single_bound_leaves_the_policy_room(low, high, centre):
    """With one bound, all of [-1, 1] maps to different actions."""
    mapping = ActionMapping(Box(low, high, (1,)))
    assert mapping(rl.tensor([[-1.0], [0.0], [1.0]])).ravel().tolist() == [centre - 1, centre, centre + 1]


def test_close_bounds_far_from_zero_are_told_apart():
    space = Box(1e9, 1e9 + 1, (1,), np.float64)
    made = ActionMapping(space)(rl.tensor([[-1.0], [0.0], [0.5], [1.0]])).ravel() - 1e9
    assert made == pytest.approx([0.0, 0.5, 0.75, 1.0], abs=1e-6)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_many_integers_are_rounded_components(dtype):
    space = Box(-1000, 3000, (1,), dtype)
    mapping = ActionMapping(space)
    assert mapping.choices == ()
    made = mapping(rl.tensor([[-1.0], [-0.5], [0.2501], [1.0]]))
    assert made.dtype == dtype
    assert made.ravel().tolist() == [-1000, 0, 1500, 3000]
    few = ActionMapping(Box(-1, MOST_CHOICES - 2, (1,), dtype))
    assert few.choices == (MOST_CHOICES,)


def test_spaces_that_no_policy_can_act_in_are_named():
    with pytest.raises(TypeError, match="Text"):
        ActionMapping(gym.spaces.Text(5))
    with pytest.raises(TypeError, match="Sequence"):
        ActionMapping(Tuple((Discrete(2), gym.spaces.Sequence(Discrete(2)))))


# --- scale -----------------------------------------------------------------------------------------------------------


class Relative(gym.Env):
    """The reward depends on the action relative to its box alone: it is highest at half the upper bound."""

    observation_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, scale: float):
        self.scale = scale
        self.action_space = Box(-scale, 3 * scale, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.t += 1
        reward = -float((np.square(action.astype(np.float64) / self.scale - 1.5)).sum())
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), reward, False, self.t >= 5, {}


@pytest.mark.parametrize("name", [name for name in AGENTS if Box in AGENTS[name].action_spaces])
def test_scaling_the_bounds_changes_nothing(name):
    """Bounds that are 1024 times as wide give bitwise the same training: a power of two rounds nothing."""
    variants = [{}] if name != "neat" else [{"output_activation": kind} for kind in ("tanh", "identity")]
    for variant in variants:
        finals = []
        for scale in (1.0, 1024.0):
            agent = AGENTS[name](
                lambda scale=scale: Relative(scale), seed=4, num_envs=2, preset=False, **SMALL[name], **variant
            )
            for _ in range(3 if name in ("neat", "reinforce") else 20):
                agent.step()
            finals.append(content({key: part for key, part in agent.state_dict().items() if key != "collector"}))
        assert finals[0] == finals[1], variant


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "identity", "relu"])
def test_outputs_of_evolved_networks_scale_with_the_bounds(activation):
    outputs = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    outputs = {"tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}.get(activation, lambda x: x)(outputs)
    small, large = (OutputMapping(Box(-s, 3 * s, (2,), np.float32), activation)(outputs) for s in (1.0, 1000.0))
    assert large == pytest.approx(1000 * small, rel=1e-5)
    assert not np.allclose(small, small[0])


# --- masks -----------------------------------------------------------------------------------------------------------


def gymnasium_mask(space: Space, rng: np.random.Generator):
    """A mask as ``space.sample`` takes it."""
    if isinstance(space, Tuple):
        return tuple(gymnasium_mask(part, rng) for part in space.spaces)
    if isinstance(space, Dict):
        return {name: gymnasium_mask(part, rng) for name, part in space.spaces.items()}
    if isinstance(space, Discrete):
        return allowed(int(space.n), rng)
    if isinstance(space, MultiDiscrete):
        return nested(space.nvec, rng)
    if isinstance(space, MultiBinary):
        return rng.integers(3, size=space.shape).astype(np.int8)
    return None


def nested(nvec: np.ndarray, rng: np.random.Generator):
    return tuple(nested(n, rng) if np.ndim(n) else allowed(int(n), rng) for n in nvec)


def allowed(count: int, rng: np.random.Generator) -> np.ndarray:
    mask = rng.integers(2, size=count).astype(np.int8)
    mask[rng.integers(count)] = 1
    return mask


@settings(max_examples=80, deadline=None)
@given(ANY_SPACE, st.integers(0, 1000))
def test_masks_of_gymnasium_become_rows(space, seed):
    """A space samples exactly the actions that the row allows."""
    rng = np.random.default_rng(seed)
    options = options_of(space)
    if not options or any(isinstance(leaf, Box) and choices_of(leaf) for leaf in leaves(space)):
        return  # Gymnasium knows no masks of a Box
    given_mask = gymnasium_mask(space, rng)
    row = mask_row(space, given_mask)
    assert row.dtype == bool
    assert row.shape == (options,)
    mapping = ActionMapping(space)
    space.seed(seed)
    for _ in range(5):
        sample = space.sample(given_mask)
        chosen = mapping.to_policy(batch_of(sample)).reshape(-1)[: len(mapping.choices)].astype(int)
        begins = np.cumsum([0, *mapping.choices[:-1]])
        assert row[begins + chosen].all()
    assert np.array_equal(mask_row(space, row), row)
    assert np.array_equal(mask_row(space, row.astype(np.int8).tolist()), row)


def leaves(space: Space) -> list[Space]:
    if isinstance(space, (Tuple, Dict)):
        parts = space.spaces if isinstance(space, Tuple) else space.spaces.values()
        return [leaf for part in parts for leaf in leaves(part)]
    return [space]


def batch_of(action):
    if isinstance(action, tuple):
        return tuple(batch_of(part) for part in action)
    if isinstance(action, dict):
        return {name: batch_of(part) for name, part in action.items()}
    return np.asarray(action)[None]


@pytest.mark.parametrize(
    ("space", "mask", "message"),
    [
        (Discrete(3), [1, 0], r"shape \(2,\) for 3 actions"),
        (Discrete(3), "all", "not 3 numbers"),
        (Dict({"a": Discrete(2)}), {"b": [1, 1]}, "part 'b'"),
        (MultiBinary(2), [[1, 1, 1]], r"shape \(1, 3\) for 4 actions"),
        (Discrete(3), [0.0, -np.inf, 0.0], "it holds -inf"),
        (MultiBinary(2), [3, 0], "it holds 3"),
        (MultiDiscrete([2, 2]), ([1, 0], [-1, 1]), "it holds -1"),
        (Tuple((Discrete(2), Discrete(2))), ([1, 0], [0.5, 1]), "it holds 0.5"),
    ],
)
def test_masks_that_do_not_fit_are_named(space, mask, message):
    with pytest.raises(ValueError, match=message):
        mask_row(space, mask)


def test_a_part_without_a_mask_is_free():
    space = Tuple((Discrete(2), Box(-1, 1, (1,)), MultiDiscrete([2, 2])))
    assert mask_row(space, ([0, 1], None, None)).tolist() == [False, True, True, True, True, True]
    assert mask_row(Dict({"a": Discrete(2), "b": Discrete(2)}), {"b": [1, 0]}).tolist() == [True, True, True, False]


@pytest.mark.parametrize("name", SPACES)
def test_every_environment_takes_its_actions(name):
    """Vector environments hand each environment an action of its space."""
    from rl_lab.experiment.environments import Setup
    from rl_lab.testing import Probe

    envs = make_environments(Setup(name, maker=lambda: Probe(SPACES[name])), 3)
    mapping = ActionMapping(SPACES[name])
    envs.reset(seed=0)
    for seed in range(4):
        envs.step(mapping(rl.tensor(drawn(mapping, seed))))
    assert SPACES[name].contains(single(mapping(rl.tensor(drawn(mapping, 9)))))

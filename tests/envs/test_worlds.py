"""rl_lab's own worlds: physics against an independent derivation, games against their best returns, probes against known answers."""

import math

import gymnasium as gym
import numpy as np
import pytest
import scipy.linalg

from rl_lab.envs import bricks, double_pole
from rl_lab.envs.stream import stream_words
from tests.envs.alike import make_native

# --- two poles ------------------------------------------------------------------------------------------------------------


def slopes(state: np.ndarray, force: float) -> np.ndarray:
    """The equations of motion of a cart with two uniform rods from their Lagrangian: a linear system for the accelerations."""
    v, a, w, b, u = state[1:]
    m = np.array([0.1, 0.01])
    half = np.array([0.5, 0.05])
    g = 9.8
    angles, speeds = np.array([a, b]), np.array([w, u])
    mass = np.diag(np.append(1.0 + m.sum(), 4 / 3 * m * half**2))
    mass[0, 1:] = mass[1:, 0] = m * half * np.cos(angles)
    load = np.append(
        force - 0.0005 * np.sign(v) + (m * half * speeds**2 * np.sin(angles)).sum(),
        m * g * half * np.sin(angles) - 0.000002 * speeds,
    )
    x_acceleration, a_acceleration, b_acceleration = np.linalg.solve(mass, load)
    return np.array([v, x_acceleration, w, a_acceleration, u, b_acceleration])


def simulate(state: np.ndarray, force: float) -> np.ndarray:
    """Simulate 0.02 s by two classic Runge-Kutta steps."""
    for _ in range(2):
        k1 = slopes(state, force)
        k2 = slopes(state + 0.005 * k1, force)
        k3 = slopes(state + 0.005 * k2, force)
        k4 = slopes(state + 0.01 * k3, force)
        state = state + 0.01 / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return state


def test_two_poles_move_as_their_lagrangian_says():
    """On 200 trajectories, while no pole has fallen, the float64 states agree to a relative error of 1e-9."""
    rng = np.random.default_rng(0)
    env = make_native("rl_lab/DoublePole-v0", 200)
    env.reset(seed=0)
    states = rng.uniform(-1, 1, (200, 6)) * [2.2, 2.0, 0.5, 2.0, 0.5, 4.0]
    rows = env.get_attr("state")
    env.set_attr("state", [np.concatenate([state, row[6:]]) for state, row in zip(states, rows, strict=True)])
    alive = np.ones(200, bool)
    compared = 0
    for _ in range(25):
        actions = rng.uniform(-1, 1, (200, 1)).astype(np.float32)
        observations, rewards, terminated, _, _ = env.step(actions)
        states = np.array([simulate(s, 10 * float(f[0])) if ok else s for s, f, ok in zip(states, actions, alive, strict=True)])
        mine = np.array(env.get_attr("state"))[:, :6]
        np.testing.assert_allclose(mine[alive], states[alive], rtol=1e-9, atol=1e-9)
        beyond = (abs(states[:, 0]) > 2.4) | (abs(states[:, [2, 4]]) > math.radians(36)).any(1)
        assert (terminated[alive] == beyond[alive]).all()
        scaled = (mine / [4.8, 2, 0.52, 2, 0.52, 2]).astype(np.float32)
        np.testing.assert_array_equal(observations[alive], scaled[alive])
        assert (rewards[alive] == 1).all()
        compared += int(alive.sum())
        alive &= ~beyond
    assert compared > 1000


@pytest.mark.parametrize(("name", "degrees"), [("DoublePole", 1.0), ("DoublePoleNoVelocity", 4.5)])
def test_where_an_episode_starts(name, degrees):
    env = gym.make(f"rl_lab/{name}-v0")
    observation, _ = env.reset(seed=1)
    expected = np.zeros(6)
    expected[2] = math.radians(degrees)
    np.testing.assert_array_equal(env.unwrapped.state[:6], expected)
    scaled = (expected / [4.8, 2, 0.52, 2, 0.52, 2]).astype(np.float32)
    np.testing.assert_array_equal(observation, scaled if len(observation) == 6 else scaled[::2])
    env.reset(options={"short_angle": -0.1, "x": 2.0})
    assert env.unwrapped.state[[0, 4]].tolist() == [2.0, -0.1]
    env.unwrapped.spread = 0.01
    starts = {env.reset()[0][1 if len(observation) == 3 else 2].item() for _ in range(20)}
    assert len(starts) == 20
    assert max(abs(s * 0.52 - expected[2]) for s in starts) <= 0.01


def feedback() -> double_pole.Policy:
    """The linear controller that is optimal for small angles (a linear-quadratic regulator of the linearised discrete system)."""
    # large enough that friction at rest, which is not differentiable, does not matter
    nothing = np.zeros(6)
    epsilon = 1e-2
    a = np.array(
        [(simulate(nothing + epsilon * e, 0) - simulate(nothing - epsilon * e, 0)) / (2 * epsilon) for e in np.eye(6)]
    ).T
    b = ((simulate(nothing, epsilon) - simulate(nothing, -epsilon)) / (2 * epsilon))[:, None]
    cost = np.diag([1.0, 0.1, 10.0, 1.0, 10.0, 0.1])
    p = scipy.linalg.solve_discrete_are(a, b, cost, np.array([[0.01]]))
    gain = np.linalg.solve(0.01 + b.T @ p @ b, b.T @ p @ a)[0]

    def policy(observations: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
        force = -(observations * [4.8, 2, 0.52, 2, 0.52, 2]) @ gain
        return np.clip(force / 10, -1, 1).astype(np.float32)[:, None]

    return policy


def idle(observations: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
    return np.zeros((len(observations), 1), np.float32)


def remembering() -> double_pole.Policy:
    """The same controller without observed velocities: it computes them from the change of the observations."""
    act = feedback()
    before = np.zeros((0, 3))

    def policy(observations: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
        nonlocal before
        new = elapsed == 0
        last = np.where(new[:, None], observations, before if len(before) else observations)
        before = observations.copy()
        full = np.zeros((len(observations), 6))
        full[:, ::2] = observations
        full[:, 1::2] = (observations - last) * [4.8, 0.52, 0.52] / 0.02 / 2
        return act(full, elapsed)

    return policy


def test_what_a_controller_is_worth():
    assert double_pole.balanced_steps(feedback(), 20_000, velocities=True).tolist() == [20_000]
    fallen = double_pole.balanced_steps(idle, 20_000)
    assert 10 < fallen[0] < 100
    assert double_pole.damping_fitness(idle) == pytest.approx(0.1 * (fallen[0] + 1) / 1000)
    # the controller comes to rest, so the fitness is F = 0.1 + 0.9 * 0.75 / sway
    assert double_pole.damping_fitness(feedback(), velocities=True) > 1.0
    assert 0.1 < double_pole.damping_fitness(swinging()) < 0.75


def swinging() -> double_pole.Policy:
    """A controller that balances without coming to rest: it adds an alternating push to the feedback."""
    act = remembering()

    def policy(observations: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
        return np.clip(act(observations, elapsed) + 0.2 * np.sin(elapsed * 0.05)[:, None], -1, 1).astype(np.float32)

    return policy


def test_damping_fitness_by_hand():
    env = gym.make("rl_lab/DoublePole-v0", damping=1.0, max_episode_steps=1000)
    act = feedback()
    observation, _ = env.reset(seed=1)
    sways = []
    rewards = []
    over = False
    while not over:
        action = act(observation[None], np.array([0]))[0]
        action = np.clip(action + np.float32(0.1 * math.sin(0.07 * len(sways))), -1, 1)
        observation, reward, terminated, truncated, _ = env.step(action)
        sways.append(abs(env.unwrapped.state[:4]).sum())
        rewards.append(reward)
        over = terminated or truncated
        f = 0.75 / sum(sways[-100:]) if len(sways) >= 100 else 0.0
        assert sum(rewards) == pytest.approx(0.1 * len(sways) / 1000 + 0.9 * f, abs=1e-9)
    assert len(sways) == 1000


def test_the_generalisation_test_has_625_starts():
    starts = double_pole.GENERALIZATION_STARTS
    assert list(starts) == ["x", "x_velocity", "angle", "angular_velocity"]
    table = np.array(list(starts.values()))
    assert table.shape == (4, 625)
    assert len({tuple(column) for column in table.T}) == 625
    for values, reach in zip(table, (2.16, 1.35, 0.06283, 0.15010), strict=True):
        assert sorted({round(v, 6) for v in values}) == pytest.approx([reach * s for s in (-0.9, -0.5, 0, 0.5, 0.9)], rel=1e-3)
    assert double_pole.generalization_test(idle) == 5  # five of the starts are upright and at rest
    assert double_pole.generalization_test(feedback(), velocities=True) > 400
    assert double_pole.generalization_test(remembering()) > 200


def test_observations_of_two_poles_stay_inside_their_space():
    """Observations stay inside for random forces, bang-bang forces at several rates, and a constant force."""
    env = make_native("rl_lab/DoublePole-v0", 64)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    rates = rng.integers(1, 12, 64)
    signs = rng.choice([-1, 1], 64)
    for t in range(2000):
        actions = (signs * np.where((t // rates) % 2, 1, -1)).astype(np.float32)[:, None]
        actions[:16] = rng.uniform(-1, 1, (16, 1))
        assert env.observation_space.contains(env.step(actions)[0])


# --- Catch ----------------------------------------------------------------------------------------------------------------


def lands_at(observation: np.ndarray) -> int:
    """The column in which the ball will reach the bottom row, computed from the ball and its next cell."""
    row, column = np.argwhere(observation[1])[0]
    drift = np.argwhere(observation[2])[0][1] - column
    for _ in range(9 - row):
        if not 0 <= column + drift <= 9:
            drift = -drift
        column += drift
    return int(column)


def test_catch_can_be_played_perfectly_and_no_better():
    env = gym.make("rl_lab/Catch-v0")
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        total = 0.0
        steps = 0
        terminated = False
        while not terminated:
            paddle = np.argwhere(observation[0])[0][1]
            observation, reward, terminated, truncated, _ = env.step(int(np.sign(lands_at(observation) - paddle)) + 1)
            assert not truncated
            total, steps = total + reward, steps + 1
        assert (total, steps) == (10, 90)


def test_catch_at_random():
    env = make_native("rl_lab/Catch-v0", 200, balls=50.0, max_episode_steps=450)
    env.reset(seed=1)
    env.action_space.seed(1)
    total = sum(env.step(env.action_space.sample())[1].sum() for _ in range(450))
    assert total / 200 / 50 == pytest.approx(-0.8, abs=0.05)


def test_catch_shows_one_ball_one_paddle_and_where_it_falls():
    env = make_native("rl_lab/Catch-v0", 50)
    before, _ = env.reset(seed=1)
    env.action_space.seed(1)
    for _ in range(200):
        observations, rewards, *_ = env.step(env.action_space.sample())
        assert (observations[:, :2].sum((2, 3)) == 1).all()
        assert (observations[:, 0, :9] == 0).all()
        falling = (rewards == 0) & (env.elapsed > 0)
        np.testing.assert_array_equal(observations[falling, 1], before[falling, 2])
        before = observations


# --- Bricks ---------------------------------------------------------------------------------------------------------------

PADDLE, ROW, COLUMN, DOWN, RIGHT, LEFT = range(6)


def fly(state: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Advance the ball to the step before it reaches the paddle's row; returns the state, the steps and the column where it arrives."""
    state = state.copy()
    stream = stream_words(np.random.default_rng(0))
    steps = 0
    while not (state[ROW] == 8 and state[DOWN] == 1) and state[LEFT] > 0:
        bricks.step(state, np.array([1.0], np.float32), stream)
        steps += 1
    return state, steps, int(state[COLUMN] + state[RIGHT])


def bounce(state: np.ndarray, column: int, centre: int) -> np.ndarray:
    state = state.copy()
    state[PADDLE] = centre
    bricks.step(state, np.array([1.0], np.float32), stream_words(np.random.default_rng(0)))
    return state


def clear_the_wall(seed: int) -> tuple[float, int]:
    """Play one game with a search of two bounces; returns the return and the number of steps."""
    env = gym.make("rl_lab/Bricks-v0")
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    total = 0.0
    steps = 0
    over = False
    aim = None
    while not over:
        state = env.unwrapped.state
        if aim is None:
            landed, flight, column = fly(state)
            reachable = [c for c in (column - 1, column, column + 1) if 1 <= c <= 8 and abs(c - state[PADDLE]) <= flight + 1]

            def worth(centre: int) -> float:
                once, _, where = fly(bounce(landed, column, centre))
                best = min(fly(bounce(once, where, c))[0][LEFT] for c in range(where - 1, where + 2) if 1 <= c <= 8)
                return best + rng.random() * 0.5

            aim = min(reachable, key=worth) if landed[LEFT] > 0 else int(state[PADDLE])
        meets = state[ROW] == 8 and state[DOWN] == 1
        _, reward, terminated, truncated, _ = env.step(int(np.sign(aim - state[PADDLE])) + 1)
        total = total + reward
        steps = steps + 1
        over = terminated or truncated
        if meets:
            aim = None
    return total, steps


@pytest.mark.parametrize("seed", range(5))
def test_bricks_can_be_cleared(seed):
    total, steps = clear_the_wall(seed)
    assert total == 30
    assert steps < 1000


def test_rules_of_bricks():
    env = make_native("rl_lab/Bricks-v0", 100)
    before, _ = env.reset(seed=1)
    env.action_space.seed(1)
    won = np.zeros(100)
    for _ in range(300):
        observations, rewards, terminated, *_ = env.step(env.action_space.sample())
        goes_on = env.elapsed > 1
        assert (observations[:, 0].sum((1, 2)) == 3).all()
        assert (observations[:, 1].sum((1, 2)) == 1).all()
        broken = before[:, 3].sum((1, 2)) - observations[:, 3].sum((1, 2))
        np.testing.assert_array_equal(broken[goes_on], rewards[goes_on])
        # a ball that hits nothing moves to its next cell
        free = goes_on & (rewards == 0) & (before[:, 2, 9].sum(1) == 0)
        np.testing.assert_array_equal(observations[free, 1], before[free, 2])
        assert ((observations[:, 1] * observations[:, 3]).sum((1, 2)) == 0).all(), "a ball inside a brick"
        won += rewards
        before = observations
        np.testing.assert_array_equal(observations[terminated & goes_on, 1, 9].sum(1), 1)
    assert 0 < won.mean() < 30


@pytest.mark.parametrize("name", ["Catch", "Bricks"])
@pytest.mark.parametrize("value", [-3.0, 1e6, 1e300])
def test_a_state_that_cannot_be_harms_nothing(name, value):
    env = make_native(f"rl_lab/{name}-v0", 4)
    env.reset(seed=1)
    env.set_attr("state", [np.full(env.world.state_size, value)] * 4)
    observations, *_ = env.step(np.ones(4, np.int64))
    assert env.observation_space.contains(observations)
    assert not observations[:, 1].any(), "the ball is nowhere"


# --- probes ---------------------------------------------------------------------------------------------------------------


def returns(name: str, policy, steps: int = 200) -> list[float]:
    env = gym.make(f"rl_lab/Probe{name}-v0")
    gained = []
    for seed in range(steps):
        observation, _ = env.reset(seed=seed)
        first = observation
        total = 0.0
        over = False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(policy(observation, first))
            total = total + reward
            over = terminated or truncated
        gained.append(total)
    return gained


@pytest.mark.parametrize(
    ("name", "policy", "expected"),
    [
        ("ConstantReward", lambda o, first: 0, 1),
        ("DelayedReward", lambda o, first: 1, 1),
        ("ActionReward", lambda o, first: 1, 1),
        ("ActionReward", lambda o, first: 0, -1),
        ("MatchReward", lambda o, first: int(o[0] > 0), 1),
        ("MatchReward", lambda o, first: int(o[0] < 0), -1),
        ("Endless", lambda o, first: 1, 5),
        ("StartsAtOne", lambda o, first: 2, 1),
        ("StartsAtOne", lambda o, first: 1, -1),
        ("Continuous", lambda o, first: o / 2, 0),
        ("Continuous", lambda o, first: 0 * o, -0.25),
        ("Continuous", lambda o, first: -o / 2, -1),
        ("Memory", lambda o, first: int(first[0] > 0), 1),
        ("Memory", lambda o, first: int(first[0] < 0), -1),
    ],
)
def test_probes_pay_what_they_say(name, policy, expected):
    assert set(returns(name, policy)) == {expected}


@pytest.mark.parametrize(
    ("name", "policy"),
    [("ObservedReward", lambda o, first: 0), ("MatchReward", lambda o, first: 1), ("Memory", lambda o, first: 1)],
)
def test_signs_are_even(name, policy):
    gained = returns(name, policy, 1000)
    assert set(gained) == {-1, 1}
    assert abs(np.mean(gained)) < 5 / math.sqrt(1000)


def test_what_probes_show():
    env = gym.make("rl_lab/ProbeMemory-v0")
    first, _ = env.reset(seed=1)
    seen = [first, *[env.step(1)[0] for _ in range(3)]]
    assert [abs(o[0]) for o in seen] == [1, 0, 0, 0]
    assert [o[1] for o in seen] == [0, 0, 0, 1]
    env = gym.make("rl_lab/ProbeDelayedReward-v0")
    assert env.reset(seed=1)[0] == [0]
    observation, reward, terminated, _, _ = env.step(0)
    assert (observation[0], reward, terminated) == (1, 0, False)
    assert env.step(0)[1:3] == (1, True)

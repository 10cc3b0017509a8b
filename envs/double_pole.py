"""DoublePole-v0 and DoublePoleNoVelocity-v0: balance two poles of different length on one cart, a benchmark of neuroevolution.

The equations are those of Wieland 1991, "Evolving neural network controllers for unstable systems". The constants, the damping
fitness and the generalisation test are those of Gruau, Whitley and Pyeatt 1996, "A comparison between cellular encoding and direct
encoding for genetic neural networks", as used by Gomez and Miikkulainen 1999, "Solving non-Markovian control tasks with
neuroevolution", and by Stanley and Miikkulainen 2002, "Evolving neural networks through augmenting topologies". Observations are
scaled as in Stanley's program. The long pole starts at 1 degree with velocities observed and at 4.5 degrees without; published
programs differ here, so the start is a parameter.
"""

import math
from collections.abc import Callable
from itertools import product

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

from rl_lab.envs.picture import BLUE, GREY, INK, ORANGE, PALE, RED, Canvas
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

GRAVITY = -9.8  # m/s^2
MASS_CART = 1.0  # kg
FORCE = 10.0  # N, for an action of 1
HALF_LENGTH = (0.5, 0.05)  # m, of the long and the short pole
MASS = (0.1, 0.01)  # kg, of the long and the short pole
FRICTION_CART = 0.0005  # coefficient of friction of the cart on the track
FRICTION_POLE = 0.000002  # coefficient of friction of the hinges
TIME_STEP = 0.01  # s
STEPS_PER_ACTION = 2
POSITION_LIMIT = 2.4  # m
ANGLE_LIMIT = math.radians(36.0)
WINDOW = 100  # steps over which the damping fitness measures the sway
GRUAU_STEPS = 1000  # length of a run in the damping fitness and the generalisation test

# the state: x, x', long angle, its velocity, short angle, its velocity, and four parts for the damping fitness: number of steps, sway
# over the window, fitness so far, and the ring buffer of the window
STEPS, SWAY, FITNESS, RING = range(6, 10)
STATE_SIZE = RING + WINDOW
PARAMETERS = {
    "x": 0.0,
    "x_velocity": 0.0,
    "angle": math.radians(1.0),
    "angular_velocity": 0.0,
    "short_angle": 0.0,
    "short_angular_velocity": 0.0,
    "spread": 0.0,
    "damping": 0.0,
}
"""Start of an episode (m, m/s, rad, rad/s) and two settings.

``spread`` adds a uniform random angle in [-spread, spread] to the long pole. With ``damping`` 1 the reward of a step is the gain in
Gruau's fitness, so the return equals the fitness at any moment; with ``damping`` 0 the reward is 1 per step.
"""
START = STATE_SIZE
SPREAD = STATE_SIZE + 6
DAMPING = STATE_SIZE + 7


@kernel
def reset(state, stream):
    for i in range(6):
        state[i] = state[START + i]
    if state[SPREAD] > 0.0:
        state[2] += uniform(stream, -state[SPREAD], state[SPREAD])
    for i in range(6, STATE_SIZE):
        state[i] = 0.0


@kernel
def _pull(angle, speed, half_length, mass):
    """Return (effective force, effective mass, cosine of the angle, load by gravity and friction) of a pole (Wieland 1991)."""
    cosine = math.cos(angle)
    weight = GRAVITY * math.sin(angle)
    drag = FRICTION_POLE * speed / (mass * half_length)
    force = mass * half_length * speed * speed * math.sin(angle) + 0.75 * mass * cosine * (drag + weight)
    return force, mass * (1.0 - 0.75 * cosine * cosine), cosine, weight + drag


@kernel
def _slopes(v, a, w, b, u, force):
    """Accelerations of cart, long pole and short pole, from their velocities v, w, u and the angles a, b of the poles."""
    force1, mass1, cosine1, load1 = _pull(a, w, HALF_LENGTH[0], MASS[0])
    force2, mass2, cosine2, load2 = _pull(b, u, HALF_LENGTH[1], MASS[1])
    rubbing = FRICTION_CART * np.sign(v)
    x = (force - rubbing + force1 + force2) / (MASS_CART + mass1 + mass2)
    return x, -0.75 * (x * cosine1 + load1) / HALF_LENGTH[0], -0.75 * (x * cosine2 + load2) / HALF_LENGTH[1]


@kernel
def _runge_kutta(state, force):
    """Advance the state by one step of the fourth-order Runge-Kutta method."""
    x = state[0]
    v = state[1]
    a = state[2]
    w = state[3]
    b = state[4]
    u = state[5]
    h = TIME_STEP
    half = TIME_STEP / 2.0
    v1, w1, u1 = _slopes(v, a, w, b, u, force)
    vb = v + half * v1
    wb = w + half * w1
    ub = u + half * u1
    v2, w2, u2 = _slopes(vb, a + half * w, wb, b + half * u, ub, force)
    vc = v + half * v2
    wc = w + half * w2
    uc = u + half * u2
    v3, w3, u3 = _slopes(vc, a + half * wb, wc, b + half * ub, uc, force)
    vd = v + h * v3
    wd = w + h * w3
    ud = u + h * u3
    v4, w4, u4 = _slopes(vd, a + h * wc, wd, b + h * uc, ud, force)
    sixth = h / 6.0
    state[0] = x + sixth * (v + 2.0 * vb + 2.0 * vc + vd)
    state[1] = v + sixth * (v1 + 2.0 * v2 + 2.0 * v3 + v4)
    state[2] = a + sixth * (w + 2.0 * wb + 2.0 * wc + wd)
    state[3] = w + sixth * (w1 + 2.0 * w2 + 2.0 * w3 + w4)
    state[4] = b + sixth * (u + 2.0 * ub + 2.0 * uc + ud)
    state[5] = u + sixth * (u1 + 2.0 * u2 + 2.0 * u3 + u4)


@kernel
def _gain(state):
    """Gain in Gruau's fitness in this step. The state keeps the sway of the last `WINDOW` steps in a ring buffer."""
    steps = state[STEPS] + 1.0
    place = RING + np.int64(state[STEPS]) % WINDOW
    state[STEPS] = steps
    state[place] = abs(state[0]) + abs(state[1]) + abs(state[2]) + abs(state[3])
    fitness = 0.1 * steps / GRUAU_STEPS
    if steps >= WINDOW:
        sway = 0.0
        for i in range(RING, STATE_SIZE):
            sway += state[i]
        state[SWAY] = sway
        fitness += 0.9 * 0.75 / max(sway, 1e-6)
    gain = fitness - state[FITNESS]
    state[FITNESS] = fitness
    return gain


@kernel
def step(state, action, stream):
    """Take two Runge-Kutta steps of 0.01 s with one force. Terminates if the cart is beyond 2.4 m or a pole beyond 36 degrees."""
    force = FORCE * np.float64(action[0])
    for _ in range(STEPS_PER_ACTION):
        _runge_kutta(state, force)
    over = abs(state[0]) > POSITION_LIMIT or abs(state[2]) > ANGLE_LIMIT or abs(state[4]) > ANGLE_LIMIT
    if state[DAMPING] != 0.0:
        return _gain(state), over
    return 1.0, over


@kernel
def observe(state, observation):
    observation[0] = np.float32(state[0] / 4.8)
    observation[1] = np.float32(state[1] / 2.0)
    observation[2] = np.float32(state[2] / 0.52)
    observation[3] = np.float32(state[3] / 2.0)
    observation[4] = np.float32(state[4] / 0.52)
    observation[5] = np.float32(state[5] / 2.0)


@kernel
def observe_positions(state, observation):
    observation[0] = np.float32(state[0] / 4.8)
    observation[1] = np.float32(state[2] / 0.52)
    observation[2] = np.float32(state[4] / 0.52)


def _lean(x: float, y: float, angle: float, reach: float) -> tuple[float, float]:
    """Upper end of a pole of length ``reach`` whose lower end is at (x, y), in pixels."""
    return x + reach * math.sin(angle), y - reach * math.cos(angle)


def draw(row: np.ndarray) -> np.ndarray:
    """Picture of a state, uint8 (400, 600, 3), with 120 pixels per metre.

    It shows the cart, both poles, and the limits of position and angle. The short pole is repeated, enlarged, in the upper right corner.
    """
    width = 600
    ground = 320.0
    scale = 120.0
    x = width / 2 + row[0] * scale
    hinge = ground - 44.0
    canvas = Canvas(width, 400)
    canvas.box(0, ground, width, 80, PALE)
    canvas.box(width / 2 - POSITION_LIMIT * scale, ground, 2 * POSITION_LIMIT * scale, 4, GREY)
    for metre in np.arange(-2.0, 2.1, 0.5):
        canvas.box(width / 2 + metre * scale - 1, ground + 4, 2, 12 if metre % 1 == 0 else 6, GREY)
    long = 2 * HALF_LENGTH[0] * scale
    short = 2 * HALF_LENGTH[1] * scale
    large = 5 * short
    corner = width - 80.0, 90.0
    canvas.disc(corner[0], corner[1] - large / 2 + 10, 66, PALE)
    for side in (-1, 1):
        canvas.box(width / 2 + side * POSITION_LIMIT * scale - 3, ground - 24, 6, 28, RED, 2)
        canvas.bar((x, hinge), _lean(x, hinge, side * ANGLE_LIMIT, long), 1.5, PALE)
        canvas.bar(corner, _lean(*corner, side * ANGLE_LIMIT, large), 1.5, GREY)
        canvas.disc(x + side * 22, ground - 9, 9, INK)
        canvas.disc(x + side * 22, ground - 9, 4, GREY)
    canvas.box(x - 38, ground - 42, 76, 30, INK, 6)
    canvas.bar((x, hinge), _lean(x, hinge, row[2], long), 8, ORANGE)
    canvas.bar((x, hinge), _lean(x, hinge, row[4], short), 5, BLUE)
    canvas.bar(corner, _lean(*corner, row[4], large), 10, BLUE)
    for across, down in ((x, hinge), corner):
        canvas.disc(across, down, 5, INK)
        canvas.disc(across, down, 2, PALE)
    return canvas.pixels()


_HIGH = np.array([1.0, 10.0, 3.0, 10.0, 3.0, 25.0], np.float32)  # bounds that 10 N cannot exceed within the limits
_NAMES = (
    *("cart position", "cart velocity", "long pole angle", "long pole angular velocity"),
    *("short pole angle", "short pole angular velocity"),
)
_OPTIONS = {name: name for name in PARAMETERS if name not in ("spread", "damping")}


def _world(name: str, observation_size: int, **changes: float) -> World:
    high = _HIGH if observation_size == 6 else _HIGH[::2]
    return World(
        name=name,
        state_size=STATE_SIZE,
        observation_space=Box(-high, high, dtype=np.float32),
        action_space=Box(-1.0, 1.0, (1,), np.float32),
        reset=reset,
        step=step,
        observe=observe if observation_size == 6 else observe_positions,
        parameters={**PARAMETERS, **changes},
        options=_OPTIONS,
        draw=draw,
        observation_names=_NAMES if observation_size == 6 else _NAMES[::2],
        action_names=("force",),
    )


WITH_VELOCITY = _world("DoublePole", 6)
WITHOUT_VELOCITY = _world("DoublePoleNoVelocity", 3, angle=math.radians(4.5))


class DoublePoleEnv(NativeEnv):
    """Two poles with positions and velocities observed. An action of 1 pushes the cart to the right with 10 N. Reward 1 per step."""

    world = WITH_VELOCITY


class DoublePoleVectorEnv(NativeVectorEnv):
    """Two poles with positions and velocities observed. An action of 1 pushes the cart to the right with 10 N. Reward 1 per step."""

    world = WITH_VELOCITY


class DoublePoleNoVelocityEnv(NativeEnv):
    """Two poles with only positions observed, so a policy needs memory. Reward 1 per step, or with ``damping=1`` Gruau's fitness."""

    world = WITHOUT_VELOCITY


class DoublePoleNoVelocityVectorEnv(NativeVectorEnv):
    """Two poles with only positions observed, so a policy needs memory. Reward 1 per step, or with ``damping=1`` Gruau's fitness."""

    world = WITHOUT_VELOCITY


# --- tests of controllers ----------------------------------------------------------------------------------------------

Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A controller: takes observations (n, 3), or (n, 6) with velocities, and the steps since each episode began, int64 (n,); returns
actions (n, 1) in [-1, 1]. A policy with memory must reset the memory of every row whose number of steps is 0."""

_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_RANGES = (2.16, 1.35, math.radians(3.6), math.radians(8.6))
GENERALIZATION_STARTS = {
    name: np.array([(2.0 * shares[i] - 1.0) * _RANGES[i] for shares in product(_SHARES, repeat=4)])
    for i, name in enumerate(("x", "x_velocity", "angle", "angular_velocity"))
}
"""Gruau's 625 starts, as options of ``reset``: position, velocity, angle and angular velocity of the long pole. The short pole rests."""


def balanced_steps(
    policy: Policy, steps: int = 100_000, starts: dict[str, np.ndarray] | None = None, velocities: bool = False
) -> np.ndarray:
    """Count the steps, int64 (n,), at most ``steps``, for which a policy balances the poles from each of ``n`` starts.

    ``starts`` are options of ``reset``, one array (n,) per name. By default there is one start, that of the task.
    """
    n = 1 if starts is None else len(next(iter(starts.values())))
    kind = DoublePoleVectorEnv if velocities else DoublePoleNoVelocityVectorEnv
    envs = kind(n, autoreset_mode=AutoresetMode.SAME_STEP)
    observations, _ = envs.reset(seed=0, options=dict(starts or {}))
    lengths = np.full(n, steps)
    for t in range(steps):
        observations, _, terminated, _, _ = envs.step(policy(observations, envs.elapsed.copy()))
        lengths[terminated & (lengths == steps)] = t
        if (lengths < steps).all():
            break
    return lengths


def damping_fitness(policy: Policy, velocities: bool = False) -> float:
    """Compute Gruau's damping fitness of one run of t steps, at most 1,000: 0.1 t / 1000 + 0.9 f.

    f is 0 for t < 100, else 0.75 / (sum of |x| + |x'| + |angle| + |angle'| of the long pole over the last 100 steps). The second term
    rewards a controller that balances without swinging.
    """
    kind = DoublePoleVectorEnv if velocities else DoublePoleNoVelocityVectorEnv
    envs = kind(1, GRUAU_STEPS, AutoresetMode.DISABLED, damping=1.0)
    observations, _ = envs.reset(seed=0)
    while not envs.ended[0]:
        observations, *_ = envs.step(policy(observations, envs.elapsed.copy()))
    return float(envs.episode_returns[0])


def generalization_test(policy: Policy, velocities: bool = False) -> int:
    """Count the starts, of Gruau's 625, from which a policy balances the poles for 1,000 steps. A solution of the task needs 200."""
    return int((balanced_steps(policy, GRUAU_STEPS, GENERALIZATION_STARTS, velocities) == GRUAU_STEPS).sum())

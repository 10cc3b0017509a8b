"""LunarLander-v3 and LunarLanderContinuous-v3: native twins of Gymnasium's environments, bitwise equal to them, without Box2D.

The lander starts above the middle with a random push and is to come to rest on the pad. The rewards, the engines with their random
dispersion, the wind and the ground are Gymnasium's, drawn from the same random numbers; `rl_lab.envs.lander_physics` moves the bodies.
"""

import math

import numpy as np
from gymnasium.spaces import Box, Discrete

from rl_lab.envs import lander_physics as p
from rl_lab.envs.lander_shapes import CENTRES, CORNERS, LANDER, SCALE, VERTICES, F
from rl_lab.envs.picture import BLUE, GREY, INK, ORANGE, PALE, YELLOW, Canvas
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import random_bits, uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import World, kernel

FPS = 50
HALF_WIDTH = 600 / SCALE / 2
HEIGHT = 400 / SCALE
HALF_HEIGHT = HEIGHT / 2
PAD = HEIGHT / 4
MAIN_POWER = 13.0
SIDE_POWER = 0.6
PUSH = 1000.0  # N
SHAPING, HAS_SHAPING, WIND, TWIST, STATE_SIZE = range(p.SIZE, p.SIZE + 5)
"""Cells after those of the physics: the potential of the last step, and the places in the patterns of the wind."""
PARAMETERS = {"gravity": -10.0, "enable_wind": 0.0, "wind_power": 15.0, "turbulence_power": 1.5}
GRAVITY, ENABLE_WIND, WIND_POWER, TURBULENCE = range(STATE_SIZE, STATE_SIZE + 4)


@kernel
def _pattern(place):
    """Strength of the wind in [-1, 1] at a place of its pattern, which never repeats."""
    return math.tanh(math.sin(0.02 * place) + math.sin(math.pi * 0.01 * place))


@kernel
def _half_bits_below(bits, count):
    """Return (the integer in [0, count) that ``Generator.integers`` makes of 32 random bits, whether it is accepted)."""
    product = bits * np.uint64(count)
    return np.int64(product >> np.uint64(32)), (product & np.uint64(0xFFFFFFFF)) >= np.uint64(2**32 % count)


@kernel
def _draw_wind(state, stream):
    """Draw the two places in the patterns: two times ``Generator.integers(-9999, 9999)``, each of half of 64 random bits."""
    bits = random_bits(stream)
    half = 0
    for index in (WIND, TWIST):
        accepted = False
        while not accepted:
            if half == 2:
                bits = random_bits(stream)
                half = 0
            part = bits & np.uint64(0xFFFFFFFF) if half == 0 else bits >> np.uint64(32)
            half += 1
            value, accepted = _half_bits_below(part, 19998)
            state[index] = value - 9999.0


@kernel
def _blow(state):
    """Let the wind act on the lander while no leg stands."""
    if state[ENABLE_WIND] == 0.0 or state[p.LEFT_DOWN] != 0.0 or state[p.RIGHT_DOWN] != 0.0:
        return
    state[p.FORCE_X] = F(state[p.FORCE_X]) + F(_pattern(state[WIND]) * state[WIND_POWER])
    state[WIND] += 1.0
    state[p.TORQUE] = F(state[p.TORQUE]) + F(_pattern(state[TWIST]) * state[TURBULENCE])
    state[TWIST] += 1.0


@kernel
def _push(state, x, y, jx, jy):
    """Apply an impulse to the lander at a point of the world."""
    place = LANDER * p.BODY
    ix = F(jx)
    iy = F(jy)
    rx = F(x) - F(state[place + p.X])
    ry = F(y) - F(state[place + p.Y])
    state[place + p.VX] = F(state[place + p.VX]) + p.INVERSE_MASS[LANDER] * ix
    state[place + p.VY] = F(state[place + p.VY]) + p.INVERSE_MASS[LANDER] * iy
    state[place + p.SPIN] = F(state[place + p.SPIN]) + p.INVERSE_INERTIA[LANDER] * p.cross(rx, ry, ix, iy)


@kernel
def _fire(state, main, side, direction, stream):
    """Fire the main engine with power ``main``, 0 for off, and the engine of a side with power ``side``; the flames waver."""
    _, _, px, py = p.pose_now(state, LANDER)
    angle = np.float64(state[LANDER * p.BODY + p.ANGLE])
    tip_x = math.sin(angle)
    tip_y = math.cos(angle)
    side_x = -tip_y
    side_y = tip_x
    along = uniform(stream, -1.0, 1.0) / SCALE
    across = uniform(stream, -1.0, 1.0) / SCALE
    if main > 0.0:
        x = tip_x * (4 / SCALE + 2 * along) + side_x * across
        y = -tip_y * (4 / SCALE + 2 * along) - side_y * across
        _push(state, np.float64(px) + x, np.float64(py) + y, -x * MAIN_POWER * main, -y * MAIN_POWER * main)
    if side > 0.0:
        reach = 3 * across + direction * 12 / SCALE
        x = tip_x * along + side_x * reach
        y = -tip_y * along - side_y * reach
        at_x = np.float64(px) + x - tip_x * 17 / SCALE
        at_y = np.float64(py) + y + tip_y * 14 / SCALE
        _push(state, at_x, at_y, -x * SIDE_POWER * side, -y * SIDE_POWER * side)


@kernel
def _seen(state):
    """Return the observation as float64 (x, y, x velocity, y velocity, angle, angular velocity, left leg down, right leg down)."""
    place = LANDER * p.BODY
    _, _, px, py = p.pose_now(state, LANDER)
    return (
        (np.float64(px) - HALF_WIDTH) / HALF_WIDTH,
        (np.float64(py) - (PAD + 18 / SCALE)) / HALF_HEIGHT,
        state[place + p.VX] * HALF_WIDTH / FPS,
        state[place + p.VY] * HALF_HEIGHT / FPS,
        state[place + p.ANGLE],
        20.0 * state[place + p.SPIN] / FPS,
        1.0 if state[p.LEFT_DOWN] != 0.0 else 0.0,
        1.0 if state[p.RIGHT_DOWN] != 0.0 else 0.0,
    )


@kernel
def _play(state, main, side, direction, stream):
    """Advance by one step; return (reward, terminated)."""
    _fire(state, main, side, direction, stream)
    p.advance(state, F(state[GRAVITY]))
    x, y, vx, vy, angle, _, left, right = _seen(state)
    shaping = -100 * math.sqrt(x * x + y * y) - 100 * math.sqrt(vx * vx + vy * vy) - 100 * abs(angle) + 10 * left + 10 * right
    reward = shaping - state[SHAPING] if state[HAS_SHAPING] != 0.0 else 0.0
    state[SHAPING] = shaping
    state[HAS_SHAPING] = 1.0
    reward -= main * 0.30
    reward -= side * 0.03
    over = False
    if state[p.CRASHED] != 0.0 or abs(x) >= 1.0:
        over = True
        reward = -100.0
    if state[p.ASLEEP] != 0.0:
        over = True
        reward = 100.0
    return reward, over


@kernel
def reset(state, stream):
    """Make new ground, push the lander, and take one step without engines, as Gymnasium does."""
    heights = np.empty(p.EDGES + 1)
    for i in range(p.EDGES + 1):
        heights[i] = uniform(stream, 0.0, HALF_HEIGHT)
    for i in range(p.EDGES // 2 - 2, p.EDGES // 2 + 3):
        heights[i] = PAD
    for i in range(p.EDGES):
        before = heights[i - 1] if i > 0 else heights[p.EDGES]
        state[p.GROUND + i] = F(0.33 * (before + heights[i] + heights[i + 1]))
    p.place_bodies(state, HALF_WIDTH, HEIGHT)
    state[p.FORCE_X] = F(uniform(stream, -PUSH, PUSH))
    state[p.FORCE_Y] = F(uniform(stream, -PUSH, PUSH))
    state[HAS_SHAPING] = 0.0
    if state[ENABLE_WIND] != 0.0:
        _draw_wind(state, stream)
    _blow(state)
    _play(state, 0.0, 0.0, 0.0, stream)


@kernel
def step(state, action, stream):
    """Action 0 does nothing, 1 fires the left engine, 2 the main engine, 3 the right engine."""
    _blow(state)
    main = 1.0 if action[0] == 2.0 else 0.0
    side = 1.0 if action[0] == 1.0 or action[0] == 3.0 else 0.0
    return _play(state, main, side, np.float64(action[0]) - 2.0, stream)


@kernel
def step_continuous(state, action, stream):
    """Fire the main engine with 50 % to 100 % of its power if the first number is above 0.

    A side engine fires if the magnitude of the second number is above 0.5; its sign chooses the side. Both are clipped to [-1, 1].
    """
    _blow(state)
    first = min(max(np.float64(action[0]), -1.0), 1.0)
    second = min(max(np.float64(action[1]), -1.0), 1.0)
    main = (first + 1.0) * 0.5 if first > 0.0 else 0.0
    side = abs(second) if abs(second) > 0.5 else 0.0
    return _play(state, main, side, 1.0 if second > 0.0 else -1.0, stream)


@kernel
def observe(state, observation):
    seen = _seen(state)
    for i in range(8):
        observation[i] = np.float32(seen[i])


def draw(row: np.ndarray) -> np.ndarray:
    """Picture of a state: the ground with the flags of the pad, the lander in blue and its legs, orange where they stand."""
    width = 600
    height = 400
    canvas = Canvas(width, height, INK)
    ground = [float(value) for value in row[p.GROUND : p.GROUND + p.EDGES]]
    corners = [(i * p.STRIDE * SCALE, height - y * SCALE) for i, y in enumerate(ground)]
    canvas.polygon([(0.0, float(height)), *corners, (float(width), float(height))], GREY)
    for x in (width / 2 - p.STRIDE * SCALE, width / 2 + p.STRIDE * SCALE):
        foot = height - PAD * SCALE
        canvas.bar((x, foot), (x, foot - 50), 2, PALE)
        canvas.polygon([(x, foot - 50), (x, foot - 40), (x + 25, foot - 45)], YELLOW)
    for body, colour in ((1, ORANGE if row[p.LEFT_DOWN] else PALE), (2, ORANGE if row[p.RIGHT_DOWN] else PALE), (LANDER, BLUE)):
        x, y, angle = (float(value) for value in row[body * p.BODY : body * p.BODY + 3])
        turned = VERTICES[body, : CORNERS[body]] - CENTRES[body]
        sin = math.sin(angle)
        cos = math.cos(angle)
        places = [(x + cos * vx - sin * vy, y + sin * vx + cos * vy) for vx, vy in turned.tolist()]
        canvas.polygon([(vx * SCALE, height - vy * SCALE) for vx, vy in places], colour)
    return canvas.pixels()


_HIGH = np.array([2.5, 2.5, 10.0, 10.0, 2 * math.pi, 10.0, 1.0, 1.0], np.float32)
_LOW = np.array([-2.5, -2.5, -10.0, -10.0, -2 * math.pi, -10.0, -0.0, -0.0], np.float32)


class LunarLanderVectorEnv(NativeVectorEnv):
    """Twin of LunarLander-v3."""

    world = World(
        name="LunarLander",
        state_size=STATE_SIZE,
        observation_space=Box(_LOW, _HIGH, dtype=np.float32),
        action_space=Discrete(4),
        reset=reset,
        step=step,
        observe=observe,
        parameters=PARAMETERS,
        draw=draw,
    )


class LunarLanderEnv(NativeEnv):
    """LunarLander-v3 without Box2D."""

    world = LunarLanderVectorEnv.world


class LunarLanderContinuousVectorEnv(NativeVectorEnv):
    """Twin of LunarLanderContinuous-v3."""

    world = World(
        name="LunarLanderContinuous",
        state_size=STATE_SIZE,
        observation_space=Box(_LOW, _HIGH, dtype=np.float32),
        action_space=Box(-1.0, 1.0, (2,), np.float32),
        reset=reset,
        step=step_continuous,
        observe=observe,
        parameters=PARAMETERS,
        clips=True,
        draw=draw,
    )


class LunarLanderContinuousEnv(NativeEnv):
    """LunarLanderContinuous-v3 without Box2D."""

    world = LunarLanderContinuousVectorEnv.world

"""MinAtar's Freeway: lead a chicken across eight lanes of cars.

A crossing is worth +1; then the cars get new speeds and the chicken starts again at the bottom, as after a collision. The chicken moves
every three steps. The episode ends after 2,501 steps. Channels: chicken, car, and one per speed, which marks the cell behind a car.
"""

import numpy as np

from rl_lab.envs.minatar.game import DOWN, LAST, SIZE, UP, clear, make_world, show, sticky, whole
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import twister_below, twister_uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import kernel

LANES = 8
COLUMN = 4.0  # of the chicken
START = SIZE - 1.0
PLAYER_SPEED = 3.0
TIME_LIMIT = 2500.0
CHANNELS = 7
ACTIONS = (0, UP, DOWN)
ROW, MOVE_TIMER, TIME_LEFT, CARS = range(LAST + 1, LAST + 5)
"""Indices in the state: the chicken's row, steps to its next move, steps left; from CARS on, three per lane."""
AT, TIMER, SPEED, WIDTH = range(4)
"""Columns of a car: its column on the board, steps to its next move, and steps between moves, negative if it drives to the left."""
STATE_SIZE = CARS + LANES * WIDTH
STICKY = STATE_SIZE


@kernel
def _set_speeds(state, stream):
    """Draw all speeds, then all directions."""
    for i in range(LANES):
        state[CARS + i * WIDTH + SPEED] = 1.0 + twister_below(stream, 5)
    for i in range(LANES):
        place = CARS + i * WIDTH
        state[place + TIMER] = state[place + SPEED]
        if twister_uniform(stream) < 0.5:
            state[place + SPEED] = -state[place + SPEED]


@kernel
def reset(state, stream):
    _set_speeds(state, stream)
    for i in range(LANES):
        state[CARS + i * WIDTH + AT] = 0.0
    state[ROW] = START
    state[MOVE_TIMER] = PLAYER_SPEED
    state[TIME_LEFT] = TIME_LIMIT


@kernel
def _hit(state, i):
    """Put the chicken back to the start if the car of lane ``i`` is in its cell."""
    if state[ROW] == i + 1.0 and state[CARS + i * WIDTH + AT] == COLUMN:
        state[ROW] = START


@kernel
def _play(state, move, stream):
    """Move the chicken, then the cars."""
    if state[MOVE_TIMER] == 0.0 and move in (UP, DOWN):
        state[MOVE_TIMER] = PLAYER_SPEED
        state[ROW] = max(0.0, state[ROW] - 1.0) if move == UP else min(SIZE - 1.0, state[ROW] + 1.0)
    reward = 0.0
    if state[ROW] == 0.0:
        reward = 1.0
        _set_speeds(state, stream)
        state[ROW] = START
    for i in range(LANES):
        place = CARS + i * WIDTH
        _hit(state, i)
        if state[place + TIMER] == 0.0:
            state[place + TIMER] = abs(state[place + SPEED])
            state[place + AT] += 1.0 if state[place + SPEED] > 0.0 else -1.0
            if state[place + AT] < 0.0:
                state[place + AT] = SIZE - 1.0
            elif state[place + AT] > SIZE - 1.0:
                state[place + AT] = 0.0
            _hit(state, i)
        else:
            state[place + TIMER] -= 1.0
    if state[MOVE_TIMER] > 0.0:
        state[MOVE_TIMER] -= 1.0
    state[TIME_LEFT] -= 1.0
    return reward, state[TIME_LEFT] < 0.0


@kernel
def step_all(state, action, stream):
    return _play(state, sticky(state, np.int64(action[0]), state[STICKY], stream), stream)


@kernel
def step(state, action, stream):
    return _play(state, sticky(state, ACTIONS[np.int64(action[0])], state[STICKY], stream), stream)


@kernel
def observe(state, observation):
    clear(observation, CHANNELS)
    show(observation, CHANNELS, 0, state[ROW], COLUMN)
    for i in range(LANES):
        place = CARS + i * WIDTH
        show(observation, CHANNELS, 1, i + 1.0, state[place + AT])
        behind = state[place + AT] + (-1.0 if state[place + SPEED] > 0.0 else 1.0)
        if behind < 0.0:
            behind = SIZE - 1.0
        elif behind > SIZE - 1.0:
            behind = 0.0
        show(observation, CHANNELS, 1 + whole(abs(state[place + SPEED]), 1, 5), i + 1.0, behind)


ALL = make_world("MinAtarFreewayAll", STATE_SIZE, CHANNELS, 6, reset, step_all, observe)
MINIMAL = make_world("MinAtarFreeway", STATE_SIZE, CHANNELS, len(ACTIONS), reset, step, observe)


class FreewayAllEnv(NativeEnv):
    """MinAtar/Freeway-v0."""

    world = ALL


class FreewayAllVectorEnv(NativeVectorEnv):
    """A batch of MinAtar/Freeway-v0."""

    world = ALL


class FreewayEnv(NativeEnv):
    """MinAtar/Freeway-v1."""

    world = MINIMAL


class FreewayVectorEnv(NativeVectorEnv):
    """A batch of MinAtar/Freeway-v1."""

    world = MINIMAL

"""MinAtar's Asterix: collect gold and avoid enemies, which cross the board in rows 1 to 8.

Gold is worth +1; an enemy ends the episode. With difficulty ramping, things appear and move faster with time. Channels: player, enemy,
the cell behind each thing, gold.
"""

import numpy as np

from rl_lab.envs.minatar.game import DOWN, LAST, LEFT, RIGHT, SIZE, UP, clear, make_world, show, sticky
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import twister_below, twister_uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import kernel

ROWS = 8
RAMP_INTERVAL = 100.0
CHANNELS = 4
ACTIONS = (0, LEFT, UP, RIGHT, DOWN)
ROW, COLUMN, SPAWN_TIMER, SPAWN_SPEED, MOVE_TIMER, MOVE_SPEED, RAMP_TIMER, RAMPS, THINGS = range(LAST + 1, LAST + 10)
"""Indices in the state: the player's cell, timers and intervals in steps, increases of difficulty; from THINGS on, three per row."""
KIND, AT, HEADING, WIDTH = range(4)
"""Columns of a row's thing: its kind, its column on the board and its direction, -1 or 1."""
ENEMY, GOLD = 1.0, 2.0
STATE_SIZE = THINGS + ROWS * WIDTH
STICKY, RAMPING = STATE_SIZE, STATE_SIZE + 1


@kernel
def reset(state, stream):
    state[ROW] = 5.0
    state[COLUMN] = 5.0
    state[SPAWN_SPEED] = 10.0
    state[SPAWN_TIMER] = state[SPAWN_SPEED]
    state[MOVE_SPEED] = 5.0
    state[MOVE_TIMER] = state[MOVE_SPEED]
    state[RAMP_TIMER] = RAMP_INTERVAL
    state[RAMPS] = 0.0
    for i in range(ROWS * WIDTH):
        state[THINGS + i] = 0.0


@kernel
def _spawn(state, stream):
    """Let an enemy or, in one of three cases, gold enter an empty row from a side. Draws less if all rows are taken."""
    right = twister_uniform(stream) < 1 / 2
    gold = twister_uniform(stream) < 1 / 3
    free = 0
    for i in range(ROWS):
        free += state[THINGS + i * WIDTH + KIND] == 0.0
    if free == 0:
        return
    skipped = twister_below(stream, free)
    for i in range(ROWS):
        place = THINGS + i * WIDTH
        if state[place + KIND] == 0.0:
            if skipped == 0:
                state[place + KIND] = GOLD if gold else ENEMY
                state[place + AT] = 0.0 if right else SIZE - 1.0
                state[place + HEADING] = 1.0 if right else -1.0
                return
            skipped -= 1


@kernel
def _meet(state, i):
    """Return the reward and whether the episode ends, for the player and the thing of row ``i + 1``. Gold is taken away."""
    place = THINGS + i * WIDTH
    if state[place + KIND] == 0.0 or state[ROW] != i + 1.0 or state[COLUMN] != state[place + AT]:
        return 0.0, False
    if state[place + KIND] == GOLD:
        state[place + KIND] = 0.0
        return 1.0, False
    return 0.0, True


@kernel
def _move_things(state):
    """Move everything by one cell. Returns the reward and whether the episode ends."""
    reward = 0.0
    over = False
    for i in range(ROWS):
        place = THINGS + i * WIDTH
        if state[place + KIND] != 0.0:
            state[place + AT] += state[place + HEADING]
            if state[place + AT] < 0.0 or state[place + AT] > SIZE - 1.0:
                state[place + KIND] = 0.0
            gained, met = _meet(state, i)
            reward += gained
            over |= met
    return reward, over


@kernel
def _ramp(state):
    """Shorten the intervals every 102 steps, the interval between moves every other time."""
    if state[SPAWN_SPEED] <= 1.0 and state[MOVE_SPEED] <= 1.0:
        return
    if state[RAMP_TIMER] >= 0.0:
        state[RAMP_TIMER] -= 1.0
        return
    if state[MOVE_SPEED] > 1.0 and state[RAMPS] % 2.0 != 0.0:
        state[MOVE_SPEED] -= 1.0
    if state[SPAWN_SPEED] > 1.0:
        state[SPAWN_SPEED] -= 1.0
    state[RAMPS] += 1.0
    state[RAMP_TIMER] = RAMP_INTERVAL


@kernel
def _play(state, move, stream):
    """Let something appear, move the player, then everything else."""
    if state[SPAWN_TIMER] == 0.0:
        _spawn(state, stream)
        state[SPAWN_TIMER] = state[SPAWN_SPEED]
    if move == LEFT:
        state[COLUMN] = max(0.0, state[COLUMN] - 1.0)
    elif move == RIGHT:
        state[COLUMN] = min(SIZE - 1.0, state[COLUMN] + 1.0)
    elif move == UP:
        state[ROW] = max(1.0, state[ROW] - 1.0)
    elif move == DOWN:
        state[ROW] = min(SIZE - 2.0, state[ROW] + 1.0)
    reward = 0.0
    over = False
    for i in range(ROWS):
        gained, met = _meet(state, i)
        reward += gained
        over |= met
    if state[MOVE_TIMER] == 0.0:
        state[MOVE_TIMER] = state[MOVE_SPEED]
        gained, met = _move_things(state)
        reward += gained
        over |= met
    state[SPAWN_TIMER] -= 1.0
    state[MOVE_TIMER] -= 1.0
    if state[RAMPING] != 0.0:
        _ramp(state)
    return reward, over


@kernel
def step_all(state, action, stream):
    return _play(state, sticky(state, np.int64(action[0]), state[STICKY], stream), stream)


@kernel
def step(state, action, stream):
    return _play(state, sticky(state, ACTIONS[np.int64(action[0])], state[STICKY], stream), stream)


@kernel
def observe(state, observation):
    clear(observation, CHANNELS)
    show(observation, CHANNELS, 0, state[ROW], state[COLUMN])
    for i in range(ROWS):
        place = THINGS + i * WIDTH
        if state[place + KIND] != 0.0:
            show(observation, CHANNELS, 3 if state[place + KIND] == GOLD else 1, i + 1.0, state[place + AT])
            show(observation, CHANNELS, 2, i + 1.0, state[place + AT] - state[place + HEADING])


ALL = make_world("MinAtarAsterixAll", STATE_SIZE, CHANNELS, 6, reset, step_all, observe)
MINIMAL = make_world("MinAtarAsterix", STATE_SIZE, CHANNELS, len(ACTIONS), reset, step, observe)


class AsterixAllEnv(NativeEnv):
    """MinAtar/Asterix-v0."""

    world = ALL


class AsterixAllVectorEnv(NativeVectorEnv):
    """A batch of MinAtar/Asterix-v0."""

    world = ALL


class AsterixEnv(NativeEnv):
    """MinAtar/Asterix-v1."""

    world = MINIMAL


class AsterixVectorEnv(NativeVectorEnv):
    """A batch of MinAtar/Asterix-v1."""

    world = MINIMAL

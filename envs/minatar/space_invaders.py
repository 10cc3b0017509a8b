"""MinAtar's SpaceInvaders: a cannon below a block of aliens, which march from side to side and down.

A shot alien is worth +1. The fewer aliens are left, the faster they march. When all are gone the next block appears, which with
difficulty ramping marches faster. The episode ends when an alien or a bullet reaches the cannon. Channels: cannon, alien, alien that
marches to the left, alien that marches to the right, bullet of the cannon, bullet of an alien.
"""

import numpy as np

from rl_lab.envs.minatar.game import FIRE, LAST, LEFT, RIGHT, SIZE, clear, make_world, show, sticky, whole
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import kernel

SHOT_INTERVAL = 5.0
ALIEN_SHOT_INTERVAL = 10.0
MARCH_INTERVAL = 12.0
CHANNELS = 6
ACTIONS = (0, LEFT, RIGHT, FIRE)
CANNON, DIRECTION, MARCH_TIMER, INTERVAL, ALIEN_TIMER, SHOT_TIMER, RAMPS, ALIENS = range(LAST + 1, LAST + 9)
"""Indices in the state. From ALIENS on, three maps of ten rows: aliens, bullets of the cannon, bullets of aliens."""
SHOTS = ALIENS + SIZE
BOMBS = SHOTS + SIZE
STATE_SIZE = BOMBS + SIZE
STICKY, RAMPING = STATE_SIZE, STATE_SIZE + 1
BITS = 2**SIZE - 1
"""A row of a map is a number with bit k set for column k."""
BLOCK = 0b0011111100


@kernel
def _row(state, place):
    """Return a row of a map as an integer."""
    return whole(state[place], 0, BITS)


@kernel
def _has(state, place, column):
    """Whether a row of a map has something in a column."""
    return (_row(state, place) >> column) & 1 != 0


@kernel
def _count(state):
    """Number of aliens."""
    found = 0
    for y in range(SIZE):
        bits = _row(state, ALIENS + y)
        while bits != 0:
            bits &= bits - 1
            found += 1
    return found


@kernel
def _place_block(state):
    for y in range(4):
        state[ALIENS + y] = BLOCK


@kernel
def reset(state, stream):
    state[CANNON] = 5.0
    state[DIRECTION] = -1.0
    state[INTERVAL] = MARCH_INTERVAL
    state[MARCH_TIMER] = MARCH_INTERVAL
    state[ALIEN_TIMER] = ALIEN_SHOT_INTERVAL
    state[SHOT_TIMER] = 0.0
    state[RAMPS] = 0.0
    for i in range(3 * SIZE):
        state[ALIENS + i] = 0.0
    _place_block(state)


@kernel
def _march(state):
    """Move all aliens by one cell, down if they have reached a side. Returns whether an alien leaves the board at the bottom."""
    columns = 0
    for y in range(SIZE):
        columns |= _row(state, ALIENS + y)
    left = state[DIRECTION] < 0.0
    if (columns >> (0 if left else SIZE - 1)) & 1 != 0:
        state[DIRECTION] = -state[DIRECTION]
        lowest = state[ALIENS + SIZE - 1]
        for y in range(SIZE - 1, 0, -1):
            state[ALIENS + y] = state[ALIENS + y - 1]
        state[ALIENS] = lowest
        return _row(state, ALIENS) != 0
    for y in range(SIZE):
        bits = _row(state, ALIENS + y)
        state[ALIENS + y] = bits >> 1 if left else (bits << 1) & BITS
    return False


@kernel
def _bomb(state, cannon):
    """Let the lowest alien of the column nearest to the cannon shoot; of two columns at the same distance, the left one."""
    for distance in range(SIZE):
        for side in range(2):
            column = cannon + (distance if side else -distance)
            if 0 <= column < SIZE:
                for y in range(SIZE - 1, -1, -1):
                    if _has(state, ALIENS + y, column):
                        state[BOMBS + y] = _row(state, BOMBS + y) | (1 << column)
                        return


@kernel
def _play(state, move):
    """Move the cannon, the bullets and the aliens, and take away the aliens that were hit."""
    if move == FIRE and state[SHOT_TIMER] == 0.0:
        state[SHOTS + SIZE - 1] = 1 << whole(state[CANNON], 0, SIZE - 1)
        state[SHOT_TIMER] = SHOT_INTERVAL
    elif move == LEFT:
        state[CANNON] = max(0.0, state[CANNON] - 1.0)
    elif move == RIGHT:
        state[CANNON] = min(SIZE - 1.0, state[CANNON] + 1.0)
    cannon = whole(state[CANNON], 0, SIZE - 1)
    for y in range(SIZE - 1):
        state[SHOTS + y] = state[SHOTS + y + 1]
    state[SHOTS + SIZE - 1] = 0.0
    for y in range(SIZE - 1, 0, -1):
        state[BOMBS + y] = state[BOMBS + y - 1]
    state[BOMBS] = 0.0
    bottom = SIZE - 1
    over = _has(state, BOMBS + bottom, cannon) or _has(state, ALIENS + bottom, cannon)
    if state[MARCH_TIMER] == 0.0:
        state[MARCH_TIMER] = min(np.float64(_count(state)), state[INTERVAL])
        over |= _march(state)
        over |= _has(state, ALIENS + bottom, cannon)
    if state[ALIEN_TIMER] == 0.0:
        state[ALIEN_TIMER] = ALIEN_SHOT_INTERVAL
        _bomb(state, cannon)
    reward = 0.0
    for y in range(SIZE):
        aliens = _row(state, ALIENS + y)
        shots = _row(state, SHOTS + y)
        hit = aliens & shots
        state[ALIENS + y] = aliens & ~hit
        state[SHOTS + y] = shots & ~hit
        while hit != 0:
            hit &= hit - 1
            reward += 1.0
    if state[SHOT_TIMER] > 0.0:
        state[SHOT_TIMER] -= 1.0
    state[MARCH_TIMER] -= 1.0
    state[ALIEN_TIMER] -= 1.0
    if _count(state) == 0:
        if state[INTERVAL] > 6.0 and state[RAMPING] != 0.0:
            state[INTERVAL] -= 1.0
            state[RAMPS] += 1.0
        _place_block(state)
    return reward, over


@kernel
def step_all(state, action, stream):
    return _play(state, sticky(state, np.int64(action[0]), state[STICKY], stream))


@kernel
def step(state, action, stream):
    return _play(state, sticky(state, ACTIONS[np.int64(action[0])], state[STICKY], stream))


@kernel
def observe(state, observation):
    clear(observation, CHANNELS)
    show(observation, CHANNELS, 0, SIZE - 1.0, state[CANNON])
    heading = 2 if state[DIRECTION] < 0.0 else 3
    for y in range(SIZE):
        aliens = _row(state, ALIENS + y)
        shots = _row(state, SHOTS + y)
        bombs = _row(state, BOMBS + y)
        for x in range(SIZE):
            cell = (y * SIZE + x) * CHANNELS
            observation[cell + 1] = (aliens >> x) & 1
            observation[cell + heading] = (aliens >> x) & 1
            observation[cell + 4] = (shots >> x) & 1
            observation[cell + 5] = (bombs >> x) & 1


ALL = make_world("MinAtarSpaceInvadersAll", STATE_SIZE, CHANNELS, 6, reset, step_all, observe)
MINIMAL = make_world("MinAtarSpaceInvaders", STATE_SIZE, CHANNELS, len(ACTIONS), reset, step, observe)


class SpaceInvadersAllEnv(NativeEnv):
    """MinAtar/SpaceInvaders-v0."""

    world = ALL


class SpaceInvadersAllVectorEnv(NativeVectorEnv):
    """A batch of MinAtar/SpaceInvaders-v0."""

    world = ALL


class SpaceInvadersEnv(NativeEnv):
    """MinAtar/SpaceInvaders-v1."""

    world = MINIMAL


class SpaceInvadersVectorEnv(NativeVectorEnv):
    """A batch of MinAtar/SpaceInvaders-v1."""

    world = MINIMAL

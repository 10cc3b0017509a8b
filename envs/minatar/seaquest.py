"""MinAtar's Seaquest: a submarine shoots fish and submarines, collects divers, and surfaces for air.

A shot enemy is worth +1. Surfacing needs a diver; with six divers it is worth +1 per ten units of oxygen left, out of 200, times two.
With difficulty ramping, enemies appear and move faster after each surfacing. The episode ends when an enemy or a bullet reaches the
submarine, when the oxygen is used up, or at the surface without a diver. Channels: front and back of the submarine, its bullets, the
cell behind each fish, submarine and diver, enemy bullets, fish, enemy submarines, oxygen, divers on board, divers.

The original keeps its bullets, enemies and divers in Python lists, removes "the first item that equals this one", and does so while it
walks through the list backwards. Two fish may be equal, so the worlds here keep the items of a list in the same order and remove the
same ones.
"""

import numpy as np

from rl_lab.envs.minatar.game import DOWN, FIRE, LAST, LEFT, RIGHT, SIZE, UP, clear, make_world, show, sticky, whole
from rl_lab.envs.scalar import NativeEnv
from rl_lab.envs.stream import twister_below, twister_uniform
from rl_lab.envs.vector import NativeVectorEnv
from rl_lab.envs.world import kernel

MAX_OXYGEN = 200.0
DIVERS_WANTED = 6.0
SHOT_INTERVAL = 5.0
ENEMY_SHOT_INTERVAL = 10.0
DIVER_SPAWN_INTERVAL = 30.0
DIVER_MOVE_INTERVAL = 5.0
CHANNELS = 10
ROW, COLUMN, FACING, OXYGEN, ON_BOARD, SURFACED, SHOT_TIMER, ENEMY_TIMER, DIVER_TIMER, SPAWN_SPEED, MOVE_SPEED, RAMPS = range(
    LAST + 1, LAST + 13
)
"""Indices in the state. FACING is -1 or 1, as the direction of everything else that moves."""
BULLETS = RAMPS + 1
"""First of five lists: bullets, divers, submarines, bombs (the submarines' bullets) and fish. A list is its length and its rows."""
X, Y, HEADING, MOVE_TIMER, BOMB_TIMER = range(5)
"""Columns of the rows. Bullets and bombs have the first three, divers and fish four, submarines five."""

# Lengths that no list exceeds. An enemy crosses the board in at most 60 steps, and one appears per step at most; divers appear every
# 30 steps. A bullet lives for 10 steps and is shot every 5 steps, a bomb of each submarine every 11.
FEW = 8
MANY = 64
DIVERS = BULLETS + 1 + 3 * FEW
SUBMARINES = DIVERS + 1 + 4 * FEW
BOMBS = SUBMARINES + 1 + 5 * MANY
FISH = BOMBS + 1 + 3 * MANY
STATE_SIZE = FISH + 1 + 4 * MANY
STICKY, RAMPING = STATE_SIZE, STATE_SIZE + 1


# --- lists in the state --------------------------------------------------------------------------------------------------


@kernel
def _length(state, first, most):
    """Return the length of the list whose cells begin at ``first``."""
    return whole(state[first], 0, most)


@kernel
def _remove(state, first, width, most, i):
    """Remove the first row that equals row ``i`` and return its index, which is at most ``i``."""
    length = _length(state, first, most)
    row = first + 1 + i * width
    for j in range(i + 1):
        place = first + 1 + j * width
        equal = True
        for k in range(width):
            equal &= state[place + k] == state[row + k]
        if equal:
            for cell in range(place, first + 1 + (length - 1) * width):
                state[cell] = state[cell + width]
            state[first] = length - 1.0
            return j
    return i  # a state that a user sets may hold NaN, which equals nothing


@kernel
def _append(state, first, width, most):
    """Lengthen a list by one row and return the place of the row; the last row again if the list is full."""
    length = _length(state, first, most)
    if length < most:
        state[first] = length + 1.0
    else:
        length = most - 1
    return first + 1 + length * width


@kernel
def _at(state, place, x, y):
    """Whether the row at ``place`` is in a cell of the board."""
    return state[place + X] == x and state[place + Y] == y


@kernel
def _shoot_one(state, first, width, x, y):
    """Remove the first enemy of a list that is in a cell. Returns whether there was one."""
    for i in range(_length(state, first, MANY)):
        if _at(state, first + 1 + i * width, x, y):
            _remove(state, first, width, MANY, i)
            return True
    return False


@kernel
def _stop_bullet(state, x, y):
    """Remove the first bullet that is in a cell. Returns whether there was one."""
    for i in range(_length(state, BULLETS, FEW)):
        if _at(state, BULLETS + 1 + i * 3, x, y):
            _remove(state, BULLETS, 3, FEW, i)
            return True
    return False


# --- the game ------------------------------------------------------------------------------------------------------------


@kernel
def reset(state, stream):
    for i in range(BULLETS, STATE_SIZE):
        state[i] = 0.0
    state[ROW] = 0.0
    state[COLUMN] = 5.0
    state[FACING] = -1.0
    state[OXYGEN] = MAX_OXYGEN
    state[ON_BOARD] = 0.0
    state[SURFACED] = 1.0
    state[SHOT_TIMER] = 0.0
    state[SPAWN_SPEED] = 20.0
    state[ENEMY_TIMER] = state[SPAWN_SPEED]
    state[DIVER_TIMER] = DIVER_SPAWN_INTERVAL
    state[MOVE_SPEED] = 5.0
    state[RAMPS] = 0.0


@kernel
def _row_has_other(state, first, width, y, heading):
    """Whether a list has an enemy in row ``y`` that moves the other way."""
    for i in range(_length(state, first, MANY)):
        place = first + 1 + i * width
        if state[place + Y] == y and state[place + HEADING] != heading:
            return True
    return False


@kernel
def _spawn_enemy(state, stream):
    """Let a fish or, in one of three cases, a submarine enter a random row, unless an enemy there moves the other way."""
    heading = 1.0 if twister_uniform(stream) < 1 / 2 else -1.0
    armed = twister_uniform(stream) < 1 / 3
    y = 1.0 + twister_below(stream, 8)
    if _row_has_other(state, SUBMARINES, 5, y, heading) or _row_has_other(state, FISH, 4, y, heading):
        return
    place = _append(state, SUBMARINES, 5, MANY) if armed else _append(state, FISH, 4, MANY)
    state[place + X] = 0.0 if heading > 0.0 else SIZE - 1.0
    state[place + Y] = y
    state[place + HEADING] = heading
    state[place + MOVE_TIMER] = state[MOVE_SPEED]
    if armed:
        state[place + BOMB_TIMER] = ENEMY_SHOT_INTERVAL


@kernel
def _spawn_diver(state, stream):
    heading = 1.0 if twister_uniform(stream) < 1 / 2 else -1.0
    y = 1.0 + twister_below(stream, 8)
    place = _append(state, DIVERS, 4, FEW)
    state[place + X] = 0.0 if heading > 0.0 else SIZE - 1.0
    state[place + Y] = y
    state[place + HEADING] = heading
    state[place + MOVE_TIMER] = DIVER_MOVE_INTERVAL


@kernel
def _move_player(state, move):
    if move == FIRE and state[SHOT_TIMER] == 0.0:
        place = _append(state, BULLETS, 3, FEW)
        state[place + X] = state[COLUMN]
        state[place + Y] = state[ROW]
        state[place + HEADING] = state[FACING]
        state[SHOT_TIMER] = SHOT_INTERVAL
    elif move == LEFT:
        state[COLUMN] = max(0.0, state[COLUMN] - 1.0)
        state[FACING] = -1.0
    elif move == RIGHT:
        state[COLUMN] = min(SIZE - 1.0, state[COLUMN] + 1.0)
        state[FACING] = 1.0
    elif move == UP:
        state[ROW] = max(0.0, state[ROW] - 1.0)
    elif move == DOWN:
        state[ROW] = min(SIZE - 2.0, state[ROW] + 1.0)


@kernel
def _off(x):
    """Whether a column is beyond the sides of the board."""
    return x < 0.0 or x > SIZE - 1.0


@kernel
def _move_bullets(state):
    """Move the bullets of the player. Returns the number of enemies hit."""
    reward = 0.0
    for i in range(_length(state, BULLETS, FEW) - 1, -1, -1):
        place = BULLETS + 1 + i * 3
        state[place + X] += state[place + HEADING]
        x = state[place + X]
        y = state[place + Y]
        if _off(x):
            _remove(state, BULLETS, 3, FEW, i)
        elif _shoot_one(state, FISH, 4, x, y) or _shoot_one(state, SUBMARINES, 5, x, y):
            _remove(state, BULLETS, 3, FEW, i)
            reward += 1.0
    return reward


@kernel
def _board(state, i):
    """Take a diver on board if the diver is in the submarine's cell and there is room. Returns whether it was taken."""
    if not _at(state, DIVERS + 1 + i * 4, state[COLUMN], state[ROW]) or state[ON_BOARD] >= DIVERS_WANTED:
        return False
    _remove(state, DIVERS, 4, FEW, i)
    state[ON_BOARD] += 1.0
    return True


@kernel
def _move_divers(state):
    for i in range(_length(state, DIVERS, FEW) - 1, -1, -1):
        place = DIVERS + 1 + i * 4
        if _board(state, i):
            continue
        if state[place + MOVE_TIMER] == 0.0:
            state[place + MOVE_TIMER] = DIVER_MOVE_INTERVAL
            state[place + X] += state[place + HEADING]
            if _off(state[place + X]):
                _remove(state, DIVERS, 4, FEW, i)
            else:
                _board(state, i)
        else:
            state[place + MOVE_TIMER] -= 1.0


@kernel
def _move_enemy(state, first, width, i):
    """Move one enemy. Returns (whether the submarine is hit, 1 if a bullet is hit, the enemy's row afterwards or -1 if it is gone)."""
    place = first + 1 + i * width
    over = _at(state, place, state[COLUMN], state[ROW])
    if state[place + MOVE_TIMER] != 0.0:
        state[place + MOVE_TIMER] -= 1.0
        return over, 0.0, i
    state[place + MOVE_TIMER] = state[MOVE_SPEED]
    state[place + X] += state[place + HEADING]
    x = state[place + X]
    y = state[place + Y]
    reward = 0.0
    gone = _off(x)
    if not gone:
        if _at(state, place, state[COLUMN], state[ROW]):
            over = True
        elif _stop_bullet(state, x, y):
            reward = 1.0
            gone = True
    if gone:
        removed = _remove(state, first, width, MANY, i)
        return over, reward, -1 if removed == i else i - 1
    return over, reward, i


@kernel
def _move_submarines(state):
    """Move the enemy submarines and let them shoot, also one that is removed in this step. Returns (reward, whether it is over)."""
    reward = 0.0
    over = False
    for i in range(_length(state, SUBMARINES, MANY) - 1, -1, -1):
        place = SUBMARINES + 1 + i * 5
        heading = state[place + HEADING]
        x = state[place + X] + (heading if state[place + MOVE_TIMER] == 0.0 else 0.0)
        y = state[place + Y]
        timer = state[place + BOMB_TIMER]
        hit, gained, after = _move_enemy(state, SUBMARINES, 5, i)
        over |= hit
        reward += gained
        if after >= 0:
            state[SUBMARINES + 1 + after * 5 + BOMB_TIMER] = ENEMY_SHOT_INTERVAL if timer == 0.0 else timer - 1.0
        if timer == 0.0:
            bomb = _append(state, BOMBS, 3, MANY)
            state[bomb + X] = x
            state[bomb + Y] = y
            state[bomb + HEADING] = heading
    return reward, over


@kernel
def _move_bombs(state):
    """Move the enemies' bullets. Returns whether one hits the submarine."""
    over = False
    for i in range(_length(state, BOMBS, MANY) - 1, -1, -1):
        place = BOMBS + 1 + i * 3
        over |= _at(state, place, state[COLUMN], state[ROW])
        state[place + X] += state[place + HEADING]
        if _off(state[place + X]):
            _remove(state, BOMBS, 3, MANY, i)
        else:
            over |= _at(state, place, state[COLUMN], state[ROW])
    return over


@kernel
def _surface(state):
    """Take in air for one diver, or for all six of them with a reward. Returns the reward."""
    state[SURFACED] = 1.0
    reward = 0.0
    if state[ON_BOARD] == DIVERS_WANTED:
        state[ON_BOARD] = 0.0
        reward = np.floor(state[OXYGEN] * 10.0 / MAX_OXYGEN)
    state[OXYGEN] = MAX_OXYGEN
    state[ON_BOARD] -= 1.0  # also after the reward, which leaves -1: so it is in the package
    if state[RAMPING] != 0.0 and (state[SPAWN_SPEED] > 1.0 or state[MOVE_SPEED] > 2.0):
        if state[MOVE_SPEED] > 2.0 and state[RAMPS] % 2.0 != 0.0:
            state[MOVE_SPEED] -= 1.0
        if state[SPAWN_SPEED] > 1.0:
            state[SPAWN_SPEED] -= 1.0
        state[RAMPS] += 1.0
    return reward


@kernel
def step(state, action, stream):
    """Let enemies and divers appear, move the player and everything else, then breathe."""
    move = sticky(state, np.int64(action[0]), state[STICKY], stream)
    if state[ENEMY_TIMER] == 0.0:
        _spawn_enemy(state, stream)
        state[ENEMY_TIMER] = state[SPAWN_SPEED]
    if state[DIVER_TIMER] == 0.0:
        _spawn_diver(state, stream)
        state[DIVER_TIMER] = DIVER_SPAWN_INTERVAL
    _move_player(state, move)
    reward = _move_bullets(state)
    _move_divers(state)
    gained, over = _move_submarines(state)
    reward += gained
    over |= _move_bombs(state)
    for i in range(_length(state, FISH, MANY) - 1, -1, -1):
        hit, gained, _ = _move_enemy(state, FISH, 4, i)
        over |= hit
        reward += gained
    for timer in (ENEMY_TIMER, DIVER_TIMER, SHOT_TIMER):
        if state[timer] > 0.0:
            state[timer] -= 1.0
    over |= state[OXYGEN] <= 0.0
    if state[ROW] > 0.0:
        state[OXYGEN] -= 1.0
        state[SURFACED] = 0.0
    elif state[SURFACED] == 0.0:
        if state[ON_BOARD] == 0.0:
            over = True
        else:
            reward += _surface(state)
    return reward, over


@kernel
def _show_all(state, observation, first, width, most, channel, trail):
    """Show the rows of a list in a channel, and with ``trail`` the cells behind them."""
    for i in range(_length(state, first, most)):
        place = first + 1 + i * width
        show(observation, CHANNELS, channel, state[place + Y], state[place + X])
        if trail:
            show(observation, CHANNELS, 3, state[place + Y], state[place + X] - state[place + HEADING])


@kernel
def observe(state, observation):
    clear(observation, CHANNELS)
    show(observation, CHANNELS, 0, state[ROW], state[COLUMN])
    show(observation, CHANNELS, 1, state[ROW], state[COLUMN] - state[FACING])
    for x in range(whole(np.floor(max(0.0, state[OXYGEN]) * 10.0 / MAX_OXYGEN), 0, SIZE)):
        show(observation, CHANNELS, 7, SIZE - 1.0, x)
    for x in range(SIZE - 1 - whole(state[ON_BOARD], 0, DIVERS_WANTED), SIZE - 1):
        show(observation, CHANNELS, 8, SIZE - 1.0, x)
    _show_all(state, observation, BULLETS, 3, FEW, 2, False)
    _show_all(state, observation, BOMBS, 3, MANY, 4, False)
    _show_all(state, observation, FISH, 4, MANY, 5, True)
    _show_all(state, observation, SUBMARINES, 5, MANY, 6, True)
    _show_all(state, observation, DIVERS, 4, FEW, 9, True)


WORLD = make_world("MinAtarSeaquest", STATE_SIZE, CHANNELS, 6, reset, step, observe)


class SeaquestEnv(NativeEnv):
    """MinAtar/Seaquest-v0, and v1: all six actions have an effect."""

    world = WORLD


class SeaquestVectorEnv(NativeVectorEnv):
    """A batch of MinAtar/Seaquest-v0, and v1."""

    world = WORLD

"""Play many small networks in many environments: each thread takes the next network and plays its episodes to their end.

A native function, called by address, steps the environments on buffers that belong to one thread (`rl_lab.envs.world` describes them).
The outcome of an episode depends on its network and its seed alone, not on the number of threads or their timing.
"""

from typing import NamedTuple

import numba
import numpy as np
from numba import carray

from rl_lab.native.cache import cached_njit
from rl_lab.native.part import part
from rl_lab.native.pointers import call, fetch_and_add, float32_at, int32_at, int64_at, uint8_at
from rl_lab.native.threads import cycles, may_share, note_region, region_state
from rl_lab.nn.graph.kernels import activate, state_size

F = np.float32
U = np.uint64
CYCLES_A_STEP = 500
"""Rough cost of one step of a network and its environment, in cycles of the processor."""
RESETTING, STEPPING = range(2)
"""The two rows of a thread's cells over the same buffers: the first resets all environments, the second steps unfinished episodes."""


class Batches(NamedTuple):
    """One batch of environments per thread, with unused rows at the end so that threads do not share cache lines."""

    loop: int
    """Address of the native function ``void loop(int64 address_of_cells)``."""
    fault: int
    """Index of the fault cell. The loop sets it to -(e + 1) if the action of environment e is invalid, to e + 1 if e fails otherwise."""
    cells: np.ndarray  # int64 (threads, 2, ...)
    streams: np.ndarray  # uint64 (threads, rows, 4)
    states: np.ndarray  # float64 (threads, rows, state and parameters)
    actions: np.ndarray  # float32 (threads, rows, action size)
    observations: np.ndarray  # float32 (threads, rows, inputs)
    finals: np.ndarray  # float32 (threads, rows, inputs)
    rewards: np.ndarray  # float64 (threads, rows)
    ended: np.ndarray  # bool (threads, rows)
    elapsed: np.ndarray  # int64 (threads, rows)
    returns: np.ndarray  # float64 (threads, rows)


class Tasks(NamedTuple):
    """Task k: ``networks[k]`` plays one episode from each random stream ``streams[begin[k]]``."""

    networks: np.ndarray  # int64 (tasks,)
    begin: np.ndarray  # int64 (tasks, width)
    streams: np.ndarray  # uint64 (distinct episodes, 4)
    parameters: np.ndarray  # float64 (1 or tasks, 1 or width, parameters), of the world, broadcast over tasks and episodes
    counter: np.ndarray  # int64 (1,): index of the next task


class Outcomes(NamedTuple):
    """Results of `play`. A failed environment leaves its last reward, its steps, its last observation and the fault cell instead."""

    returns: np.ndarray  # float64 (tasks, width)
    lengths: np.ndarray  # int64 (tasks, width)
    finals: np.ndarray  # float32 (tasks, width, inputs)
    faults: np.ndarray  # int64 (tasks,)
    sums: (
        np.ndarray
    )  # float64 (tasks, width, 2, inputs): sums of the observations acted on and of their squares; (0, ...): not wanted


inner = part


# The loops use raw addresses and unsigned indices. To pass an array that owns its memory costs an atomic reference count, and for a signed
# index numba checks whether the index is negative. Either costs as much as a step of an environment.


@inner
def _largest(outputs, begin, count):
    """Return the argmax of ``count`` outputs from ``begin`` on, as NumPy: the first of equal maxima, or the first NaN if there is one."""
    best = outputs[begin]
    chosen = U(0)
    for k in range(U(1), count):
        value = outputs[begin + k]
        if value > best or (value != value and best == best):
            best = value
            chosen = k
    return chosen


@inner
def _add(sums, observation):
    """Add an observation and its squares to ``sums`` (2, inputs)."""
    for i in range(sums.shape[1]):
        value = np.float64(observation[i])
        sums[0, i] += value
        sums[1, i] += value * value


@inner
def _work(thread, batches, mapping, tasks, structures, numbers, memory, outcomes):
    """Take tasks and play their episodes until no task is left."""
    begin = batches.cells[thread, RESETTING]
    step = batches.cells[thread, STEPPING]
    streams = batches.streams[thread]
    states = batches.states[thread]
    begin_cells = begin.ctypes.data
    step_cells = step.ctypes.data
    loop = batches.loop
    width = tasks.begin.shape[1]
    several, each, parameters = tasks.parameters.shape
    inputs = batches.observations.shape[2]
    components = batches.actions.shape[2]
    groups = U(len(mapping.choices))
    first_observation = batches.observations[thread].ctypes.data
    first_memory = memory[thread].ctypes.data
    observation_bytes = 4 * inputs
    memory_bytes = 4 * memory.shape[2]
    actions = carray(float32_at(batches.actions[thread].ctypes.data), (width, components))
    ended = carray(uint8_at(batches.ended[thread].ctypes.data), (width,))
    choices = int64_at(mapping.choices.ctypes.data)
    start = float32_at(mapping.start.ctypes.data)
    offset = float32_at(mapping.offset.ctypes.data)
    first = float32_at(mapping.first.ctypes.data)
    scale = float32_at(mapping.scale.ctypes.data)
    low = float32_at(mapping.low.ctypes.data)
    high = float32_at(mapping.high.ctypes.data)
    summed = len(outcomes.sums) > 0
    scratch = np.empty(structures[0, 2] + 32, np.float32)
    outputs = float32_at(scratch.ctypes.data)
    while True:
        k = fetch_and_add(tasks.counter.ctypes.data)
        if k >= len(tasks.networks):
            break
        network = tasks.networks[k]
        structure = int32_at(structures[network].ctypes.data)
        number = float32_at(numbers[network].ctypes.data)
        for e in range(width):
            streams[e] = tasks.streams[tasks.begin[k, e]]
            states[e, states.shape[1] - parameters :] = tasks.parameters[k if several > 1 else 0, e if each > 1 else 0]
            memory[thread, e, : state_size(structure)] = F(0)
            ended[e] = 1
        call(loop, begin_cells)
        while not begin[batches.fault]:
            playing = False
            for e in range(U(width)):
                if ended[e]:
                    continue
                playing = True
                observation = float32_at(first_observation + e * observation_bytes)
                if summed:
                    _add(outcomes.sums[k, e], observation)
                activate(structure, number, observation, float32_at(first_memory + e * memory_bytes), outputs)
                place = U(0)
                for j in range(groups):
                    actions[e, j] = F(_largest(outputs, place, U(choices[j]))) + start[j]
                    place += U(choices[j])
                if groups == 0:
                    for j in range(U(components)):
                        value = offset[j] + (outputs[j] - first[j]) * scale[j]
                        if value != value:
                            value = F(0)
                        if value < low[j]:
                            value = low[j]
                        if value > high[j]:
                            value = high[j]
                        actions[e, j] = value
            if not playing:
                break
            call(loop, step_cells)
            if step[batches.fault]:
                break
        fault = begin[batches.fault] + step[batches.fault]
        begin[batches.fault] = 0
        step[batches.fault] = 0
        outcomes.faults[k] = fault
        for e in range(width):
            outcomes.returns[k, e] = batches.returns[thread, e]
            outcomes.lengths[k, e] = batches.elapsed[thread, e]
            outcomes.finals[k, e] = batches.finals[thread, e]
        if fault:
            e = abs(fault) - 1
            outcomes.returns[k, e] = batches.rewards[thread, e]
            outcomes.finals[k, e] = batches.observations[thread, e]
    scratch[0] = F(0)  # keeps the array alive until here: ``outputs`` points into its memory


def _play(batches, mapping, tasks, structures, numbers, memory, outcomes, sharing):
    """Play all tasks, on as many threads as there are batches.

    Threads share only the task counter, so a thread that loses its core to another process delays one task, not all.
    """
    shared = region_state()
    if len(batches.cells) > 1 and may_share(shared, sharing[0]):
        begin = cycles()
        for thread in numba.prange(len(batches.cells)):
            _work(thread, batches, mapping, tasks, structures, numbers, memory, outcomes)
        note_region(shared, cycles() - begin, CYCLES_A_STEP * outcomes.lengths.sum())
    else:
        _work(0, batches, mapping, tasks, structures, numbers, memory, outcomes)


play = cached_njit(_play, parallel=True, nogil=True)


def _forward_each(structures, numbers, chosen, x, states, out):
    """Evaluate network ``chosen[k]`` on row k of x (rows, inputs) with the state ``states[k]``; skip rows with ``chosen[k]`` < 0."""
    for k in range(len(x)):
        if chosen[k] >= 0:
            activate(structures[chosen[k]], numbers[chosen[k]], x[k], states[k], out[k])


forward_each = cached_njit(_forward_each)

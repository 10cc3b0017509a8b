"""Collect a whole rollout in one native call, which runs a recorded policy and native environments in turn."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from rl_lab.engine.compile import Compiled
from rl_lab.engine.program import Program
from rl_lab.engine.tensor import Tensor
from rl_lab.envs import world
from rl_lab.native import machine
from rl_lab.native.machine import Action, call_action, copy_action
from rl_lab.rollout.stepper import Stepper
from rl_lab.rollout.storage import RolloutStorage

Acted: TypeAlias = tuple[Tensor, dict[str, Tensor]]
"""Result of a policy: the actions for the environments, and the tensors to store, by name."""


class NativeLoop:
    """Runs a compiled policy in the native environments of a stepper.

    ``policy`` is called with ``arguments`` and returns `Acted`; all tensors are contiguous.
    """

    def __init__(self, stepper: Stepper, policy: Compiled, arguments: tuple[Tensor | None, ...]):
        assert stepper.native is not None
        self.stepper = stepper
        self.envs = stepper.native
        self.policy = policy
        self.arguments = arguments
        self._progress = np.zeros(1, np.int64)
        self._rows: dict[int, tuple[RolloutStorage, Program, int, np.ndarray, bytes]] = {}

    def run(self, storage: RolloutStorage, first: int) -> bool:
        """Take the steps from ``first`` to the last of the storage. Returns False, without a step, if no program is recorded yet.

        Raises EnvironmentFault if an environment fails.
        """

        def row(program: Program, result: Callable[[], Acted]) -> bytes:
            known = self._rows.get(storage.steps)
            if known is None or known[0] is not storage or known[1] is not program or known[2] != first:
                actions = np.array(self._actions(storage, program, result(), first), np.int64)
                stop = self.envs.cells.ctypes.data + 8 * world.FAULT
                packed = machine.repeat_row(self._progress, actions, storage.steps - first, stop)
                self._rows[storage.steps] = known = (storage, program, first, actions, packed)
            return known[4]

        self._progress[0] = 0
        if not self.policy.run_within(machine.repeat, self.arguments, row):
            return False
        self.stepper.timesteps += int(self._progress[0]) * self.stepper.num_envs
        if self.envs.cells[world.FAULT]:
            self.stepper.guarded(self.envs.fault)
        return True

    def _actions(self, storage: RolloutStorage, program: Program, result: Acted, first: int) -> list[Action]:
        """List the native actions of one step: copy observations to the policy, call it, step the environments, and store everything."""
        envs = self.envs

        def store(source: int, array: np.ndarray) -> Action:
            """Copy from the address ``source`` to the next row of ``array``."""
            stride = array.strides[0]
            return copy_action(source, array.ctypes.data + first * stride, stride, stride)

        def show(array: np.ndarray, tensor: Tensor) -> Action:
            """Copy ``array`` to the memory of ``tensor``."""
            return copy_action(array.ctypes.data, tensor.address, array.nbytes)

        taken, results = result
        outputs = [store(x.address, storage.output(name, x.shape, x.dtype.numpy)) for name, x in results.items()]
        return [
            store(envs.observations.ctypes.data, storage.observations),
            store(envs.elapsed.ctypes.data, storage.elapsed),
            show(envs.observations, program.inputs[0]),
            show(envs.elapsed, program.inputs[1]),
            call_action(*program.call),
            *outputs,
            copy_action(taken.address, envs.actions.ctypes.data, envs.actions.nbytes),
            call_action(envs.loop_address, envs.cells.ctypes.data),
            store(envs.rewards.ctypes.data, storage.rewards),
            store(envs.terminated.ctypes.data, storage.terminated),
            store(envs.truncated.ctypes.data, storage.truncated),
            store(envs.final_observations.ctypes.data, storage.next_observations),
            store(envs.episode_returns.ctypes.data, storage.episode_returns),
            store(envs.episode_lengths.ctypes.data, storage.episode_lengths),
        ]

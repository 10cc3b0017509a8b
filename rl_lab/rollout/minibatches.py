"""The steps of a rollout in random order, minibatch by minibatch."""

from collections.abc import Callable
from typing import Any

import rl_lab as rl
from rl_lab.engine.compile import call_times

MOST_RECORDED = 16
"""The most minibatches of an epoch that is recorded as a whole. The time to record grows with them."""


class Minibatches:
    """Draws ``size`` steps in a new random order per epoch, ``batch_size`` at a time.

    Order and position are tensors, so one recorded minibatch can be replayed for every minibatch.
    """

    def __init__(self, size: int, batch_size: int, generator: rl.Generator):
        self.count = size // batch_size
        self.few = self.count <= MOST_RECORDED
        self._size = size
        self._batch_size = batch_size
        self._generator = generator
        self._order = rl.arange(size)
        self._places = rl.arange(batch_size)
        self._first = rl.arange(batch_size)

    def shuffled(self) -> rl.Tensor:
        """The steps in a new random order, int64 (size,)."""
        return rl.randperm(self._size, generator=self._generator)

    def begin(self) -> None:
        """Begin an epoch of `draw`."""
        self._order.copy_(self.shuffled())
        self._places.copy_(self._first)

    def draw(self) -> rl.Tensor:
        """The steps of the next minibatch, int64 (batch_size,)."""
        index = self._order.index_select(0, self._places)
        self._places.add_(self._batch_size)
        return index

    def passes(self, update: Callable[[rl.Tensor], None], record: Callable[[Callable[[], None]], Any]) -> Callable[[], None]:
        """A function that passes over all steps in a new random order and calls ``update(index)`` on each minibatch.

        ``record`` compiles a function. A short pass is recorded as a whole. Of a long one, one minibatch is recorded and repeated.
        """

        def one_pass() -> None:
            for index in self.shuffled().split(self._batch_size):
                update(index)

        if self.few:
            return record(one_pass)
        begin = record(self.begin)
        next_update = record(lambda: update(self.draw()))

        def repeated() -> None:
            begin()
            call_times(next_update, self.count)

        return repeated

"""The steps of a rollout in random order, minibatch by minibatch."""

import rl_lab as rl

MOST_RECORDED = 16
"""The most minibatches of an epoch that is recorded as a whole. The time to record grows with them."""


class Minibatches:
    """Draws all of ``size`` steps in a new random order in each epoch, ``batch_size`` at a time.

    The order and the position lie in tensors, so one recorded minibatch serves for all of them.
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

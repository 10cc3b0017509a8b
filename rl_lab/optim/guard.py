"""A guard of optimisers: no step is taken while a number that it depends on is not finite.

One launch before each step looks at running statistics, parameters, the optimiser's state, the losses and the gradients, in this order,
so that the first source is named. The launch stops a recorded program. In a round of several steps one launch, in `Guard.begin`, looks
at parameters and state of all optimisers, and those before the steps at the rest: steps on finite numbers keep the state finite.
"""

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.finite import Explain, Listing
from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.launch import changes, lengths_of
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import from_numpy
from rl_lab.engine.ops.gathering import IndexStatus, launch_checked
from rl_lab.engine.ops.multi_tensor import address_table

if TYPE_CHECKING:
    from rl_lab.optim.optimizer import Optimizer

KEPT_LOSSES = 8
Named = tuple[str, Tensor]
"""The name of a float32 tensor, and the tensor."""


class Guard:
    """Makes `Optimizer.step` raise an error, before any weight changes, if a number is NaN or infinite.

    ``optimizers`` are guarded, by name. ``names`` are those of parameters, by their id. ``statistics`` are looked at before every step,
    ``others`` at the start of a round. ``explain`` makes the error from the name of the first source, such as "the gradient of
    actor.0.weight".
    """

    def __init__(
        self,
        optimizers: Sequence[tuple[str, "Optimizer"]],
        names: Mapping[int, str],
        statistics: Sequence[Named],
        others: Sequence[Named],
        explain: Explain,
    ):
        self._optimizers = [(name, weakref.ref(optimizer)) for name, optimizer in optimizers]
        self.names = names
        self.statistics = _whole(statistics)
        self.others = _whole(others)
        self.explain = explain
        self._losses: dict[int, deque[Tensor]] = {}
        self._listings: dict[tuple[str, ...], Listing] = {}
        skips = np.zeros(1, np.int64)
        self._skip = skips.data
        self._skips_tensor = from_numpy(skips)
        self._in_round = False
        self.is_stale = True
        """Whether an optimiser has got new state tensors since `begin` collected them."""
        self._seen = -1
        self._row = b""
        self._kept: tuple[Any, ...] = ()
        self._status = IndexStatus()
        self._found = self._status.words.data
        for _, optimizer in optimizers:
            optimizer.guard = self
        tape.add_guard(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of an optimiser has no guard: the names are those of the original's parameters."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def _living(self) -> list[tuple[str, "Optimizer"]]:
        found = [(name, reference()) for name, reference in self._optimizers]
        return [(name, optimizer) for name, optimizer in found if optimizer is not None]

    def owns(self, parameters: Sequence[Tensor]) -> bool:
        """Whether the optimisers update one of these parameters."""
        ids = set(map(id, parameters))
        return any(id(p) in ids for _, optimizer in self._living() for group in optimizer.param_groups for p in group["params"])

    def note(self, roots: Sequence[Tensor], leaves: Mapping[int, Any]) -> None:
        """Keep the losses whose gradients were computed for an optimiser's parameters, until its step."""
        for _, optimizer in self._living():
            if any(id(p) in leaves for group in optimizer.param_groups for p in group["params"]):
                kept = self._losses.setdefault(id(optimizer), deque(maxlen=KEPT_LOSSES))
                kept.extend([x.with_node(None) for x in roots if x.dtype is float32 and x.strides is None])

    def forget(self, optimizer: "Optimizer") -> None:
        """Forget the losses of earlier gradients."""
        self._losses.pop(id(optimizer), None)

    def _state(self, name: str, optimizer: "Optimizer", parameters: Sequence[Tensor]) -> list[Named]:
        """Parameters of an optimiser and their state tensors."""
        named: list[Named] = []
        for i, parameter in enumerate(parameters):
            own = self._name(parameter, i)
            named.append((own, parameter))
            moments = optimizer.state.get(parameter, {}).items()
            named += [(f"{kind} of {own} in {name}", x) for kind, x in moments if x.dtype is float32]
        return named

    def _name(self, parameter: Tensor, number: int) -> str:
        return self.names.get(id(parameter), f"parameter {number}")

    def _listing(self, named: Sequence[Named]) -> Listing:
        key = tuple([name for name, _ in named])
        if key not in self._listings:
            self._listings[key] = Listing(key, self.explain)
        return self._listings[key]

    def check(self, optimizer: "Optimizer", parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Raise an error that names the first source if a number is not finite. ``gradients`` are those of ``parameters``, in order."""
        name = next((name for name, known in self._living() if known is optimizer), "the optimizer")
        state = self._state(name, optimizer, parameters)
        named = [*self.statistics, *state]
        named += [(f"the loss that {name} minimizes", x) for x in self._losses.get(id(optimizer), ())]
        names = [self._name(parameter, i) for i, parameter in enumerate(parameters)]
        named += [(f"the gradient of {own}", x) for own, x in zip(names, gradients, strict=True)]
        self.forget(optimizer)
        table, sizes = address_table([(x,) for _, x in named], columns=1, writes=False)
        first = len(self.statistics)
        numbers = (len(named), first, first + len(state), self._listing(named).number)
        launch_checked(optimizer_kernels.first_not_finite, (table, sizes, self._skips_tensor), numbers)

    def enter(self) -> None:
        """Begin a round: `begin` looks at parameters and state, and the checks before steps that follow leave them out."""
        self._in_round = True

    def leave(self) -> None:
        """End a round."""
        self._in_round = False
        self._skip[0] = 0

    def begin(self) -> None:
        """Look at all parameters and states, in a round; without effect outside. Raises as `check` does."""
        if not self._in_round:
            return
        if self.is_stale or changes.count != self._seen:
            self._collect()
        optimizer_kernels.first_not_finite.call(self._row)
        if self._found[0]:
            self._status.check()
        self._skip[0] = 1

    def _collect(self) -> None:
        """Make the row of the launch of `begin`. The tensors are kept, because the row holds their addresses."""
        named = [*self.statistics, *self.others]
        for name, optimizer in self._living():
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            named += self._state(name, optimizer, parameters)
        table, sizes = address_table([(x,) for _, x in named], columns=1, writes=False)
        tensors = (table, sizes, self._skips_tensor, self._status.tensor)
        numbers = (len(named), 0, 0, self._listing(named).number)
        addresses = [x.address for x in tensors]
        self._row = optimizer_kernels.first_not_finite.pack(*addresses, *numbers, *lengths_of(tensors))
        self._kept = (tensors, named)
        self.is_stale, self._seen = False, changes.count


def _whole(named: Sequence[Named]) -> list[Named]:
    return [(name, x) for name, x in named if x.dtype is float32 and x.strides is None]

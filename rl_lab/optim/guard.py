"""A guard that prevents a step of an optimiser if a number that the step uses is NaN or infinite.

One launch before each step checks running statistics, parameters, the optimiser's state, the losses and the gradients. It checks them in
this order, so that the error names the first source. A number that is not finite also stops a recorded program.

In a round of several steps, one launch at the start (`Guard.begin`) checks parameters and state of all optimisers. The launches before
the steps then check only the rest, because a step on finite numbers leaves parameters and state finite.
"""

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

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
"""Number of losses per optimiser that are kept until its step."""
Named = tuple[str, Tensor]
"""The name of a float32 tensor, and the tensor."""


class Guard:
    """Makes `Optimizer.step` raise an error, before any weight changes, if a number is NaN or infinite.

    ``optimizers`` are the guarded optimisers, with their names. ``names`` maps the id of a parameter to its name. ``statistics`` are
    checked before every step, ``others`` only at the start of a round. ``explain`` makes the error from the name of the first source,
    such as "the gradient of actor.0.weight".
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
        """Whether an optimiser has made new state tensors since `begin` collected them."""
        self._seen = -1
        self._row = b""
        self._kept: object = ()  # keeps alive the tensors whose addresses `_row` holds
        self._status = IndexStatus()
        self._found = self._status.words.data
        for _, optimizer in optimizers:
            optimizer.guard = self
        tape.add_guard(self)

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        """Return None: a copy of an optimiser has no guard, because the names belong to the parameters of the original."""

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Pickle as None, for the same reason."""
        return type(None), ()

    def _living(self) -> list[tuple[str, "Optimizer"]]:
        """Return the guarded optimisers that still exist, with their names."""
        found = [(name, reference()) for name, reference in self._optimizers]
        return [(name, optimizer) for name, optimizer in found if optimizer is not None]

    def owns(self, parameters: Sequence[Tensor]) -> bool:
        """Whether the optimisers update one of these parameters."""
        ids = set(map(id, parameters))
        return any(id(p) in ids for _, optimizer in self._living() for group in optimizer.param_groups for p in group["params"])

    def note(self, roots: Sequence[Tensor], leaves: Mapping[int, object]) -> None:
        """Keep the losses ``roots`` until the step of each optimiser with a parameter among ``leaves``, tensors by id."""
        for _, optimizer in self._living():
            if any(id(p) in leaves for group in optimizer.param_groups for p in group["params"]):
                kept = self._losses.setdefault(id(optimizer), deque(maxlen=KEPT_LOSSES))
                kept.extend([x.with_node(None) for x in roots if x.dtype is float32 and x.strides is None])

    def forget(self, optimizer: "Optimizer") -> None:
        """Forget the losses of earlier gradients."""
        self._losses.pop(id(optimizer), None)

    def _state(self, name: str, optimizer: "Optimizer", parameters: Sequence[Tensor]) -> list[Named]:
        """Return the parameters of an optimiser and its state tensors, with their names."""
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
        """Return the listing of these names, made once."""
        key = tuple([name for name, _ in named])
        if key not in self._listings:
            self._listings[key] = Listing(key, self.explain)
        return self._listings[key]

    def check(self, optimizer: "Optimizer", parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Raise the error of ``explain``, which names the first source, if a number is not finite.

        ``gradients`` are those of ``parameters``, in the same order.
        """
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
        """Begin a round: `begin` now checks parameters and state, and the checks before the following steps leave them out."""
        self._in_round = True

    def leave(self) -> None:
        """End a round."""
        self._in_round = False
        self._skip[0] = 0

    def begin(self) -> None:
        """Check all parameters and states at the start of a round; does nothing outside a round. Raises as `check` does."""
        if not self._in_round:
            return
        if self.is_stale or changes.count != self._seen:
            self._collect()
        optimizer_kernels.first_not_finite.call(self._row)
        if self._found[0]:
            self._status.check()
        self._skip[0] = 1

    def _collect(self) -> None:
        """Pack the operands of the launch of `begin`."""
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
        self.is_stale = False
        self._seen = changes.count


def _whole(named: Sequence[Named]) -> list[Named]:
    """Return the float32 tensors that are contiguous: the launch reads flat memory."""
    return [(name, x) for name, x in named if x.dtype is float32 and x.strides is None]

"""A guard of an optimiser: its step does nothing while a number that it depends on is not finite.

One launch before the step looks at everything: state that others keep (such as running statistics), parameters, the optimiser's
state, the losses and the gradients, in this order, so that the first source is named. The launch stops a recorded program. Within a
`one_round` of several steps the state is looked at before the first one only: steps on finite numbers keep it finite.
"""

import contextlib
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32
from rl_lab.engine.finite import Explain, Listing
from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import from_numpy
from rl_lab.engine.ops.gathering import launch_checked
from rl_lab.engine.ops.multi_tensor import address_table

if TYPE_CHECKING:
    from rl_lab.optim.optimizer import Optimizer

KEPT_LOSSES = 8


class Guard:
    """Makes `Optimizer.step` raise an error, before any weight changes, if a number is NaN or infinite.

    ``names`` are those of parameters, by their id; ``others`` are further tensors to look at. ``explain`` makes the error from the name
    of the first source, such as "the gradient of actor.0.weight".
    """

    def __init__(
        self,
        optimizer: "Optimizer",
        name: str,
        names: Mapping[int, str],
        others: Sequence[tuple[str, Tensor]],
        explain: Explain,
    ):
        self._optimizer = weakref.ref(optimizer)
        self.name = name
        self.names = names
        self.others = [(name, x) for name, x in others if x.dtype is float32 and x.strides is None]
        self.explain = explain
        self._losses: deque[Tensor] = deque(maxlen=KEPT_LOSSES)
        self._listings: dict[tuple[str, ...], Listing] = {}
        self.mode = np.zeros(1, np.int64)
        """When the state is looked at: see `rl_lab.engine.kernels.optimizer.first_not_finite`."""
        self._mode = from_numpy(self.mode)
        tape.guards.add(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of an optimiser has no guard: the names are those of the original's parameters."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def owns(self, parameters: Sequence[Tensor]) -> bool:
        """Whether the optimiser updates one of these parameters."""
        optimizer = self._optimizer()
        ids = set(map(id, parameters))
        return optimizer is not None and any(id(p) in ids for group in optimizer.param_groups for p in group["params"])

    def note(self, roots: Sequence[Tensor], leaves: Mapping[int, Any]) -> None:
        """Keep the losses whose gradients were computed for the optimiser's parameters, until the step."""
        optimizer = self._optimizer()
        if optimizer is None or not any(id(p) in leaves for group in optimizer.param_groups for p in group["params"]):
            return
        self._losses.extend([x.with_node(None) for x in roots if x.dtype is float32 and x.strides is None])

    def forget(self) -> None:
        """Forget the losses of earlier gradients."""
        self._losses.clear()

    def check(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], state: Mapping[Tensor, dict[str, Tensor]]
    ) -> None:
        """Raise an error that names the first source if a number is not finite. ``gradients`` are those of ``parameters``, in order."""
        named = list(self.others)
        for i, parameter in enumerate(parameters):
            name = self.names.get(id(parameter), f"parameter {i}")
            named.append((name, parameter))
            moments = state.get(parameter, {}).items()
            named += [(f"{kind} of {name} in {self.name}", x) for kind, x in moments if x.dtype is float32]
        state_count = len(named)
        named += [(f"the loss that {self.name} minimizes", x) for x in self._losses]
        names = [self.names.get(id(parameter), f"parameter {i}") for i, parameter in enumerate(parameters)]
        named += [(f"the gradient of {name}", x) for name, x in zip(names, gradients, strict=True)]
        self.forget()
        key = tuple([name for name, _ in named])
        listing = self._listings.get(key)
        if listing is None:
            listing = self._listings[key] = Listing(key, self.explain)
        table, sizes = address_table([(x,) for _, x in named], columns=1, writes=False)
        tensors = (table, sizes, self._mode)
        launch_checked(optimizer_kernels.first_not_finite, tensors, (len(named), state_count, listing.number))


@contextlib.contextmanager
def one_round(guards: Sequence[Guard]) -> Iterator[None]:
    """Inside, each guard looks at the state before the first step of its optimiser only, and at losses and gradients before every step."""
    for guard in guards:
        guard.mode[0] = optimizer_kernels.NEXT_STEP
    try:
        yield
    finally:
        for guard in guards:
            guard.mode[0] = optimizer_kernels.EVERY_STEP

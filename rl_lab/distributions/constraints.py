"""Constraints: the sets to which the values and the parameters of distributions belong."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import as_tensor

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())


class Constraint:
    """A set of values whose last ``event_dim`` dimensions are one event. ``text`` describes a member, for messages."""

    def __init__(self, text: str, test: Callable[[Tensor], Tensor], event_dim: int = 0, is_discrete: bool = False):
        self.text = text
        self.event_dim = event_dim
        self.is_discrete = is_discrete
        self._test = test

    def check(self, value: Any) -> Tensor:
        """Where an event belongs to the set: bool, of the shape of ``value`` without its event dimensions."""
        return self._test(as_tensor(value))

    def __repr__(self) -> str:
        return f"Constraint({self.text})"


class _Interval(Constraint):
    """Numbers, or integers, from ``lower_bound`` to ``upper_bound``, which are numbers or tensors."""

    def __init__(self, lower_bound: Any, upper_bound: Any, text: str = "", is_discrete: bool = False):
        super().__init__(text or f"from {_short(lower_bound)} to {_short(upper_bound)}", self._holds, 0, is_discrete)
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound

    def _holds(self, x: Tensor) -> Tensor:
        inside = (x >= self.lower_bound) & (x <= self.upper_bound)
        return inside & (x == x.floor()) if self.is_discrete and x.is_floating_point() else inside


class _Independent(Constraint):
    """The constraint ``base_constraint`` with ``reinterpreted_batch_ndims`` further dimensions in the event, all of which must hold."""

    def __init__(self, base_constraint: Constraint, reinterpreted_batch_ndims: int):
        base = base_constraint
        super().__init__(base.text, self._holds, base.event_dim + reinterpreted_batch_ndims, base.is_discrete)
        self.base_constraint = base
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims

    def _holds(self, x: Tensor) -> Tensor:
        held = self.base_constraint.check(x)
        for _ in range(self.reinterpreted_batch_ndims):
            held = held.all(-1)
        return held


def _short(bound: Any) -> str:
    return "its own bound" if isinstance(bound, Tensor) and bound.dim() else f"{float(bound):g}"


def _is_integer(x: Tensor) -> Tensor:
    return x == x.floor() if x.is_floating_point() else x == x


def integer_interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    """Integers from ``lower_bound`` to ``upper_bound``."""
    text = f"an integer from {_short(lower_bound)} to {_short(upper_bound)}"
    return _Interval(lower_bound, upper_bound, text, is_discrete=True)


def greater_than(lower_bound: Any) -> Constraint:
    """Numbers above ``lower_bound``."""
    return Constraint(f"above {_short(lower_bound)}", lambda x: x > lower_bound)


def greater_than_eq(lower_bound: Any) -> Constraint:
    """Numbers of at least ``lower_bound``."""
    return Constraint(f"at least {_short(lower_bound)}", lambda x: x >= lower_bound)


def less_than(upper_bound: Any) -> Constraint:
    """Numbers below ``upper_bound``."""
    return Constraint(f"below {_short(upper_bound)}", lambda x: x < upper_bound)


interval = _Interval
independent = _Independent
real = Constraint("a number (not NaN)", lambda x: ~x.isnan())
real_vector = independent(real, 1)
positive = Constraint("positive", lambda x: x > 0)
nonnegative = Constraint("not negative", lambda x: x >= 0)
unit_interval = interval(0.0, 1.0, "between 0 and 1")
boolean = Constraint("0 or 1", lambda x: (x == 0) | (x == 1), is_discrete=True)
nonnegative_integer = Constraint("an integer of at least 0", lambda x: (x >= 0) & _is_integer(x), is_discrete=True)
positive_integer = Constraint("an integer of at least 1", lambda x: (x >= 1) & _is_integer(x), is_discrete=True)
# the sum may differ from 1 by 1e-4, so that rounded samples belong to the simplex; PyTorch allows 1e-6 and refuses some of its own
simplex = Constraint("not negative with a sum of 1", lambda x: (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() < 1e-4), 1)
one_hot = Constraint("a one-hot vector", lambda x: ((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1), 1, is_discrete=True)

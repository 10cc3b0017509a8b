"""Python numbers that vary from call to call of a compiled function.

While the function is recorded, each such number is a `Number`, which records the expressions computed from it. Before every replay
the program evaluates the same expressions with the same Python operators. When the function compares, prints or indexes with a
number, the program becomes valid only for calls in which this number has the same value.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rl_lab.engine.dtype import DType
from rl_lab.engine.memory import Storage
from rl_lab.engine.tensor import Tensor, new

Plain = int | float
"""A Python number."""


class Expressions:
    """The numbers of one recording: the inputs, followed by the results of the operations on them, in order."""

    def __init__(self, inputs: Sequence[Plain]):
        self.operations: list[tuple[Callable, tuple[object, ...]]] = []
        self.values: list[Plain] = list(inputs)
        self.inputs = [Number(self, i, value) for i, value in enumerate(inputs)]
        self.cells: list[tuple[int, np.ndarray]] = []
        """Places of numbers, with the arrays of one element to which each replay writes them."""
        self.facts: list[tuple[int, Plain]] = []
        """Places of numbers, with the values for which the program is valid."""
        self.open = True
        self._tensors: dict[tuple[int, str], Tensor] = {}
        self._known: set[int] = set()

    def apply(self, function: Callable, *operands: Any) -> Any:
        """The result of a Python function of numbers, as a `Number` while the recording is open."""
        value = function(*[x.value if type(x) is Number else x for x in operands])
        if not self.open:
            return value
        places = tuple([_Place(x.place) if type(x) is Number else x for x in operands])
        self.operations.append((function, places))
        self.values.append(value)
        return Number(self, len(self.values) - 1, value)

    def fact(self, number: "Number") -> Plain:
        """The value of a number; the program is valid only for this value from now on."""
        if self.open and number.place not in self._known:
            self._known.add(number.place)
            self.facts.append((number.place, number.value))
        return number.value

    def tensor(self, number: "Number", dtype: DType) -> Tensor:
        """A zero-dimensional tensor that every replay sets to the number."""
        key = number.place, dtype.name
        if key not in self._tensors:
            array = np.array([number.value]).astype(dtype.numpy)
            self.cells.append((number.place, array))
            self._tensors[key] = new(Storage.over(array), (), None, 0, dtype)
        return self._tensors[key]

    def close(self) -> None:
        """End the recording: later operations on its numbers give plain numbers."""
        self.open = False
        self.inputs.clear()
        self._tensors.clear()

    def evaluate(self, inputs: Sequence[Plain]) -> list[Plain] | None:
        """All values for these inputs; None if the program is not valid for them."""
        values: list[Plain] = list(inputs)
        try:
            for (function, operands), recorded in zip(self.operations, self.values[len(inputs) :], strict=True):
                value = function(*[values[x] if type(x) is _Place else x for x in operands])
                if type(value) is not type(recorded):  # 2**n is an int or a float
                    return None
                values.append(value)
        except (
            ArithmeticError,
            ValueError,
            TypeError,
        ):  # the function itself will be called, and raises it, unless it takes another way
            return None
        for place, expected in self.facts:
            if not same_number(values[place], expected):
                return None
        return values


class _Place(int):
    """The place of a number among the values; a type of its own, to distinguish it from an integer constant."""


def same_number(a: object, b: object) -> bool:
    """Whether two numbers have the same type and the same bits, so that no computation can tell them apart."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (float, np.floating)) and isinstance(b, (float, np.floating)):
        return bool((a == b and math.copysign(1.0, a) == math.copysign(1.0, b)) or (a != a and b != b))
    return a == b


def plain(value: Any) -> Any:
    """The value of a `Number`, for which alone the program is valid from now on; any other value is returned unchanged."""
    return value.__expressions__.fact(value) if type(value) is Number else value


def real(value: Any) -> Any:
    """``float(value)``; a `Number` stays a `Number`."""
    if type(value) is Number:
        return value if type(value.value) is float else value.__expressions__.apply(float, value)
    return float(value)


def integer(value: Any) -> Any:
    """``int(value)`` of an integer; a `Number` stays a `Number`."""
    if type(value) is Number:
        return value if type(value.value) is int else value.__expressions__.apply(int, value)
    return int(value)


def _binary(function: Callable) -> tuple[Callable, Callable]:
    def method(self, other):
        if type(other) in (int, float, bool, Number):
            return self.__expressions__.apply(function, self, other)
        if isinstance(other, (np.generic, np.ndarray)):
            return function(plain(self), other)
        return NotImplemented

    def reflected(self, other):
        if type(other) in (int, float, bool):
            return self.__expressions__.apply(function, other, self)
        if isinstance(other, (np.generic, np.ndarray)):
            return function(other, plain(self))
        return NotImplemented

    return method, reflected


def _unary(function: Callable) -> Callable:
    return lambda self: self.__expressions__.apply(function, self)


def _comparison(function: Callable) -> Callable:
    def method(self, other):
        if type(other) in (int, float, bool, Number):
            result = self.__expressions__.apply(function, self, other)
            return plain(result)
        if isinstance(other, (np.generic, np.ndarray)):
            return function(plain(self), other)
        return NotImplemented

    return method


def _escape(function: Callable) -> Callable:
    return lambda self, *arguments: function(plain(self), *arguments)


def _outcome(function: Callable) -> Callable:
    return lambda self, *arguments: plain(self.__expressions__.apply(function, self, *arguments))


_OF_ALL_VALUES = {"dtype", "itemsize", "nbytes", "ndim", "shape", "size", "strides"}
"""Attributes of NumPy's numbers that are the same for all values of a type."""


class Number:
    """A number in a recording. It computes like its int or float value, and ``isinstance`` accepts it as an int or a float.

    It is not a subclass of float, because C functions such as `math.exp` would then read its value unseen. They call ``__float__``
    instead, which makes the program valid for this value only.
    """

    __slots__ = ("__expressions__", "place", "value")

    def __init__(self, expressions: Expressions, place: int, value: Plain):
        self.__expressions__ = expressions
        self.place = place
        self.value = value

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # type: ignore[override]
        return type(self.value)

    def tensor(self, dtype: DType) -> Tensor:
        """A zero-dimensional tensor that every replay sets to this number."""
        return self.__expressions__.tensor(self, dtype)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.value, name)  # hex, is_integer, bit_length; AttributeError for other names
        if name not in _OF_ALL_VALUES:
            plain(self)
        return found

    __add__, __radd__ = _binary(operator.add)
    __sub__, __rsub__ = _binary(operator.sub)
    __mul__, __rmul__ = _binary(operator.mul)
    __truediv__, __rtruediv__ = _binary(operator.truediv)
    __floordiv__, __rfloordiv__ = _binary(operator.floordiv)
    __mod__, __rmod__ = _binary(operator.mod)
    __pow__, __rpow__ = _binary(operator.pow)
    __and__, __rand__ = _binary(operator.and_)
    __or__, __ror__ = _binary(operator.or_)
    __xor__, __rxor__ = _binary(operator.xor)
    __lshift__, __rlshift__ = _binary(operator.lshift)
    __rshift__, __rrshift__ = _binary(operator.rshift)
    __divmod__, __rdivmod__ = (_escape(divmod), _escape(lambda value, other: divmod(other, value)))
    __neg__, __pos__ = _unary(operator.neg), _unary(operator.pos)
    __abs__, __invert__ = _unary(abs), _unary(operator.invert)
    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)
    __eq__, __ne__ = _comparison(operator.eq), _comparison(operator.ne)  # type: ignore[assignment]
    __bool__, __int__ = _outcome(bool), _outcome(int)
    __trunc__, __round__ = _outcome(math.trunc), _outcome(round)
    __floor__, __ceil__ = _outcome(math.floor), _outcome(math.ceil)
    __float__, __complex__ = _escape(float), _escape(complex)
    __index__, __hash__ = _escape(operator.index), _escape(hash)  # type: ignore[assignment]
    __repr__, __str__ = _escape(repr), _escape(str)  # type: ignore[assignment]
    __format__ = _escape(format)  # type: ignore[assignment]
    __reduce__ = _escape(lambda value: (type(value), (value,)))  # type: ignore[assignment]

    def __copy__(self) -> "Number":
        return self

    def __deepcopy__(self, memo: dict) -> "Number":
        return self

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Compute with the Python number, which is weakly typed; `__array__` would give it a dtype of its own."""
        return getattr(ufunc, method)(*map(plain, inputs), **options)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(plain(self), dtype)

"""The operations as methods of a tensor. `rl_lab.engine.ops.methods` sets them here once, when all families are defined."""

from collections.abc import Mapping


class Operations:
    """Base of `Tensor` with one method per operation. ``operations.pyi`` declares the methods for editors and type checkers."""

    __slots__ = ()


_OF_ANY_CLASS = {
    "__module__", "__doc__", "__slots__", "__annotations__", "__dict__", "__weakref__", "__hash__", "__static_attributes__",
    "__firstlineno__",
}  # fmt: skip


def hang(methods: Mapping[str, object]) -> None:
    """Make functions, properties and constants, given by name, attributes of every tensor. Skips the attributes of any class."""
    for name, value in methods.items():
        if name not in _OF_ANY_CLASS:
            setattr(Operations, name, value)

"""The base class with the operations of a tensor as methods. `rl_lab.engine.ops.methods` adds them when all families are imported."""


class Operations:
    """Base of `Tensor` with one method per operation; ``operations.pyi`` declares the methods for editors and type checkers."""

    __slots__ = ()


def hang(methods: type) -> None:
    """Add the functions, properties and constants in the body of the class ``methods`` to every tensor."""
    for name, value in vars(methods).items():
        if name not in ("__module__", "__doc__", "__slots__", "__annotations__", "__dict__", "__weakref__", "__hash__"):
            setattr(Operations, name, value)

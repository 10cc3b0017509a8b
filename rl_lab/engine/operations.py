"""The operations as methods of a tensor. `rl_lab.engine.ops.methods` hangs them here, once, when all families are known."""


class Operations:
    """Base of `Tensor` that holds one method per operation; ``operations.pyi`` declares them for editors and type checkers."""

    __slots__ = ()


def hang(methods: type) -> None:
    """Make the functions, properties and constants in the body of ``methods`` those of every tensor."""
    for name, value in vars(methods).items():
        if name not in ("__module__", "__doc__", "__slots__", "__annotations__", "__dict__", "__weakref__", "__hash__"):
            setattr(Operations, name, value)

"""PyTorch's names: an error for those that rl_lab does not have, and NumPy's names of arguments, which PyTorch also accepts."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import Any, NoReturn, TypeVar

Function = TypeVar("Function", bound=Callable)

TABLE = "docs/coverage.md"


def not_covered(module: str, names: Iterable[str]) -> Callable[[str], NoReturn]:
    """A ``__getattr__`` for a module. It raises an AttributeError with the missing name, a similar name, and the table of names."""

    def refuse(name: str) -> NoReturn:
        if name.startswith("_"):  # private names are asked for by the import machinery and by tools
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        near = get_close_matches(name, [known for known in names if not known.startswith("_")], 1)
        hint = f"; the nearest name is {near[0]!r}" if near else ""
        path = module.replace("rl_lab", "torch", 1)
        raise AttributeError(f"{module} does not cover {path}.{name} ({TABLE} lists what it covers){hint}")

    return refuse


NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}
"""NumPy's names of arguments, and PyTorch's names for the same arguments. PyTorch accepts both."""


def numpy_names(function: Function) -> Function:
    """Let a function with an argument ``dim`` or ``keepdim`` accept it also as ``axis`` or ``keepdims``.

    A call raises TypeError if an argument is given by both names.
    """

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if not options:
            return function(*arguments)
        for name in NUMPY_NAMES.keys() & options.keys():
            if NUMPY_NAMES[name] in options:
                raise TypeError(f"{function.__name__}() got both {NUMPY_NAMES[name]} and {name}: they are the same argument")
            options[NUMPY_NAMES[name]] = options.pop(name)
        return function(*arguments, **options)

    return call  # type: ignore[return-value]

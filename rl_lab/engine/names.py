"""Names of PyTorch: those that are not covered say so, and arguments may have NumPy's names where PyTorch allows it."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable)

TABLE = "rl_lab/README.md"


def not_covered(module: str, names: dict[str, Any]) -> Callable[[str], Any]:
    """A module's ``__getattr__``: AttributeError that names what is missing, the table of what is there, and a near name."""

    def refuse(name: str) -> Any:
        if name.startswith("_"):  # what the import machinery and the tools ask for
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        near = get_close_matches(name, [known for known in names if not known.startswith("_")], 1)
        hint = f"; the nearest name is {near[0]!r}" if near else ""
        path = module.replace("rl_lab", "torch", 1)
        raise AttributeError(f"{module} does not cover {path}.{name} ({TABLE} lists what it covers){hint}")

    return refuse


NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim"}
"""NumPy's names of arguments and PyTorch's, which accepts both."""


def numpy_names(function: Function) -> Function:
    """Let a function with an argument ``dim`` or ``keepdim`` take it as ``axis`` or ``keepdims``, too.

    Raises TypeError if an argument is given by both names.
    """

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if options:
            for name in NUMPY_NAMES.keys() & options.keys():
                if NUMPY_NAMES[name] in options:
                    raise TypeError(
                        f"{function.__name__}() got both {NUMPY_NAMES[name]} and {name}: they are the same argument"
                    )
                options[NUMPY_NAMES[name]] = options.pop(name)
        return function(*arguments, **options)

    return call  # type: ignore[return-value]

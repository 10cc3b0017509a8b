"""Names of PyTorch that are not covered: asking for one says so."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

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

"""Write ``rl_lab/engine/operations.pyi``, which declares the tensor's methods for editors and type checkers.

Run ``python -m tests.engine.declarations`` after adding a method.
"""

import inspect
import types
from pathlib import Path
from typing import Any

import rl_lab
from rl_lab.engine.operations import Operations

PATH = Path(rl_lab.__file__).parent / "engine" / "operations.pyi"
HEAD = """# Written by `python -m tests.engine.declarations`: do not edit.
from builtins import bool as _bool, float as _float, int as _int, list as _list, str as _str, tuple as _tuple
from collections.abc import Sequence
from typing import Any

from rl_lab.engine.tensor import Tensor

def hang(methods: type) -> None: ...

class Operations:
"""
BUILTIN = ("bool", "float", "int", "str", "tuple", "list")


def annotation(value: Any) -> str:
    """An annotation by names that no method hides: ``float`` is a method of a tensor, ``_float`` is the type."""
    if value is rl_lab.Tensor:
        return "Tensor"
    if isinstance(value, (types.GenericAlias, types.UnionType)):
        parts = [annotation(part) for part in value.__args__]
        if isinstance(value, types.UnionType):
            return " | ".join(parts)
        return f"{annotation(value.__origin__)}[{', '.join(parts)}]"
    if value in (None, type(None)):
        return "None"
    if value is Ellipsis:
        return "..."
    name = getattr(value, "__name__", "Any")
    return f"_{name}" if name in BUILTIN else name if name in ("Sequence", "Tensor") else "Any"


def declaration(name: str, method: Any) -> list[str]:
    if isinstance(method, property):
        result = annotation(inspect.signature(method.fget).return_annotation)
        return ["    @property", f"    def {name}(self) -> {result}: ..."]
    if not callable(method):
        return [f"    {name}: {annotation(type(method))}"]
    signature = inspect.signature(method)
    text, star = ["self"], False
    for parameter in list(signature.parameters.values())[1:]:
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        if parameter.kind == parameter.KEYWORD_ONLY and not star:
            text.append("*")
        star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        typed = "Any" if parameter.annotation is parameter.empty else annotation(parameter.annotation)
        text.append(f"{stars}{parameter.name}: {typed}" + ("" if parameter.default is parameter.empty else " = ..."))
    result = "Any" if signature.return_annotation is signature.empty else annotation(signature.return_annotation)
    ignore = "  # type: ignore[override]" if name in ("__eq__", "__ne__") else ""
    return [f"    def {name}({', '.join(text)}) -> {result}: ...{ignore}"]


def declarations() -> str:
    lines = []
    for name, method in sorted(vars(Operations).items()):
        if name not in ("__doc__", "__module__", "__slots__", "__new__", "__getattr__"):
            lines += declaration(name, method)
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(declarations(), encoding="utf-8")

"""Write ``rl_lab/engine/operations.pyi``, which declares the tensor's methods for editors and type checkers.

Run ``python -m tests.engine.declarations`` after adding or changing a method.
"""

import ast
import inspect
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

import rl_lab
from rl_lab.engine import types as arguments
from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DTypeLike
from rl_lab.engine.operations import Operations

PATH = Path(rl_lab.__file__).parent / "engine" / "operations.pyi"
ALIASES = {
    "rl_lab.engine.types": {n: a for n, a in vars(arguments).items() if isinstance(a, types.UnionType)},
    "rl_lab.engine.dtype": {"DTypeLike": DTypeLike},
    "rl_lab.engine.device": {"DeviceLike": DeviceLike},
}
"""Named unions, by the module that defines them."""
HEAD = """# Written by `python -m tests.engine.declarations`: do not edit.
{imports}

def hang(methods: collections.abc.Mapping[str, object]) -> None: ...

class Operations:
"""
IGNORED = {"__eq__": "override", "__ne__": "override", "__new__": "misc"} | dict.fromkeys(
    ("__lt__", "__le__", "__gt__", "__ge__"), "misc"
)
"""What mypy must accept: comparisons of tensors are tensors, not bools, and ``Tensor(...)`` makes a tensor of any dtype."""
SKIPPED = ("__doc__", "__module__", "__slots__", "__getattr__")


class Writer:
    """Writes annotations by names that no method hides: ``float`` is a method of a tensor, ``_float`` is the type."""

    def __init__(self) -> None:
        self.modules = {"collections.abc"}
        self.names: dict[str, set[str]] = {"rl_lab.engine.tensor": {"Tensor"}}

    def annotation(self, value: Any) -> str:
        if value in (None, type(None)):
            return "None"
        if value is Ellipsis:
            return "..."
        if isinstance(value, types.UnionType):
            return self.union(value)
        if get_origin(value) is not None:
            parts = get_args(value)
            if isinstance(parts[0], list):
                parts = (parts[0], *parts[1:])
            return f"{self.annotation(get_origin(value))}[{', '.join(map(self.part, parts))}]"
        if value is rl_lab.Tensor:
            return "Tensor"
        if value is Any:
            self.names.setdefault("typing", set()).add("Any")
            return "Any"
        if value.__module__ == "builtins":
            self.names.setdefault("builtins", set()).add(f"{value.__name__} as _{value.__name__}")
            return f"_{value.__name__}"
        self.modules.add(value.__module__)
        return f"{value.__module__}.{value.__qualname__}"

    def part(self, value: Any) -> str:
        """An argument of a generic type: an annotation, a list of them, or a value of a Literal."""
        if isinstance(value, list):
            return f"[{', '.join(map(self.annotation, value))}]"
        return repr(value) if isinstance(value, (bool, str)) else self.annotation(value)

    def union(self, value: types.UnionType) -> str:
        """A union, by the largest named ones that it contains."""
        rest, text = list(get_args(value)), []
        named = [(module, name, alias) for module, aliases in ALIASES.items() for name, alias in aliases.items()]
        for module, name, alias in sorted(named, key=lambda entry: -len(get_args(entry[2]))):
            members = get_args(alias)
            if all(member in rest for member in members):
                rest = [member for member in rest if member not in members]
                self.names.setdefault(module, set()).add(name)
                text.append(name)
        return " | ".join([*text, *map(self.annotation, rest)])

    def function(self, name: str, function: Callable[..., object]) -> str:
        text: list[str] = []
        star = False
        signature = inspect.signature(function, eval_str=True)
        first, *others = signature.parameters.values()
        if first.kind is not first.VAR_POSITIONAL:
            text.append("cls" if name == "__new__" else "self")
        for parameter in others:
            stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
            if parameter.kind == parameter.KEYWORD_ONLY and not star:
                text.append("*")
            star = star or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
            default = "" if parameter.default is parameter.empty else " = ..."
            text.append(f"{stars}{parameter.name}: {self.annotation(parameter.annotation)}{default}")
        result = self.annotation(signature.return_annotation)
        ignore = f"  # type: ignore[{IGNORED[name]}]" if name in IGNORED else ""
        return f"    def {name}({', '.join(text)}) -> {result}: ...{ignore}"

    def declaration(self, name: str, method: Any) -> list[str]:
        if isinstance(method, property):
            result = self.annotation(inspect.signature(method.fget).return_annotation)  # type: ignore[arg-type]
            return ["    @property", f"    def {name}(self) -> {result}: ..."]
        if isinstance(method, staticmethod):  # __new__
            method = method.__func__
        if not callable(method):
            return [f"    {name}: {self.annotation(type(method))}"]
        forms = overloads(method)
        if not forms:
            return [self.function(name, method)]
        overload = self.annotation(sys.modules["typing"].overload)
        return [line for form in forms for line in (f"    @{overload}", self.function(name, form))]


def overloads(function: Any) -> list[Callable[..., object]]:
    """The forms of a function that its module declares with ``@overload``."""
    function = inspect.unwrap(function)
    module = sys.modules[function.__module__]
    found = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.FunctionDef) or node.name != function.__name__:
            continue
        if [ast.unparse(decorator) for decorator in node.decorator_list] == ["overload"]:
            node.decorator_list = []
            names = dict(vars(module))
            exec(compile(ast.Module([node], []), module.__name__, "exec"), names)
            found.append(names[node.name])
    return found


def declarations() -> str:
    writer = Writer()
    lines = []
    for name, method in sorted(vars(Operations).items()):
        if name not in SKIPPED:
            lines += writer.declaration(name, method)
    imports = [f"import {module}" for module in writer.modules]
    imports += [f"from {module} import {', '.join(sorted(names))}" for module, names in writer.names.items()]
    return HEAD.format(imports="\n".join(sorted(imports))) + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(declarations(), encoding="utf-8")

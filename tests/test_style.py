"""Rules of the house that a program can check: one decision per assignment, and types that an editor can use."""

import ast
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("rl_lab", "agents", "envs") for path in sorted((ROOT / folder).rglob("*.py"))]

# --- assignments -----------------------------------------------------------------------------------------------------


def names_bound(target: ast.expr) -> int:
    return sum(map(names_bound, target.elts)) if isinstance(target, (ast.Tuple, ast.List)) else 1


def packed_assignments(source: str) -> list[int]:
    """Lines of assignments that bind more than two names to the parts of a tuple or a list written out on the right."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and is_written_out(node.value)
        if any(isinstance(target, (ast.Tuple, ast.List)) and names_bound(target) > 2 for target in node.targets)
    ]


def is_written_out(value: ast.expr) -> bool:
    """Whether a value is a tuple or a list of expressions, or a comprehension over one."""
    if isinstance(value, (ast.ListComp, ast.GeneratorExp)):
        return any(is_written_out(loop.iter) for loop in value.generators)
    return isinstance(value, (ast.Tuple, ast.List))


@pytest.mark.parametrize("folder", ["rl_lab", "agents", "envs"])
def test_an_assignment_binds_at_most_two_names(folder):
    found = {path: packed_assignments(path.read_text(encoding="utf-8")) for path in (ROOT / folder).rglob("*.py")}
    assert {str(path): lines for path, lines in found.items() if lines} == {}, "write one assignment per line"


def test_packed_assignments_are_found():
    assert packed_assignments("a, b, c = 1, 2, 3\nd, (e, f) = x, y\nself.g, self.h, i[0] = j, k, l") == [1, 2, 3]
    assert packed_assignments(
        "[a, b, c] = [1, 2, 3]\na, b, c = [int(v) for v in (x, y, z)]\na, b, c = (f(v) for v in [x, y, z])"
    ) == [
        1,
        2,
        3,
    ]
    assert packed_assignments("n, c, h, w = x.shape\na, b = 1, 2\nfor a, b, c in x: pass\nx = a, b, c") == []


# --- annotations -----------------------------------------------------------------------------------------------------

MODULES = (
    "rl_lab",
    "rl_lab.nn",
    "rl_lab.nn.functional",
    "rl_lab.nn.init",
    "rl_lab.nn.utils",
    "rl_lab.optim",
    "rl_lab.optim.lr_scheduler",
    "rl_lab.distributions",
    "rl_lab.experiment",
)


def public_functions() -> Iterator[tuple[str, Callable[..., object]]]:
    """(qualified name, function) of the public functions, and of the public methods and constructors of the public classes."""
    for module in map(importlib.import_module, MODULES):
        for name in getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]):
            found = getattr(module, name)
            members = [found]
            if inspect.isclass(found):
                shown = [
                    n
                    for n in dir(found)
                    if not n.startswith("_") or n in ("__init__", "__call__", "__getitem__", "__setitem__")
                ]
                members = [inspect.getattr_static(found, n) for n in shown]
            for member in members:
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if not inspect.isfunction(function):  # an object that is called as a function, such as rl_lab.exp
                    function = getattr(type(function), "__call__", None)  # noqa: B004
                own = "rl_lab" if hasattr(module, "__all__") else module.__name__
                if inspect.isfunction(function) and function.__module__.startswith(own):
                    yield function.__qualname__, function


def contains_any(annotation: object) -> bool:
    """Whether an annotation contains Any; ``dict[str, Any]``, a dict of settings or of state, does not count."""
    if isinstance(annotation, str):  # of a module that imports the type for type checkers only
        return re.search(r"\bAny\b", annotation.replace("dict[str, Any]", "")) is not None
    parts = annotation if isinstance(annotation, list) else typing.get_args(annotation)
    return annotation is typing.Any or (annotation != dict[str, typing.Any] and any(map(contains_any, parts)))


def untyped(function: Callable[..., object]) -> list[str]:
    """The arguments, and "return", whose annotation is missing or contains Any."""
    signature = inspect.signature(function)
    annotations = {p.name: p.annotation for p in signature.parameters.values() if p.name not in ("self", "cls")}
    if getattr(function, "__name__", "") != "__init__":
        annotations["return"] = signature.return_annotation
    return [name for name, a in annotations.items() if a is inspect.Parameter.empty or contains_any(a)]


UNTYPED = {
    "Module.__call__": "the subclass gives forward its signature",
    "Module.forward": "the subclass gives forward its signature",
    "Module.register_forward_hook": "a hook takes the inputs and the output of forward",
    "Module.register_forward_pre_hook": "a hook takes the inputs of forward",
    "Module.get_extra_state": "the subclass decides what it keeps",
    "Module.set_extra_state": "the subclass decides what it keeps",
    "Activation.__init__": "the settings of the subclass's function: numbers, bools and names",
    "RNN.__init__": "the settings of every recurrent layer: numbers and bools",
    "TensorCore.tolist": "a number, or lists nested as deeply as the tensor has dimensions",
    "load": "the saved object: tensors, numbers, names, and lists and dicts of them",
    "save": "the object: tensors, numbers, names, and lists and dicts of them",
    "Agent.__init__": "the settings of the subclass's Config",
    "Agent.create": "the subclass's Config",
    "Agent.act": "actions have the type of the environment's space",
    "Agent.predict": "observations and actions have the types of the environment's spaces",
    "Agent.load": "an environment: an id, an object, a constructor or vector environments",
    "Agent.record": "the function and its compiled form have the signature of the function",
    "setting": "a check takes a value of the field's type",
    "train": "the settings of the agent's Config",
    "sweep": "the settings of the agent's Config, and lists of them",
}
"""Public functions with an argument or a result that has no type of its own, and the reason."""


def test_public_functions_are_typed_without_any():
    found = {name: places for name, function in public_functions() if (places := untyped(function))}
    assert {name: places for name, places in found.items() if name not in UNTYPED} == {}
    assert set(UNTYPED) - set(found) == set(), "these are typed now: take them off the list"


def test_missing_types_are_found():
    def function(a, b: typing.Any, c: list[typing.Any] | None, d: "list[typing.Any]", e: dict[str, typing.Any], f: int) -> str:
        return ""

    assert untyped(function) == ["a", "b", "c", "d"]
    assert untyped(lambda: 0) == ["return"]

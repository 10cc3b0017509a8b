"""Record the names of the arguments of PyTorch's functions and methods: ``python -m tests.record_arguments``. Needs torch."""

import inspect
import json
from pathlib import Path
from typing import Any

import torch

from tests import coverage

PATH = Path(__file__).with_name("torch_arguments.json")
PLACES = ("torch", "torch.Tensor", "torch.nn.functional")


def takes_tensor(schema: Any) -> bool:
    return any("Tensor" in str(argument.type) for argument in schema.arguments)


def overloads(place: str, name: str, function: Any) -> list[list[str]]:
    """The argument names of each overload, in order; keyword-only arguments have a star."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    if parameters and all(p.kind is not p.VAR_POSITIONAL for p in parameters):
        names = [f"*{p.name}" if p.kind is p.KEYWORD_ONLY else p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        return [names[1:] if place == "torch.Tensor" else names]
    found = []
    operation = getattr(torch.ops.aten, name, None)
    schemas = [getattr(operation, overload)._schema for overload in operation.overloads()] if operation is not None else []
    of_tensors = any(takes_tensor(schema) for schema in schemas)
    for schema in schemas:
        if any(argument.is_out for argument in schema.arguments) or (of_tensors and not takes_tensor(schema)):
            continue  # the others are of TorchScript's own numbers and lists
        names = [f"*{a.name}" if a.kwarg_only else a.name for a in schema.arguments]
        if place == "torch.Tensor":
            if not names or names[0] != "self":
                continue
            found.append(names[1:])
        else:
            found.append(["input" if n == "self" else n for n in names])
    return [list(x) for x in dict.fromkeys(map(tuple, found))]


def main() -> None:
    names = json.loads(coverage.NAMES.read_text(encoding="utf-8"))
    answers = {}
    for place in PLACES:
        owner = coverage.resolve(place, "torch")
        for name in names[place]:
            function = getattr(owner, name, None)
            if callable(function) and not inspect.isclass(function) and (listed := overloads(place, name, function)):
                answers[f"{place}.{name}"] = listed
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in answers.items())
    PATH.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"{PATH.name}: {len(answers)} functions and methods of PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()

"""What each operation saves for its gradient, seen from outside: which tensors may change between forward and backward.

``python -m tests.engine.saved`` records PyTorch's answers; the tests run without PyTorch.
"""

import json
from pathlib import Path
from typing import Any

from tests.engine.cases import Case
from tests.engine.every_case import CASES

ANSWERS = Path(__file__).with_name("saved_answers.json")
RELEVANT = [case for case in CASES if "-" not in case.name.partition("]")[2]]
"""Every case but those through views."""


def gradients(t: Any, case: Case, wanted: int, changed: int | None) -> Any:
    """The gradient of input ``wanted``, the only one that needs a gradient, after a change of input ``changed`` (-1: of the value).

    None if backward raises an error.
    """
    inputs = [t.tensor(array, requires_grad=k == wanted) for k, array in enumerate(case.arrays())]
    value = case.function(t, *inputs)
    if not value.requires_grad:
        return "none"
    with t.no_grad():
        if changed == -1:
            value.add_(1.0)
        elif changed is not None:
            inputs[changed].add_(1.0)
    try:
        value.backward(t.ones_like(value.detach()))
    except RuntimeError:
        return None
    gradient = inputs[wanted].grad
    return None if gradient is None else gradient.numpy(force=True)


def changes(case: Case) -> list[tuple[int, int]]:
    """All pairs (input that needs a gradient, tensor that is changed: an input, or -1 for the value)."""
    return [(wanted, changed) for wanted in range(len(case.shapes)) for changed in range(-1, len(case.shapes))]


def main() -> None:
    import warnings

    import torch

    warnings.simplefilter("ignore")
    answers = {}
    for case in RELEVANT:
        try:
            allowed = []
            for wanted, changed in changes(case):
                result = gradients(torch, case, wanted, changed)
                allowed.append("0" if result is None else "1")
        except RuntimeError:
            continue
        answers[case.name] = "".join(allowed)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in answers.items())
    ANSWERS.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(
        f"{len(answers)} cases, {sum(map(len, answers.values()))} changes, {sum(a.count('1') for a in answers.values())} allowed"
    )


if __name__ == "__main__":
    main()

"""Record PyTorch's answers to the cases: ``python -m tests.engine.record_answers``. Needs torch; the tests do not."""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # lets the script run by its path, too

from tests.checks import cotangent_for
from tests.engine.cases import OPTIMIZERS, Case, Discrete, first_and_second, trajectory
from tests.engine.every_case import CASES, DISCRETE, DRAWS
from tests.engine.modules import MODULES, SCHEDULES, of_module, prepared, scheduled


def flat(case: Case, draw: int) -> np.ndarray:
    """Value, gradients and second derivatives in one float32 vector. Zeros stand for gradients that do not exist.

    Second derivatives that PyTorch does not have are NaN.
    """
    value = case.function(torch, *[torch.tensor(array) for array in case.arrays(draw)])
    cotangent = cotangent_for(value, draw + 1)
    try:
        results = first_and_second(torch, case, cotangent, draw)
    except RuntimeError as fault:
        if "not implemented" not in str(fault) and "undefined Tensor" not in str(fault):
            raise
        inputs = [torch.tensor(array, requires_grad=True) for array in case.arrays(draw)]
        case.function(torch, *inputs).backward(torch.tensor(cotangent))
        unknown = [torch.full(shape, torch.nan) for shape in (*case.shapes, value.shape)]
        results = [value, *[x.grad for x in inputs], *unknown]
    shapes = [value.shape, *case.shapes, *case.shapes, value.shape]
    arrays = [np.zeros(s) if r is None else r.numpy(force=True) for r, s in zip(results, shapes, strict=True)]
    return np.concatenate([array.reshape(-1) for array in arrays]).astype(np.float32)


def plain(case: Discrete) -> np.ndarray:
    return case.function(torch, *[torch.tensor(array) for array in case.arrays()]).numpy()


def module(name: str) -> np.ndarray:
    return np.concatenate([tensor.numpy(force=True).reshape(-1) for tensor in of_module(torch, name)]).astype(np.float32)


def main() -> None:
    warnings.simplefilter("ignore", UserWarning)
    answers = {case.name: np.stack([flat(case, draw) for draw in range(DRAWS)]) for case in CASES}
    answers |= {case.name: plain(case) for case in DISCRETE}
    answers |= {name: trajectory(torch, name) for name in OPTIMIZERS}
    answers |= {f"module {name}": module(name) for name in MODULES}
    answers |= {f"state {name}": np.array(list(prepared(torch, name)[0].state_dict()), str) for name in MODULES}
    answers |= {f"schedule {name}": scheduled(torch, name) for name in SCHEDULES}
    path = Path(__file__).parent / "answers.npz"
    np.savez_compressed(path, **answers)
    print(f"{path}: {len(answers)} answers of PyTorch {torch.__version__}, {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()

"""Record PyTorch's answers to the cases: ``python -m tests.engine.record_answers``. Needs torch, which the tests do not."""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that the script runs by path, too

from tests.checks import cotangent_for
from tests.engine.cases import CASES, DISCRETE, OPTIMIZERS, Case, Discrete, first_and_second, trajectory


def flat(case: Case) -> np.ndarray:
    """Value, gradients and second derivatives one after the other as float32; zeros stand for what does not exist."""
    value = case.function(torch, *[torch.tensor(array) for array in case.arrays()])
    results = first_and_second(torch, case, cotangent_for(value))
    shapes = [value.shape, *case.shapes, *case.shapes, value.shape]
    arrays = [np.zeros(s) if r is None else r.numpy(force=True) for r, s in zip(results, shapes, strict=True)]
    return np.concatenate([array.reshape(-1) for array in arrays]).astype(np.float32)


def plain(case: Discrete) -> np.ndarray:
    return case.function(torch, *[torch.tensor(array) for array in case.arrays()]).numpy()


def main() -> None:
    answers = {case.name: flat(case) for case in CASES} | {case.name: plain(case) for case in DISCRETE}
    answers |= {name: trajectory(torch, name) for name in OPTIMIZERS}
    path = Path(__file__).parent / "answers.npz"
    np.savez_compressed(path, **answers)
    print(f"{path}: {len(answers)} cases of PyTorch {torch.__version__}, {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()

"""Record PyTorch's answers at singular points: ``python -m tests.engine.record_singular``. Needs torch; the tests do not."""

from pathlib import Path

import numpy as np
import torch

from tests.engine.singular import PARTS, answer, points

PATH = Path(__file__).with_name("singular.npz")


def main() -> None:
    torch.set_num_threads(1)
    names: list[str] = []
    parts: list[str] = []
    sizes: list[int] = []
    numbers: list[np.ndarray] = []
    for point in points():
        results = answer(torch, point)
        names.append(point.name)
        parts.append("raises" if results is None else " ".join(part for part in PARTS if part in results))
        for part in PARTS if results is not None else ():
            arrays = [array.reshape(-1) for array in results.get(part, ())]
            numbers += arrays
            sizes += [sum(map(len, arrays))] if part in results else []
    columns = {"names": np.array(names), "parts": np.array(parts), "sizes": np.array(sizes), "numbers": np.concatenate(numbers)}
    np.savez_compressed(PATH, **columns)
    print(f"{PATH.name}: {len(names)} points of PyTorch {torch.__version__}, {PATH.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()

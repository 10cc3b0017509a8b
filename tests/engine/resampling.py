"""Settings of `interpolate`, run in either library. ``python -m tests.engine.resampling`` records PyTorch's answers."""

from pathlib import Path
from typing import Any

import numpy as np

ANSWERS = Path(__file__).with_name("resampling_answers.npz")
SETTINGS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}
for mode in ("nearest", "nearest-exact", "area", "bilinear", "bicubic"):
    for size in ((5, 7), (2, 3), (3, 4), (1, 1), (9, 4)):
        SETTINGS[f"{mode} to {size}"] = ((2, 2, 3, 4), {"size": size, "mode": mode})
    for factor in (2.0, 0.7, 1.6, (2.5, 0.5)):
        SETTINGS[f"{mode} by {factor}"] = ((1, 2, 4, 6), {"scale_factor": factor, "mode": mode})
    SETTINGS[f"{mode} by 1.6 again"] = ((1, 2, 4, 6), {"scale_factor": 1.6, "mode": mode, "recompute_scale_factor": True})
    if mode in ("bilinear", "bicubic"):
        for size in ((5, 7), (2, 3), (1, 4)):
            SETTINGS[f"{mode} aligned to {size}"] = ((2, 2, 3, 4), {"size": size, "mode": mode, "align_corners": True})
for mode in ("nearest", "linear", "area"):
    SETTINGS[f"{mode} of a line"] = ((2, 3, 5), {"size": 8, "mode": mode})
for mode in ("nearest", "trilinear", "area"):
    SETTINGS[f"{mode} of a volume"] = ((1, 2, 3, 2, 4), {"size": (4, 5, 3), "mode": mode})


def resampled(t: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The resampled image and the gradient of its weighted sum, with library ``t``."""
    shape, settings = SETTINGS[name]
    generator = np.random.default_rng(len(name))
    x = t.tensor(generator.normal(size=shape).astype(np.float32), requires_grad=True)
    value = t.nn.functional.interpolate(x, **settings)
    weights = t.tensor(generator.normal(size=tuple(value.shape)).astype(np.float32))
    (value * weights).sum().backward()
    return value.detach().numpy(), x.grad.numpy()


def main() -> None:
    import torch

    answers = {}
    for name in SETTINGS:
        answers[f"{name} value"], answers[f"{name} gradient"] = resampled(torch, name)
    np.savez_compressed(ANSWERS, **answers)
    print(f"{len(SETTINGS)} settings of PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()

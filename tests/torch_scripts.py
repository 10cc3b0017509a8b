"""Scripts written for PyTorch, run on PyTorch or on rl_lab with their import lines changed and with the same random numbers.

``python -m tests.torch_scripts`` records PyTorch's losses (extra ``oracle``); test_torch_scripts.py compares rl_lab's with them.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

SCRIPTS = Path(__file__).parents[1] / "examples" / "torch_style"
NAMES = ("dqn", "ppo", "sac")
ANSWERS = Path(__file__).with_name("torch_scripts.npz")


def on_rl_lab(source: str) -> str:
    """The source with only its import lines changed."""
    source = re.sub(r"^import torch$", "import rl_lab as torch", source, flags=re.MULTILINE)
    return re.sub(r"^(import|from) torch\.", r"\1 rl_lab.", source, flags=re.MULTILINE)


def draw_from_numpy(torch: Any, monkeypatch: Any) -> None:
    """Draw the library's initial weights and samples from one NumPy stream, because the libraries' own streams differ."""
    stream = np.random.default_rng(7)

    def reset(layer: Any) -> None:
        bound = layer.in_features**-0.5
        for parameter in (layer.weight, layer.bias):
            fill(parameter, stream.uniform(-bound, bound, tuple(parameter.shape)))

    def orthogonal(tensor: Any, gain: float = 1.0) -> Any:
        rows, columns = tensor.shape
        q, _ = np.linalg.qr(stream.normal(size=(max(rows, columns), min(rows, columns))))
        return fill(tensor, gain * (q if rows >= columns else q.T))

    def fill(tensor: Any, values: np.ndarray) -> Any:
        with torch.no_grad():
            tensor.copy_(torch.tensor(values.astype(np.float32)))
        return tensor

    def rsample(self: Any, sample_shape: Any = ()) -> Any:
        return self.loc + self.scale * torch.tensor(stream.normal(size=tuple(self.loc.shape)).astype(np.float32))

    def sample(self: Any, sample_shape: Any = ()) -> Any:
        sums = self.probs.detach().numpy().cumsum(-1)
        return torch.tensor((stream.random((*sums.shape[:-1], 1)) * sums[..., -1:] > sums).sum(-1))

    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", reset)
    monkeypatch.setattr(torch.nn.init, "orthogonal_", orthogonal)
    monkeypatch.setattr(torch.distributions.Normal, "rsample", rsample)
    monkeypatch.setattr(torch.distributions.Categorical, "sample", sample)


def losses(name: str, torch: Any, monkeypatch: Any, updates: int = 100) -> np.ndarray:
    """The losses (updates, losses) of a script's updates, run on the library ``torch``."""
    source = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
    source = source if torch.__name__ == "torch" else on_rl_lab(source)
    names: dict[str, Any] = {"__name__": name}
    exec(compile(source, f"{name}.py", "exec"), names)
    draw_from_numpy(torch, monkeypatch)
    return np.array(names["train"](updates)).reshape(updates, -1)


def main() -> None:
    import pytest
    import torch

    recorded = {}
    for name in NAMES:
        with pytest.MonkeyPatch.context() as monkeypatch:
            recorded[name] = losses(name, torch, monkeypatch)
    np.savez_compressed(ANSWERS, **recorded)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

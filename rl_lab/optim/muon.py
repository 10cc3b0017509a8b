"""Muon: momentum whose matrix is made nearly orthogonal before each step."""

import math
from typing import Any

from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.matmul import matmul
from rl_lab.engine.ops.multi_tensor import address_table
from rl_lab.optim.optimizer import Group, Optimizer, Params, Row, _require

ADJUSTMENTS = (None, "original", "match_rms_adamw")


def orthogonalized(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """U V^T, nearly, of a matrix with the singular value decomposition U S V^T, by a quintic Newton-Schulz iteration."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.t() if tall else matrix
    x = x / x.norm().clamp(min=eps)  # the largest singular value is at most 1
    for _ in range(steps):
        gram = matmul(x, x.t())
        x = a * x + matmul(b * gram + c * matmul(gram, gram), x)
    return x.t() if tall else x


class Muon(Optimizer):
    """Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"), for matrices only.

    The momentum is the running mean of the gradients, with Nesterov's look ahead if ``nesterov``. Its matrix is made nearly orthogonal
    by ``ns_steps`` Newton-Schulz iterations, in float32 (PyTorch's are in bfloat16). ``adjust_lr_fn`` "original" multiplies the step by
    sqrt(max(1, rows / columns)), "match_rms_adamw" by 0.2 sqrt(max(rows, columns)). ``weight_decay`` is decoupled. Raises ValueError
    for a parameter that is not a matrix, an unknown ``adjust_lr_fn``, or a setting that is out of range.
    """

    slots = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ):
        settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
        settings |= {"ns_coefficients": tuple(ns_coefficients), "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        super().__init__(params, settings)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        _require("momentum", group["momentum"], 0.0)
        if len(group["ns_coefficients"]) != 3 or not 0 <= group["ns_steps"] < 100:
            raise ValueError("Muon needs three ns_coefficients and fewer than 100 ns_steps")
        if group["adjust_lr_fn"] not in ADJUSTMENTS:
            raise ValueError(f"adjust_lr_fn must be one of {', '.join(map(str, ADJUSTMENTS))}, got {group['adjust_lr_fn']!r}")
        for p in group["params"]:
            if p.dim() != 2:
                raise ValueError(f"Muon updates matrices, got a parameter of shape {list(p.shape)}: give the others to AdamW")

    def _change(self, rows: list[Row], group: Group) -> None:
        table, _ = address_table(rows)
        launch(optimizer_kernels.advance, (table,), (len(rows),))
        momentum = group["momentum"]
        settings = (group["ns_coefficients"], group["ns_steps"], group["eps"])
        for p, gradient, buffer, *_ in rows:
            buffer.lerp_(gradient, 1.0 - momentum)
            direction = gradient.lerp(buffer, momentum) if group["nesterov"] else buffer
            height, width = p.shape
            if group["adjust_lr_fn"] == "match_rms_adamw":
                ratio = 0.2 * math.sqrt(max(height, width))
            else:
                ratio = math.sqrt(max(1.0, height / width))
            p.mul_(1.0 - group.rate * group["weight_decay"])
            p.sub_(orthogonalized(direction, *settings) * (group.rate * ratio))

"""`gradcheck`: compare gradients with finite differences of the function."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.errors import NumericalError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import tensor, zeros_like
from rl_lab.engine.random import randn_like
from rl_lab.engine.tensor import gradients_of

STEP = 2.0**-6  # step of the finite differences; with float32 values, a smaller step loses more to rounding than it gains
ATOL, RTOL = 2e-3, 1e-2  # accuracy of fourth-order differences of float32 values


class GradcheckError(NumericalError, RuntimeError):
    """A gradient does not agree with finite differences of its function."""


def _outputs(result: Tensor | Sequence[object]) -> list[Tensor]:
    parts = [result] if isinstance(result, Tensor) else list(result)
    return [part for part in parts if isinstance(part, Tensor) and part.dtype.is_floating_point]


def _values(function: Callable, inputs: Sequence[Any]) -> list[np.ndarray]:
    with tape.no_grad():
        return [part.numpy(force=True).astype(np.float64).reshape(-1) for part in _outputs(function(*inputs))]


def _differences(function: Callable, inputs: list[Any], position: int, step: float) -> list[np.ndarray]:
    """The Jacobian of each output with respect to one input, float64 (outputs, inputs), from differences of the fourth order."""
    original = inputs[position].numpy(force=True).copy()
    columns: list[list[np.ndarray]] = []
    for k in range(original.size):
        size = step * max(1.0, abs(float(original.reshape(-1)[k])))
        seen = []
        for factor in (1.0, -1.0, 2.0, -2.0):
            moved = original.copy()
            moved.reshape(-1)[k] += np.float32(factor * size)
            given = [*inputs[:position], tensor(moved), *inputs[position + 1 :]]
            seen.append((float(moved.reshape(-1)[k]), _values(function, given)))
        near = [(a - b) / (seen[0][0] - seen[1][0]) for a, b in zip(seen[0][1], seen[1][1], strict=True)]
        far = [(a - b) / (seen[2][0] - seen[3][0]) for a, b in zip(seen[2][1], seen[3][1], strict=True)]
        columns.append([(4.0 * a - b) / 3.0 for a, b in zip(near, far, strict=True)])
    if not columns:
        return []
    return [np.stack([column[number] for column in columns], 1) for number in range(len(columns[0]))]


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Compare the gradients of ``func(*inputs)`` with finite differences, for each input that requires grad; True if they agree.

    If they do not agree, or if two runs of backward differ by more than ``nondet_tol``, raises GradcheckError, or returns False
    without ``raise_exception``. Raises ValueError if no input requires grad.

    The defaults are PyTorch's, for float64 functions. Functions in rl_lab are float32, so the step is at least 1/64, the absolute
    tolerance at least 2e-3 and the relative tolerance at least 1e-2. The other settings are accepted and have no effect.
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    wanted = [k for k, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    if not wanted:
        raise ValueError("gradcheck needs at least one input that requires grad")
    try:
        _compare(func, given, wanted, max(eps, STEP), max(atol, ATOL), max(rtol, RTOL), nondet_tol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _compare(
    func: Callable, given: list[Any], wanted: list[int], step: float, atol: float, rtol: float, nondet_tol: float
) -> None:
    outputs = _outputs(func(*given))
    numeric = {k: _differences(func, given, k, step) for k in wanted}
    for number, output in enumerate(outputs):
        if not output.requires_grad:
            for k in wanted:
                if numeric[k] and np.abs(numeric[k][number]).max(initial=0.0) > atol:
                    raise GradcheckError(f"output {number} does not require grad, but it depends on input {k}")
            continue
        rows: dict[int, list[np.ndarray]] = {k: [] for k in wanted}
        for place in range(output.numel()):
            one = np.zeros(output.numel(), np.float32)
            one[place] = 1.0
            pull = tensor(one.reshape(output.sizes))
            found = [gradients_of(output, [given[k] for k in wanted], pull, True, False, True) for _ in (0, 1)]
            for k, first, second in zip(wanted, *found, strict=True):
                a, b = ((zeros_like(given[k]) if g is None else g).numpy(force=True).reshape(-1) for g in (first, second))
                if np.abs(a - b).max(initial=0.0) > nondet_tol:
                    raise GradcheckError(f"backward of output {number} is not deterministic with respect to input {k}")
                rows[k].append(a.astype(np.float64))
        for k in wanted:
            if not rows[k] or not numeric[k]:
                continue
            analytic = np.stack(rows[k])
            expected = numeric[k][number]
            wrong = ~(np.abs(analytic - expected) <= atol + rtol * np.abs(expected))
            if wrong.any():
                row, column = np.argwhere(wrong)[0]
                raise GradcheckError(
                    f"the Jacobian of output {number} with respect to input {k} is wrong: element ({row}, {column}) is "
                    f"{analytic[row, column]:.6g}, differences give {expected[row, column]:.6g}"
                )


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    gen_non_contig_grad_outputs: bool = False,
    **settings: Any,
) -> bool:
    """`gradcheck` of the gradients of ``func``, with respect to its inputs and to ``grad_outputs`` (random unless given)."""
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    outputs = [output for output in _outputs(func(*given)) if output.requires_grad]
    if grad_outputs is None:
        pulls = [randn_like(output).requires_grad_() for output in outputs]
    else:
        pulls = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    wanted = [k for k, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]

    def gradients(*arguments: Any) -> tuple[Tensor, ...]:
        own = list(arguments[: len(given)])
        given_pulls = arguments[len(given) :]
        with tape.enable_grad():
            for k in wanted:
                if not own[k].requires_grad:
                    own[k] = own[k].detach().requires_grad_()
            results = [output for output in _outputs(func(*own)) if output.requires_grad]
            found = gradients_of(results, [own[k] for k in wanted], list(given_pulls), True, True, True)
        return tuple([zeros_like(own[k]) if g is None else g for k, g in zip(wanted, found, strict=True)])

    return gradcheck(gradients, [*given, *pulls], **settings)

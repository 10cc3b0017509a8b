"""Connectionist temporal classification: the loss of sequences whose classes are not aligned with the time steps."""

from collections.abc import Sequence

from rl_lab.engine import tape
from rl_lab.engine.dtype import float32, int64
from rl_lab.engine.errors import DtypeError, ShapeError
from rl_lab.engine.kernels import ctc as ctc_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.creation import arange, full, tensor
from rl_lab.engine.ops.elementwise import exp
from rl_lab.engine.ops.gathering import gather, launch_checked
from rl_lab.engine.ops.layout import cat, stack
from rl_lab.engine.ops.operands import constant, differentiate
from rl_lab.engine.ops.reduction import logsumexp
from rl_lab.engine.tape import Node, attach
from rl_lab.engine.tensor import Tensor, empty
from rl_lab.engine.types import Gradients

Lengths = Tensor | Sequence[int] | int
_NEVER = -1e30
"""In place of -inf, which has no gradient."""


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log of the probability of the target classes, summed over all alignments (Graves et al. 2006).

    ``log_probs`` (t, n, classes) come from a log_softmax. ``targets`` are int64 (n, s), or all one after the other, (sum of the target
    lengths,). ``input_lengths`` and ``target_lengths`` (n,) say how many time steps and classes of each sequence count. One sequence
    alone is (t, classes) with targets (s,). ``reduction`` "mean" divides each loss by its target length and takes the mean. A target
    that does not fit into its time steps has the loss inf and the gradient NaN, or 0 and 0 with ``zero_infinity``.

    As in PyTorch, the gradient of ``log_probs`` has a term that vanishes behind a log_softmax. Raises IndexError for a length or a class
    that is too large, DtypeError, ShapeError or ValueError for unsuitable arguments.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")
    if log_probs.dtype is not float32 or targets.dtype is not int64:
        raise DtypeError(
            f"ctc_loss takes float32 log-probabilities and int64 targets, got {log_probs.dtype.name} and {targets.dtype.name}"
        )
    if log_probs.dim() not in (2, 3) or targets.dim() not in (1, 2) or (log_probs.dim() == 2 and targets.dim() == 2):
        raise ShapeError(
            "ctc_loss takes log-probabilities (t, n, classes) or (t, classes) and targets (n, s) or (s,), got shapes "
            f"{list(log_probs.sizes)} and {list(targets.sizes)}"
        )
    x = log_probs if log_probs.dim() == 3 else log_probs.unsqueeze(1)
    _, n, classes = x.sizes
    if not 0 <= blank < classes:
        raise ValueError(f"ctc_loss: blank must be one of {classes} classes, got {blank}")
    steps, lengths = _lengths("input_lengths", input_lengths, n), _lengths("target_lengths", target_lengths, n)
    with tape.no_grad():
        rows = targets if targets.dim() == 2 else _padded(targets, lengths, target_lengths, n)
        if rows.sizes[0] != n:
            raise ShapeError(f"ctc_loss: {n} sequences need {n} rows of targets, got shape {list(targets.sizes)}")
        rows = rows.contiguous()
        source = x.contiguous()
    out = empty((n,))
    numbers = (*x.sizes, rows.sizes[1], blank)
    launch_checked(ctc_kernels.ctc_loss, (out, source, rows, steps, lengths), numbers)
    losses = attach(out, _ctc_rule, (x,), (x, rows, steps, lengths), numbers)
    if zero_infinity:
        with tape.no_grad():
            possible = losses.isfinite()
            fitting = where(possible, steps, 0)  # with 0 time steps, the gradient is 0
        losses = attach(where(possible, out, 0.0), _ctc_rule, (x,), (x, rows, fitting, lengths), numbers)
    if reduction == "none":
        return losses if log_probs.dim() == 3 else losses.squeeze(0)
    return losses.sum() if reduction == "sum" else (losses / lengths.clamp(min=1)).mean()


def _lengths(name: str, given: Lengths, n: int) -> Tensor:
    with tape.no_grad():
        lengths = given if isinstance(given, Tensor) else tensor(given)
        if lengths.dtype is not int64 or lengths.numel() != n:
            raise ShapeError(f"ctc_loss: {name} needs {n} integers, got {lengths.dtype.name} of shape {list(lengths.sizes)}")
        return lengths.reshape(-1).contiguous()


def _padded(targets: Tensor, lengths: Tensor, given: Lengths, n: int) -> Tensor:
    """Targets that follow one another, as rows. What follows a target in its row does not count."""
    total = targets.sizes[0]
    if n == 1:
        return targets.unsqueeze(0)
    if isinstance(given, Tensor):
        longest = total  # without reading the lengths, so that calls can be recorded
    else:
        longest = max(given) if isinstance(given, Sequence) else given
    if not longest:
        return empty((n, 0), int64)
    starts = (lengths.cumsum(0) - lengths).unsqueeze(1)
    return targets[(starts + arange(longest)).clamp(max=total - 1)]


def _ctc_rule(g: Tensor, node: Node) -> Gradients:
    x, rows, steps, lengths = node.saved
    if tape.modes.grad:
        return differentiate(lambda y: _composed(y, rows, steps, lengths, node.context[-1]), (x,), g)
    out = empty(x.sizes)
    launch(ctc_kernels.ctc_loss_backward, (out, g.contiguous(), x.contiguous(), rows, steps, lengths), node.context)
    return (out,)


def _composed(x: Tensor, rows: Tensor, steps: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """A function with the gradient of the loss, from differentiable operations, for the second derivative."""
    t, n, _ = x.sizes
    states = 2 * rows.sizes[1] + 1
    used_rows = where(arange(rows.sizes[1]) < lengths.unsqueeze(1), rows, blank)
    labels = stack([full(rows.sizes, blank), used_rows], 2).reshape(n, states - 1)
    labels = cat([labels, full((n, 1), blank)], 1)
    never = full((n, 2), _NEVER)
    skips = cat([full((n, 2), False), labels[:, 2:] != labels[:, :-2]], 1)[:, :states]
    value = where(arange(states) < 2, constant(0.0), constant(_NEVER)).expand(n, states)
    for time in range(t):
        if time:
            one, two = cat([never[:, :1], value[:, :-1]], 1), cat([never, value], 1)[:, :states]
            new = logsumexp(stack([value, one, where(skips, two, constant(_NEVER))]), 0)
        else:
            new = value
        counts = (steps > time).unsqueeze(1)
        value = where(counts, new + gather(x[time], 1, labels), value)
    last = (2 * lengths).unsqueeze(1)
    ends = cat([gather(value, 1, last), where(last > 0, gather(value, 1, (last - 1).clamp(min=0)), constant(_NEVER))], 1)
    used = (arange(t).unsqueeze(1) < steps).unsqueeze(2)
    return where(used, exp(x), constant(0.0)).sum((0, 2)) - logsumexp(ends, 1)

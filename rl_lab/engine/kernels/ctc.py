"""Connectionist temporal classification (Graves et al. 2006), in float64 logarithms.

``x`` are log-probabilities (t, n, classes), ``target`` classes (n, longest), ``steps`` and ``lengths`` the numbers of time steps and of
target classes of each of the n sequences. A path goes through 2 * length + 1 states: blank, class, blank, class, ..., blank.
"""

import numpy as np

from rl_lab.native.part import part
from rl_lab.native.primitive import In, InInt, InOutInt, Int, Out, primitive

F = np.float32


@part
def _added(a, b):
    """log(exp(a) + exp(b))"""
    top = max(a, b)
    if top == -np.inf:
        return top
    return top + np.log1p(np.exp(min(a, b) - top))


@part
def _class_of(target, row, state, blank):
    return blank if state % 2 == 0 else target[row + state // 2]


@part
def _within(status, value, size):
    """Whether a value is below ``size``; reports one that is not."""
    if value >= 0 and value < size:
        return True
    status[0] = 1
    status[1] = value
    status[2] = size
    return False


@part
def _forward(alpha, x, target, row, i, n, classes, steps, states, blank):
    """alpha[t, s]: the logarithm of the probability of all beginnings that are in state s at time t."""
    for t in range(steps):
        at = (t * n + i) * classes
        for s in range(states):
            label = _class_of(target, row, s, blank)
            if t == 0:
                before = 0.0 if s < 2 else -np.inf
            else:
                before = alpha[t - 1, s]
                if s > 0:
                    before = _added(before, alpha[t - 1, s - 1])
                if s > 2 and s % 2 == 1 and label != target[row + s // 2 - 1]:
                    before = _added(before, alpha[t - 1, s - 2])
            alpha[t, s] = before + x[at + label]


@part
def _likelihood(alpha, steps, states):
    if steps == 0:
        return 0.0 if states == 1 else -np.inf
    last = alpha[steps - 1, states - 1]
    return last if states == 1 else _added(last, alpha[steps - 1, states - 2])


@primitive
def ctc_loss(
    out: Out, x: In, target: InInt, steps: InInt, lengths: InInt, status: InOutInt, t: Int, n: Int, classes: Int, longest: Int,
    blank: Int,
):  # fmt: skip
    """out (n,) = the negative logarithm of the probability of each target."""
    alpha = np.empty((t, 2 * longest + 1), np.float64)
    for i in range(n):
        out[i] = F(0)
        good = _within(status, steps[i], t + 1) and _within(status, lengths[i], longest + 1)
        if good:
            for k in range(lengths[i]):
                good = good and _within(status, target[i * longest + k], classes)
        if good:
            states = 2 * lengths[i] + 1
            _forward(alpha, x, target, i * longest, i, n, classes, steps[i], states, blank)
            out[i] = F(-_likelihood(alpha, steps[i], states))


@primitive
def ctc_loss_backward(
    out: Out, g: In, x: In, target: InInt, steps: InInt, lengths: InInt, t: Int, n: Int, classes: Int, longest: Int, blank: Int,
):  # fmt: skip
    """out (t, n, classes) = g * (exp(x) - the share of the paths that are in each class at each time).

    The gradient of a softmax before x does not depend on the first term, which PyTorch adds. A loss that is infinite has NaN.
    """
    alpha = np.empty((t, 2 * longest + 1), np.float64)
    beta = np.empty((2, 2 * longest + 1), np.float64)
    share = np.empty(classes, np.float64)
    for k in range(t * n * classes):
        out[k] = F(0)
    for i in range(n):
        row = i * longest
        states = 2 * lengths[i] + 1
        _forward(alpha, x, target, row, i, n, classes, steps[i], states, blank)
        total = _likelihood(alpha, steps[i], states)
        for time in range(steps[i] - 1, -1, -1):
            now, after = beta[time % 2], beta[(time + 1) % 2]
            at = (time * n + i) * classes
            share[:] = -np.inf
            for s in range(states):
                label = _class_of(target, row, s, blank)
                if time == steps[i] - 1:
                    value = 0.0 if s >= states - 2 else -np.inf
                else:
                    value = after[s]
                    if s + 1 < states:
                        value = _added(value, after[s + 1])
                    if s % 2 == 1 and s + 2 < states and label != target[row + s // 2 + 1]:
                        value = _added(value, after[s + 2])
                share[label] = _added(share[label], alpha[time, s] + value)
                now[s] = value + x[at + label]
            for c in range(classes):
                out[at + c] = F(g[i] * (np.exp(np.float64(x[at + c])) - np.exp(share[c] - total)))

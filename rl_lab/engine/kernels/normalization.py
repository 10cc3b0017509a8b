"""Layer normalisation (Ba, Kiros and Hinton 2016) of the rows of a contiguous ``x[n, r]``, and batch renormalisation (Ioffe 2017)."""

import numpy as np

from rl_lab.engine.kernels.reduction import row_sum
from rl_lab.native.part import part
from rl_lab.native.primitive import In, InOut, InOutInt, Int, Out, Real, primitive

F = np.float32


@part
def row_dot(a, p, b, q, r):
    """Dot product of r numbers of a from p on and r numbers of b from q on, in eight partial sums."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = F(0)
    full = r - r % 8
    for k in range(0, full, 8):
        s0 += a[p + k] * b[q + k]
        s1 += a[p + k + 1] * b[q + k + 1]
        s2 += a[p + k + 2] * b[q + k + 2]
        s3 += a[p + k + 3] * b[q + k + 3]
        s4 += a[p + k + 4] * b[q + k + 4]
        s5 += a[p + k + 5] * b[q + k + 5]
        s6 += a[p + k + 6] * b[q + k + 6]
        s7 += a[p + k + 7] * b[q + k + 7]
    rest = F(0)
    for k in range(full, r):
        rest += a[p + k] * b[q + k]
    return ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)) + rest


@primitive
def layer_norm(out: Out, normal: Out, inverse: Out, x: In, weight: In, bias: In, n: Int, r: Int, eps: Real):
    """normal = (x - mean) * inverse with inverse = 1 / sqrt(variance + eps), and out = normal * weight + bias."""
    for i in range(n):
        p = i * r
        mean = row_sum(x, p, r) / F(r)
        for k in range(r):
            normal[p + k] = x[p + k] - mean
        scale = F(1.0 / np.sqrt(row_dot(normal, p, normal, p, r) / F(r) + eps))
        inverse[i] = scale
        for k in range(r):
            value = normal[p + k] * scale
            normal[p + k] = value
            out[p + k] = value * weight[k] + bias[k]


@primitive
def layer_norm_backward(
    to_x: Out, to_weight: Out, to_bias: Out, scaled: Out, g: In, normal: In, inverse: In, weight: In, n: Int, r: Int
):
    """Gradients of x, weight and bias from ``g``, the gradient of ``out``. ``scaled`` is working memory of r numbers."""
    for k in range(r):
        to_weight[k] = F(0)
        to_bias[k] = F(0)
    for i in range(n):
        p = i * r
        for k in range(r):
            to_bias[k] += g[p + k]
            to_weight[k] += g[p + k] * normal[p + k]
            scaled[k] = g[p + k] * weight[k]
        mean = row_sum(scaled, 0, r) / F(r)
        slope = row_dot(scaled, 0, normal, p, r) / F(r)
        for k in range(r):
            to_x[p + k] = inverse[i] * (scaled[k] - mean - normal[p + k] * slope)


@primitive
def batch_renorm(
    out: Out,
    normal: Out,
    inverse: Out,
    ratio: Out,
    shift: Out,
    running_mean: InOut,
    running_var: InOut,
    batches: InOutInt,
    x: In,
    weight: In,
    bias: In,
    n: Int,
    m: Int,
    momentum: Real,
    eps: Real,
    r_max: Real,
    d_max: Real,
    warmup: Int,
):
    """out = (normal * ratio + shift) * weight + bias for ``x`` (n, m), where normal is x normalised by the batch's moments of each column.

    ``ratio`` and ``shift``, (m,), are r and d of batch renormalisation, 1 and 0 in the first ``warmup`` batches. Then the running moments
    move by ``momentum`` towards those of the batch.
    """
    for j in range(m):
        ratio[j] = F(0)
        shift[j] = F(0)
    for i in range(n):
        for j in range(m):
            ratio[j] += x[i * m + j]
    for j in range(m):
        ratio[j] /= F(n)
    for i in range(n):
        for j in range(m):
            difference = x[i * m + j] - ratio[j]
            normal[i * m + j] = difference
            shift[j] += difference * difference
    active = batches[0] >= warmup
    batches[0] += 1
    for j in range(m):
        mean = ratio[j]
        variance = shift[j] / F(n)
        scale = F(1.0 / np.sqrt(variance + eps))
        inverse[j] = scale
        ratio[j] = F(1)
        shift[j] = F(0)
        if active:
            known = F(1.0 / np.sqrt(running_var[j] + eps))
            r = known / scale
            d = (mean - running_mean[j]) * known
            ratio[j] = F(r_max) if r > r_max else (F(1.0 / r_max) if r < 1.0 / r_max else r)  # NaN stays NaN
            shift[j] = F(d_max) if d > d_max else (F(-d_max) if d < -d_max else d)
        running_mean[j] += F(momentum) * (mean - running_mean[j])
        running_var[j] += F(momentum) * (variance - running_var[j])
    for i in range(n):
        for j in range(m):
            value = normal[i * m + j] * inverse[j]
            normal[i * m + j] = value
            out[i * m + j] = (value * ratio[j] + shift[j]) * weight[j] + bias[j]


@primitive
def batch_renorm_backward(
    to_x: Out,
    to_weight: Out,
    to_bias: Out,
    g: In,
    normal: In,
    inverse: In,
    ratio: In,
    shift: In,
    weight: In,
    n: Int,
    m: Int,
):
    """Gradients of x, weight and bias from ``g``, the gradient of ``out``; ratio and shift are constants."""
    for j in range(m):
        to_weight[j] = F(0)
        to_bias[j] = F(0)
    for i in range(n):
        for j in range(m):
            to_bias[j] += g[i * m + j]
            to_weight[j] += g[i * m + j] * normal[i * m + j]
    for i in range(n):
        for j in range(m):
            scale = weight[j] * ratio[j] * inverse[j]
            to_x[i * m + j] = scale * (g[i * m + j] - (to_bias[j] + normal[i * m + j] * to_weight[j]) / F(n))
    for j in range(m):
        to_weight[j] = to_weight[j] * ratio[j] + to_bias[j] * shift[j]

"""Layer normalisation (Ba, Kiros and Hinton 2016) of the rows of a contiguous ``x[n, r]``."""

import numpy as np

from rl_lab.engine.kernels.reduction import row_sum
from rl_lab.native.part import part
from rl_lab.native.primitive import In, Int, Out, Real, primitive

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

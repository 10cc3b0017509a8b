"""Stable merge sort along the middle axis of a contiguous ``x[n, r, m]``. NaN counts as the largest value, as in PyTorch."""

from rl_lab.native.part import part
from rl_lab.native.primitive import In, InInt, Int, OutInt, primitive


@part
def _comes_after(a, b, descending):
    """Whether a must stand behind b. False for equal values, so they keep their order."""
    if descending:
        return a < b or (b != b and a == a)
    return a > b or (a != a and b == b)


@part
def _order(out, work, x, n, r, m, descending):
    for i in range(n):
        for j in range(m):
            p = i * r * m + j
            for k in range(r):
                out[p + k * m] = k
            width = 1
            while width < r:
                for start in range(0, r, 2 * width):
                    middle, end = min(start + width, r), min(start + 2 * width, r)
                    left = start
                    right = middle
                    for k in range(start, end):
                        take_right = left >= middle
                        if not take_right and right < end:
                            a, b = x[p + out[p + left * m] * m], x[p + out[p + right * m] * m]
                            take_right = _comes_after(a, b, descending)
                        if take_right:
                            work[k] = out[p + right * m]
                            right += 1
                        else:
                            work[k] = out[p + left * m]
                            left += 1
                for k in range(r):
                    out[p + k * m] = work[k]
                width *= 2


@primitive
def order(out: OutInt, work: OutInt, x: In, n: Int, r: Int, m: Int, descending: Int):
    """out = the positions along the axis that put x in order. ``work`` is working memory of r integers."""
    _order(out, work, x, n, r, m, descending)


@primitive
def order_int(out: OutInt, work: OutInt, x: InInt, n: Int, r: Int, m: Int, descending: Int):
    """`order` of int64."""
    _order(out, work, x, n, r, m, descending)

"""Copies between memory layouts and dtypes: ``out[index] = x[index]`` for every index.

Both sides are strided over `RANK` dimensions. A stride of 0 in ``x`` repeats an element.
"""

import numpy as np

from rl_lab.native.pointers import copy_bytes
from rl_lab.native.primitive import In, InBool, InInt, Int, Out, OutBool, OutInt, Primitive, Role, primitive_from_source

RANK = 6
_BODY = """
    for i0 in range(n0):
        for i1 in range(n1):
            for i2 in range(n2):
                for i3 in range(n3):
                    for i4 in range(n4):
                        o = i0 * o0 + i1 * o1 + i2 * o2 + i3 * o3 + i4 * o4
                        p = i0 * x0 + i1 * x1 + i2 * x2 + i3 * x3 + i4 * x4
                        if o5 == 1 and x5 == 1:
                            for i5 in range(n5):
                                value = x[p + i5]
                                out[o + i5] = {expression}
                        elif o5 == 1 and x5 == 0:
                            value = x[p]
                            for i5 in range(n5):
                                out[o + i5] = {expression}
                        else:
                            for i5 in range(n5):
                                value = x[p + i5 * x5]
                                out[o + i5 * o5] = {expression}
"""
_READS = {"float": In, "int": InInt, "bool": InBool, "byte": InBool}
_WRITES = {"float": Out, "int": OutInt, "bool": OutBool, "byte": OutBool}
_CONVERT = {
    "float": "F(value)",
    "int": "np.int64(value)",
    "bool": "np.uint8(value != 0)",
    "byte": "np.uint8(np.int64(value) & 255)",  # as PyTorch: the lowest eight bits of the integer part
}


def _copy(source: str, target: str) -> Primitive:
    numbers: dict[str, Role] = {f"{v}{i}": Int for v in "nox" for i in range(RANK)}
    expression = "value" if source == target else _CONVERT[target]
    return primitive_from_source(
        f"copy_{source}_{target}",
        {"out": _WRITES[target], "x": _READS[source], **numbers},
        _BODY.format(expression=expression),
        {"np": np, "F": np.float32},
        __file__,
    )


copy = {(source, target): _copy(source, target) for source in _READS for target in _WRITES}
"""Copy kernels by (source, target); both are one of ``float``, ``int``, ``bool``, ``byte``."""

_JOIN = """
    begin = out
    for i in range(n):
        for k in range(count):
            size = load_int(row, 3 + count + k)
            copy_bytes(begin, load_int(row, 3 + k) + i * size, size)
            begin += size
"""
join = primitive_from_source("join", {"n": Int, "count": Int, "out": Int}, _JOIN, {"copy_bytes": copy_bytes}, __file__)
"""Copies of ``count`` contiguous parts side by side: ``n`` times a block of bytes of each part.

The row goes on with the address of each part, and the number of bytes of each part's blocks.
"""

"""Matrix products of our own tiles against OpenBLAS's best kernel, over the shapes of agents, examples and convolutions.

``python -m benchmarks.products [--rounds 9]``. One process for each kernel of OpenBLAS (``OPENBLAS_CORETYPE``), in which both take turns,
called from machine code; one thread, processor time. Each line compares with the kernel that is fastest for its shape.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measure import alternate, machine

KERNELS = ("SkylakeX", "Haswell")
"""OpenBLAS's kernels for processors with AVX-512 and with AVX2."""

SHAPES: dict[str, list[tuple[int, int, int]]] = {
    "one observation or a few": [(1, 4, 64), (1, 64, 64), (1, 64, 2), (1, 3136, 512), (8, 4, 64), (8, 64, 64), (8, 64, 2)],
    "MLP 4-64-64-2, batch 64": [(64, 4, 64), (64, 64, 64), (64, 64, 2)],
    "MLP 4-120-84-2, batch 128": [(128, 4, 120), (128, 120, 84), (128, 84, 2)],
    "MLP 4-64-64-2, batch 1024": [(1024, 4, 64), (1024, 64, 64), (1024, 64, 2)],
    "MLP 8-256-256-4, batch 256": [(256, 8, 256), (256, 256, 256), (256, 256, 4)],
    "MLP 784-128-10, batch 64": [(64, 784, 128), (64, 128, 10)],
    "MLP 376-1024-1024-17, batch 256": [(256, 376, 1024), (256, 1024, 1024), (256, 1024, 17)],
    "Nature CNN, batch 32 and 256": [(32, 3136, 512), (32, 512, 6), (256, 3136, 512)],
    "LeNet and MinAtar, batch 64": [(64, 256, 120), (64, 120, 84), (64, 84, 10), (64, 1024, 128)],
    "columns of convolutions": [(32, 256, 400), (64, 512, 81), (64, 576, 49), (16, 36, 64), (6, 25, 576), (16, 150, 64)],
    "square": [(128, 128, 128), (512, 512, 512)],
}
"""(n, k, m) of x @ weight.T; a training step multiplies g @ weight and g.T @ x of the same sizes as well."""
PRODUCTS = {"x w'": "forward", "g w": "gradient of x", "g' x": "gradient of w"}


def candidates(kind: str, n: int, k: int, m: int, count: int) -> dict[str, Callable[[], Any]]:
    """``count`` products by rl_lab and by OpenBLAS, each as one call of machine code."""
    import numba
    import numpy as np

    import rl_lab as rl
    from rl_lab.engine.kernels.matmul import A_TRANSPOSED, B_TRANSPOSED, PLAIN, matmul, way_of
    from rl_lab.native import machine

    rng = np.random.default_rng(0)
    if kind == "x w'":
        layout, rows, inner, columns = B_TRANSPOSED, n, k, m
    elif kind == "g w":
        layout, rows, inner, columns = PLAIN, n, m, k
    else:
        layout, rows, inner, columns = A_TRANSPOSED, m, n, k
    stored = (
        (inner, rows) if layout == A_TRANSPOSED else (rows, inner),
        (columns, inner) if layout == B_TRANSPOSED else (inner, columns),
    )
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in stored)
    out = np.empty((rows, columns), np.float32)
    left, right, result = rl.tensor(a), rl.tensor(b), rl.empty(rows, columns)
    numbers = (
        1,
        rows,
        inner,
        columns,
        0,
        0,
        layout,
        0,
        stored[0][1],
        stored[1][1],
        columns,
        way_of(layout, rows, inner, columns),
    )
    row = matmul.pack(result.address, left.address, right.address, right.address, *numbers)
    cells = machine.outer_row(matmul.address, count, (0, 0, 0, 0), row)

    @numba.njit
    def blas(a: Any, b: Any, out: Any, count: int) -> None:
        for _ in range(count):
            np.dot(a, b, out)

    first = a.T if layout == A_TRANSPOSED else a
    second = b.T if layout == B_TRANSPOSED else b
    machine.outer.call(cells)
    blas(first, second, out, 1)
    np.testing.assert_allclose(result.numpy(), out, atol=1e-4 * inner**0.5)
    operands = [left, right, result]  # held as long as the call

    def ours() -> int:
        machine.outer.call(cells)
        return len(operands)

    return {"rl_lab": ours, "OpenBLAS": lambda: blas(first, second, out, count)}


def measure(rounds: int) -> None:
    """Print a line of times for each product, in a process with one kernel of OpenBLAS."""
    import threadpoolctl
    from scipy.linalg import cython_blas  # noqa: F401  the library that numba calls

    found = {info.get("architecture", "?") for info in threadpoolctl.threadpool_info() if info["internal_api"] == "openblas"}
    print("kernel", *sorted(found), sep="\t")
    for group, shapes in SHAPES.items():
        for n, k, m in shapes:
            for kind in PRODUCTS:
                count = max(1, int(2e6 / (n * k * m + 5000)))
                times = alternate(candidates(kind, n, k, m, count), rounds, 0.002, time.thread_time)
                lows = [statistics.quantiles(times[name], n=4)[0] / count for name in ("rl_lab", "OpenBLAS")]
                print(group, kind, n, k, m, *lows, sep="\t", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.rounds)
        return
    results: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for kernel in KERNELS:
        words = [sys.executable, "-m", "benchmarks.products", "--one", "--rounds", str(arguments.rounds)]
        limits = {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, **limits})
        print(f"{kernel}: {done.stdout.splitlines()[0] if done.stdout else 'not available'}", file=sys.stderr, flush=True)
        for line in done.stdout.splitlines()[1:]:
            *key, ours, theirs = line.split("\t")
            results.setdefault(tuple(key), []).append((float(ours), float(theirs)))
    print(f"{machine()}; one thread, processor time, lower quartiles\n")
    columns = "".join(f" {title}, us | GFLOP/s | OpenBLAS / rl_lab |" for title in PRODUCTS.values())
    print(f"| shapes | n, k, m |{columns}\n|" + "---|" * (2 + 3 * len(PRODUCTS)))
    for group, shapes in SHAPES.items():
        for n, k, m in shapes:
            cells = []
            for kind in PRODUCTS:
                ratio, ours = min((theirs / ours, ours) for ours, theirs in results[group, kind, str(n), str(k), str(m)])
                cells.append(f"{ours:.2f} | {2e-3 * n * k * m / ours:.0f} | {ratio:.2f}")
            print(f"| {group} | {n}, {k}, {m} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

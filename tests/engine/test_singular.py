"""Values and derivatives at singular points against PyTorch's recorded answers (`singular.py` is the table of points)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import rl_lab as rl
from tests.engine.singular import answer, points

RECORDED = np.load(Path(__file__).with_name("singular.npz"), allow_pickle=False)
RELATIVE = 2e-4
"""Allowed relative error of a finite number; NaN and infinities have to be in the same places."""
SMALLEST = 1e-37
"""Numbers below count as zero."""

DIFFERENCES: dict[str, str] = {}
"""Points at which rl_lab differs from PyTorch on purpose, and why: ``point: part`` or all points of an operation, ``operation: part``."""


def recorded() -> Iterator[tuple[str, dict[str, np.ndarray] | None]]:
    """(name of the point, parts of PyTorch's answer as flat arrays, or None where it raises)."""
    sizes = iter(RECORDED["sizes"].tolist())
    numbers, at = RECORDED["numbers"], 0
    for name, parts in zip(RECORDED["names"].tolist(), RECORDED["parts"].tolist(), strict=True):
        found: dict[str, np.ndarray] = {}
        for part in parts.split() if parts != "raises" else ():
            size = next(sizes)
            found[part], at = numbers[at : at + size], at + size
        yield name, None if parts == "raises" else found


def same(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Element by element."""
    with np.errstate(all="ignore"):
        close = np.abs(actual - expected) <= RELATIVE * np.abs(expected) + SMALLEST
    return close | (actual == expected) | (np.isnan(actual) & np.isnan(expected))


def differences() -> dict[str, str]:
    """``point: part`` of all that differs, and how."""
    found = {}
    by_name = {point.name: point for point in points()}
    for name, expected in recorded():
        try:
            actual = answer(rl, by_name[name])
        except (AttributeError, TypeError, ZeroDivisionError) as fault:
            found[f"{name}: missing"] = str(fault)
            continue
        if actual is None or expected is None:
            if actual is not expected:
                found[f"{name}: value"] = "raises" if actual is None else "does not raise"
            continue
        for part in ("value", "first", "slopes", "second"):
            right = expected.get("first" if part == "slopes" else part)
            if right is None or (part == "slopes" and "slopes" not in actual):
                continue  # PyTorch has none
            if part not in actual:
                found[f"{name}: {part}"] = "has none"
                continue
            flat = np.concatenate([array.reshape(-1) for array in actual[part]])
            if flat.shape != right.shape:
                found[f"{name}: {part}"] = f"{flat.size} elements for {right.size}"
            elif not (good := same(flat, right)).all():
                worst = np.flatnonzero(~good)
                found[f"{name}: {part}"] = f"at {worst[:6].tolist()} of {len(flat)}: {flat[worst[:6]]} for {right[worst[:6]]}"
    return found


def main() -> None:
    for key, how in differences().items():
        print(key, "|", how.replace("\n", " "))


if __name__ == "__main__":
    main()

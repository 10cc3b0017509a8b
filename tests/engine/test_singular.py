"""Values and derivatives at singular points against PyTorch's recorded answers. `singular.py` is the table of points."""

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

LIMIT = "PyTorch gives NaN at infinity, or the formula of PyTorch cancels; the limit is given"
OVERFLOW = "an intermediate result of PyTorch's formula overflows, or is masked too late, or the subnormal divisor is lost"
ROUNDING = "the order of roundings, or a NaN of the second derivative that is masked"

CANCELS = "PyTorch's formula cancels near 0; here it is the series"
PATHS = "plain backward and backward with create_graph differ in PyTorch, and here in the same way"

DIFFERENCES: dict[str, str] = {
    "digamma | grid: second": LIMIT,
    "sigmoid | grid: second": ROUNDING,
    "silu | grid: second": ROUNDING,
    "gelu | grid: value": LIMIT,
    "gelu | grid: first": LIMIT,
    "gelu | grid: slopes": LIMIT,
    "gelu | grid: second": LIMIT,
    "gelu tanh | grid: second": ROUNDING,
    "softsign | grid: value": LIMIT,
    "softsign | grid: first": LIMIT,
    "softsign | grid: slopes": LIMIT,
    "softsign | grid: second": LIMIT,
    "mish | grid: second": OVERFLOW,
    "softplus beta | grid: second": ROUNDING,
    "more 0 pow | grid: second": OVERFLOW,
    "more logit eps | grid: slopes": PATHS,
    "more softplus beta 2 | grid: second": ROUNDING,
    "more copysign 1 | grid: second": ROUNDING,
    "more acosh | grid: second": OVERFLOW,
    "more sinc | grid: first": CANCELS,
    "more sinc | grid: slopes": CANCELS,
    "more sinc | grid: second": CANCELS,
    "more soft_margin | grid: first": OVERFLOW,
    "more soft_margin | grid: slopes": OVERFLOW,
    "more soft_margin | grid: second": OVERFLOW,
    "more pow | pairs: second": OVERFLOW,
    "more hypot | pairs: first": OVERFLOW,
    "more hypot | pairs: slopes": OVERFLOW,
    "more hypot | pairs: second": OVERFLOW,
    "more fmod | pairs: value": OVERFLOW,
    "more remainder | pairs: value": OVERFLOW,
    "more logaddexp2 | pairs: value": ROUNDING,
    "more copysign | pairs: second": ROUNDING,
    "more dist mse | pairs: second": OVERFLOW,
}
"""Elementwise functions that still differ, ``point: part``, and why. An entry that no longer differs fails the test."""


OTHERS: dict[str, str] = {
    **dict.fromkeys(
        (
            "prod",
            "prod dim",
            "prod keepdim",
            "cumprod",
            "cumprod last",
            "more prod",
            "more prod first",
            "more prod of all",
            "more cumprod",
            "more cumprod first",
        ),
        "the product of the other elements; PyTorch divides by the element, which is NaN at infinity and NaN",
    ),
    **dict.fromkeys(
        ("topk", "topk smallest", "kthvalue", "more topk", "more topk smallest", "more kthvalue"),
        "which of equal elements is taken: here the first, in PyTorch as its selection leaves them",
    ),
    **dict.fromkeys(
        ("median dim", "median keepdim", "more median dim", "more median places"),
        "which of several NaNs is taken",
    ),
    **dict.fromkeys(
        ("max_pool2d", "max_pool2d padded", "max_pool1d", "more max_pool2d", "more max_pool1d"),
        "which of several NaNs in a window is taken: here the first, in PyTorch the last",
    ),
    **dict.fromkeys(
        ("conv2d stride padding", "conv2d dilation", "conv2d same", "conv1d", "conv_transpose2d"),
        "a window that reaches over the edge multiplies zeros, and 0 * inf is NaN; PyTorch leaves these products out, or the reverse",
    ),
    "batch_norm running": "infinity minus a finite mean is infinite; PyTorch's formula gives NaN",
    **dict.fromkeys(
        ("soft_margin_loss mean", "soft_margin_loss sum", "soft_margin_loss none"),
        "the limit of the slope; PyTorch divides infinity by infinity",
    ),
    **dict.fromkeys(
        (
            "cross_entropy probabilities",
            "cosine_similarity",
            "more cosine_similarity",
            "layer_norm bias",
            "layer_norm transposed",
            "more layer_norm",
            "more layer_norm weight",
            "more layer_norm eps 0",
            "more instance_norm",
            "gru_cell",
            "lstm_cell",
            "more Categorical entropy equal",
            "more attention",
        ),
        "sums that cancel: what is left are the roundings of float32",
    ),
    **dict.fromkeys(("more mode dim", "more mode places"), "not covered"),
}
"""Other functions whose value or first derivative differs at singular points that are neither huge nor tiny, and why."""


def recorded() -> Iterator[tuple[str, dict[str, np.ndarray] | None]]:
    """(name of the point, parts of PyTorch's answer as flat arrays, or None if PyTorch raises an error)."""
    sizes = iter(RECORDED["sizes"].tolist())
    numbers, at = RECORDED["numbers"], 0
    for name, parts in zip(RECORDED["names"].tolist(), RECORDED["parts"].tolist(), strict=True):
        found: dict[str, np.ndarray] = {}
        for part in parts.split() if parts != "raises" else ():
            size = next(sizes)
            found[part], at = numbers[at : at + size], at + size
        yield name, None if parts == "raises" else found


def same(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Whether two arrays are equal, element by element."""
    with np.errstate(all="ignore"):
        close = np.abs(actual - expected) <= RELATIVE * np.abs(expected) + SMALLEST
    return close | (actual == expected) | (np.isnan(actual) & np.isnan(expected))


def differences() -> dict[str, str]:
    """``point: part`` of everything that differs, and the difference."""
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
                continue  # PyTorch has no answer
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


def test_elementwise_functions():
    """Functions of one and two arguments over the grid. Names that do not exist here are counted in the README."""
    found = {key for key in differences() if "| grid" in key or "| pairs" in key}
    assert {key for key in found if not key.endswith("missing")} == set(DIFFERENCES)


def test_other_functions():
    """Values and first derivatives at zeros, ones, ties, infinities and NaN. A listed difference that no longer exists fails the test."""
    found = set()
    for key in differences():
        point, _, part = key.rpartition(": ")
        name, _, at = point.partition(" | ")
        if at not in ("grid", "pairs", "huge", "tiny", "subnormal") and part in ("value", "first", "missing"):
            found.add(name)
    assert found == set(OTHERS)


def main() -> None:
    for key, how in differences().items():
        print(key, "|", how.replace("\n", " "))


if __name__ == "__main__":
    main()

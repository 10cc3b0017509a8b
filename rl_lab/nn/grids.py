"""Sampling of images at places given by a grid: `affine_grid` and `grid_sample` (Jaderberg et al. 2015)."""

import itertools
from collections.abc import Sequence

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.arithmetic import where
from rl_lab.engine.ops.creation import linspace, ones, zeros
from rl_lab.engine.ops.layout import stack
from rl_lab.engine.ops.matmul import matmul
from rl_lab.engine.ops.rearrange import meshgrid

MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")
KEYS = -0.75
"""The constant of the cubic kernel (Keys 1981), PyTorch's."""


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid (n, h, w, 2) of affine maps ``theta`` (n, 2, 3) for images of ``size`` (n, channels, h, w).

    Or (n, d, h, w, 3) for ``theta`` (n, 3, 4) and volumes of ``size`` (n, channels, d, h, w). Coordinates are (x, y) or (x, y, z) in
    [-1, 1], from edge to edge of the image, or with ``align_corners`` from the first pixel's centre to the last one's. Raises
    ShapeError if ``theta`` does not fit ``size``.
    """
    rank = len(size) - 2
    if rank not in (2, 3) or tuple(theta.shape) != (size[0], rank, rank + 1):
        raise ShapeError(
            f"affine_grid: theta {list(theta.shape)} does not fit the size {list(size)}: it is (n, {rank}, {rank + 1})"
        )
    axes = []
    for count in size[2:]:
        axis = linspace(-1.0, 1.0, count) if count > 1 else zeros(1)
        axes.append(axis if align_corners else axis * ((count - 1) / count))
    places = list(meshgrid(*axes, indexing="ij"))[::-1]
    base = stack([*places, ones(*size[2:])], -1).reshape(1, -1, rank + 1)
    return matmul(base, theta.transpose(1, 2)).reshape(size[0], *size[2:], rank)


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """Values of images (n, channels, h, w) at the places of a grid (n, rows, columns, 2): (n, channels, rows, columns).

    Or of volumes (n, channels, d, h, w) at (n, ..., 3). Coordinates are those of `affine_grid`. ``mode`` is "bilinear", "nearest", or
    "bicubic" for images; outside of the image values are those of ``padding_mode``: "zeros", "border" or "reflection". Raises
    ValueError for another mode, ShapeError if the shapes do not fit.
    """
    if mode not in MODES or padding_mode not in PADDINGS:
        allowed = f"{', '.join(MODES)} and {', '.join(PADDINGS)}"
        raise ValueError(f"grid_sample takes the modes {allowed}, got {mode!r} and {padding_mode!r}")
    rank = input.dim() - 2
    if rank not in (2, 3) or grid.dim() != input.dim() or grid.shape[-1] != rank or len(grid) != len(input):
        raise ShapeError(f"grid_sample: a grid {list(grid.shape)} does not fit an input {list(input.shape)}")
    if mode == "bicubic" and rank == 3:
        raise ValueError("grid_sample: bicubic is for images (n, channels, h, w)")
    aligned = bool(align_corners)
    sizes = tuple(input.shape[2:])
    # the grid names x first, the image has y first
    places = [_pixel(x, size, aligned) for x, size in zip(reversed(grid.unbind(-1)), sizes, strict=True)]
    if mode != "bicubic":
        places = [_inside(x, size, padding_mode, aligned) for x, size in zip(places, sizes, strict=True)]
    taps = [_taps(x, mode) for x in places]
    flat = input.flatten(2)
    result = None
    for corner in itertools.product(*taps):
        if mode == "bicubic":
            indices = [_inside(i, size, padding_mode, aligned) for (i, _), size in zip(corner, sizes, strict=True)]
        else:
            indices = [i for i, _ in corner]
        weight = corner[0][1]
        for _, other in corner[1:]:
            weight = weight * other
        index = None
        for i, size in zip(indices, sizes, strict=True):
            known = (i >= 0) & (i <= size - 1)
            weight = where(known, weight, zeros(()))
            row = where(known, i, zeros(())).long()
            index = row if index is None else index * size + row
        assert index is not None
        shape = (len(input), input.shape[1], index[0].numel())
        values = flat.gather(2, index.flatten(1).unsqueeze(1).expand(*shape)) * weight.flatten(1).unsqueeze(1)
        result = values if result is None else result + values
    assert result is not None
    return result.reshape(*input.shape[:2], *grid.shape[1:-1])


def _pixel(x: Tensor, size: int, aligned: bool) -> Tensor:
    """Coordinates in [-1, 1] as pixel numbers, from 0 to size - 1."""
    return (x + 1.0) * ((size - 1) / 2.0) if aligned else ((x + 1.0) * size - 1.0) * 0.5


def _inside(x: Tensor, size: int, padding: str, aligned: bool) -> Tensor:
    """Pixel numbers after the padding: clipped to the border, or reflected and then clipped."""
    if padding == "zeros":
        return x
    if padding == "reflection":
        low, span = (0.0, size - 1.0) if aligned else (-0.5, float(size))
        if span == 0:
            return x * 0.0
        away = (x - low).abs()
        turns = (away / span).detach().floor()
        rest = away - turns * span
        x = where(turns % 2 == 0, rest, span - rest) + low
    return x.clamp(0.0, size - 1.0)


def _taps(x: Tensor, mode: str) -> list[tuple[Tensor, Tensor]]:
    """(pixel numbers, weights) of the neighbours of x along one dimension."""
    if mode == "nearest":
        return [(x.detach().round(), ones(x.shape))]
    below = x.detach().floor()
    t = x - below
    if mode == "bilinear":
        return [(below, 1.0 - t), (below + 1.0, t)]
    near = [((KEYS + 2) * s - (KEYS + 3)) * s * s + 1 for s in (t, 1.0 - t)]
    far = [((KEYS * s - 5 * KEYS) * s + 8 * KEYS) * s - 4 * KEYS for s in (t + 1.0, 2.0 - t)]
    return [(below + k - 1.0, w) for k, w in enumerate([far[0], *near, far[1]])]

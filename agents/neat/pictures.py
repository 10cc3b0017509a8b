"""Figures of an evolution, by matplotlib: species sizes, fitness and complexity over generations, and the champion's ancestry."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rl_lab.agents.neat.evolution import Evolution, Generation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 60  # most generations of ancestry in one figure


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # generations
    return figure, axes


def _color(species: int) -> tuple[float, float, float]:
    """A colour for a species number. Hues advance by the golden section, so neighbouring species differ."""
    from matplotlib.colors import hsv_to_rgb

    red, green, blue = hsv_to_rgb((species * 0.618034 % 1.0, 0.3 + 0.12 * (species % 3), 0.95 - 0.07 * (species % 2)))
    return red, green, blue


def draw_species(history: Sequence[Generation]) -> "Figure":
    """A figure of the species' sizes over generations: one band per species, stacked, the oldest at the bottom.

    The number of a large species stands at its widest place, unless another number is near.
    """
    numbers = sorted({number for seen in history for number in seen.species})
    sizes = np.array([[seen.species.get(number, 0) for seen in history] for number in numbers], float)
    figure, axes = _figure(8.0, 4.0)
    generations = [seen.number for seen in history]
    edges = np.array([*generations, generations[-1] + 1]) - 0.5  # every generation is 1 wide, also a single one
    colors = [_color(n) for n in numbers]
    steps = np.concatenate([sizes, sizes[:, -1:]], 1)
    axes.stackplot(edges, steps, colors=colors, edgecolor="white", linewidth=0.3, baseline="zero", step="post")
    total = sizes.sum(0).max()
    written = np.zeros((0, 2))
    for number, row in sorted(zip(numbers, sizes, strict=True), key=lambda item: -item[1].max()):
        places = np.flatnonzero(row == row.max())
        widest = int(places[len(places) // 2])
        middle = sizes[: numbers.index(number), widest].sum() + row[widest] / 2
        at = np.array([widest / len(generations) / 0.04, middle / total / 0.06])  # in units of a number's width and height
        if row[widest] >= 0.08 * sizes[:, widest].sum() and (np.abs(written - at) >= 1).any(1).all():
            axes.text(generations[widest], middle, str(number), ha="center", va="center", fontsize=7)
            written = np.vstack([written, at])
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, total)
    axes.set_xlabel("generation")
    axes.set_ylabel("genomes by species")
    return figure


def draw_course(history: Sequence[Generation]) -> "Figure":
    """A figure of the best and mean fitness over generations, with the mean numbers of hidden nodes and connections."""
    figure, axes = _figure(8.0, 3.6)
    generations = [seen.number for seen in history]
    axes.plot(generations, [seen.best for seen in history], color="#2b6cb0", label="best fitness")
    axes.plot(generations, [seen.mean for seen in history], color="#90cdf4", label="mean fitness")
    other = axes.twinx()
    other.spines[["top"]].set_visible(False)
    other.plot(generations, [seen.connections for seen in history], color="#c05621", linewidth=1.0, label="connections, mean")
    other.plot(generations, [seen.hidden for seen in history], color="#ed8936", linewidth=1.0, ls="--", label="hidden, mean")
    axes.set_xlabel("generation")
    axes.set_ylabel("fitness")
    other.set_ylabel("genes of a genome")
    lines = [*axes.get_lines(), *other.get_lines()]
    labels = [str(line.get_label()) for line in lines]
    figure.legend(lines, labels, fontsize=7, frameon=False, loc="outside lower center", ncols=2)
    return figure


def ancestors(evolution: Evolution, place: tuple[int, int] | None = None) -> list[set[int]]:
    """The rows of a genome's ancestors in each generation up to its own. ``place`` is (generation, row), by default the champion's."""
    generation, row = place or evolution.champion_place
    found: list[set[int]] = [{row}]
    for parents in reversed(evolution.ancestry[1 : generation + 1]):
        found.append({int(parent) for child in found[-1] for parent in parents[child] if parent >= 0})
    return found[::-1]


def draw_genealogy(evolution: Evolution, place: tuple[int, int] | None = None) -> "Figure":
    """A figure of the ancestors of the champion, or of the genome at ``place``: one column per generation, a line to each parent.

    Ancestors in a column are ordered by the mean height of their children. A child of a crossover has two lines, the thinner one to
    the second parent.
    """
    lineage = ancestors(evolution, place)
    first = max(0, len(lineage) - SHOWN)
    figure, axes = _figure(max(5.0, 0.16 * min(len(lineage), SHOWN) + 3.0), 4.5)
    height = dict.fromkeys(lineage[-1], 0.0)
    axes.scatter([len(lineage) - 1], [0.0], s=60, color="#2f855a", zorder=3)
    for generation in range(len(lineage) - 1, first, -1):
        parents = evolution.ancestry[generation]
        wishes: dict[int, list[float]] = {}
        for child in lineage[generation]:
            for parent in parents[child]:
                if parent >= 0:
                    wishes.setdefault(int(parent), []).append(height[child])
        order = sorted(wishes, key=lambda row: (np.mean(wishes[row]), row))
        below = {row: i - (len(order) - 1) / 2 for i, row in enumerate(order)}
        for child in lineage[generation]:
            for which, parent in enumerate(parents[child]):
                if parent >= 0 and not (which and parent == parents[child][0]):
                    axes.plot(
                        [generation - 1, generation],
                        [below[int(parent)], height[child]],
                        color="#2b6cb0" if which == 0 else "#a0aec0",
                        linewidth=0.9 if which == 0 else 0.5,
                        alpha=0.8,
                        zorder=1,
                    )
        axes.scatter([generation - 1] * len(order), list(below.values()), s=7, color="#4a5568", zorder=2)
        height = below
    axes.set_xlim(first - 0.6, len(lineage) - 0.4)
    axes.set_xlabel("generation")
    axes.set_ylabel("ancestors of the champion")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return figure

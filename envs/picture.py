"""Pictures of native environments, drawn by pygame, which is imported with the first picture."""

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import DependencyNotInstalled

Colour = tuple[int, int, int]
PAPER = (252, 252, 250)
INK = (38, 44, 56)
GREY = (148, 156, 168)
PALE = (226, 229, 234)
BLUE = (52, 120, 214)
ORANGE = (240, 140, 40)
RED = (214, 66, 66)
GREEN = (64, 164, 102)
YELLOW = (236, 190, 56)

_FINENESS = 3
"""Supersampling factor: pictures are drawn this many times larger and then scaled down, which smooths the edges."""


def import_pygame() -> ModuleType:
    """Import pygame. Raises DependencyNotInstalled if it is missing."""
    try:
        import pygame
    except ImportError as error:
        raise DependencyNotInstalled("rendering needs pygame: pip install pygame") from error
    return pygame


class Canvas:
    """A picture that is being drawn. Lengths are in pixels of the finished picture; x points right and y points down."""

    def __init__(self, width: int, height: int, background: Colour = PAPER):
        self._pygame = import_pygame()
        self._size = (width, height)
        self._surface = self._pygame.Surface((width * _FINENESS, height * _FINENESS))
        self._surface.fill(background)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour, radius: float = 0.0) -> None:
        """Draw a rectangle with its upper left corner at (x, y), with corners rounded by ``radius``."""
        edges = [round(v * _FINENESS) for v in (x, y, x + width, y + height)]
        rectangle = self._pygame.Rect(edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1])
        self._pygame.draw.rect(self._surface, colour, rectangle, border_radius=round(radius * _FINENESS))

    def disc(self, x: float, y: float, radius: float, colour: Colour, width: float = 0.0) -> None:
        """Draw a disc, or with ``width`` a ring of that width inside the radius."""
        centre = (round(x * _FINENESS), round(y * _FINENESS))
        self._pygame.draw.circle(self._surface, colour, centre, round(radius * _FINENESS), round(width * _FINENESS))

    def bar(self, start: tuple[float, float], end: tuple[float, float], width: float, colour: Colour) -> None:
        """Draw a thick line with round ends."""
        a = np.array(start)
        b = np.array(end)
        length = float(np.hypot(*(b - a)))
        across = np.array([a[1] - b[1], b[0] - a[0]]) / max(length, 1e-9) * width / 2
        corners = [tuple((corner * _FINENESS).round()) for corner in (a + across, b + across, b - across, a - across)]
        self._pygame.draw.polygon(self._surface, colour, corners)
        for x, y in (start, end):
            self.disc(x, y, width / 2, colour)

    def polygon(self, corners: list[tuple[float, float]], colour: Colour) -> None:
        """Draw a filled polygon."""
        points = [(round(x * _FINENESS), round(y * _FINENESS)) for x, y in corners]
        self._pygame.draw.polygon(self._surface, colour, points)

    def pixels(self) -> np.ndarray:
        """Return the finished picture, uint8 (height, width, 3)."""
        small = self._pygame.transform.smoothscale(self._surface, self._size)
        return np.ascontiguousarray(self._pygame.surfarray.array3d(small).transpose(1, 0, 2))


class Window:
    """A window on the screen that shows pictures at a constant rate."""

    def __init__(self, title: str, frames_per_second: int):
        self._pygame = import_pygame()
        self._title = title
        self._rate = frames_per_second
        self._screen = None
        self._clock = self._pygame.time.Clock()

    def show(self, picture: np.ndarray) -> None:
        """Show a picture, uint8 (height, width, 3), and wait until the next one is due."""
        if self._screen is None:
            self._pygame.display.init()
            self._screen = self._pygame.display.set_mode((picture.shape[1], picture.shape[0]))
            self._pygame.display.set_caption(self._title)
        self._pygame.surfarray.blit_array(self._screen, picture.transpose(1, 0, 2))
        self._pygame.event.pump()
        self._pygame.display.flip()
        self._clock.tick(self._rate)

    def close(self) -> None:
        """Close the window if it is open."""
        if self._screen is not None:
            self._pygame.display.quit()
            self._screen = None


@lru_cache
def _painter(env_id: str) -> Any:
    """Return Gymnasium's environment for drawing. Any, because `gym.Env` does not declare the attribute ``state``."""
    env = gym.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    env.reset(seed=0)
    return env.unwrapped


def gymnasium_picture(env_id: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that draws a state row of a twin like Gymnasium's environment ``env_id``.

    The row begins with the state; the parameters after the state are ignored.
    """

    def draw(row: np.ndarray) -> np.ndarray:
        import_pygame()
        painter = _painter(env_id)
        painter.state = row[: len(painter.state)].copy()
        return painter.render()

    return draw


def grid_picture(layers: list[tuple[np.ndarray, Colour, str]]) -> np.ndarray:
    """Draw a board, uint8 (height, width, 3), with 40 pixels per cell.

    Each layer is (bool mask (rows, columns), colour, shape of a cell). The shape is "box", "disc" or "ring". Later layers are drawn over
    earlier ones.
    """
    rows, columns = layers[0][0].shape
    size = 40
    margin = 6
    canvas = Canvas(columns * size + 2 * margin, rows * size + 2 * margin, INK)
    for row, column in np.ndindex(rows, columns):
        canvas.box(margin + column * size + 1, margin + row * size + 1, size - 2, size - 2, (50, 57, 71), 4)
    for mask, colour, look in layers:
        for row, column in np.argwhere(mask):
            x = margin + column * size
            y = margin + row * size
            if look == "box":
                canvas.box(x + 1, y + 1, size - 2, size - 2, colour, 6)
            else:
                canvas.disc(
                    x + size / 2, y + size / 2, size * (0.36 if look == "disc" else 0.2), colour, 0 if look == "disc" else 3
                )
    return canvas.pixels()

"""Pictures of worlds. pygame draws them, and is imported with the first picture."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import DependencyNotInstalled

Colour = tuple[int, int, int]
PAPER, INK, GREY, PALE = (252, 252, 250), (38, 44, 56), (148, 156, 168), (226, 229, 234)
BLUE, ORANGE, RED, GREEN, YELLOW = (52, 120, 214), (240, 140, 40), (214, 66, 66), (64, 164, 102), (236, 190, 56)

_FINENESS = 3
"""Pictures are drawn so many times as large and then shrunk, which smooths every edge."""


def import_pygame() -> Any:
    """The module; DependencyNotInstalled in one line if it is missing."""
    try:
        import pygame
    except ImportError as error:
        raise DependencyNotInstalled("rendering needs pygame: pip install pygame") from error
    return pygame


class Canvas:
    """A picture in the making. Lengths are in pixels of the finished picture, x to the right and y down."""

    def __init__(self, width: int, height: int, background: Colour = PAPER):
        self._pygame = import_pygame()
        self._size = width, height
        self._surface = self._pygame.Surface((width * _FINENESS, height * _FINENESS))
        self._surface.fill(background)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour, radius: float = 0.0) -> None:
        """A rectangle whose upper left corner is at (x, y)."""
        edges = [round(v * _FINENESS) for v in (x, y, x + width, y + height)]
        rectangle = self._pygame.Rect(edges[0], edges[1], edges[2] - edges[0], edges[3] - edges[1])
        self._pygame.draw.rect(self._surface, colour, rectangle, border_radius=round(radius * _FINENESS))

    def disc(self, x: float, y: float, radius: float, colour: Colour, width: float = 0.0) -> None:
        """A disc, or a ring of this width inside the radius."""
        centre = round(x * _FINENESS), round(y * _FINENESS)
        self._pygame.draw.circle(self._surface, colour, centre, round(radius * _FINENESS), round(width * _FINENESS))

    def bar(self, start: tuple[float, float], end: tuple[float, float], width: float, colour: Colour) -> None:
        """A thick line with round ends."""
        a, b = np.array(start), np.array(end)
        length = float(np.hypot(*(b - a)))
        across = np.array([a[1] - b[1], b[0] - a[0]]) / max(length, 1e-9) * width / 2
        corners = [tuple((corner * _FINENESS).round()) for corner in (a + across, b + across, b - across, a - across)]
        self._pygame.draw.polygon(self._surface, colour, corners)
        for x, y in (start, end):
            self.disc(x, y, width / 2, colour)

    def pixels(self) -> np.ndarray:
        """The finished picture, uint8 (height, width, 3)."""
        small = self._pygame.transform.smoothscale(self._surface, self._size)
        return np.ascontiguousarray(self._pygame.surfarray.array3d(small).transpose(1, 0, 2))


class Window:
    """Shows pictures on the screen at a steady rate."""

    def __init__(self, title: str, frames_per_second: int):
        self._pygame = import_pygame()
        self._title, self._rate, self._screen = title, frames_per_second, None
        self._clock = self._pygame.time.Clock()

    def show(self, picture: np.ndarray) -> None:
        if self._screen is None:
            self._pygame.display.init()
            self._screen = self._pygame.display.set_mode((picture.shape[1], picture.shape[0]))
            self._pygame.display.set_caption(self._title)
        self._pygame.surfarray.blit_array(self._screen, picture.transpose(1, 0, 2))
        self._pygame.event.pump()
        self._pygame.display.flip()
        self._clock.tick(self._rate)

    def close(self) -> None:
        if self._screen is not None:
            self._pygame.display.quit()
            self._screen = None


@lru_cache
def _painter(env_id: str) -> Any:
    env = gym.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    env.reset(seed=0)
    return env.unwrapped


def gymnasium_picture(env_id: str) -> Callable[[np.ndarray], np.ndarray]:
    """Draws the state of a twin, which a row begins with, as Gymnasium's environment would."""

    def draw(row: np.ndarray) -> np.ndarray:
        import_pygame()
        painter = _painter(env_id)
        painter.state = row[: len(painter.state)].copy()
        return painter.render()

    return draw


def grid_picture(layers: list[tuple[np.ndarray, Colour, str]]) -> np.ndarray:
    """A board of cells, 400 pixels wide: bool masks (rows, columns), each with a colour and how a cell looks.

    A cell is a "box", a "disc" or a "ring"; later layers lie on top.
    """
    rows, columns = layers[0][0].shape
    size, margin = 40, 6
    canvas = Canvas(columns * size + 2 * margin, rows * size + 2 * margin, INK)
    for row, column in np.ndindex(rows, columns):
        canvas.box(margin + column * size + 1, margin + row * size + 1, size - 2, size - 2, (50, 57, 71), 4)
    for mask, colour, look in layers:
        for row, column in np.argwhere(mask):
            x, y = margin + column * size, margin + row * size
            if look == "box":
                canvas.box(x + 1, y + 1, size - 2, size - 2, colour, 6)
            else:
                canvas.disc(
                    x + size / 2, y + size / 2, size * (0.36 if look == "disc" else 0.2), colour, 0 if look == "disc" else 3
                )
    return canvas.pixels()

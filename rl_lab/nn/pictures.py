"""Conversion of observations for networks: bytes become floats, and the channels of pictures become the first dimension."""

from typing import NamedTuple

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.nn.module import Module


class Observed(NamedTuple):
    """The shape and type of one observation of an environment, and how a network must convert it."""

    shape: tuple[int, ...]
    frames: int = 1
    """Frames stacked along the first dimension; 1 if there is no such dimension."""
    channels: str = "auto"
    """The dimension of a picture that holds the channels: "first", "last", or "auto" for the rule of `picture_of`."""
    scale: float = 1.0
    """Factor of the values: 1 / 255 for pixels of 0 to 255."""
    is_float: bool = True
    """Whether the values are float32; uint8 and bool values are converted."""


class Picture(NamedTuple):
    """How an observation is read as a picture for convolutions."""

    channels: int
    """Channels of all frames together."""
    height: int
    width: int
    order: str
    """"first", "last", or "none" if a frame has no dimension for channels."""
    frames: int

    def __str__(self) -> str:
        frames = f"{self.frames} frames of " if self.frames > 1 else ""
        place = {"first": "the first dimension", "last": "the last dimension", "none": "no dimension, they are grey"}[
            self.order
        ]
        return f"pictures: {frames}{self.height} x {self.width}, channels in {place}, {self.channels} channels for the network"


def picture_of(observed: Observed) -> Picture:
    """How to read an observation as a picture.

    Frames of two dimensions have one channel. In frames of three dimensions the first or the last dimension holds the channels: if the
    two others are equal, as in (16, 16, 12), or else if it is the smallest, as in (3, 210, 160). Raises ShapeError if this rule does
    not decide, as for (10, 10, 10) or (16, 3, 16), or if the observation is not a picture.
    """
    shape = observed.shape
    frame = shape[1:] if observed.frames > 1 else shape
    frames = shape[0] if observed.frames > 1 else 1
    if len(frame) == 2:
        return Picture(frames, frame[0], frame[1], "none", frames)
    if len(frame) != 3:
        raise ShapeError(
            f"a convolutional network needs pictures, observations of two or three dimensions, got {shape}: use mlp:64,64"
        )
    order = observed.channels if observed.channels != "auto" else _order_of(frame)
    if order not in ("first", "last"):
        raise ShapeError(
            f"pictures have the shape {frame}, which does not show whether the first or the last dimension holds the channels: "
            "give --channels first or --channels last"
        )
    channels, height, width = frame if order == "first" else (frame[2], frame[0], frame[1])
    return Picture(frames * channels, height, width, order, frames)


def _order_of(frame: tuple[int, ...]) -> str:
    """The dimension of the channels, "first" or "last"; empty if the shape does not decide."""
    first, middle, last = frame
    if first == middle == last:
        return ""
    if middle == last:
        return "first"
    if first == middle:
        return "last"
    if first == last or middle < min(first, last):
        return ""
    return "first" if first < last else "last"


class PictureInput(Module):
    """The first layer of a network: converts values to float32, multiplies them by ``scale``, and puts the channels first.

    Without a ``picture`` the shape does not change.
    """

    def __init__(self, scale: float = 1.0, picture: Picture | None = None):
        super().__init__()
        self.scale = scale
        self.picture = picture

    def forward(self, input: Tensor) -> Tensor:
        x = input.float()
        if self.scale != 1.0:
            x = x * self.scale
        p = self.picture
        if p is None:
            return x
        shape = (len(x), p.channels, p.height, p.width)
        if p.order == "last":
            x = x.permute(0, 1, 4, 2, 3) if p.frames > 1 else x.permute(0, 3, 1, 2)
        return x.reshape(*shape)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}" + (f", {self.picture}" if self.picture is not None else "")

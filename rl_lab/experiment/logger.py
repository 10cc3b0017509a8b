"""The logger: scalars by tag and environment step, to TensorBoard."""

from pathlib import Path
from typing import Any


class Logger:
    """Writes TensorBoard events into a run directory. The step axis is environment steps."""

    def __init__(self, directory: Path, resumed_from: int | None = None):
        """``resumed_from`` is the first step of a run that goes on: what was logged at it and later does not count any more."""
        # imported here: tensorboardX imports torch wherever that is installed, which takes seconds
        from tensorboardX import SummaryWriter

        # a file of its own even where two begin in one second, which is all that tensorboardX's names tell
        suffix = "" if resumed_from is None else f".{resumed_from}"
        self._writer: Any = SummaryWriter(str(directory), purge_step=resumed_from, flush_secs=5, filename_suffix=suffix)

    def record(self, metrics: dict[str, float], step: int) -> None:
        for tag, value in metrics.items():
            self._writer.add_scalar(tag, value, step)

    def images(self, pictures: dict[str, Any], step: int) -> None:
        """Images (height, width, 3) uint8 by tag."""
        for tag, image in pictures.items():
            self._writer.add_image(tag, image, step, dataformats="HWC")

    def text(self, tag: str, content: str) -> None:
        self._writer.add_text(tag, content, 0)

    def close(self) -> None:
        self._writer.close()

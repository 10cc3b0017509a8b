"""The logger: scalars and pictures by tag and environment step, to TensorBoard.

The training process writes the records itself, in order, so that a checkpoint can flush them to the disk and record the length of the log.
If the log cannot be written, one message says so and training continues without it.
"""

import os
import re
import socket
import struct
import time
from collections.abc import Callable
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np

from rl_lab.experiment.faults import Fault, code_of

FLUSH_SECONDS = 5.0
_NAME = re.compile(r"events\.out\.tfevents\.[\w.-]+")


class Logger:
    """Writes TensorBoard events into a run directory. The step axis is environment steps."""

    def __init__(self, directory: Path, resumed_from: int | None = None, say: Callable[[str], None] = print):
        """Open a new log file. ``resumed_from`` is the first step of a resumed run: older points at this step or later no longer count.

        ``say`` is called with one line if the log cannot be written.
        """
        self._directory = directory
        self._say = say
        self._file: BufferedWriter | None = None
        self._flushed = time.monotonic()
        # imported here: tensorboardX imports torch wherever that is installed, which takes seconds
        from tensorboardX import summary
        from tensorboardX.crc32c import crc32c
        from tensorboardX.proto import event_pb2

        self._summary = summary
        self._events = event_pb2
        self._crc32c = crc32c
        self._try(self._begin, resumed_from)

    def _begin(self, resumed_from: int | None) -> None:
        """Create a file, also if two runs begin in the same second, and mark the points that no longer count."""
        stem = f"events.out.tfevents.{int(time.time())}.{re.sub(r'[^A-Za-z0-9-]', '-', socket.gethostname())}"
        name = stem if resumed_from is None else f"{stem}.{resumed_from}"
        for attempt in range(100):
            try:
                self._file = (self._directory / (f"{name}.{attempt}" if attempt else name)).open("xb")
                break
            except FileExistsError:
                continue
        self._write(self._events.Event(wall_time=time.time(), file_version="brain.Event:2"))
        if resumed_from is not None:
            status = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(self._events.Event(wall_time=time.time(), step=resumed_from, session_log=status))

    def record(self, metrics: dict[str, float], step: int) -> None:
        """Log numbers by tag."""
        for tag, value in metrics.items():
            self._try(self._add, self._summary.scalar(tag, value), step)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._try(self._flush)

    def images(self, pictures: dict[str, np.ndarray], step: int) -> None:
        """Log images (height, width, 3) uint8 by tag."""
        for tag, image in pictures.items():
            self._try(self._add, self._summary.image(tag, image, dataformats="HWC"), step)

    def settle(self) -> dict[str, int]:
        """Flush the log to the disk and return the size of each log file of the run, in bytes by name."""
        self._try(self._flush, True)
        return log_sizes(self._directory)

    def close(self) -> None:
        self._try(self._flush)
        if self._file is not None:
            self._file.close()
            self._file = None

    # --- records -----------------------------------------------------------------------------------------------------

    def _try(self, call: Callable[..., object], *arguments: object) -> None:
        """Call, unless the log has failed before. A failure is reported once and ends the log."""
        if self._file is None and call != self._begin:
            return
        try:
            call(*arguments)
        except OSError as error:
            file, self._file = self._file, None
            try:
                if file is not None:
                    file.close()
            except OSError:
                pass  # its buffer cannot be written either
            try:
                if file is not None:
                    os.truncate(file.name, whole_records(Path(file.name).read_bytes())[-1])  # readers stop at half a record
            except OSError:
                pass
            self._say(
                f"the log in {self._directory} cannot be written ({error.strerror or error}): training continues without it"
            )

    def _add(self, summary: Any, step: int) -> None:
        self._write(self._events.Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Any) -> None:
        assert self._file is not None  # `_try` calls nothing once the log has failed
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self._file.write(length + self._masked_crc(length) + data + self._masked_crc(data))

    def _masked_crc(self, data: bytes) -> bytes:
        crc = self._crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    def _flush(self, to_disk: bool = False) -> None:
        assert self._file is not None
        self._file.flush()
        if to_disk:
            os.fsync(self._file.fileno())
        self._flushed = time.monotonic()


def whole_records(data: bytes) -> list[int]:
    """Offsets in a log file at which its whole records begin, and the end of the last one."""
    offsets = [0]
    while offsets[-1] + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, offsets[-1])
        if offsets[-1] + 16 + length > len(data):
            break
        offsets.append(offsets[-1] + 16 + length)
    return offsets


def log_sizes(directory: Path) -> dict[str, int]:
    """Return the sizes in bytes of the log files in a run directory, by name; empty if the directory cannot be read."""
    try:
        return {file.name: file.stat().st_size for file in sorted(directory.iterdir()) if _NAME.fullmatch(file.name)}
    except OSError:
        return {}


def cut_log(directory: Path, sizes: object) -> None:
    """Remove the records after a checkpoint: truncate each log file to the size that it had then, and delete newer files.

    ``sizes`` come from the checkpoint; if they are not integers by name, the log stays unchanged. Raises Fault if the disk refuses.
    """
    if not isinstance(sizes, dict) or not all(isinstance(size, int) and size >= 0 for size in sizes.values()):
        return
    try:
        for name, size in log_sizes(directory).items():
            if name not in sizes:
                (directory / name).unlink()
            elif size > sizes[name]:
                os.truncate(directory / name, sizes[name])
    except OSError as error:
        raise Fault(
            f"the log in {directory} cannot be cut to its length at the checkpoint: {error.strerror}", code_of(error)
        ) from None

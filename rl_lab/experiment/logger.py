"""The logger: scalars, pictures and other summaries by tag and environment step, to TensorBoard, and to tables if asked for.

The training process writes the records itself, in order, so that a checkpoint can flush them to the disk and record the length of the log.
If the log cannot be written, one message says so and training continues without it.
"""

import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from rl_lab.experiment.faults import Fault, code_of
from rl_lab.experiment.tables import Table, open_tables, rewrite_tables
from rl_lab.serialization import write_file

if TYPE_CHECKING:
    from tensorboardX.proto.summary_pb2 import Summary

SETTINGS = "config.tfevents"
"""File of a run with the settings for the tab HParams. Its name stands before those of the event files."""
FLUSH_SECONDS = 5.0
BUFFER = 2**18
"""Bytes that are written at once; a flush writes what there is."""
WAITING = 100
"""Points that are encoded together: between two updates of an agent, the code of the encoder has left the processor's caches."""
KEPT_TEMPLATES = 64
"""Events that are kept to be filled again, one for each combination of tags."""
_NAME = re.compile(r"events\.out\.tfevents\.[\w.-]+")


class Point(NamedTuple):
    """One scalar of a log. ``seconds`` is the wall time, ``elapsed`` the seconds that the run has been running."""

    tag: str
    step: int
    value: float
    seconds: float
    elapsed: float


class Logger:
    """Writes TensorBoard events into a run directory. The step axis is environment steps."""

    def __init__(
        self,
        directory: Path,
        resumed_from: int | None = None,
        say: Callable[[str], None] = print,
        also: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ):
        """Open a new log file. ``resumed_from`` is the first step of a resumed run: older points at this step or later no longer count.

        ``also`` names further forms of the log, among `rl_lab.experiment.tables.FORMS`; ``config`` are the settings of the run, for
        wandb. ``say`` is called with one line if the log cannot be written.
        """
        self._directory = directory
        self._say = say
        self._file: BinaryIO | None = None
        self._flushed = time.monotonic()
        # imported here: tensorboardX imports torch wherever that is installed, which takes seconds
        from tensorboardX import summary
        from tensorboardX.crc32c import crc32c
        from tensorboardX.proto import event_pb2

        self._summary = summary
        self._events = event_pb2
        self._crc32c = crc32c
        self._templates: dict[tuple[str, ...], tuple[Any, list[Any]]] = {}
        self._waiting: list[tuple[dict[str, float], int, float]] = []
        self._try(self._begin, resumed_from)
        self._tables: list[Table] = []
        try:
            if resumed_from is not None:
                rewrite_tables(directory, also, _by_step(points_of(directory)))
            self._tables = open_tables(directory, also, config or {})
        except OSError as error:
            self._say(f"a table of the log in {directory} cannot be written ({error.strerror}): training continues without it")

    def _begin(self, resumed_from: int | None) -> None:
        """Create a file, also if two runs begin in the same second, and mark the points that no longer count."""
        stem = f"events.out.tfevents.{int(time.time())}.{re.sub(r'[^A-Za-z0-9-]', '-', socket.gethostname())}"
        name = stem if resumed_from is None else f"{stem}.{resumed_from}"
        for attempt in range(100):
            try:
                self._file = (self._directory / (f"{name}.{attempt}" if attempt else name)).open("xb", BUFFER)
                break
            except FileExistsError:
                continue
        self._write(self._events.Event(wall_time=time.time(), file_version="brain.Event:2"))
        if resumed_from is not None:
            status = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(self._events.Event(wall_time=time.time(), step=resumed_from, session_log=status))

    def record(self, metrics: dict[str, float], step: int) -> None:
        """Log numbers by tag. The logger keeps ``metrics``, which must not change afterwards."""
        if not metrics:
            return
        self._waiting.append((metrics, step, time.time()))
        flushes = time.monotonic() - self._flushed >= FLUSH_SECONDS
        if flushes or len(self._waiting) >= WAITING:
            self._encode()
        if flushes:
            self._try(self._flush)
            self._each_table(lambda table: table.flush())

    def images(self, pictures: dict[str, np.ndarray], step: int) -> None:
        """Log images (height, width, 3) uint8 by tag."""
        for tag, image in pictures.items():
            self.add([self._summary.image(tag, image, dataformats="HWC")], step)

    def add(self, summaries: "Iterable[Summary]", step: int) -> None:
        """Log summaries of any kind, such as those of `rl_lab.experiment.dashboard`."""
        self._encode()
        for summary in summaries:
            self._try(self._add, summary, step)

    def settings(self, summaries: "Iterable[Summary]") -> None:
        """Replace the summaries for the tab HParams by ``summaries``.

        TensorBoard keeps the first ones that it reads of a run, so they have a file of their own, which it reads before the others.
        """
        events = [self._events.Event(wall_time=time.time(), file_version="brain.Event:2")]
        events += [self._events.Event(wall_time=time.time(), summary=summary) for summary in summaries]
        try:
            write_file(self._directory / SETTINGS, [self._record(event) for event in events])
        except OSError as error:
            self._say(f"{self._directory / SETTINGS} cannot be written ({error.strerror}): TensorBoard's HParams lack this run")

    def graph(self, definition: bytes, step: int) -> None:
        """Log a graph, given as a serialized GraphDef."""
        self._encode()
        self._try(lambda: self._write(self._events.Event(wall_time=time.time(), step=step, graph_def=definition)))

    def settle(self) -> dict[str, int]:
        """Flush the log to the disk and return the size of each event file of the run, in bytes by name."""
        self._encode()
        self._try(self._flush, True)
        self._each_table(lambda table: table.flush(to_disk=True))
        return log_sizes(self._directory)

    def close(self) -> None:
        """Write what is buffered and close the files."""
        self._encode()
        self._try(self._flush)
        if self._file is not None:
            self._file.close()
            self._file = None
        self._each_table(lambda table: table.close())
        self._tables = []

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

    def _each_table(self, call: Callable[[Table], object]) -> None:
        """Call with each table. A table that fails is reported once and left out from then on."""
        for table in list(self._tables):
            try:
                call(table)
            except Exception as error:  # whatever the library behind a table raises
                self._tables.remove(table)
                reason = getattr(error, "strerror", None) or error
                self._say(f"{table.name} cannot be written ({reason}): training continues without it")

    def _encode(self) -> None:
        """Write the points that wait."""
        waiting, self._waiting = self._waiting, []
        for metrics, step, seconds in waiting:
            self._try(self._scalars, metrics, step, seconds)
            if self._tables:
                values = {tag: float(np.float32(value)) for tag, value in metrics.items()}
                self._each_table(lambda table: table.record(values, step, seconds))

    def _scalars(self, metrics: dict[str, float], step: int, seconds: float) -> None:
        """Write one event with all numbers. Its message is kept and filled again, which is ten times as fast as making one."""
        tags = tuple(metrics)
        template = self._templates.get(tags)
        if template is None:
            if len(self._templates) >= KEPT_TEMPLATES:
                self._templates.clear()
            event = self._events.Event()
            for tag in tags:
                event.summary.value.add().tag = tag
            template = self._templates[tags] = (event, list(event.summary.value))
        event, values = template
        event.wall_time = seconds
        event.step = step
        for value, number in zip(values, metrics.values(), strict=True):
            value.simple_value = number
        self._write(event)

    def _add(self, summary: Any, step: int) -> None:
        self._write(self._events.Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Any) -> None:
        assert self._file is not None  # `_try` calls nothing once the log has failed
        self._file.write(self._record(event))

    def _record(self, event: Any) -> bytes:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        return length + self._masked_crc(length) + data + self._masked_crc(data)

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


def points_of(directory: Path) -> list[Point]:
    """The scalars in the event files of a run, in the order in which they were logged.

    A file that is still being written is read up to its last whole record. Where a run was resumed, points that it had logged after the
    checkpoint are left out, as TensorBoard does. Raises Fault if a file is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    points: list[Point] = []
    for file in sorted(found for found in directory.glob("events.out.tfevents.*") if found.is_file()):
        data = file.read_bytes()
        offsets = whole_records(data)
        begin = None  # wall time at which this part of the run began to log
        before = points[-1].elapsed if points else 0.0
        for at, end in zip(offsets, offsets[1:], strict=False):
            try:
                event = Event.FromString(data[at + 12 : end - 4])
            except DecodeError:
                raise Fault(
                    f"the log {file} is damaged at byte {at:,}: move it out of the directory to read the others"
                ) from None
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                points = [point for point in points if point.step < event.step]
                before = points[-1].elapsed if points else 0.0
            begin = event.wall_time if begin is None else begin
            elapsed = before + event.wall_time - begin
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    points.append(Point(value.tag, event.step, value.simple_value, event.wall_time, elapsed))
    return points


def _by_step(points: Iterable[Point]) -> Iterator[tuple[dict[str, float], int, float]]:
    """The points that were logged together: numbers by tag, their step and their wall time."""
    metrics: dict[str, float] = {}
    step, seconds = 0, 0.0
    for point in points:
        if metrics and (point.step, point.seconds) != (step, seconds):
            yield metrics, step, seconds
            metrics = {}
        step, seconds = point.step, point.seconds
        metrics[point.tag] = point.value
    if metrics:
        yield metrics, step, seconds


def log_sizes(directory: Path) -> dict[str, int]:
    """Return the sizes in bytes of the event files in a run directory, by name; empty if the directory cannot be read."""
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

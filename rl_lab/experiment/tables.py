"""The log in other forms than TensorBoard's: a table of comma-separated values, lines of JSON, and Weights & Biases.

Each table holds the points that the TensorBoard events hold, with the same float32 values. When a run is resumed, the files are written
again from the events up to the checkpoint, so that they have neither holes nor double points.
"""

import importlib.util
import json
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from rl_lab.experiment.faults import Fault
from rl_lab.experiment.suggestions import nearest
from rl_lab.serialization import write_file

FORMS = ("csv", "jsonl", "wandb")
"""Forms of the log that `--log` takes. TensorBoard's events are always written."""
Point = tuple[dict[str, float], int, float]
"""Numbers by tag that were logged together, their step and their wall time in seconds."""


class Table(Protocol):
    """One further form of the log."""

    name: str

    def record(self, metrics: dict[str, float], step: int, seconds: float) -> None: ...
    def flush(self, to_disk: bool = False) -> None: ...
    def close(self) -> None: ...


def as_forms(value: object) -> tuple[str, ...]:
    """The forms in a text such as ``csv,jsonl`` or a list of such texts. Raises Fault for an unknown form."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise Fault(f"--log takes forms of the log such as csv,jsonl, not {value!r}")
    words = [word.strip() for text in texts for word in text.split(",") if word.strip()]
    for word in words:
        if word not in (*FORMS, "tensorboard"):
            raise Fault(f"--log {word!r} is unknown{nearest(word, FORMS)}")
    return tuple(form for form in FORMS if form in words)


def require_forms(forms: Sequence[str]) -> None:
    """Raise Fault if a form cannot be written here: the package wandb is missing, or has no account to send points to."""
    if "wandb" not in forms:
        return
    if importlib.util.find_spec("wandb") is None:
        raise Fault("--log wandb needs wandb, which is not installed: pip install wandb")
    import wandb

    online = os.environ.get("WANDB_MODE", "online") in ("online", "shared", "run")
    if online and not wandb.api.api_key:
        raise Fault(
            "--log wandb needs an account: run wandb login, or set WANDB_MODE=offline to keep the points on this machine"
        )


def _csv_lines(metrics: dict[str, float], step: int, seconds: float) -> str:
    return "".join([f"{_quoted(tag)},{step},{value:.9g},{seconds!r}\n" for tag, value in metrics.items()])


def _quoted(tag: str) -> str:
    return '"' + tag.replace('"', '""') + '"' if re.search(r'[",\n\r]', tag) else tag


def _json_line(metrics: dict[str, float], step: int, seconds: float) -> str:
    values = {tag: float(f"{value:.9g}") for tag, value in metrics.items()}
    return json.dumps({"step": step, "seconds": seconds, **values}) + "\n"


_FILES = {"csv": ("log.csv", "tag,step,value,seconds\n", _csv_lines), "jsonl": ("log.jsonl", "", _json_line)}
"""The file, its first line and the lines of a point, for each form that is a file."""


class LinesOfText:
    """A table in a text file, a point a line or several."""

    def __init__(self, directory: Path, form: str):
        """Open the file to append. Raises OSError if the disk refuses."""
        file_name, head, self._lines = _FILES[form]
        path = directory / file_name
        self.name = str(path)
        self._file: TextIO = path.open("a", encoding="utf-8", newline="")
        if head and self._file.tell() == 0:
            self._file.write(head)

    def record(self, metrics: dict[str, float], step: int, seconds: float) -> None:
        """Append a point."""
        self._file.write(self._lines(metrics, step, seconds))

    def flush(self, to_disk: bool = False) -> None:
        """Write what is buffered, and wait for the disk if ``to_disk``."""
        self._file.flush()
        if to_disk:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self._file.close()


class WeightsAndBiases:
    """Sends the points to Weights & Biases through its own library, under one id for a run and its resumed parts.

    A resumed run computes the points after its checkpoint again, with the same values; the service keeps those that it already has.
    """

    name = "the log of wandb"

    def __init__(self, directory: Path, config: Mapping[str, Any]):
        """Begin or continue the run of the service. Raises Fault if the library refuses.

        The library's own files go to ``wandb/`` in the working directory, or to WANDB_DIR: they contain links, which a run must not.
        """
        import wandb

        place = directory / "wandb-id"
        known = place.read_text(encoding="utf-8").strip() if place.is_file() else ""
        identity = known if re.fullmatch(r"[0-9a-z]{1,64}", known) else uuid.uuid4().hex[:16]
        place.write_text(identity + "\n", encoding="utf-8")
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "rl_lab"),
                id=identity,
                name=f"{config.get('agent', '')} {config.get('env', '')} {directory.name}".strip(),
                config=dict(config),
                resume="allow",
            )
        except Exception as error:  # whatever the library raises without a login or a network
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise Fault(f"wandb cannot begin a run: {first}; WANDB_MODE=offline keeps it on this machine") from None

    def record(self, metrics: dict[str, float], step: int, seconds: float) -> None:
        """Send a point. The service uses its own clock."""
        self._run.log(metrics, step=step)

    def flush(self, to_disk: bool = False) -> None:
        """Do nothing: the library sends points by itself."""

    def close(self) -> None:
        """Send the rest and end the run of the service."""
        self._run.finish()


def open_tables(directory: Path, forms: Sequence[str], config: Mapping[str, Any]) -> list[Table]:
    """The tables of these forms. Raises OSError if a file cannot be opened, Fault if a library refuses."""
    return [WeightsAndBiases(directory, config) if form == "wandb" else LinesOfText(directory, form) for form in forms]


def rewrite_tables(directory: Path, forms: Sequence[str], points: Iterable[Point]) -> None:
    """Write the files of these forms again, and those that exist already, with these points only. Raises OSError."""
    wanted = [form for form, (name, _, _) in _FILES.items() if form in forms or (directory / name).is_file()]
    listed = list(points) if wanted else []
    for form in wanted:
        name, head, lines = _FILES[form]
        write_file(directory / name, [(head + "".join([lines(*point) for point in listed])).encode()])

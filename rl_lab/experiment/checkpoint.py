"""Checkpoints: a nested state of tensors, arrays and plain values as ``state.safetensors`` and ``state.json`` in one folder.

Beside them ``run.json`` holds what else is known of the run at that moment: its settings, and how long its log is.

The folder is written under a temporary name and flushed to disk, the old one set aside, the new one renamed: at every moment the old
checkpoint or the new one can be found. Nothing that is loaded can execute code, and a checksum tells whether it is what was saved.
"""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rl_lab.engine.ops import Tensor
from rl_lab.experiment.faults import Fault, first_line
from rl_lab.experiment.files import LARGEST_PLAIN, read_file
from rl_lab.serialization import (
    checksum,
    flush,
    join,
    read_safetensors,
    save_file,
    split,
    write_file,
)

FORMAT = 2


def find_checkpoint(path: Path) -> Path | None:
    """The checkpoint ``path``, or the one that was set aside if its writer died before the new one took its place; or None."""
    return next((place for place in (path, *_set_aside(path)) if place.is_dir()), None)


def _set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f".{path.name}.*.old"))


def save_checkpoint(path: Path, state: dict[str, Any], record: dict[str, Any] | None = None) -> None:
    """Write ``state`` to the folder ``path``, replacing an older checkpoint there. One process may write at a time.

    ``record`` holds plain values about the run, for `read_record`. Raises OSError; the older checkpoint can then still be found.
    """
    arrays: dict[str, np.ndarray] = {}
    plain = split(state, "", arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    for unfinished in path.parent.glob(f".{path.name}.*.new"):
        shutil.rmtree(unfinished)
    temporary.mkdir(parents=True)
    save_file(arrays, temporary / "state.safetensors")
    content = {"format": FORMAT, "checksum": checksum(arrays, json.dumps(plain)), "state": plain}
    write_file(temporary / "state.json", [json.dumps(content, indent=1).encode()])
    if record is not None:
        write_file(temporary / "run.json", [json.dumps(record, indent=1).encode()])
    flush(temporary)
    if path.exists():
        for old in _set_aside(path):
            shutil.rmtree(old)
        path.rename(path.with_name(f".{path.name}.{os.getpid()}.old"))
    temporary.rename(path)
    flush(path.parent)
    for old in _set_aside(path):
        shutil.rmtree(old)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in the folder ``path``; tensors come back as NumPy arrays. Fault if a file is missing or damaged."""
    path = find_checkpoint(path) or path
    try:
        content = json.loads(read_file(path / "state.json", LARGEST_PLAIN))
        arrays, _ = read_safetensors(path / "state.safetensors", foreign=True)
        if content["format"] != FORMAT:
            raise Fault(f"checkpoint {path} has format {content['format']}, this version of rl_lab reads format {FORMAT}")
        if checksum(arrays, json.dumps(content["state"])) != content["checksum"]:
            raise Fault(f"checkpoint {path} cannot be read: its content does not fit its checksum")
        state = join(content["state"], arrays, tensors=False)
        if not isinstance(state, dict):
            raise TypeError("its content is not a state")
        return state
    except OSError as error:
        raise Fault(f"checkpoint {path} cannot be read: {error.filename}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, Fault) else Fault(f"checkpoint {path} cannot be read: {first_line(error)}") from None


def read_record(path: Path) -> dict[str, Any]:
    """The ``record`` that was saved with the checkpoint in the folder ``path``; empty if there is none."""
    try:
        record = json.loads(read_file((find_checkpoint(path) or path) / "run.json", LARGEST_PLAIN))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def keep_copy(path: Path, name: str) -> None:
    """Keep the checkpoint ``path`` under a second name beside it, as links to the same content: nothing is copied. Raises OSError."""
    copy = path.with_name(name)
    temporary = path.with_name(f".{name}.{os.getpid()}.new")
    for old in (copy, temporary):
        if old.exists():
            shutil.rmtree(old)
    temporary.mkdir()
    for file in path.iterdir():
        os.link(file, temporary / file.name)
    temporary.rename(copy)


def first_not_finite(state: Any, name: str = "") -> str:
    """The name of the first value in a nested state that is not finite, or an empty text.

    A plain -infinity counts as finite: it is the best return where there is none yet.
    """
    if isinstance(state, dict):
        parts = ((f"{name}/{key}" if name else str(key), value) for key, value in state.items())
        return next(filter(None, (first_not_finite(value, path) for path, value in parts)), "")
    if isinstance(state, (list, tuple)):
        return next(filter(None, (first_not_finite(value, f"{name}/{i}") for i, value in enumerate(state))), "")
    if isinstance(state, float):
        return "" if math.isfinite(state) or state == -math.inf else name
    array = state.detach().numpy() if isinstance(state, Tensor) else state
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return ""
    flat = array.reshape(-1)
    return "" if all(np.isfinite(flat[i : i + _CHUNK]).all() for i in range(0, flat.size, _CHUNK)) else name


_CHUNK = 1 << 20
"""Numbers that are looked at together: a copy of the whole would double the memory of a replay buffer."""

"""Checkpoints: a nested state of tensors, arrays and plain values as ``state.safetensors`` and ``state.json`` in one folder.

Beside them, ``run.json`` records the settings of the run and the length of its log at that moment.

The folder is written under a temporary name and flushed to disk, the old folder is set aside, and the new one is renamed: at every moment
either the old checkpoint or the new one can be found. Loading a checkpoint cannot execute code, and checksums reveal damage.
"""

import hashlib
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
from rl_lab.serialization import checksum, flush, join, read_safetensors, save_file, split, write_file

FORMAT = 2


def find_checkpoint(path: Path) -> Path | None:
    """Return the folder of a checkpoint: ``path``, or the set-aside one if its writer died before the rename. None if there is none."""
    return next((place for place in (path, *_set_aside(path)) if place.is_dir()), None)


def _set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f".{path.name}.*.old"))


def restore_checkpoint(path: Path) -> None:
    """Rename a set-aside checkpoint back to ``path``, or remove it if the new one is already there. Raises OSError."""
    for old in _set_aside(path):
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)


def save_checkpoint(path: Path, state: dict[str, Any], record: dict[str, Any] | None = None) -> None:
    """Write ``state`` to the folder ``path``, replacing an older checkpoint. One process may write at a time.

    ``record`` holds plain values about the run, for `read_record`. Raises OSError; the older checkpoint is then still there.
    """
    arrays: dict[str, np.ndarray] = {}
    plain = split(state, "", arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    for unfinished in path.parent.glob(f".{path.name}.*.new"):
        shutil.rmtree(unfinished)
    temporary.mkdir(parents=True)
    save_file(arrays, temporary / "state.safetensors")
    content = {
        "format": FORMAT,
        "checksum": checksum(arrays, json.dumps(plain)),
        "recorded": record is not None,
        "state": plain,
    }
    write_file(temporary / "state.json", [json.dumps(content, indent=1).encode()])
    if record is not None:
        write_file(temporary / "run.json", [json.dumps({**record, "checksum": _digest(record)}, indent=1).encode()])
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
    """Return the state in the folder ``path``, with tensors as NumPy arrays. Raises Fault if a file is missing or damaged."""
    path = find_checkpoint(path) or path
    try:
        content = json.loads(read_file(path / "state.json", LARGEST_PLAIN))
        arrays, _ = read_safetensors(path / "state.safetensors", foreign=True)
        if content["format"] != FORMAT:
            raise Fault(f"checkpoint {path} has format {content['format']}, this version of rl_lab reads format {FORMAT}")
        if checksum(arrays, json.dumps(content["state"])) != content["checksum"]:
            raise Fault(f"checkpoint {path} cannot be read: its content does not match its checksum")
        state = join(content["state"], arrays, tensors=False)
        if not isinstance(state, dict):
            raise TypeError("its content is not a state")
        return state
    except OSError as error:
        raise Fault(f"checkpoint {path} cannot be read: {error.filename}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, Fault) else Fault(f"checkpoint {path} cannot be read: {first_line(error)}") from None


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the ``record`` of the checkpoint in the folder ``path``: empty if none was saved, None if it is damaged."""
    path = find_checkpoint(path) or path
    try:
        expected = bool(json.loads(read_file(path / "state.json", LARGEST_PLAIN)).get("recorded"))
        if not expected and not (path / "run.json").exists():
            return {}
        record = json.loads(read_file(path / "run.json", LARGEST_PLAIN))
        digest = record.pop("checksum", None)  # the first runs of version 0.2 have none
        return record if digest == _digest(record) or (digest is None and not expected) else None
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return None


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def keep_copy(path: Path, name: str) -> None:
    """Keep the checkpoint ``path`` under a second name beside it. Raises OSError.

    The files are hard links to the same content where the disk has such links, else copies.
    """
    copy = path.with_name(name)
    files = [file for file in path.iterdir() if file.is_file()]
    if all((copy / file.name).exists() and file.samefile(copy / file.name) for file in files):
        return
    temporary = path.with_name(f".{name}.{os.getpid()}.new")
    for old in (copy, temporary):
        if old.exists():
            shutil.rmtree(old)
    temporary.mkdir()
    for file in files:
        try:
            os.link(file, temporary / file.name)
        except OSError:
            shutil.copyfile(file, temporary / file.name)
    temporary.rename(copy)


def first_not_finite(state: Any, name: str = "") -> str:
    """Return the name of the first value in a nested state that is not finite, or an empty text.

    A plain -infinity is allowed: the driver uses it as the best return before the first evaluation.
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
"""Numbers checked at a time: a check of a whole replay buffer at once would double its memory."""


def generator_state(random: np.random.Generator) -> dict[str, Any]:
    """Return the state of a NumPy generator (PCG64); its 128-bit integers become text, because a checkpoint holds 64 bits."""
    whole: Any = random.bit_generator.state
    words = {name: str(whole["state"][name]) for name in ("state", "inc")}
    return {**words, "has_uint32": whole["has_uint32"], "uinteger": whole["uinteger"]}


def set_generator_state(random: np.random.Generator, state: dict[str, Any]) -> None:
    """Put a state from `generator_state` into a NumPy generator."""
    whole: Any = random.bit_generator.state
    words = {name: int(value) for name, value in state.items()}
    whole["state"] = {name: words.pop(name) for name in ("state", "inc")}
    random.bit_generator.state = {**whole, **words}

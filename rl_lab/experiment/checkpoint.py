"""Checkpoints: a nested state of tensors, arrays and plain values as ``state.safetensors`` and ``state.json`` in one folder.

``environments.state``, also in the format of safetensors, holds the arrays of the environments' state. So ``state.safetensors`` depends
on what was learned alone, not on how the environments are wrapped. ``run.json`` records the settings of the run and the length of its
log at that moment.

A replay buffer is written in segments, one file each, named by the digest of its content. A segment that another checkpoint of the run
holds already becomes a hard link to the same file, so a checkpoint costs as much as has changed since the last one.

The folder is written under a temporary name and flushed to disk, the old folder is set aside, and the new one is renamed: at every moment
either the old checkpoint or the new one can be found. Loading a checkpoint cannot execute code, and checksums reveal damage.
"""

import hashlib
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rl_lab.engine.ops import Tensor
from rl_lab.experiment.faults import STORAGE, Fault, code_of, first_line
from rl_lab.experiment.files import LARGEST_PLAIN, read_file
from rl_lab.rollout.saving import EnvironmentsState
from rl_lab.serialization import Rows, checksum, create_file, flush, join, read_safetensors, safetensors_pieces, split

FORMAT = 4
READABLE = (2, 3, 4)
"""Formats that can be read. ``state.safetensors`` held the replay buffers before format 3, and the environments' state before 4."""
ENVIRONMENTS = "environments.state"
SEGMENTS = "rows in segments"
"""The key under which a state refers to the segments of arrays."""
_SEGMENT = re.compile("rows[-a-z0-9_]*-([0-9]{12})-([0-9a-f]{64})[.]safetensors")
"""Name of a segment's file: the part, the number of the segment, and the digest of its content."""
OBJECT_BYTES = 100
"""About the memory that Python needs for one value in a JSON file."""
LARGEST_OBJECTS = 1 << 28
"""Bytes that the values of a checkpoint's JSON file may need, unless its files are larger than half of this."""


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
    segments: dict[str, dict[str, np.ndarray]] = {}
    plain = split(_without_rows(state, segments), "", arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    for unfinished in path.parent.glob(f".{path.name}.*.new"):
        shutil.rmtree(unfinished)
    apart = tuple(f"{place}/" for place in _environments_in(state))
    environments = {name: array for name, array in arrays.items() if name.startswith(apart)}
    learned = {name: array for name, array in arrays.items() if name not in environments}
    content = {
        "format": FORMAT,
        "checksum": checksum(arrays, json.dumps(plain)),
        "recorded": record is not None,
        "state": plain,
    }
    temporary.mkdir(parents=True)
    try:  # the folder is renamed as a whole, so its files need no temporary names of their own
        _write_segments(segments, temporary)
        create_file(temporary / "state.safetensors", safetensors_pieces(learned))
        if environments:
            create_file(temporary / ENVIRONMENTS, safetensors_pieces(environments))
        create_file(temporary / "state.json", [json.dumps(content, indent=1).encode()])
        if record is not None:
            create_file(temporary / "run.json", [json.dumps({**record, "checksum": _digest(record)}, indent=1).encode()])
        flush(temporary)
    except OSError:  # the disk may be full: an unfinished checkpoint must not fill it
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.exists():
        for old in _set_aside(path):
            shutil.rmtree(old)
        path.rename(path.with_name(f".{path.name}.{os.getpid()}.old"))
    temporary.rename(path)
    flush(path.parent)
    for old in _set_aside(path):
        shutil.rmtree(old)


def _environments_in(state: object, name: str = "") -> list[str]:
    """Names, as `split` builds them, of the states of environments inside a nested state."""
    if isinstance(state, EnvironmentsState):
        return [name]
    parts = state.items() if isinstance(state, dict) else ()
    return [place for key, value in parts for place in _environments_in(value, f"{name}/{key}" if name else str(key))]


def _without_rows(state: Any, segments: dict[str, dict[str, np.ndarray]], name: str = "rows") -> Any:
    """The state with the digests of segments in place of arrays in `Rows`; the segments are added by the names of their files."""
    if isinstance(state, Rows):
        files = [f"{name}-{segment.key:012d}-{state.digest(segment)}.safetensors" for segment in state.segments]
        segments |= {file: state.content(segment) for file, segment in zip(files, state.segments, strict=True)}
        empty = {name: array[:0] for name, array in state.items()}
        return {SEGMENTS: {"files": files, "empty": empty}}
    if isinstance(state, dict):
        return {key: _without_rows(value, segments, _file_name(name, key)) for key, value in state.items()}
    if isinstance(state, list):
        return [_without_rows(value, segments, _file_name(name, i)) for i, value in enumerate(state)]
    return state


def _file_name(name: str, key: object) -> str:
    return f"{name}-{re.sub('[^a-z0-9_]', '', str(key).lower())}"[:100]


def _write_segments(segments: dict[str, dict[str, np.ndarray]], folder: Path) -> None:
    """Write segments into a folder, or link those that another checkpoint beside it has."""
    others = [place for place in folder.parent.iterdir() if place.is_dir() and place != folder] if segments else []
    for name, arrays in segments.items():
        known = next((found for place in others if (found := place / name).is_file()), None)
        if known is None or not _link(known, folder / name):
            create_file(folder / name, safetensors_pieces(arrays))


def _link(known: Path, file: Path) -> bool:
    """Give a file a second name; False if the file system has no such links."""
    try:
        os.link(known, file)
    except OSError as error:
        if code_of(error) == STORAGE:
            raise
        return False
    return True


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state in the folder ``path``, with tensors as NumPy arrays. Raises Fault if a file is missing or damaged.

    Memory is allocated for the content of the files, never for sizes that they only claim.
    """
    path = find_checkpoint(path) or path
    try:
        content = _read_json(path / "state.json")
        if content["format"] not in READABLE:
            raise Fault(
                f"checkpoint {path} has format {content['format']}, this version of rl_lab reads {', '.join(map(str, READABLE))}: "
                "use the version that wrote it"
            )
        arrays, _ = read_safetensors(path / "state.safetensors", foreign=True)
        if (path / ENVIRONMENTS).exists():
            arrays |= read_safetensors(path / ENVIRONMENTS, foreign=True)[0]
        if checksum(arrays, json.dumps(content["state"])) != content["checksum"]:
            raise Fault(f"checkpoint {path} cannot be read: its content does not match its checksum")
        state = _with_rows(join(content["state"], arrays, tensors=False), path)
        if not isinstance(state, dict):
            raise TypeError(f"its content is {type(state).__name__}, not a dict of parts")
        return state
    except OSError as error:
        raise Fault(f"checkpoint {path} cannot be read: {error.filename}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, Fault) else Fault(f"checkpoint {path} cannot be read: {first_line(error)}") from None


def _read_json(file: Path) -> Any:
    """Return the content of a JSON file of a checkpoint.

    Raises OSError if it cannot be read, and ValueError if it is not JSON or its values need far more memory than the checkpoint has bytes.
    """
    text = read_file(file, LARGEST_PLAIN)
    needed = OBJECT_BYTES * sum(text.count(sign) for sign in (b",", b"[", b"{"))
    if needed > max(LARGEST_OBJECTS, 2 * sum(other.stat().st_size for other in file.parent.iterdir() if other.is_file())):
        raise ValueError(f"{file.name} holds more values than a checkpoint has: they would need {needed / 1e9:.1f} GB")
    return json.loads(text)


def _with_rows(state: Any, folder: Path) -> Any:
    """The state with arrays in place of the names of their segments."""
    if isinstance(state, list):
        return [_with_rows(value, folder) for value in state]
    if not isinstance(state, dict):
        return state
    if set(state) != {SEGMENTS}:
        return {key: _with_rows(value, folder) for key, value in state.items()}
    files, empty = state[SEGMENTS]["files"], state[SEGMENTS]["empty"]
    pieces: dict[str, list[np.ndarray]] = {name: [array] for name, array in empty.items()}
    last = -1
    for name in files:
        found = _SEGMENT.fullmatch(name)
        if not found or int(found[1]) <= last:  # each file once: memory is allocated for what the files hold
            raise ValueError(f"a segment of rows has the name {name!r}")
        last = int(found[1])
        segment, _ = read_safetensors(folder / name, foreign=True)
        if checksum(segment, "") != found[2] or segment.keys() != empty.keys():
            raise ValueError(f"the content of {name} does not fit its checksum")
        for array, rows in segment.items():
            pieces[array].append(rows)
    return {name: np.concatenate(pieces.pop(name)) for name in list(pieces)}


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the ``record`` of the checkpoint in the folder ``path``: empty if none was saved, None if it is damaged."""
    path = find_checkpoint(path) or path
    try:
        expected = bool(_read_json(path / "state.json").get("recorded"))
        if not expected and not (path / "run.json").exists():
            return {}
        record = _read_json(path / "run.json")
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
        if not _link(file, temporary / file.name):
            shutil.copyfile(file, temporary / file.name)
    temporary.rename(copy)


def first_not_finite(state: object, name: str = "") -> str:
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

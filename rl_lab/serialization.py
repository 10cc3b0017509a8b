"""`save` and `load`: nested dicts, lists and tuples of tensors, arrays and plain values in one safetensors file.

`save` writes to a temporary name, flushes to disk and renames, so a crash leaves either the old file or the new one. The file carries
a checksum of its whole content. `load` reads only numbers and text: a file cannot make it execute code.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save as as_bytes
from safetensors.numpy import save_file

from rl_lab.engine.device import check_device, device
from rl_lab.engine.errors import FileError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import tensor

FORMAT = "1"
LARGEST_HEADER = 100_000_000  # bytes, the limit of safetensors


class WritableFile(Protocol):
    """What `save` writes to besides a path: an open binary file, or ``io.BytesIO``."""

    def write(self, data: bytes, /) -> Any:
        """Take the bytes."""
        ...


class ReadableFile(Protocol):
    """What `load` reads from besides a path."""

    def read(self, count: int, /) -> bytes:
        """At most ``count`` bytes from where the last call ended."""
        ...


def save(obj: Any, f: str | os.PathLike[str] | WritableFile) -> None:
    """Write ``obj`` to the file at the path ``f``, replacing an older file, or to the open binary file ``f``.

    ``obj`` is a tensor, an array, None, a bool, int, float or str, or a dict, list or tuple of these; the keys of a dict are strings or
    integers. Raises TypeError, naming the entry, for anything else.
    """
    arrays: dict[str, np.ndarray] = {}
    structure = json.dumps(split(obj, "", arrays))
    facts = {"format": FORMAT, "structure": structure, "checksum": checksum(arrays, structure)}
    if not isinstance(f, (str, os.PathLike)):
        f.write(as_bytes(arrays, facts))
        return
    target = Path(f)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        save_file(arrays, str(temporary), facts)
        flush(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    flush(target.parent)


def load(f: str | os.PathLike[str] | ReadableFile, map_location: Any = None, weights_only: bool = True) -> Any:
    """Read what `save` wrote, from a path or from an open binary file.

    An open file is read from its position to the end of one object, so several objects may follow each other. ``weights_only`` is
    accepted for PyTorch's sake and has no effect; so is ``map_location``, which must be the cpu: raises DeviceError for another device.
    Raises FileError if the file is missing, damaged or not written by `save`.
    """
    if isinstance(map_location, (str, device)):
        check_device(map_location)
    if isinstance(f, (str, os.PathLike)):
        name = str(f)
        try:
            with safe_open(name, framework="numpy") as file:
                facts = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  safe_open cannot be iterated
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise FileError(f"{f} cannot be read: {str(error).splitlines()[0]}") from None
    else:
        name = getattr(f, "name", None) or "the file object"
        try:
            arrays, facts = from_file_object(f)
        except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
    if "structure" not in facts or "checksum" not in facts:
        raise FileError(f"{name} was not written by rl_lab.save: it has no structure or no checksum")
    if facts.get("format") != FORMAT:
        raise FileError(f"{name} has format {facts.get('format')}, but this version of rl_lab reads format {FORMAT}")
    if checksum(arrays, facts["structure"]) != facts["checksum"]:
        raise FileError(f"{name} is damaged: its content does not match its checksum")
    return join(json.loads(facts["structure"]), arrays)


def from_file_object(file: ReadableFile) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of one safetensors object, read from an open file. Raises ValueError if bytes are missing."""

    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = file.read(count - len(data))
            if not part:
                raise ValueError("the data end too early")
            data += part
        return data

    length = exactly(8)
    size = int.from_bytes(length, "little")
    if size > LARGEST_HEADER:
        raise ValueError("it is not a safetensors file")
    header = exactly(size)
    entries = json.loads(header)
    facts = entries.pop("__metadata__", {})
    end = max([int(entry["data_offsets"][1]) for entry in entries.values()], default=0)
    return load_bytes(length + header + exactly(end)), facts


def split(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return ``value`` as plain JSON values; move its tensors and arrays to ``arrays`` and leave their names in their places.

    ``name`` is the path of ``value`` inside the object that is saved. Raises TypeError for a type that a file cannot hold.
    """
    if isinstance(value, (Tensor, np.ndarray)):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name or 'an array'} of dtype {array.dtype} cannot be saved: convert it to numbers")
        key = name or "value"
        arrays[key] = np.array(array, order="C")  # np.ascontiguousarray would turn a 0-d array into a vector
        return {kind: key}
    if isinstance(value, dict):
        return {"dict": [[_key(k), split(v, f"{name}/{k}" if name else str(k), arrays)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__ if type(value) in (list, tuple) else "tuple": _each(value, name, arrays)}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(
        f"{name or 'a value'} of type {type(value).__name__} cannot be saved: use tensors, arrays, numbers, strings, and dicts, lists "
        "and tuples of these"
    )


def _each(values: Iterable[Any], name: str, arrays: dict[str, np.ndarray]) -> list[Any]:
    return [split(v, f"{name}/{i}" if name else str(i), arrays) for i, v in enumerate(values)]


def _key(key: object) -> str | int:
    if not isinstance(key, (str, int)) or isinstance(key, bool):
        raise TypeError(f"the key {key!r} cannot be saved: use strings or integers")
    return key


def join(plain: Any, arrays: dict[str, np.ndarray], tensors: bool = True) -> Any:
    """Inverse of `split`: rebuild the nested value. With ``tensors`` False, tensors are returned as arrays.

    Raises ValueError or KeyError if ``plain`` and ``arrays`` do not fit together.
    """
    ((kind, content),) = plain.items()
    if kind == "tensor" and tensors:
        return tensor(arrays[content])
    if kind in ("tensor", "array"):
        return arrays[content]
    if kind == "dict":
        return {key: join(value, arrays, tensors) for key, value in content}
    if kind in ("list", "tuple"):
        values = [join(value, arrays, tensors) for value in content]
        return tuple(values) if kind == "tuple" else values
    if kind != "value":
        raise ValueError(f"unknown kind {kind!r}")
    return content


def checksum(arrays: dict[str, np.ndarray], structure: str) -> str:
    """SHA-256 digest of the structure and of the name, dtype, shape and bytes of every array."""
    digest = hashlib.sha256(structure.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Wait until the content of a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""`save` and `load`: tensors, arrays and plain values in nested dicts, lists and tuples, as one safetensors file.

The file is written under a temporary name, flushed to disk and renamed, so there is always the old file or the new one. It carries a
checksum of everything in it. Reading takes numbers and text and nothing else: no file can make it execute code.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rl_lab.engine.errors import FileError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import tensor

FORMAT = "1"


def save(obj: Any, path: str | os.PathLike) -> None:
    """Write ``obj`` to the file ``path``, replacing an older one. TypeError names what such a file cannot hold."""
    arrays: dict[str, np.ndarray] = {}
    structure = json.dumps(split(obj, "", arrays))
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        save_file(arrays, str(temporary), {"format": FORMAT, "structure": structure, "checksum": checksum(arrays, structure)})
        flush(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    flush(target.parent)


def load(path: str | os.PathLike, map_location: Any = None, weights_only: bool = True) -> Any:
    """What `save` wrote. FileError if the file is missing, damaged, or not one of these."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            facts = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise FileError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if "structure" not in facts or "checksum" not in facts:
        raise FileError(f"{path} was not written by rl_lab.save")
    if facts.get("format") != FORMAT:
        raise FileError(f"{path} has format {facts.get('format')}, this version of rl_lab reads format {FORMAT}")
    if checksum(arrays, facts["structure"]) != facts["checksum"]:
        raise FileError(f"{path} is damaged: its content does not fit its checksum")
    return join(json.loads(facts["structure"]), arrays)


def split(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The plain part of a nested value; tensors and arrays are moved to ``arrays`` and leave their name."""
    if isinstance(value, (Tensor, np.ndarray)):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        if array.dtype.kind not in "biuf":
            raise TypeError(f"a file cannot hold {name or 'an array'} of dtype {array.dtype}")
        key = name or "value"
        arrays[key] = np.array(array, order="C")  # ascontiguousarray would make a vector of a scalar
        return {kind: key}
    if isinstance(value, dict):
        return {"dict": [[_key(k), split(v, f"{name}/{k}" if name else str(k), arrays)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__ if type(value) in (list, tuple) else "tuple": _each(value, name, arrays)}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"a file cannot hold {name or 'a value'} of type {type(value).__name__}")


def _each(values: Any, name: str, arrays: dict[str, np.ndarray]) -> list[Any]:
    return [split(v, f"{name}/{i}" if name else str(i), arrays) for i, v in enumerate(values)]


def _key(key: Any) -> Any:
    if not isinstance(key, (str, int)) or isinstance(key, bool):
        raise TypeError(f"a file's keys are words or whole numbers, not {key!r}")
    return key


def join(plain: Any, arrays: dict[str, np.ndarray], tensors: bool = True) -> Any:
    """The nested value again; without ``tensors`` they come back as arrays. ValueError or KeyError if the parts do not fit."""
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
    """SHA-256 of the structure and of every array's name, dtype, shape and bytes."""
    digest = hashlib.sha256(structure.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Wait until a file's or folder's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

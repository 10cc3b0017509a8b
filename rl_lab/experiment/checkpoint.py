"""Checkpoints: a nested state of tensors, arrays and plain values as ``state.safetensors`` and ``state.json`` in one folder.

The folder is written under a temporary name, flushed to disk and renamed, so there is always the old checkpoint or the new one.
Nothing that is loaded can execute code.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rl_lab.engine.ops import Tensor
from rl_lab.experiment.faults import Fault

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to the folder ``path``, replacing an older checkpoint there."""
    arrays: dict[str, np.ndarray] = {}
    plain = _split(state, "", arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    save_file(arrays, str(temporary / "state.safetensors"))
    (temporary / "state.json").write_text(json.dumps({"format": FORMAT, "state": plain}, indent=1), encoding="utf-8")
    for file in (*temporary.iterdir(), temporary):
        _flush(file)
    if path.exists():
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old)
    else:
        temporary.rename(path)
    _flush(path.parent)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in the folder ``path``; tensors come back as NumPy arrays. Fault if a file is missing or damaged."""
    try:
        arrays = load_file(str(path / "state.safetensors"))
        content = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise Fault(f"checkpoint {path} has format {content['format']}, this version of rl_lab reads format {FORMAT}")
        return _join(content["state"], arrays)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Fault(f"checkpoint {path} cannot be read: {error}") from None


def _split(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """The plain part of a state; arrays are moved to ``arrays`` and leave their name."""
    if isinstance(value, Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        arrays[name] = np.asarray(value, order="C")  # ascontiguousarray would make a vector of a scalar
        return {"array": name}
    if isinstance(value, dict):
        return {"dict": [[_key(k), _split(v, f"{name}/{k}" if name else str(k), arrays)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_split(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"a checkpoint cannot hold {name} of type {type(value).__name__}")


def _key(key: Any) -> Any:
    if not isinstance(key, (str, int)):
        raise TypeError(f"a checkpoint's keys are words or whole numbers, not {key!r}")
    return key


def _join(plain: Any, arrays: dict[str, np.ndarray]) -> Any:
    ((kind, content),) = plain.items()
    if kind == "array":
        return arrays[content]
    if kind == "dict":
        return {key: _join(value, arrays) for key, value in content}
    if kind == "list":
        return [_join(value, arrays) for value in content]
    return content


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

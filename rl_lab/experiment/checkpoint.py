"""Checkpoints: a nested state of tensors, arrays and plain values as ``state.safetensors`` and ``state.json`` in one folder.

The folder is written under a temporary name and flushed to disk, the old one set aside, the new one renamed: at every moment the old
checkpoint or the new one can be found.
Nothing that is loaded can execute code, and a checksum tells whether it is what was saved.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rl_lab.experiment.faults import Fault
from rl_lab.serialization import checksum, flush, join, split

FORMAT = 2


def find_checkpoint(path: Path) -> Path | None:
    """The checkpoint ``path``, or the one that was set aside if its writer died before the new one took its place; or None."""
    return next((place for place in (path, *_set_aside(path)) if place.is_dir()), None)


def _set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f".{path.name}.*.old"))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to the folder ``path``, replacing an older checkpoint there. One process may write at a time."""
    arrays: dict[str, np.ndarray] = {}
    plain = split(state, "", arrays)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    for unfinished in path.parent.glob(f".{path.name}.*.new"):
        shutil.rmtree(unfinished)
    temporary.mkdir(parents=True)
    save_file(arrays, str(temporary / "state.safetensors"))
    content = {"format": FORMAT, "checksum": checksum(arrays, json.dumps(plain)), "state": plain}
    (temporary / "state.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    for file in (*temporary.iterdir(), temporary):
        flush(file)
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
        arrays = load_file(str(path / "state.safetensors"))
        content = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise Fault(f"checkpoint {path} has format {content['format']}, this version of rl_lab reads format {FORMAT}")
        if checksum(arrays, json.dumps(content["state"])) != content["checksum"]:
            raise Fault(f"checkpoint {path} cannot be read: its content does not fit its checksum")
        return join(content["state"], arrays, tensors=False)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Fault(f"checkpoint {path} cannot be read: {error}") from None


def generator_state(random: np.random.Generator) -> dict[str, Any]:
    """The state of a NumPy generator (PCG64), whose words are longer than a checkpoint's whole numbers."""
    whole: Any = random.bit_generator.state
    words = {name: str(whole["state"][name]) for name in ("state", "inc")}
    return {**words, "has_uint32": whole["has_uint32"], "uinteger": whole["uinteger"]}


def set_generator_state(random: np.random.Generator, state: dict[str, Any]) -> None:
    """Go on as the generator whose `generator_state` this is."""
    whole: Any = random.bit_generator.state
    words = {name: int(value) for name, value in state.items()}
    whole["state"] = {name: words.pop(name) for name in ("state", "inc")}
    random.bit_generator.state = {**whole, **words}

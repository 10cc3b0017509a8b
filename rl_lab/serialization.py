"""`save` and `load`: nested dicts, lists and tuples of tensors, arrays and plain values in one safetensors file.

`save` writes to a temporary name, flushes to disk and renames, so a crash leaves either the old file or the new one. The file carries
a checksum of its whole content. `load` reads only numbers and text: a file cannot make it execute code.
"""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_bytes

from rl_lab.engine.device import check_device, device
from rl_lab.engine.errors import FileError, ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import tensor
from rl_lab.engine.tensor import contiguous_strides, unpickled

FORMAT = "1"
LARGEST_HEADER = 100_000_000  # bytes, the limit of safetensors
PIECE = 1 << 20  # bytes that are read at once


class WritableFile(Protocol):
    """A file to which `save` can write: an open binary file, or ``io.BytesIO``."""

    def write(self, data: bytes, /) -> object:
        """Write all bytes."""
        ...


class ReadableFile(Protocol):
    """A file from which `load` can read: an open binary file, or ``io.BytesIO``."""

    def read(self, count: int, /) -> bytes:
        """Read at most ``count`` bytes."""
        ...


def save(obj: Any, f: str | os.PathLike[str] | WritableFile) -> None:
    """Write ``obj`` to the file at the path ``f``, replacing an older file, or to the open binary file ``f``.

    ``obj`` is a tensor, an array, None, a bool, int, float or str, or a dict, list or tuple of these; the keys of a dict are strings or
    integers. Tensors keep ``requires_grad``, parameters remain parameters, and tensors that overlap in memory do so after `load`. Raises
    TypeError, naming the entry, for anything else.
    """
    arrays: dict[str, np.ndarray] = {}
    structure = json.dumps(split(obj, "", arrays, _shared_memory(obj)))
    facts = {"format": FORMAT, "structure": structure, "checksum": checksum(arrays, structure)}
    if isinstance(f, (str, os.PathLike)):
        save_file(arrays, Path(f), facts)
        return
    for piece in safetensors_pieces(arrays, facts):
        f.write(piece)


def load(f: str | os.PathLike[str] | ReadableFile, map_location: Any = None, weights_only: bool = True) -> Any:
    """Read an object that `save` wrote, from a path or from an open binary file.

    An open file is read from its position to the end of one object, so a file can hold several objects. ``weights_only`` and
    ``map_location`` are accepted as in PyTorch and have no effect. Raises DeviceError if ``map_location`` is not the cpu, and
    FileError if the file is missing, damaged or not written by `save`.
    """
    if isinstance(map_location, (str, device)):
        check_device(map_location)
    name = str(f) if isinstance(f, (str, os.PathLike)) else getattr(f, "name", None) or "the file object"
    try:
        arrays, facts = read_safetensors(Path(f)) if isinstance(f, (str, os.PathLike)) else from_file_object(f)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileError(f"{name} cannot be read: {next(iter(str(error).splitlines()), type(error).__name__)}") from None
    if "structure" not in facts or "checksum" not in facts:
        raise FileError(f"{name} was not written by rl_lab.save: it has no structure or no checksum")
    if facts.get("format") != FORMAT:
        raise FileError(f"{name} has format {facts.get('format')}, but this version of rl_lab reads format {FORMAT}")
    if checksum(arrays, facts["structure"]) != facts["checksum"]:
        raise FileError(f"{name} is damaged: its content does not match its checksum")
    try:
        return join(json.loads(facts["structure"]), arrays)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ShapeError, OverflowError) as error:
        raise FileError(f"{name} cannot be read: its structure is not one that rl_lab.save writes: {error}") from None


def load_torch(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict that another program wrote with ``safetensors.torch.save_file``, for `Module.load_state_dict`.

    float16, bfloat16 and float64 become float32, other integers int64. Raises FileError if the file is missing or damaged, or if it is
    one of torch.save, which may hold code.
    """
    name = os.fspath(path)
    try:
        arrays, _ = _read_any_floats(Path(name))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        hint = ": write it with safetensors.torch.save_file(model.state_dict(), path)" if _is_of_torch(name) else ""
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise FileError(f"{name} cannot be read as safetensors ({reason}){hint}") from None
    return {key: tensor(array) for key, array in arrays.items()}


def _is_of_torch(name: str) -> bool:
    """Whether a file begins as those of torch.save do: a zip archive or a pickle."""
    try:
        with open(name, "rb") as file:
            return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")
    except OSError:
        return False


def _read_any_floats(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """As `read_safetensors`, also for bfloat16, which NumPy does not have: its bits are the upper half of a float32."""
    require_regular(Path(os.path.realpath(path)))
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError("it is not a safetensors file")
        header = json.loads(file.read(length))
        kinds = {key: entry["dtype"] for key, entry in header.items() if key != "__metadata__"}
        if "BF16" not in kinds.values():
            return read_safetensors(path)
        arrays = {}
        for key, kind in kinds.items():
            entry = header[key]
            low, high = entry["data_offsets"]
            file.seek(8 + length + low)
            data = file.read(high - low)
            if kind == "BF16":
                array = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                array = np.frombuffer(data, next("<" + code for code, word in _DTYPES.items() if word == kind))
            arrays[key] = array.reshape(entry["shape"])
    return arrays, header.get("__metadata__", {})


def from_file_object(file: ReadableFile) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata of one safetensors object, read from an open file. Raises ValueError if bytes are missing."""

    def exactly(count: int) -> bytes:
        parts, size = [], 0
        while size < count:  # in pieces: a file that is shorter than its header says gets no memory for the rest
            part = file.read(min(count - size, PIECE))
            if not part:
                raise ValueError("the data end too early")
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    length = exactly(8)
    size = int.from_bytes(length, "little")
    if size > LARGEST_HEADER:
        raise ValueError("it is not a safetensors file")
    header = exactly(size)
    entries = json.loads(header)
    facts = entries.pop("__metadata__", {})
    end = max([int(entry["data_offsets"][1]) for entry in entries.values()], default=0)
    return load_bytes(length + header + exactly(end)), facts


class _Memory:
    """Memory in which several tensors overlap: the elements from ``low`` to ``high`` of their storage. ``key`` names it in the file."""

    def __init__(self, low: int, high: int):
        self.low = low
        self.high = high
        self.tensors: list[Tensor] = []
        self.key: str | None = None

    def array(self) -> np.ndarray:
        """The elements, in the shape of a contiguous tensor that covers them all, or flat."""
        count = self.high - self.low
        for x in self.tensors:
            if x.is_contiguous() and x.numel() == count:
                return x.detach().numpy()
        first = self.tensors[0]
        return unpickled(first.storage, (count,), None, self.low, first.dtype, False).numpy()


def _shared_memory(value: Any) -> dict[int, _Memory]:
    """The memory of every tensor in ``value`` that overlaps with another one, by the id of the tensor."""
    storages: dict[Any, list[tuple[int, int, Tensor]]] = {}
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            rest.extend(item.values())
        elif isinstance(item, (list, tuple)):
            rest.extend(item)
        elif isinstance(item, Tensor) and item.numel():
            last = item.offset + sum((size - 1) * step for size, step in zip(item.sizes, item.stride(), strict=True))
            storages.setdefault((id(item.storage), item.dtype.name), []).append((item.offset, last + 1, item))
    found: list[_Memory] = []
    for spans in storages.values():
        memory = None
        for low, high, x in sorted(spans, key=lambda span: span[:2]):
            if memory is None or low >= memory.high:
                found.append(memory := _Memory(low, high))
            memory.high = max(memory.high, high)
            memory.tensors.append(x)
    return {id(x): memory for memory in found if len(memory.tensors) > 1 for x in memory.tensors}


def _split_tensor(x: Tensor, name: str, arrays: dict[str, np.ndarray], memory: _Memory | None) -> tuple[str, dict]:
    """Move a tensor to ``arrays``; return the name of the array, and the facts about the tensor that the array does not hold."""
    from rl_lab.nn.module import Parameter  # here, because rl_lab.nn imports this module

    facts: dict[str, Any] = {"parameter": True} if isinstance(x, Parameter) else {}
    if x.requires_grad:
        facts["requires_grad"] = True
    if memory is None:
        return _add(x.detach().numpy(), name, arrays), facts
    if memory.key is None:
        memory.key = _add(memory.array(), name, arrays)
    facts.update(offset=x.offset - memory.low, shape=list(x.sizes), strides=list(x.stride()))
    return memory.key, facts


def _add(array: np.ndarray, name: str, arrays: dict[str, np.ndarray]) -> str:
    """Add an array under its path, or under a longer name if another entry has this path; return the name."""
    if array.dtype.str[1:] not in _DTYPES:
        raise TypeError(
            f"{name or 'an array'} of dtype {array.dtype} cannot be saved: convert it to numbers of at most 64 bits"
        )
    key = name or "value"
    while key in arrays:  # {"a/b": x, "a": {"b": y}}
        key += "+"
    # np.ascontiguousarray would turn a 0-d array into a vector; a loaded array has the byte order of the machine
    arrays[key] = np.array(array, array.dtype.newbyteorder("="), order="C")
    return key


def split(value: Any, name: str, arrays: dict[str, np.ndarray], shared: dict[int, _Memory] | None = None) -> Any:
    """Return ``value`` as plain JSON values; move its tensors and arrays to ``arrays`` and leave their names in their places.

    ``name`` is the path of ``value`` inside the object that is saved. With ``shared`` (see `_shared_memory`) tensors also keep their kind,
    ``requires_grad`` and the memory that they share. Raises TypeError for a type that a file cannot hold.
    """
    if isinstance(value, Tensor) and shared is not None:
        key, facts = _split_tensor(value, name, arrays, shared.get(id(value)))
        return {"tensor": {"key": key, **facts} if facts else key}
    if isinstance(value, Tensor):
        return {"tensor": _add(value.detach().numpy(), name, arrays)}
    if isinstance(value, np.ndarray):
        return {"array": _add(value, name, arrays)}
    if isinstance(value, dict):
        return {"dict": [[_key(k), split(v, f"{name}/{k}" if name else str(k), arrays, shared)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__ if type(value) in (list, tuple) else "tuple": _each(value, name, arrays, shared)}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(
        f"{name or 'a value'} of type {type(value).__name__} cannot be saved: use tensors, arrays, numbers, strings, and dicts, lists "
        "and tuples of these"
    )


def _each(values: Iterable[Any], name: str, arrays: dict[str, np.ndarray], shared: dict[int, _Memory] | None) -> list[Any]:
    return [split(v, f"{name}/{i}" if name else str(i), arrays, shared) for i, v in enumerate(values)]


def _key(key: object) -> str | int:
    if not isinstance(key, (str, int)) or isinstance(key, bool):
        raise TypeError(f"the key {key!r} cannot be saved: use strings or integers")
    return key


def _join_tensor(content: Any, arrays: dict[str, np.ndarray], made: dict[str, Tensor]) -> Tensor:
    """Rebuild a tensor. ``made`` holds the tensor of each array, whose memory later tensors of the array share."""
    from rl_lab.nn.module import Parameter  # here, because rl_lab.nn imports this module

    facts: dict[str, Any] = {"key": content} if isinstance(content, str) else content
    key = facts["key"]
    if key not in made:
        made[key] = tensor(arrays[key])
    x = made[key]
    if "shape" in facts:
        shape, strides = tuple(facts["shape"]), tuple(facts["strides"])
        if 0 in shape or not all(
            type(number) is int and 0 <= number < 1 << 62 for number in (facts["offset"], *shape, *strides)
        ):
            raise ValueError(f"the layout of {key} is not one of a tensor with elements")
        x = unpickled(
            x.storage, shape, None if strides == contiguous_strides(shape) else strides, facts["offset"], x.dtype, False
        )
    needs_grad = facts.get("requires_grad") is True
    if facts.get("parameter") is True:
        return Parameter(x, needs_grad)
    return x.requires_grad_() if needs_grad else x


def join(plain: Any, arrays: dict[str, np.ndarray], tensors: bool = True, made: dict[str, Tensor] | None = None) -> Any:
    """Inverse of `split`: rebuild the nested value. With ``tensors`` False, tensors are returned as arrays.

    ``made`` holds the tensors that are rebuilt so far. Raises ValueError or KeyError if ``plain`` and ``arrays`` do not fit together.
    """
    made = {} if made is None else made
    ((kind, content),) = plain.items()
    if kind == "tensor" and tensors:
        return _join_tensor(content, arrays, made)
    if kind in ("tensor", "array"):
        return arrays[content]
    if kind == "dict":
        return {key: join(value, arrays, tensors, made) for key, value in content}
    if kind in ("list", "tuple"):
        values = [join(value, arrays, tensors, made) for value in content]
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
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


# --- random streams ----------------------------------------------------------------------------------------------------


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


# --- arrays in segments ----------------------------------------------------------------------------------------------


SEGMENT_BYTES = 4 << 20
"""Bytes in a segment, the unit in which checkpoints write a replay buffer."""


class Segment(NamedTuple):
    """Rows from ``low`` to ``high`` of arrays. ``key`` is its number; ``version`` changes when a row of it is written."""

    key: int
    low: int
    high: int
    version: Any


class Rows(dict[str, np.ndarray]):
    """Arrays with equally many rows, such as a replay buffer's, which a checkpoint writes in segments.

    ``digests`` remembers, by the key of each segment, a version and the digest of its content then: an unchanged segment is neither
    digested nor written again.
    """

    def __init__(self, arrays: dict[str, np.ndarray], segments: list[Segment], digests: dict[int, tuple[Any, str]]):
        super().__init__(arrays)
        self.segments = segments
        self.digests = digests

    def __deepcopy__(self, memo: dict[int, Any]) -> "dict[str, np.ndarray]":
        """A plain dict: the segments belong to the buffer that made them."""
        return {name: array.copy() for name, array in self.items()}

    def content(self, segment: Segment) -> dict[str, np.ndarray]:
        """The rows of a segment."""
        return {name: array[segment.low : segment.high] for name, array in self.items()}

    def digest(self, segment: Segment) -> str:
        """SHA-256 digest of a segment."""
        known = self.digests.get(segment.key)
        if known is None or known[0] != segment.version:
            known = self.digests[segment.key] = segment.version, checksum(self.content(segment), "")
        return known[1]


# --- files -----------------------------------------------------------------------------------------------------------


def save_file(arrays: dict[str, np.ndarray], path: Path, facts: dict[str, str] | None = None) -> None:
    """Write arrays and facts to a safetensors file, whole or not at all. Raises OSError."""
    write_file(path, safetensors_pieces(arrays, facts))


def safetensors_pieces(arrays: dict[str, np.ndarray], facts: dict[str, str] | None = None) -> Iterable[Any]:
    """Content of a safetensors file, in pieces that do not copy the arrays. ``facts`` are its metadata."""
    ordered = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": facts} if facts else {}
    end = 0
    for name in ordered:
        array = arrays[name]
        begin = end
        end += array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.str[1:]], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in ordered:
        array = np.ascontiguousarray(arrays[name])
        yield array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data


_DTYPES = {
    "b1": "BOOL",
    "u1": "U8",
    "i1": "I8",
    "u2": "U16",
    "i2": "I16",
    "u4": "U32",
    "i4": "I32",
    "u8": "U64",
    "i8": "I64",
    "f2": "F16",
    "f4": "F32",
    "f8": "F64",
}


def read_safetensors(path: Path, foreign: bool = False) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and facts of a safetensors file, which may be a link unless it is ``foreign``.

    Raises OSError or ValueError, before memory is allocated, for any other file.
    """
    require_regular(path if foreign else Path(os.path.realpath(path)))
    try:
        with safe_open(str(path), framework="numpy") as file:
            facts = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  safe_open cannot be iterated
    except (SafetensorError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return arrays, facts


def require_regular(path: Path) -> None:
    """Raise OSError unless ``path`` is a regular file; a link to a regular file is not."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def create_file(path: Path, pieces: Iterable[Any]) -> None:
    """Write a file that must not exist yet, flushed to disk. A link in its place is not followed. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def write_file(path: Path, pieces: Iterable[Any]) -> None:
    """Replace a file as a whole: write under a temporary name, flush, rename. If this fails, an older file stays. Raises OSError."""
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    try:
        create_file(temporary, pieces)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until the content of a file or directory is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open directories
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Many tensors for one launch: a table of their addresses."""

import functools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.launch import launch, recorder, unrecorded
from rl_lab.engine.number import real
from rl_lab.engine.ops.creation import from_numpy
from rl_lab.engine.tensor import empty


@functools.lru_cache(maxsize=256)
def _sizes(sizes: tuple[int, ...]) -> Any:
    with unrecorded():
        return from_numpy(np.array(sizes, np.int64))


def address_table(
    rows: Sequence[Sequence[Any]], columns: int = optimizer_kernels.COLUMNS, writes: bool = True
) -> tuple[Any, Any]:
    """The addresses of contiguous tensors, a row of ``columns`` for each of ``rows``, and the number of elements in each row.

    The table is valid while the tensors live; missing columns are filled with the first tensor's address. A recorder takes all of
    the tensors as read and, if the launch ``writes``, as written.
    """
    addresses: list[int] = []
    sizes = []
    for row in rows:
        for x in row:
            if x.strides is not None:
                raise ShapeError(f"a tensor of shape {list(x.sizes)} and strides {list(x.strides)} must be contiguous here")
        addresses.extend([x.address for x in row])
        addresses.extend([row[0].address] * (columns - len(row)))
        sizes.append(row[0].numel())
    recording = recorder()
    if recording is None:
        table = empty((len(addresses),), int64)
    else:
        with unrecorded():
            table = empty((len(addresses),), int64)
        recording.table(table, [x for row in rows for x in row], writes)
    struct.pack_into(f"{len(addresses)}q", table.storage.bytes().data, 0, *addresses)
    return table, _sizes(tuple(sizes))


def polyak_(targets: Sequence[Any], sources: Sequence[Any], tau: float = 1.0) -> None:
    """Move every target towards its source in one launch: target = (1 - tau) target + tau source (Lillicrap et al. 2016).

    With tau 1 the sources are copied. Off the tape. ShapeError if a pair differs in shape.
    """
    for target, source in zip(targets, sources, strict=True):
        if target.sizes != source.sizes:
            raise ShapeError(f"a target of shape {list(target.sizes)} and a source of shape {list(source.sizes)} differ")
    table, sizes = address_table(list(zip(targets, sources, strict=True)))
    with tape.no_grad():
        launch(optimizer_kernels.blend, (table, sizes), (len(targets), real(tau)))
    for target in targets:
        target.storage.version += 1

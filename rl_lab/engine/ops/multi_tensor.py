"""Launches over many tensors: tables of addresses."""

import functools
import struct
from collections.abc import Sequence

import numpy as np

from rl_lab.engine import tape
from rl_lab.engine.dtype import int64
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.kernels import optimizer as optimizer_kernels
from rl_lab.engine.launch import launch, recorder, unrecorded
from rl_lab.engine.number import real
from rl_lab.engine.ops.creation import from_numpy
from rl_lab.engine.tensor import Tensor, empty


@functools.lru_cache(maxsize=256)
def _sizes(sizes: tuple[int, ...]) -> Tensor:
    with unrecorded():
        return from_numpy(np.array(sizes, np.int64))


def address_table(
    rows: Sequence[Sequence[Tensor]], columns: int = optimizer_kernels.COLUMNS, writes: bool = True
) -> tuple[Tensor, Tensor]:
    """(table, sizes): a row of ``columns`` addresses for each of ``rows``, and the number of elements of each row's first tensor.

    The tensors of a row are contiguous. A row of fewer tensors is filled up with the address of its first one. The table is valid as
    long as the tensors exist. A recorder assumes that a launch with the table reads all of them and, if it ``writes``, writes to them.
    Raises ShapeError if a tensor is not contiguous.
    """
    addresses: list[int] = []
    sizes = []
    for row in rows:
        for x in row:
            if x.strides is not None:
                raise ShapeError(
                    f"parameters and their buffers must be contiguous, got shape {list(x.sizes)} with strides {list(x.strides)}: "
                    "replace the tensor by its contiguous()"
                )
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


def polyak_(targets: Sequence[Tensor], sources: Sequence[Tensor], tau: float = 1.0) -> None:
    """Move every target towards its source in one launch: target = (1 - tau) target + tau source (Lillicrap et al. 2016).

    A ``tau`` of 1 copies the sources. Does not touch the tape. Raises ShapeError if a target and its source differ in shape.
    """
    for target, source in zip(targets, sources, strict=True):
        if target.sizes != source.sizes:
            raise ShapeError(f"a target of shape {list(target.sizes)} needs a source of this shape, got {list(source.sizes)}")
    table, sizes = address_table(list(zip(targets, sources, strict=True)))
    with tape.no_grad():
        launch(optimizer_kernels.blend, (table, sizes), (len(targets), real(tau)))
    for target in targets:
        target.storage.version += 1

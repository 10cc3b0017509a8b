"""Sequences of different lengths in one tensor, with the names of torch.nn.utils.rnn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rl_lab.engine.errors import ShapeError
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import full
from rl_lab.engine.ops.layout import cat, stack

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())

__all__ = ["pad_sequence", "unpad_sequence"]


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Sequences (length_k, ...) in one tensor (longest, n, ...), or (n, longest, ...) with ``batch_first``.

    The missing elements are ``padding_value``, behind each sequence, or before it with ``padding_side`` "left". Raises ShapeError for no
    sequences or for shapes that differ behind the first dimension, ValueError for another side.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side must be 'left' or 'right', got {padding_side!r}")
    listed = list(sequences)
    if not listed or any(x.dim() < 1 or x.shape[1:] != listed[0].shape[1:] for x in listed):
        raise ShapeError(
            f"pad_sequence takes tensors (length, ...) of one shape behind their length, got {[list(x.shape) for x in listed]}"
        )
    longest = max(len(x) for x in listed)
    rows = []
    for x in listed:
        missing = full((longest - len(x), *x.shape[1:]), padding_value, dtype=x.dtype)
        rows.append(cat([missing, x] if padding_side == "left" else [x, missing]) if longest > len(x) else x)
    return stack(rows, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences in a tensor from `pad_sequence`, whose ``lengths`` (n,) are given, without the elements behind them."""
    rows = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[: int(length)] for row, length in zip(rows.unbind(0), lengths.tolist(), strict=True)]

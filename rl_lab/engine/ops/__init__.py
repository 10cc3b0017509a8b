"""The operations by family, and the Tensor that has them all as methods."""

from typing import Any

from rl_lab.engine.ops.arrangement import ArrangementMethods
from rl_lab.engine.ops.conversion import ConversionMethods
from rl_lab.engine.ops.creation import CreationMethods, FloatTensor
from rl_lab.engine.ops.indexing import IndexingMethods
from rl_lab.engine.ops.layout import LayoutMethods
from rl_lab.engine.ops.matmul import MatmulMethods
from rl_lab.engine.ops.operators import ElementwiseMethods
from rl_lab.engine.ops.reduction import ReductionMethods
from rl_lab.engine.ops.sorting import SortingMethods
from rl_lab.engine.tensor import TensorCore, set_concrete_class


class Tensor(
    ElementwiseMethods,
    ReductionMethods,
    SortingMethods,
    MatmulMethods,
    IndexingMethods,
    ArrangementMethods,
    LayoutMethods,
    ConversionMethods,
    CreationMethods,
    TensorCore,
):
    """An array of float32, int64 or bool with a place on the tape. Make one with `rl_lab.tensor`."""

    __slots__ = ()
    __hash__ = TensorCore.__hash__

    def __new__(cls, *data: Any) -> "Tensor":
        return FloatTensor(*data)


set_concrete_class(Tensor)

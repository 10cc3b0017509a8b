"""The operations by family, and the Tensor that has them all as methods."""

from typing import TYPE_CHECKING, Any

from rl_lab.engine.names import not_covered
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

    if not TYPE_CHECKING:  # a type checker would take every name for known

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):  # what Python and its tools ask for
                raise AttributeError(f"'Tensor' object has no attribute {name!r}")
            return _not_covered(name)


_not_covered = not_covered("rl_lab.Tensor", dict.fromkeys(dir(Tensor)))


set_concrete_class(Tensor)

"""PyTorch's methods of tensors that rl_lab does not have. Reading one raises an AttributeError with the place of the covered names.

A ``__getattr__`` would do the same for every name, but would make every attribute of every tensor slower.
"""

from typing import NoReturn

from rl_lab.engine.names import not_covered
from rl_lab.engine.tensor import Tensor

NAMES = frozenset(
    """
addbmm addbmm_ adjoint angle apply_ as_strided as_strided_ as_strided_scatter as_subclass coalesce const_data_ptr dense_dim
dim_order eig frexp gcd gcd_ geqrf grad_dtype hash_tensor histogram i0 i0_ igamma igamma_ igammac igammac_ imag index
index_reduce index_reduce_ indices int_repr is_coalesced is_distributed is_inference is_neg is_nested is_set_to istft layout
lcm lcm_ lstsq lu lu_solve map2_ map_ matrix_exp mode module_load new new_empty_strided nextafter nextafter_ nonzero_static
orgqr ormqr output_nr put put_ qscheme real record_stream register_post_accumulate_grad_hook reinforce resize resize_
resize_as resize_as_ resolve_neg set_ slice_inverse smm solve sspaddmm stft swapaxes_ swapdims_ symeig t_ to_dense transpose_
triangular_solve values volatile
""".split()  # noqa: SIM905
)
"""Public names of torch.Tensor without an attribute here; ``tests/test_coverage.py`` compares the list with PyTorch's names."""


class Absent:
    """An attribute that raises AttributeError, with the place where the covered names are listed."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, owner: Tensor | None, kind: type[Tensor]) -> NoReturn:
        not_covered("rl_lab.Tensor", [name for name in dir(kind) if name not in NAMES])(self.name)


def _covered_names(self: Tensor) -> list[str]:
    return [name for name in object.__dir__(self) if name not in NAMES]


# on Tensor, not with `hang`: what is hung on Operations is declared to editors and type checkers, which shall not offer these names
Tensor.__dir__ = _covered_names  # type: ignore[method-assign, assignment]
for _name in NAMES:
    setattr(Tensor, _name, Absent(_name))

"""Argument names: every function and method accepts the names that torch_arguments.json records of PyTorch."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.engine.names import NUMPY_NAMES
from tests import coverage

RECORDED = json.loads((Path(__file__).parents[1] / "torch_arguments.json").read_text(encoding="utf-8"))
COVERED = [key for key in RECORDED if coverage.covers(*key.rsplit(".", 1))]

ABSENT = {
    "out": "results are new tensors",
    "out_dtype": "float32 is the only dtype of products",
    "layout": "accepted by **ignored",
    "pin_memory": "accepted by **ignored",
    "memory_format": "accepted by **ignored",
    "dtype": "float32, int64 and bool by the function",
    "device": "there is one",
    "generator": "not of every random function",
    "requires_grad": "not of functions of tensors",
    "sparse_grad": "no sparse tensors",
    "size_average": "deprecated in PyTorch",
    "reduce": "deprecated in PyTorch's losses; scatter has it",
    "_stacklevel": "of PyTorch's warnings",
    "cudnn_enabled": "no GPU",
    "cudnn_enable": "no GPU",
    "tensor_indices_or_sections": "not a name in Python",
    "reverse": "of TorchScript's lists",
    "implicit": "of PyTorch's own use",
    "a": "of TorchScript",
    "b": "of TorchScript",
    "t": "of TorchScript",
    "path": "of PyTorch's own use",
    "eps": "deprecated in gumbel_softmax",
    "name": "of torch.compile's diagnostics",
}
"""Names that need not be accepted, with the reason."""

UNKNOWN = {
    "torch.atleast_1d": {"input", "tensors"},
    "torch.atleast_2d": {"input", "tensors"},
    "torch.atleast_3d": {"input", "tensors"},
    "torch.block_diag": {"tensors"},
    "torch.cartesian_prod": {"tensors"},
    "torch.chain_matmul": {"matrices"},
    "torch.initial_seed": {"input"},
    "torch.isin": {"element", "test_element"},
    "torch.result_type": {"scalar"},
    "torch.seed": {"input"},
    "torch.Tensor.random_": {"from"},
    "torch.compile": {"recompile_limit", "isolate_recompiles", "shapes_spec"},
    "torch.dropout": {"train"},
    "torch.broadcast_tensors": {"tensors"},
    "torch.einsum": {"tensors"},
    "torch.meshgrid": {"tensors"},
    "torch.embedding": {"indices", "scale_grad_by_freq", "sparse"},
    "torch.Tensor.copy_": {"other"},
    "torch.Tensor.uniform_": {"from", "to"},
    "torch.nn.functional.elu_": {"scale", "input_scale"},
    "torch.nn.functional.embedding": {"max_norm", "norm_type", "scale_grad_by_freq", "sparse"},
    "torch.nn.functional.huber_loss": {"weight"},
    "torch.nn.functional.l1_loss": {"weight"},
    "torch.nn.functional.mse_loss": {"weight"},
    "torch.load": {"pickle_module", "mmap"},
    "torch.save": {"pickle_module", "pickle_protocol", "_use_new_zipfile_serialization", "_disable_byteorder_record"},
}
"""Names that single functions do not take."""


def here(key):
    """The function or method of the library."""
    place, name = key.rsplit(".", 1)
    return getattr(coverage.resolve(place, "rl_lab"), name)


def accepted(key):
    """The parameters of the function here that can be given by name."""
    parameters = inspect.signature(here(key)).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


@pytest.mark.parametrize("key", [key for key in COVERED if not inspect.isclass(here(key))])
def test_arguments_have_the_names_of_pytorch(key):
    named = accepted(key)
    wanted = {name.lstrip("*") for overload in RECORDED[key] for name in overload}
    missing = wanted - set(named) - ABSENT.keys() - UNKNOWN.get(key, set())
    assert not missing, f"{key} does not take {sorted(missing)}; it takes {named}"


def test_the_lists_of_exceptions_are_not_longer_than_necessary():
    for key, names in UNKNOWN.items():
        wanted = {name.lstrip("*") for overload in RECORDED[key] for name in overload}
        assert names <= wanted, (key, names - wanted)
        assert not names & set(accepted(key)), (key, names & set(accepted(key)))


# --- every function called by names --------------------------------------------------------------------------------------

X = np.array([[0.5, 0.25, 0.75], [0.125, 0.875, 0.375]], np.float32)
VALUES = {
    "input": X, "other": X[::-1].copy(), "end": X, "weight": 0.5, "tensor1": X, "tensor2": X, "tensors": [X, X], "tensor": X,
    "exponent": 2.0, "min": 0.3, "max": 0.6, "mask": X > 0.5, "value": 2.0, "condition": X > 0.5, "dim": 1, "dim0": 0, "dim1": 1,
    "dim2": 0, "axis0": 0, "axis1": 1, "index": np.array([[0, 1, 0], [1, 0, 1]]), "indices": np.array([[0, 1, 0], [1, 0, 1]]),
    "keepdim": True, "dims": (0, 1), "shifts": (1, 1), "size": (2, 3), "shape": (3, 2), "k": 1, "chunks": 2, "start": 0, "length": 1,
    "split_size_or_sections": 1, "split_size": 1, "mat1": X, "mat2": X.T.copy(), "vec": X[0], "vec2": X[0], "repeats": 2,
    "diagonal": 1, "offset": 0, "start_dim": 0, "end_dim": 1, "source": 0, "destination": 1, "values": X, "fill_value": 2.0,
    "p": 2.0, "q": 0.5, "rounding_mode": "floor", "alpha": 2.0, "beta": 0.5, "descending": True, "stable": True, "largest": False,
    "decimals": 1, "nan": 0.5, "src": X, "num_samples": 1,
}  # fmt: skip


def of(t, value):
    """The value in library ``t``: arrays become tensors."""
    if isinstance(value, list):
        return [of(t, part) for part in value]
    return t.tensor(value) if isinstance(value, np.ndarray) else value


def called_by_names(key, overload):
    """Call the function of this overload with every argument that has a value above, by name."""
    place, name = key.rsplit(".", 1)
    names = [n.lstrip("*") for n in overload]
    options = {n: of(rl, VALUES[n]) for n in names if n in VALUES}
    if place == "torch.Tensor":
        return getattr(of(rl, X), name)(**options)
    return getattr(coverage.resolve(place, "rl_lab"), name)(**options)


ONE_TENSOR = [
    (key, overload)
    for key in COVERED
    for overload in RECORDED[key]
    if key.rsplit(".", 1)[0] != "torch.nn.functional"
    and overload not in (["a"], ["a", "b"])
    and [n for n in overload if n.lstrip("*") not in VALUES and n.lstrip("*") not in ABSENT] == []
    and not key.endswith(("_", "bernoulli", "multinomial", "new_full", "new_empty", "new_ones", "new_zeros"))
]
OTHERWISE = {
    "bmm", "baddbmm", "dot", "mv", "outer", "ger", "addmv", "addr", "mm", "matmul", "inner", "tensordot", "bitwise_and", "bitwise_or",
    "bitwise_xor", "bitwise_not", "index_select", "index_add", "index_copy", "index_fill", "unflatten", "view", "reshape", "expand",
    "broadcast_to", "sum_to_size", "repeat", "diag", "diag_embed", "tile", "flip", "roll", "permute", "select", "embedding",
    "kthvalue",
    "repeat_interleave", "split", "meshgrid", "addmm", "tensor_split", "normal", "std", "var", "std_mean", "var_mean", "scatter",
    "scatter_add", "ravel", "linspace", "arange", "erfinv", "t", "trace", "diagonal", "eye", "full", "zeros", "ones", "empty", "rand",
    "randn", "randint", "randperm", "where", "clamp", "squeeze", "unsqueeze", "stack", "cat", "hstack", "vstack", "row_stack",
    "atleast_1d", "atleast_2d", "atleast_3d", "bitwise_left_shift", "bitwise_right_shift", "block_diag", "cartesian_prod",
    "diagonal_scatter", "dsplit", "hsplit", "vsplit", "det", "inverse", "logdet", "slogdet", "matrix_power", "cholesky",
    "cholesky_inverse", "cholesky_solve",
    "initial_seed", "is_nonzero", "masked_scatter", "mvlgamma", "result_type", "seed", "select_scatter", "vdot",
    "broadcast_shapes", "broadcast_tensors", "einsum", "prelu", "tensor", "item", "retain_grad", "load", "save",
}  # fmt: skip
"""Functions whose shapes or dtypes the values above do not fit: their names are checked by the signature alone."""


@pytest.mark.parametrize(
    ("key", "overload"),
    [(k, o) for k, o in ONE_TENSOR if k.rsplit(".", 1)[1] not in OTHERWISE],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_functions_are_called_by_names(key, overload):
    called_by_names(key, overload)


ALIASED = sorted(
    {
        key
        for key in COVERED
        for overload in RECORDED[key]
        if not key.startswith("torch.nn") and "dim" in [n.lstrip("*") for n in overload]
    }
)
WITHOUT_ALIAS = {"unique", "unique_consecutive", "norm", "split", "cosine_similarity", "size", "stride"}
"""Functions that PyTorch writes in Python, which have no second names there, and two that return no tensor."""
EXTRA = {
    "cat": {"tensors": 2}, "concat": {"tensors": 2}, "concatenate": {"tensors": 2}, "stack": {"tensors": 2},
    "chunk": {"chunks": 2}, "narrow": {"start": 0, "length": 1}, "topk": {"k": 1},
    "kthvalue": {"k": 1}, "repeat_interleave": {"repeats": 2}, "tensor_split": {"indices_or_sections": 3},
    "unflatten": {"sizes": (3, 1)},
    "select": {"index": 1}, "gather": {"index": [[0, 1, 0], [1, 0, 1]]}, "take_along_dim": {"indices": [[0], [1]]},
    "scatter": {"index": [[0, 1, 0], [1, 0, 1]], "value": 1.0}, "scatter_add": {"index": [[0, 1, 0], [1, 0, 1]], "src": X},
    "index_select": {"index": [0, 1, 2]}, "index_add": {"index": [0, 1, 2], "source": X},
    "index_copy": {"index": [0, 1, 2], "source": X},
    "index_fill": {"index": [0, 1, 2], "value": 1.0}, "trapezoid": {}, "renorm": {"p": 2, "maxnorm": 1.0}, "quantile": {"q": 0.5},
    "nanquantile": {"q": 0.5},
    "select_scatter": {"src": X[:, 0], "index": 0}, "slice_scatter": {"src": X}, "cross": {"other": X},
    "index_reduce": {"index": [0, 1, 2], "source": X, "reduce": "prod"},
    "scatter_reduce": {"index": [[0, 1, 0], [1, 0, 1]], "src": X, "reduce": "sum"}, "split_with_sizes": {"split_sizes": [1, 2]},
}  # fmt: skip
"""What functions need besides the tensor and the dimension."""


@pytest.mark.parametrize(
    "key", [key for key in ALIASED if key.rsplit(".", 1)[1] not in WITHOUT_ALIAS and not key.endswith("_")]
)
def test_axis_is_another_name_of_dim(key):
    place, name = key.rsplit(".", 1)
    x = rl.tensor(X)
    options = {}
    for argument, value in EXTRA.get(name, {}).items():
        options[argument] = rl.tensor(value) if isinstance(value, (np.ndarray, list)) and argument != "split_sizes" else value
    if "tensors" in options:
        options["tensors"] = [x, x]
    elif place != "torch.Tensor":
        options["y" if "trap" in name else "input"] = x
    function = getattr(x, name) if place == "torch.Tensor" else here(key)
    plain, second = function(dim=1, **options), function(axis=1, **options)
    for a, b in zip(*[part if isinstance(part, tuple) else (part,) for part in (plain, second)], strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    if "keepdim" in inspect.signature(here(key)).parameters:
        kept = function(axis=1, keepdims=True, **options)
        assert (kept[0] if isinstance(kept, tuple) else kept).shape == (2, 1)
    with pytest.raises(TypeError):
        function(dim=1, axis=1, **options)


def test_second_names_are_numpys():
    assert NUMPY_NAMES == {"axis": "dim", "keepdims": "keepdim"}


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.reshape(shape=(6, 1)),
        lambda x: rl.reshape(input=x, shape=(6, 1)),
        lambda x: x.view(size=(6, 1)),
        lambda x: x[:1, :1].expand(size=(6, 1)),
        lambda x: x[:1, :1].repeat(repeats=(6, 1)),
        lambda x: rl.tile(input=x[:1, :1], dims=(6, 1)),
        lambda x: x.permute(dims=(1, 0)).reshape(6, 1),
        lambda x: rl.flip(input=x, dims=(0,)).reshape(6, 1),
        lambda x: x.reshape(6, 1).sum_to_size(size=(6, 1)),
        lambda x: rl.zeros(size=(6, 1)),
        lambda x: rl.ones(size=(6, 1), dtype=rl.float32, layout=None, device="cpu", pin_memory=False, requires_grad=False),
        lambda x: rl.empty(size=(6, 1), memory_format=None),
        lambda x: rl.full(size=(6, 1), fill_value=2.0),
        lambda x: rl.rand(size=(6, 1)),
        lambda x: rl.randn(size=(6, 1)),
        lambda x: rl.randint(low=0, high=3, size=(6, 1)),
        lambda x: x.new_zeros(size=(6, 1)),
        lambda x: x.new_full(size=(6, 1), fill_value=2.0),
        lambda x: x.split(split_size=2, dim=0)[0].reshape(6, 1),
        lambda x: rl.split(tensor=x, split_size_or_sections=2, dim=0)[0].reshape(6, 1),
        lambda x: rl.mm(input=x.reshape(6, 1), mat2=rl.ones(1, 1)),
        lambda x: rl.bmm(input=x.reshape(1, 6, 1), mat2=rl.ones(1, 1, 1))[0],
        lambda x: rl.addmm(input=x.reshape(6, 1), mat1=x.reshape(6, 1), mat2=rl.ones(1, 1), beta=0.5, alpha=2.0),
        lambda x: rl.outer(input=x.reshape(-1), vec2=rl.ones(1)),
        lambda x: rl.swapaxes(input=x, axis0=0, axis1=1).reshape(6, 1),
        lambda x: rl.max(input=x, other=x * 2.0).reshape(6, 1),
        lambda x: rl.where(condition=x > 0, input=x, other=x).reshape(6, 1),
        lambda x: x.scatter(dim=1, index=rl.tensor([[0], [1]]), value=1.0, reduce="add").reshape(6, 1),
        lambda x: rl.stack(tensors=[x.reshape(6), x.reshape(6)], dim=1)[:, :1],
        lambda x: rl.repeat_interleave(input=x[:1, :1], repeats=6, dim=0, output_size=6),
        lambda x: rl.tensor_split(input=x.reshape(12 // 2, 1), indices=(6,), dim=0)[0],
        lambda x: F.pad(input=x.reshape(5 + 1, 1)[:5], pad=(0, 0, 1, 0), mode="constant", value=0.0),
        lambda x: F.linear(input=x.reshape(6, 1), weight=rl.ones(1, 1), bias=None),
        lambda x: rl.lerp(input=x, end=x, weight=0.5).reshape(6, 1),
        lambda x: x.clone().add_(other=1.0, alpha=2).reshape(6, 1),
        lambda x: x.clone().clamp_(min=0.0, max=1.0).reshape(6, 1),
        lambda x: x.clone().copy_(src=x).reshape(6, 1),
    ],
)
def test_shapes_and_products_by_name(call):
    assert call(rl.tensor(X)).shape == (6, 1)


def test_an_unknown_name_is_refused():
    x = rl.ones(2)
    for call in (
        lambda: rl.sum(x, axes=0),
        lambda: rl.zeros(2, device_type="cpu"),
        lambda: x.mean(keep=True),
        lambda: rl.exp(tensor=x),
    ):
        with pytest.raises(TypeError):
            call()

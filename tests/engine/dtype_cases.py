"""Values and dtypes of every function on tensors of each dtype, in either library.

``python -m tests.engine.dtype_cases`` records PyTorch's answers; the tests run without PyTorch.
"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ANSWERS = Path(__file__).with_name("dtype_answers.json")
NAMES = Path(__file__).parents[1] / "torch_arguments.json"
DATA = {
    "int64": np.array([[0, 1, 3], [2, 1, 1]], np.int64),
    "uint8": np.array([[0, 1, 3], [2, 1, 1]], np.uint8),
    "bool": np.array([[False, True, True], [True, True, False]]),
    "float32": np.array([[0.0, 1.0, 3.0], [2.0, 1.0, 1.0]], np.float32),
}
ELSEWHERE = {  # functions with arguments of other shapes, with random results, or without a tensor as result
    "empty_like", "rand_like", "randn_like", "bernoulli", "multinomial", "normal", "poisson", "numel", "is_tensor", "save", "load",
    "compile", "manual_seed", "is_floating_point", "set_rng_state", "tensor", "as_tensor", "asarray", "from_numpy", "alias_copy",
    "dropout", "randperm", "set_num_threads", "is_nonzero",
}  # fmt: skip
MORE = {
    "where": lambda t, x, y: t.where(x > 1, x, y),
    "masked_fill": lambda t, x, y: x.masked_fill(x > 1, 1),
    "clamp": lambda t, x, y: t.clamp(x, 0, 2),
    "cat": lambda t, x, y: t.cat([x, y]),
    "stack": lambda t, x, y: t.stack([x, y]),
    "gather": lambda t, x, y: t.gather(x, 1, t.tensor([[0, 2], [1, 1]])),
    "scatter": lambda t, x, y: t.scatter(x, 1, t.tensor([[0, 2], [1, 1]]), 1),
    "scatter source": lambda t, x, y: t.scatter(x, 1, t.tensor([[0, 2], [1, 1]]), y),
    "index_select": lambda t, x, y: t.index_select(x, 1, t.tensor([2, 0])),
    "index_fill": lambda t, x, y: x.index_fill(1, t.tensor([2, 0]), 1),
    "index_copy": lambda t, x, y: x.index_copy(1, t.tensor([2, 0]), y[:, :2]),
    "index_put": lambda t, x, y: x.index_put((t.tensor([0, 1]), t.tensor([2, 0])), y[0, :2]),
    "take_along_dim": lambda t, x, y: t.take_along_dim(x, t.tensor([[2], [0]]), 1),
    "masked_select": lambda t, x, y: t.masked_select(x, t.tensor([[True, False, True], [False, True, True]])),
    "getitem rows": lambda t, x, y: x[[1, 0]],
    "getitem pairs": lambda t, x, y: x[[1, 0], [2, 2]],
    "getitem mask": lambda t, x, y: x[t.tensor([True, False])],
    "topk": lambda t, x, y: x.topk(2)[0],
    "sort": lambda t, x, y: x.sort()[0],
    "kthvalue": lambda t, x, y: x.kthvalue(2)[0],
    "median": lambda t, x, y: x.median(),
    "max values": lambda t, x, y: x.max(1)[0],
    "min values": lambda t, x, y: x.min(1)[0],
    "max both": lambda t, x, y: t.maximum(x, y),
    "pad": lambda t, x, y: t.nn.functional.pad(x, (1, 1), value=1),
    "pad reflect": lambda t, x, y: t.nn.functional.pad(x[None], (1, 1), mode="reflect"),
    "repeat": lambda t, x, y: x.repeat(2, 1),
    "repeat_interleave": lambda t, x, y: x.repeat_interleave(2, 1),
    "flip": lambda t, x, y: x.flip(1),
    "roll": lambda t, x, y: x.roll(1, 1),
    "diag": lambda t, x, y: x[0].diag(),
    "diag_embed": lambda t, x, y: x.diag_embed(),
    "tril": lambda t, x, y: x.tril(),
    "triu": lambda t, x, y: x.triu(),
    "trace": lambda t, x, y: x.trace(),
    "unfold": lambda t, x, y: x.unfold(1, 2, 1),
    "diff": lambda t, x, y: x.diff(),
    "to float": lambda t, x, y: x.float(),
    "to long": lambda t, x, y: x.long(),
    "to bool": lambda t, x, y: x.bool(),
    "to uint8": lambda t, x, y: x.to(t.uint8),
    "setitem": lambda t, x, y: written(x, (slice(None), 1), 1),
    "setitem rows": lambda t, x, y: written(x, [1], y[:1]),
    "setitem mask": lambda t, x, y: written(x, x > 1, 1),
    "fill_": lambda t, x, y: x.clone().fill_(1),
    "zero_": lambda t, x, y: x.clone().zero_(),
    "copy_": lambda t, x, y: x.clone().copy_(y),
    "masked_fill_": lambda t, x, y: x.clone().masked_fill_(x > 1, 1),
    "over a number": lambda t, x, y: x / 2,
    "times a float": lambda t, x, y: x * 0.5,
    "plus a number": lambda t, x, y: x + 1,
    "number minus": lambda t, x, y: 3 - x,
    "equals a number": lambda t, x, y: x == 1,
    "floor by a number": lambda t, x, y: x // 2,
    "modulo a number": lambda t, x, y: x % 2,
    "squared": lambda t, x, y: x**2,
    "conv2d": lambda t, x, y: t.nn.functional.conv2d(x[None, None], x[None, None, :1, :1]),
    "linear": lambda t, x, y: t.nn.functional.linear(x, x),
    "matmul": lambda t, x, y: x @ x.T,
    "layer_norm": lambda t, x, y: t.nn.functional.layer_norm(x, (3,)),
    "max_pool2d": lambda t, x, y: t.nn.functional.max_pool2d(x[None], 2),
    "avg_pool2d": lambda t, x, y: t.nn.functional.avg_pool2d(x[None], 2),
    "mse_loss": lambda t, x, y: t.nn.functional.mse_loss(x, y),
    "relu": lambda t, x, y: t.nn.functional.relu(x),
    "softplus": lambda t, x, y: t.nn.functional.softplus(x),
    "elu": lambda t, x, y: t.nn.functional.elu(x),
    "one_hot": lambda t, x, y: t.nn.functional.one_hot(x),
    "embedding": lambda t, x, y: t.nn.functional.embedding(x, t.ones(4, 2)),
    "cross_entropy": lambda t, x, y: t.nn.functional.cross_entropy(t.ones(3, 4), x[0]),
    "bce": lambda t, x, y: t.nn.functional.binary_cross_entropy(t.full((2, 3), 0.5), (x > 1).to(x.dtype)),
    "einsum": lambda t, x, y: t.einsum("ij,ij->i", x, y),
    "polygamma": lambda t, x, y: t.polygamma(1, x.float() + 1.0),
    "mvlgamma": lambda t, x, y: t.mvlgamma(x.float() + 2.0, 2),
    "bits left": lambda t, x, y: x << 2,
    "bits right": lambda t, x, y: x >> 1,
    "float_power": lambda t, x, y: t.float_power(x, 2),
    "ldexp number": lambda t, x, y: t.ldexp(x, t.tensor(3)),
    "nansum": lambda t, x, y: t.nansum(t.where(x > 1, t.tensor(float("nan")), x.float()), 1),
    "nanmean": lambda t, x, y: t.nanmean(t.where(x > 2, t.tensor(float("nan")), x.float()), 1),
    "aminmax": lambda t, x, y: t.stack(tuple(t.aminmax(x, dim=1))),
    "dist": lambda t, x, y: t.dist(x.float(), y.float(), 3),
    "cdist": lambda t, x, y: t.cdist(x.float(), y.float()),
    "pdist": lambda t, x, y: t.pdist(x.float()),
    "cov": lambda t, x, y: t.cov(x),
    "cov weights": lambda t, x, y: t.cov(x, fweights=t.tensor([1, 2, 3]), aweights=t.tensor([0.5, 1.0, 2.0])),
    "cov vector": lambda t, x, y: t.cov(x[0]),
    "corrcoef": lambda t, x, y: t.corrcoef(x.float()),
    "quantile": lambda t, x, y: t.quantile(x.float(), t.tensor([0.1, 0.6]), 1),
    "quantile all": lambda t, x, y: t.quantile(x.float(), 0.4, keepdim=True),
    "quantile lower": lambda t, x, y: t.quantile(x.float(), 0.4, 1, interpolation="lower"),
    "quantile midpoint": lambda t, x, y: t.quantile(x.float(), 0.4, 1, True, interpolation="midpoint"),
    "atleast_3d": lambda t, x, y: t.atleast_3d(x),
    "atleast_2d": lambda t, x, y: t.atleast_2d(x[0]),
    "block_diag": lambda t, x, y: t.block_diag(x, y[0], t.tensor([[7]]).to(x.dtype)),
    "column_stack": lambda t, x, y: t.column_stack([x, y[:, 0]]),
    "dstack": lambda t, x, y: t.dstack([x, y]),
    "hsplit": lambda t, x, y: t.hsplit(x, 3)[1],
    "vsplit": lambda t, x, y: t.vsplit(x, [1])[1],
    "cartesian_prod": lambda t, x, y: t.cartesian_prod(x[0], y[1]),
    "combinations": lambda t, x, y: t.combinations(x[0], 2, True),
    "kron": lambda t, x, y: t.kron(x, y[0]),
    "vdot": lambda t, x, y: t.vdot(x[0].float(), y[0].float()),
    "chain_matmul": lambda t, x, y: t.chain_matmul(x.float(), y.float().T, x.float()),
    "cross": lambda t, x, y: t.cross(x, y, dim=1),
    "rot90": lambda t, x, y: t.rot90(x, 1),
    "rot90 back": lambda t, x, y: t.rot90(x, 3, (0, 1)),
    "fliplr": lambda t, x, y: t.fliplr(x),
    "flipud": lambda t, x, y: t.flipud(x),
    "diagflat": lambda t, x, y: t.diagflat(x, 1),
    "trapezoid": lambda t, x, y: t.trapezoid(x.float(), dx=0.5),
    "trapezoid places": lambda t, x, y: t.trapezoid(x.float(), t.tensor([0.0, 1.0, 3.0])),
    "cumulative_trapezoid": lambda t, x, y: t.cumulative_trapezoid(x.float(), dim=0),
    "vander": lambda t, x, y: t.vander(x[0], 4),
    "searchsorted": lambda t, x, y: t.searchsorted(t.tensor([[0, 1, 2], [1, 1, 4]]).to(x.dtype), x),
    "searchsorted right": lambda t, x, y: t.searchsorted(t.tensor([0, 1, 1, 2]).to(x.dtype), x, right=True),
    "bucketize": lambda t, x, y: t.bucketize(x, t.tensor([0, 1, 2]).to(x.dtype)),
    "take": lambda t, x, y: t.take(x, t.tensor([[5, 0], [2, 2]])),
    "masked_scatter": lambda t, x, y: x.masked_scatter(t.tensor([[True, False, True], [False, True, True]]), y),
    "select_scatter": lambda t, x, y: t.select_scatter(x, y[0], 0, 1),
    "slice_scatter": lambda t, x, y: t.slice_scatter(x, y[:, :1], 1, 1, 2),
    "diagonal_scatter": lambda t, x, y: t.diagonal_scatter(x, y[0, :2]),
    "renorm": lambda t, x, y: t.renorm(x.float(), 2, 0, 1.5),
    "tril_indices": lambda t, x, y: t.tril_indices(3, 4, -1),
    "triu_indices": lambda t, x, y: t.triu_indices(3, 4, 1),
    "unique": lambda t, x, y: t.unique(x),
    "unique inverse": lambda t, x, y: t.unique(x, return_inverse=True)[1],
    "unique counts": lambda t, x, y: t.unique(x, return_counts=True)[1],
    "unique rows": lambda t, x, y: t.unique(x, dim=0),
    "unique_consecutive": lambda t, x, y: t.unique_consecutive(x, return_counts=True)[1],
    "bincount": lambda t, x, y: t.bincount(x.reshape(-1).long(), minlength=6),
    "bincount weights": lambda t, x, y: t.bincount(x.reshape(-1).long(), t.arange(6).float()),
    "histc": lambda t, x, y: t.histc(x.float(), 4, 0, 3),
    "isin": lambda t, x, y: t.isin(x, y[0, :2]),
    "isin inverted": lambda t, x, y: t.isin(x, t.tensor([1]).to(x.dtype), invert=True),
    "logspace": lambda t, x, y: t.logspace(0, 2, 5, base=2.0),
    "round decimals": lambda t, x, y: t.round(x.float() / 7.0, decimals=2),
    "unravel_index": lambda t, x, y: t.stack(t.unravel_index(t.tensor([5, 1]), (2, 3))),
    "argwhere": lambda t, x, y: t.argwhere(x),
    "diff ends": lambda t, x, y: t.diff(x.float(), prepend=y[:, :1].float(), append=y[:, :2].float()),
    "logical_and_": lambda t, x, y: x.clone().logical_and_(y),
    "lt_": lambda t, x, y: x.clone().lt_(y),
    "cumsum_": lambda t, x, y: x.clone().cumsum_(1),
    "tril_": lambda t, x, y: x.clone().tril_(),
    "fill_diagonal_": lambda t, x, y: x.clone().fill_diagonal_(1),
    "scatter add": lambda t, x, y: x.float().scatter(1, t.tensor([[0, 0], [1, 1]]), y.float(), reduce="add"),
    "index_add": lambda t, x, y: x.index_add(1, t.tensor([2, 0, 2]), y),
    "index_add scaled": lambda t, x, y: x.index_add(0, t.tensor([1, 1]), y, alpha=2),
    "index_add of a number": lambda t, x, y: x[0, 0].index_add(0, t.tensor([0]), y[0, 0]),
    "scatter_add": lambda t, x, y: x.scatter_add(1, t.tensor([[2, 2, 0], [1, 0, 1]]), y),
    "scatter reduce add": lambda t, x, y: x.scatter(1, t.tensor([[2, 2, 0], [1, 0, 1]]), y, reduce="add"),
    "index_put sums": lambda t, x, y: x.index_put((t.tensor([0, 1, 0]), t.tensor([2, 0, 2])), y[0], accumulate=True),
    "index_fill negative": lambda t, x, y: x.index_fill(1, t.tensor([-1, -1]), 1),
    "index_copy of a number": lambda t, x, y: x[0, 0].index_copy(0, t.tensor([0]), y[0, 0]),
    "index_select of a number": lambda t, x, y: x[0, 2].index_select(0, t.tensor([0])),
    "scatter_add_": lambda t, x, y: x.clone().scatter_add_(1, t.tensor([[2, 2, 0], [1, 0, 1]]), y),
    "index_add_": lambda t, x, y: x.clone().index_add_(1, t.tensor([2, 0, 2]), y),
    "index_put_ sums": lambda t, x, y: x.clone().index_put_((t.tensor([0, 1]),), y, accumulate=True),
    "hardtanh": lambda t, x, y: t.nn.functional.hardtanh(x, 0, 2),
    "relu6": lambda t, x, y: t.nn.functional.relu6(x + x),
    "threshold": lambda t, x, y: t.nn.functional.threshold(x, 1, 7),
    "lerp": lambda t, x, y: t.lerp(x, y, 0.5),
    "nll_loss weights": lambda t, x, y: t.nn.functional.nll_loss(t.ones(2, 4), t.tensor([1, 2]), y.reshape(-1)[:4]),
    "linear bias": lambda t, x, y: t.nn.functional.linear(t.ones(2, 3), t.ones(3, 3), x[0]),
    "layer_norm weight": lambda t, x, y: t.nn.functional.layer_norm(t.arange(6.0).reshape(2, 3), (3,), x[0]),
    "unflatten to nothing": lambda t, x, y: x[:0].unflatten(0, (2, 0, 0)),
    "unflatten": lambda t, x, y: x.unflatten(1, (3, 1)),
    "nonzero of a number": lambda t, x, y: x[0, 2].nonzero(),
    "nonzero of a number, as tuple": lambda t, x, y: x[0, 2].nonzero(as_tuple=True)[0],
    "take_along_dim negative": lambda t, x, y: t.take_along_dim(x, t.tensor([[-1], [-3]]), 1),
    "unique_consecutive of nothing": lambda t, x, y: t.unique_consecutive(x[:0], return_counts=True)[1],
    "hinge_embedding_loss": lambda t, x, y: t.nn.functional.hinge_embedding_loss(x.float(), y.long() - 1),
    "arange of its dtype": lambda t, x, y: t.arange(-0.9, 6.1, 1.7, dtype=t.int64),
    "arange down": lambda t, x, y: t.arange(2.1, -2.9, -1.0, dtype=t.int64),
    "arange up to": lambda t, x, y: t.arange(3.1, dtype=t.int64),
    "arange of bytes": lambda t, x, y: t.arange(-0.9, 2.1, 2.0, dtype=t.uint8),
    "arange of floats": lambda t, x, y: t.arange(0.0, 2.9, 0.7),
    "linspace of integers": lambda t, x, y: t.linspace(-3.7, 9.4, 50, dtype=t.int64),
    "linspace of one": lambda t, x, y: t.linspace(2.0, 9.0, 1),
    "linspace between tensors": lambda t, x, y: t.linspace(x[0, 0], x[1, 0], 3),
    "logspace of integers": lambda t, x, y: t.logspace(-1.5, 4.3, 9, 3.3, dtype=t.int64),
    "meshgrid xy": lambda t, x, y: t.meshgrid(x[0], y[0, :2], indexing="xy")[0],
    "meshgrid xy second": lambda t, x, y: t.meshgrid(x[0], y[0, :2], indexing="xy")[1],
    "meshgrid xy three": lambda t, x, y: t.meshgrid(x[0], y[0, :2], x[1, :1], indexing="xy")[2],
    "meshgrid of a number": lambda t, x, y: t.meshgrid(x[0], y[0, 0], indexing="ij")[1],
    "pad replicate cut": lambda t, x, y: t.nn.functional.pad(x[None].float(), (-3, 5), mode="replicate"),
    "pad reflect cut": lambda t, x, y: t.nn.functional.pad(x[None].float(), (-2, 2), mode="reflect"),
    "pad circular cut": lambda t, x, y: t.nn.functional.pad(x[None].float(), (-2, 1), mode="circular"),
    "pad nothing": lambda t, x, y: t.nn.functional.pad(x[:0].float(), (1, 1, 1, 1)),
    "conv_transpose2d wide": lambda t, x, y: t.nn.functional.conv_transpose2d(
        x[None, None].float(), y[None, None].float() + 1.0, stride=(2, 3), dilation=4, padding=1, output_padding=(3, 2)
    ),
    "conv_transpose1d wide": lambda t, x, y: t.nn.functional.conv_transpose1d(
        x[None, :1].float(), y[None, :1].float() + 1.0, stride=1, dilation=3, padding=2, output_padding=2
    ),
    "cosine_similarity broadcast": lambda t, x, y: t.cosine_similarity(x[None].float() + 1.0, y[:, None].float() - 2.0, -2),
    "masked_scatter broadcast": lambda t, x, y: x[0].masked_scatter(y > 1, t.arange(9).to(x.dtype)),
    "diff none": lambda t, x, y: t.diff(x, 0, prepend=y, append=y),
    "cov of one row": lambda t, x, y: t.cov(x[:1].float()),
    "corrcoef of one row": lambda t, x, y: t.corrcoef(x[:1].float()),
    "sum_to_size": lambda t, x, y: x[0, 0].sum_to_size(()),
    "broadcast_shapes": lambda t, x, y: t.zeros(t.broadcast_shapes(3, (2, 1), ())),
    "quantile of a number": lambda t, x, y: t.quantile(x[0, 2].float(), t.tensor([0.1, 0.6]), 0),
    "heaviside": lambda t, x, y: t.heaviside(x, y) + t.heaviside(t.zeros_like(x), y),
    "group_norm of nothing": lambda t, x, y: t.nn.functional.group_norm(x[:0].float(), 3),
    "unfold windows": lambda t, x, y: t.nn.functional.unfold(x[None, None], 2),
    "multi_margin_loss of one": lambda t, x, y: t.nn.functional.multi_margin_loss(x[0, 1].float(), t.tensor(0)),
    "matmul of a batch": lambda t, x, y: x @ t.stack([y.T, y.T]),
    "addmm": lambda t, x, y: t.addmm(x[:, :2], x, y.T, beta=2, alpha=3),
    "addmm rounded": lambda t, x, y: t.addmm(x[:, :2], x, y.T, beta=0.6, alpha=1.7),
    "addmv rounded": lambda t, x, y: t.addmv(x[:, 0], x, y[0], beta=0.6, alpha=1.7),
    "addr": lambda t, x, y: t.addr(x, x[:, 0], y[0]),
    "promote": lambda t, x, y: t.zeros(1, dtype=t.promote_types(x.dtype, y.dtype)),
    "result": lambda t, x, y: t.zeros(1, dtype=t.result_type(x, 1.5)),
    "sum rows": lambda t, x, y: x.sum(1),
    "sum of squares": lambda t, x, y: (x * x).sum(),
    "index by it": lambda t, x, y: t.arange(8)[x],
}  # fmt: skip


def written(x: Any, key: Any, value: Any) -> Any:
    x = x.clone()
    x[key] = value
    return x


def calls() -> Iterator[tuple[str, Any]]:
    """(name, function of the library and two tensors): for functions of one tensor, of one tensor and a dimension, and of two tensors."""
    for key, overloads in json.loads(NAMES.read_text(encoding="utf-8")).items():
        place, name = key.rsplit(".", 1)
        if place != "torch" or name in ELSEWHERE or name.endswith("_"):
            continue
        arguments = {argument for overload in overloads for argument in overload}
        if "input" in arguments:
            yield f"{name}(x)", lambda t, x, y, name=name: getattr(t, name)(x)
        if {"input", "dim"} <= arguments:
            yield f"{name}(x, 1)", lambda t, x, y, name=name: getattr(t, name)(x, 1)
            yield f"{name}(number, 0)", lambda t, x, y, name=name: getattr(t, name)(x[0, 2], 0)
        if {"input", "k"} <= arguments:
            yield f"{name}(number, 1)", lambda t, x, y, name=name: getattr(t, name)(x[0, 2], 1)
        if {"input", "dtype"} <= arguments:
            yield f"{name}(dtype=int64)", lambda t, x, y, name=name: getattr(t, name)(x, dtype=t.int64)
            yield f"{name}(1, dtype=float32)", lambda t, x, y, name=name: getattr(t, name)(x, 1, dtype=t.float32)
        if {"input", "other"} <= arguments:
            yield f"{name}(x, y)", lambda t, x, y, name=name: getattr(t, name)(x, y)
            yield f"{name}(x, 2)", lambda t, x, y, name=name: getattr(t, name)(x, 2)
    yield from MORE.items()


def answer(t: Any, function: Any, first: str, second: str) -> Any:
    """[dtype, shape, values] of the call's result, or None if the call raises an error."""
    x, y = t.tensor(DATA[first]), t.tensor(DATA[second][::-1].copy())
    result = function(t, x, y)
    while isinstance(result, (tuple, list)):
        result = result[0]
    if not hasattr(result, "numpy"):
        return ["Python", [], [float(result)]]
    array = result.detach().numpy()
    return [str(result.dtype).rpartition(".")[2], list(array.shape), [float(value) for value in array.reshape(-1)]]


PAIRS = [
    *[(kind, kind) for kind in DATA],
    *[("uint8", other) for other in ("int64", "bool", "float32")],
    *[("int64", other) for other in ("uint8", "float32")],
    ("bool", "int64"),
]


def main() -> None:
    import warnings

    import torch

    warnings.simplefilter("ignore")
    answers = {}
    for name, function in calls():
        if inspect.isclass(getattr(torch, name.split("(")[0], None)):
            continue
        for first, second in PAIRS:
            if first != second and ", y)" not in name and name not in MORE:
                continue
            try:
                answers[f"{name} {first} {second}"] = answer(torch, function, first, second)
            except Exception:
                answers[f"{name} {first} {second}"] = None
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in answers.items())
    ANSWERS.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"{len(answers)} answers of PyTorch {torch.__version__}, {sum(a is None for a in answers.values())} of them errors")


if __name__ == "__main__":
    main()

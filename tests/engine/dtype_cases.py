"""Calls of every function on tensors of each dtype, in either library: what they give, and in which dtype.

``python -m tests.engine.dtype_cases`` records PyTorch's answers; the tests need no PyTorch.
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
ELSEWHERE = {  # of other shapes, of random numbers, or without a tensor as result
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
    "sum rows": lambda t, x, y: x.sum(1),
    "sum of squares": lambda t, x, y: (x * x).sum(),
    "index by it": lambda t, x, y: t.arange(8)[x],
}  # fmt: skip


def written(x: Any, key: Any, value: Any) -> Any:
    x = x.clone()
    x[key] = value
    return x


def calls() -> Iterator[tuple[str, Any]]:
    """(name, function of the library and two tensors) for every function of one tensor, of one and a dimension, and of two."""
    for key, overloads in json.loads(NAMES.read_text(encoding="utf-8")).items():
        place, name = key.rsplit(".", 1)
        if place != "torch" or name in ELSEWHERE or name.endswith("_"):
            continue
        arguments = {argument for overload in overloads for argument in overload}
        if "input" in arguments:
            yield f"{name}(x)", lambda t, x, y, name=name: getattr(t, name)(x)
        if {"input", "dim"} <= arguments:
            yield f"{name}(x, 1)", lambda t, x, y, name=name: getattr(t, name)(x, 1)
        if {"input", "other"} <= arguments:
            yield f"{name}(x, y)", lambda t, x, y, name=name: getattr(t, name)(x, y)
            yield f"{name}(x, 2)", lambda t, x, y, name=name: getattr(t, name)(x, 2)
    yield from MORE.items()


def answer(t: Any, function: Any, first: str, second: str) -> Any:
    """[dtype, shape, values] of the call, or None if it raises."""
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

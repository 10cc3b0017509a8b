"""PyTorch's own samples (OpInfo) of every operation that exists here, compared: values, gradients and second derivatives.

``python -m tests.engine.opinfo`` (extra ``oracle``, and expecttest, which PyTorch's test helpers import) prints the operations of which
a sample differs, with the reason, and the share of samples that agree. A sample counts if PyTorch computes it, if all its tensors,
numbers and dtypes exist here, and if the operation takes its dtype: those that raise DtypeError are listed. It is run as a function, as
a method, in place and as an operator, whichever the operation has.
"""

import argparse
import collections
import inspect
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import rl_lab as rl

torch: Any = None  # imported by `main`: loading it takes seconds
DTYPES = ("float32", "int64", "bool", "uint8")
RTOL, ATOL = 1e-4, 1e-5
KNOWN = (bool, int, float, str, bytes, type(None), slice, type(Ellipsis), range, np.ndarray, np.generic)

DRAWN = {
    "nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d", "nn.functional.alpha_dropout",
    "nn.functional.feature_alpha_dropout", "nn.functional.rrelu", "nn.functional.scaled_dot_product_attention", "bernoulli",
    "multinomial", "normal", "randn", "randn_like", "rand_like", "randint", "randint_like", "empty", "empty_like", "new_empty",
    "exponential", "log_normal", "uniform", "geometric", "cauchy", "new_empty_strided", "empty_strided", "empty_permuted",
}  # fmt: skip
"""Of these only shape and dtype are compared, where values are drawn: the generator is not PyTorch's."""

TIED = {"kthvalue", "topk", "median", "sort", "argsort", "mode", "nanmedian", "msort"}
"""Of these the index of equal elements is any of theirs in PyTorch: indices of integers are not compared."""

DECLINED: dict[str, str] = {}
"""Operations whose samples are not counted, with the reason that rl_lab/README.md gives."""


class NotHere(Exception):
    """A value that rl_lab has no counterpart of."""


class Outcome(NamedTuple):
    """What came of one sample: None if it agrees, or how it differs."""

    op: str
    dtype: str
    form: str
    part: str
    difference: str | None


# --- from PyTorch to here ----------------------------------------------------------------------------------------


def here(value: Any, made: list[tuple[Any, Any]] | None = None) -> Any:
    """A value of a sample with rl_lab's tensors and dtypes. ``made`` collects pairs of tensors. Raises NotHere."""
    if isinstance(value, torch.Tensor):
        name = str(value.dtype).removeprefix("torch.")
        if name not in DTYPES or value.layout != torch.strided or value.is_quantized:
            raise NotHere(name)
        ours = rl.tensor(value.detach().numpy(force=True).copy(), dtype=getattr(rl, name))
        ours.requires_grad_(value.requires_grad)
        if made is not None:
            made.append((value, ours))
        return ours
    if isinstance(value, torch.dtype):
        name = str(value).removeprefix("torch.")
        if name not in DTYPES:
            raise NotHere(name)
        return getattr(rl, name)
    if isinstance(value, torch.Size):
        return rl.Size(value)
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, (tuple, list)):
        parts = [here(part, made) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: here(part, made) for key, part in value.items()}
    if isinstance(value, KNOWN):
        return value
    if inspect.isfunction(value):
        return function_here(value)
    raise NotHere(type(value).__name__)


def named(root: Any, path: str) -> Any:
    """The object at a dotted path, or None."""
    for part in path.split("."):
        try:
            root = getattr(root, part)
        except AttributeError:
            return None
    return root


def function_here(function: Any) -> Any:
    """A function of PyTorch's tests with rl_lab in place of torch among its globals."""
    scope = {**function.__globals__, "torch": rl}
    for name in function.__code__.co_names:
        if inspect.isfunction(scope.get(name)) and scope[name].__module__.startswith("torch.testing"):
            scope[name] = function_here(scope[name])
    made = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def forms(op: Any) -> Iterator[tuple[str, Callable, Callable]]:
    """How the operation can be called: a name, PyTorch's callable and ours."""
    ours = named(rl, op.name)
    if inspect.isfunction(op.op) and op.op.__module__.startswith("torch.testing"):
        yield "function", op.op, function_here(op.op)
    elif ours is not None:
        yield "function", op.op, ours
    reflected = op.name.startswith("__r")  # its function is the operator; the method itself does not take two tensors here
    for form, variant in (("method", None if reflected else op.method_variant), ("in place", op.inplace_variant)):
        if inspect.isfunction(variant) and variant.__module__.startswith("torch.testing"):
            yield form, variant, function_here(variant)
        elif hasattr(variant, "__name__") and hasattr(rl.Tensor, variant.__name__):
            yield form, variant, getattr(rl.Tensor, variant.__name__)
    for form, variant in (("operator", op.operator_variant), ("in-place operator", op.inplace_operator_variant)):
        if variant is not None:
            yield form, variant, variant
    for alias in op.aliases:
        ours = named(rl, alias.name)
        if ours is not None:
            yield f"alias {alias.name}", alias.op, ours


# --- one sample --------------------------------------------------------------------------------------------------


def tensors_of(value: Any, kind: type) -> list[Any]:
    """The tensors in a result, in order; numbers and sizes as they are."""
    if isinstance(value, (tuple, list)) and not isinstance(value, (torch.Size, rl.Size)):
        return [part for item in value for part in tensors_of(item, kind)]
    return [value]


def array(value: Any) -> np.ndarray:
    return value.detach().numpy(force=True)


def differ(theirs: Any, ours: Any, drawn: bool, dtype: str, exact: Any = None) -> str | None:
    """How two results differ, or None. ``exact`` is PyTorch's result in float64."""
    if not isinstance(theirs, torch.Tensor):
        same = theirs == ours or (isinstance(theirs, float) and np.isclose(theirs, ours, RTOL, ATOL, equal_nan=True))
        return None if same else f"{theirs!r}, here {ours!r}"
    if not isinstance(ours, rl.Tensor):
        return f"a tensor, here {type(ours).__name__}"
    if tuple(theirs.shape) != tuple(ours.shape):
        return f"shape {tuple(theirs.shape)}, here {tuple(ours.shape)}"
    names = str(theirs.dtype).removeprefix("torch."), str(ours.dtype).rpartition(".")[2]
    if names[0] != names[1] and not (dtype == "uint8" and names[0] in ("uint8", "int64")):
        return f"dtype {names[0]}, here {names[1]}"
    if drawn:
        return None
    a, b = array(theirs), array(ours)
    if close(a, b) or (names[0] == "uint8" and close(a, b.astype(float) % 256)):
        return None
    if exact is not None and tuple(exact.shape) == tuple(ours.shape):
        c = array(exact)
        if close(c, b):
            return None
        with np.errstate(all="ignore"):
            error, allowed = np.abs(b.astype(float) - c), np.abs(a.astype(float) - c)
        if np.array_equal(np.isfinite(b), np.isfinite(c)) and (error <= 4 * np.nanmax(allowed, initial=0.0) + ATOL).all():
            return None
    with np.errstate(all="ignore"):
        wrong = ~np.isclose(a.astype(float), b.astype(float), RTOL, ATOL, equal_nan=True)
    first = np.argwhere(np.atleast_1d(wrong))[:1].tolist()
    where = tuple(first[0]) if first and a.ndim else ()
    return f"{int(wrong.sum())} of {a.size} elements, at {where} {a[where]!r}, here {b[where]!r}"


def close(a: np.ndarray, b: np.ndarray) -> bool:
    scale = max(1.0, float(np.abs(a[np.isfinite(a)], dtype=float).max(initial=0.0))) if a.dtype.kind == "f" else 1.0
    with np.errstate(all="ignore"):
        return bool(np.isclose(a.astype(float), b.astype(float), RTOL, ATOL * scale, equal_nan=True).all())


def copied(value: Any, dtype: Any = None) -> Any:
    """A sample's value with new PyTorch tensors, of another floating dtype if given."""
    if isinstance(value, torch.Tensor):
        made = value.detach().clone()
        if dtype is not None and (value.is_floating_point() or value.dtype == torch.uint8):
            made = made.to(dtype)
        return made.requires_grad_(value.requires_grad)
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        parts = [copied(part, dtype) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: copied(part, dtype) for key, part in value.items()}
    if dtype is not None and isinstance(value, torch.dtype) and value.is_floating_point:
        return dtype
    return value


def leaves(value: Any, kind: Any) -> list[Any]:
    """The tensors in a sample that require grad."""
    if isinstance(value, kind):
        return [value] if value.requires_grad else []
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part, kind)]
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part, kind)]
    return []


def gradients(module: Any, results: list[Any], inputs: list[Any], create_graph: bool) -> list[Any]:
    """The gradients of a fixed weighted sum of the results."""
    roots = [r for r in results if isinstance(r, module.Tensor) and r.requires_grad]
    if not roots or not inputs:
        return []
    pulls = []
    for number, root in enumerate(roots):
        size = int(np.prod(root.shape))
        weights = np.cos(np.arange(size) + number).astype(np.float32).reshape(tuple(root.shape))
        pulls.append(module.tensor(weights).to(root.dtype))
    with_graph = {"create_graph": True} if create_graph else {}
    return list(module.autograd.grad(roots, inputs, pulls, allow_unused=True, **with_graph))


def call(
    module: Any, function: Callable, sample: tuple, in_place: bool, second: bool
) -> tuple[list[Any], list[Any], list[Any]]:
    """Values, gradients and second derivatives of one call."""
    first, args, kwargs = sample
    inputs = leaves([first, args, kwargs], module.Tensor)
    if in_place:
        first = first.clone() if isinstance(first, module.Tensor) else first
    results = tensors_of(function(first, *args, **kwargs), module.Tensor)
    once = gradients(module, results, inputs, second)
    twice = gradients(module, [g for g in once if g is not None], inputs, False) if second else []
    return results, once, twice


def run_sample(op: Any, dtype: str, form: str, theirs: Callable, ours: Callable, sample: Any) -> Iterator[Outcome]:
    """Compare one sample in one form; nothing comes of a sample that does not count."""
    whole = (sample.input, sample.args, sample.kwargs)
    in_place = form.startswith("in")
    try:
        given = here(whole)
    except NotHere:
        return
    second = op.supports_gradgrad and dtype == "float32"
    drawn = op.name in DRAWN and not (
        op.name.startswith("nn") and (whole[2].get("p") == 0 or whole[2].get("training") is False)
    )
    drawn = drawn or (op.name in TIED and dtype != "float32")
    drawn = drawn and not (op.name.endswith("attention") and not whole[2].get("dropout_p"))
    try:
        expected = call(torch, theirs, copied(whole), in_place, second)
    except Exception:
        try:
            second = False
            expected = call(torch, theirs, copied(whole), in_place, False)
        except Exception:
            return
    wanted = [v for v in expected[0] if isinstance(v, torch.Tensor)]
    if any(str(v.dtype).removeprefix("torch.") not in DTYPES or v.layout != torch.strided for v in wanted):
        return
    try:
        exact = call(torch, theirs, copied(whole, torch.float64), in_place, second)
    except Exception:
        exact = ([], [], [])
    try:
        actual = call(rl, ours, given, in_place, second)
    except Exception as fault:
        if isinstance(fault, rl.errors.DtypeError):
            yield Outcome(op.name, dtype, form, "refused", None)
            return
        if dtype == "uint8" and "cannot be stored in a uint8 tensor" in str(fault):
            return  # uint8 is stored and computes as float32
        yield Outcome(op.name, dtype, form, "value", f"raises {type(fault).__name__}: {str(fault)[:150]}")
        return
    for part, a, b, c in zip(("value", "gradient", "second"), expected, actual, exact, strict=True):
        if part != "value" and drawn:
            continue
        if part == "second" and not second:
            continue
        yield Outcome(op.name, dtype, form, part, parts_differ(a, b, c, drawn, dtype, part))


def parts_differ(a: list[Any], b: list[Any], c: list[Any], drawn: bool, dtype: str, part: str) -> str | None:
    if part == "second" and (not a or not b):  # one of the two knows that the first derivative is constant
        rest = [g for g in a + b if g is not None and not close(np.zeros_like(array(g)), array(g))]
        return f"{len(rest)} second derivatives on one side only" if rest else None
    if len(a) != len(b):
        return f"{len(a)} results, here {len(b)}"
    for number, (x, y) in enumerate(zip(a, b, strict=True)):
        if part != "value" and (x is None or y is None):
            other = y if x is None else x
            if other is None or not np.any(array(other) != 0):
                continue
            return "gradient None on one side only"
        difference = differ(x, y, drawn, dtype, c[number] if len(c) == len(a) else None)
        if difference is not None:
            return difference
    return None


# --- all of them ---------------------------------------------------------------------------------------------------


def exists(op: Any) -> bool:
    return named(rl, op.name) is not None or hasattr(rl.Tensor, op.name)


def run(op: Any, most: int = 0, dtypes: tuple[str, ...] = DTYPES) -> Iterator[Outcome]:
    """The samples of an operation in all its forms; of each dtype at most ``most``, evenly spaced, if it is not 0."""
    for dtype in dtypes:
        kind = getattr(torch, dtype)
        if not op.supports_dtype(kind, "cpu"):
            continue
        torch.manual_seed(0)
        grad = dtype == "float32" and op.supports_autograd
        ways = list(forms(op))
        samples = list(op.sample_inputs("cpu", kind, requires_grad=grad))
        for sample in samples[:: max(1, -(-len(samples) // most) if most else 1)]:
            for form, theirs, ours in ways:
                if form.startswith("in") and sample.broadcasts_input:
                    continue
                yield from run_sample(op, dtype, form, theirs, ours, sample)


def main() -> None:
    global torch
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--ops", nargs="*", help="names of operations; all by default")
    parser.add_argument("--all", action="store_true", help="print every operation's counts, not only of those that differ")
    parser.add_argument("--show", type=int, default=3, help="reasons to print of an operation")
    parser.add_argument("--after", help="begin behind this operation")
    parser.add_argument("--most", type=int, default=300, help="samples of one operation and dtype; 0 for all")
    options = parser.parse_args()
    import torch as imported
    from torch.testing._internal.common_methods_invocations import op_db

    torch = imported
    warnings.simplefilter("ignore")
    total: collections.Counter[bool] = collections.Counter()
    refused: collections.Counter[str] = collections.Counter()
    absent = []
    names = [op.name for op in op_db]
    for op in op_db[names.index(options.after) + names.count(options.after) if options.after else 0 :]:
        label = f"{op.name}/{op.variant_test_name}" if op.variant_test_name else op.name
        if (options.ops and op.name not in options.ops) or op.name in DECLINED:
            continue
        if not exists(op):
            absent.append(label)
            continue
        counts: collections.Counter[bool] = collections.Counter()
        reasons: collections.Counter[str] = collections.Counter()
        for outcome in run(op, options.most):
            if outcome.part == "refused":
                refused[f"{op.name} of {outcome.dtype}"] += 1
                continue
            counts[outcome.difference is None] += 1
            if outcome.difference is not None:
                reasons[f"{outcome.dtype}, {outcome.form}, {outcome.part}: {outcome.difference}"] += 1
        total += counts
        if reasons or options.all:
            print(f"{label}: {counts[True]} of {counts.total()}", flush=True)
            for reason, count in reasons.most_common(options.show):
                print(f"    {count} x {reason}", flush=True)
    print(f"not here: {' '.join(absent)}")
    print("refused with a DtypeError, not counted: " + ", ".join(f"{what} ({count})" for what, count in refused.items()))
    print(f"{total[True]} of {total.total()} agree, {100 * total[True] / max(1, total.total()):.2f} %")


if __name__ == "__main__":
    main()

"""Random programs on PyTorch and on rl_lab: views, writes in place, modes and backward passes, compared step by step.

A program is a list of `Step`. A step chooses registers by number, modulo the number of registers that exist when it runs. So a
program stays valid when steps are left out, and `shrink` can find the smallest program that still differs. Each program runs three
times: with PyTorch in float64, with PyTorch in float32, and with rl_lab. A step must fail in both libraries or in neither; values,
gradients, shapes and flags must agree. The distance between PyTorch's two answers measures how well a number is conditioned, and
thereby how far rl_lab's answer may be off.

``python -m tests.engine.fuzz --count 100000 --seed 1`` prints the differences and a summary. Needs torch (extra ``oracle``).
"""

import argparse
import collections
import math
import random
import re
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import rl_lab as rl
from tests.engine.random_programs import broadcasts

DEPTH = 30
NUMBERS = 64
"""The numbers of a step are below this."""

Outcome = Any
TOLERANCE = 3e-5
"""Error of a value, relative to the largest of its array and at least 1, that float32 explains by itself."""

AMPLIFIED = 50
"""How many times the distance of PyTorch's float32 from its float64 rl_lab's error may be."""

NOISE, NOISY_RUNS = 2e-7, 8
"""Where the answers differ all the same, these many runs in float64 with relative errors of this size say how well a number is
conditioned: PyTorch's float32 may be right by luck."""

UNDECIDED = 1e-2
"""A distance of PyTorch's two answers, relative as above, from which on the numbers say nothing (a tie or a kink between them)."""


class Step(NamedTuple):
    """An operation, three numbers that choose its operands, and whether it runs under no_grad."""

    kind: str
    a: int = 0
    b: int = 0
    c: int = 0
    quiet: bool = False


class Stop(Exception):
    """End of a program: a backward pass failed, and neither library promises in what state it leaves the gradients."""


def base_of(x: Any) -> Any:
    """The tensor of which ``x`` is a view, or None."""
    return x.base if isinstance(x, rl.Tensor) else x._base


def memory_of(x: Any) -> int:
    """A key of the memory of ``x``: equal for all tensors that share it, detached or not."""
    if not x.numel():  # PyTorch gives an empty tensor no memory
        base = base_of(x)
        return -id(x if base is None else base)
    return x.storage.address if isinstance(x, rl.Tensor) else x.untyped_storage().data_ptr()


def has_views(m: Any, x: Any) -> bool:
    """Whether another register shares the memory of ``x``, or ``x`` is a view."""
    return any(y is x or memory_of(y) == memory_of(x) for y in m.views)


class Machine:
    """The registers and the state of one run of a program in one library."""

    def __init__(self, library: Any, dtype: Any, noise: Any = None):
        self.library = library
        self.dtype = dtype
        self.noise = noise
        self.registers: list[Any] = []
        self.leaves: list[Any] = []
        self.trace: list[str] = []  # one line per initial leaf and per step
        self.text = ""
        self.first = 0  # the number of leaves that exist at the beginning
        self.views: list[Any] = []
        self.overlaps = False  # whether a write in place read a source that shares memory with the target
        self.layouts: list[bool] = []  # for operations that depend on whether an operand is contiguous

    def number(self, array: np.ndarray) -> Any:
        return self.library.tensor(array.astype(np.float32), dtype=self.dtype)

    def register(self, place: int) -> Any:
        """The register ``number`` places before the newest."""
        return self.registers[-1 - place % len(self.registers)]

    def disturb(self, value: Any) -> None:
        """A copy of ``value`` with errors of the size of float32's rounding."""
        if self.noise is not None and value._base is None and value.numel():
            factors = 1.0 + NOISE * self.noise.uniform(-1.0, 1.0, tuple(value.shape))
            value.data.mul_(self.library.tensor(factors, dtype=self.dtype))

    def name(self, value: Any) -> str:
        return next((f"r{i}" for i, r in enumerate(self.registers) if r is value), "?")

    def fitting(self, x: Any, place: int, test: Callable[[Any], bool]) -> Any:
        """A register that passes the test, chosen by ``number``, or None."""
        found = [y for y in self.registers if test(y)]
        return found[-1 - place % len(found)] if found else None

    def describe(self, text: str, *values: Any) -> None:
        self.text = text.format(*[self.name(value) for value in values])


def scalar(number: int) -> float:
    return (number % 9 - 4) / 4 + 0.125


Make = Callable[[Machine, Step], Any]
STEPS: dict[str, tuple[float, Make]] = {}
"""By name: how often it is drawn, and what it does. A result is a tensor, a list of tensors, or None."""


def step(weight: float, *names: str) -> Callable[[Callable], Callable]:
    """Register an operation under its names. An operation that takes a name gets it as its third argument."""

    def note(function: Callable) -> Callable:
        for name in names:
            if len(names) > 1:
                STEPS[name] = (weight, lambda machine, given, name=name: function(machine, given, name))
            else:
                STEPS[name] = (weight, function)
        return function

    return note


# --- values out of values --------------------------------------------------------------------------------------------


@step(1.5, "tanh", "sigmoid", "sin", "cos", "relu", "abs", "neg")
def bounded(m: Machine, s: Step, name: str) -> Any:
    x = m.register(s.a)
    m.describe(f"{{}}.{name}()", x)
    m.layouts.append(x.is_contiguous() or name != "contiguous")
    return getattr(x, name)()


@step(
    0.4, "exp", "sqrt", "square", "reciprocal", "log", "expm1", "rsqrt", "floor", "erf", "log1p", "tan", "clone", "contiguous"
)
def unbounded(m: Machine, s: Step, name: str) -> Any:
    return bounded(m, s, name)


@step(0.7, "clamp")
def clamp(m: Machine, s: Step) -> Any:
    x = m.register(s.a)
    m.describe("{}.clamp(-0.5, 0.5)", x)
    return x.clamp(-0.5, 0.5)


@step(1.5, "add", "sub", "mul", "div", "maximum", "minimum")
def binary(m: Machine, s: Step, name: str) -> Any:
    x = m.register(s.a)
    y = m.fitting(x, s.b, lambda y: broadcasts(x, y))
    m.describe(f"{name}({{}}, {{}})", x, y)
    return getattr(m.library, name)(x, y)


@step(0.5, "where", "lerp", "pow", "masked_fill", "addcmul")
def choice(m: Machine, s: Step, name: str) -> Any:
    x = m.register(s.a)
    y = m.fitting(x, s.b, lambda y: broadcasts(x, y))
    m.describe(f"{name} {{}} {{}}", x, y)
    if name == "where":
        return m.library.where(x > y, x, y)
    if name == "lerp":
        return m.library.lerp(x, y, 0.25)
    if name == "pow":
        return (x.abs() + 0.5) ** y.clamp(-2.0, 2.0)
    if name == "addcmul":
        return m.library.addcmul(x, y, y, value=0.5)
    return x.masked_fill(x > 0.25, scalar(s.c))


@step(1.5, "add number", "mul number")
def with_number(m: Machine, s: Step, name: str) -> Any:
    x, number = m.register(s.a), scalar(s.b)
    m.describe(f"{{}} {'+' if name == 'add number' else '*'} {number}", x)
    return x + number if name == "add number" else number * x


REDUCTIONS: dict[str, Callable] = {
    "sum": lambda x, d, k: x.sum(d, keepdim=k),
    "mean": lambda x, d, k: x.mean(d, keepdim=k),
    "amax": lambda x, d, k: x.amax(d, keepdim=k),
    "max": lambda x, d, k: x.max(d, keepdim=k).values,
    "min": lambda x, d, k: x.min(d, keepdim=k).values,
    "logsumexp": lambda x, d, k: x.logsumexp(d, keepdim=k),
    "softmax": lambda x, d, k: x.softmax(d),
    "log_softmax": lambda x, d, k: x.log_softmax(d),
    "cumsum": lambda x, d, k: x.cumsum(d),
    "norm": lambda x, d, k: x.norm(2, d, keepdim=k),
    "prod": lambda x, d, k: x.prod(d, keepdim=k),
    "var": lambda x, d, k: x.var(d, keepdim=k),
    "sort": lambda x, d, k: x.sort(d).values,
    "sum of all": lambda x, d, k: x.sum(),
    "max of all": lambda x, d, k: x.max(),
}


@step(0.25, *REDUCTIONS)
def reduction(m: Machine, s: Step, name: str) -> Any:
    x = m.register(s.a)
    dim, keep = s.b % max(x.dim(), 1), s.c % 2 == 0
    m.describe(f"{{}}.{name}({dim}, keepdim={keep})", x)
    return REDUCTIONS[name](x, dim, keep)


@step(1.0, "matmul")
def matmul(m: Machine, s: Step) -> Any:
    x = m.register(s.a)
    if not x.dim():
        return None
    y = m.fitting(x, s.b, lambda y: y.dim() in (1, 2) and y.shape[0] == x.shape[-1])
    if y is None:
        m.describe("{} @ itself transposed", x)
        return x @ (x if x.dim() == 1 else x.transpose(-1, -2))
    m.describe("{} @ {}", x, y)
    return x @ y


@step(0.6, "cat", "stack")
def join(m: Machine, s: Step, name: str) -> Any:
    x = m.register(s.a)
    y = m.fitting(x, s.b, lambda y: y.shape == x.shape)
    m.describe(f"{name}([{{}}, {{}}])", x, y)
    return getattr(m.library, name)([x, y], s.c % max(x.dim(), 1))


@step(0.5, "index", "index_select", "gather", "scatter_add")
def index(m: Machine, s: Step, name: str) -> Any:
    x = m.register(s.a)
    if not x.dim() or not x.numel():
        return None
    dim = 0 if name == "index" else s.b % x.dim()
    places = m.library.tensor(np.array([s.c, s.b, s.c]) % x.shape[dim])
    m.describe(f"{{}}.{name}({dim}, {places.tolist()})", x)
    if name == "index":
        return x[places]
    if name == "index_select":
        return x.index_select(dim, places)
    shape = [1] * x.dim()
    shape[dim] = 3
    places = places.reshape(shape)
    return x.gather(dim, places) if name == "gather" else x.scatter_add(dim, places, x.sin().gather(dim, places))


# --- views -----------------------------------------------------------------------------------------------------------


def pieces(parts: Sequence[Any], s: Step) -> Any:
    return list({id(p): p for p in (parts[s.b % len(parts)], parts[-1])}.values()) if parts else None


VIEWS: dict[str, Callable[[Any, Step], Any]] = {
    "transpose": lambda x, s: x.transpose(s.b % max(x.dim(), 1), -1),
    "permute": lambda x, s: x.permute(tuple(range(x.dim())[::-1])),
    "view": lambda x, s: x.view(-1),
    "reshape": lambda x, s: x.reshape(-1),
    "reshape back": lambda x, s: x.reshape(tuple(x.shape)[::-1]),
    "rows": lambda x, s: x[s.b % (x.shape[0] or 1) :],
    "every second": lambda x, s: x[..., :: 2 + s.b % 2],
    "last": lambda x, s: x[..., -1:],
    "select": lambda x, s: x.select(s.b % max(x.dim(), 1), s.c % 2),
    "unsqueeze": lambda x, s: x.unsqueeze(s.b % (x.dim() + 1)),
    "squeeze": lambda x, s: x.squeeze(),
    "expand": lambda x, s: x.expand((2, *x.shape)),
    "expand ones": lambda x, s: x.expand([3 if n == 1 else n for n in x.shape]),
    "narrow": lambda x, s: x.narrow(s.b % max(x.dim(), 1), s.c % 2, 1),
    "flatten": lambda x, s: x.flatten(),
    "diagonal": lambda x, s: x.diagonal(),
    "whole": lambda x, s: x[...],
    "view_as": lambda x, s: x.view_as(x),
    "unbind": lambda x, s: pieces(x.unbind(s.c % max(x.dim(), 1)), s),
    "split": lambda x, s: pieces(x.split(1 + s.b % 2, s.c % max(x.dim(), 1)), s),
    "chunk": lambda x, s: pieces(x.chunk(2, s.c % max(x.dim(), 1)), s),
    "detach": lambda x, s: x.detach(),
}


@step(0.45, *VIEWS)
def view(m: Machine, s: Step, name: str) -> Any:
    x = m.register(s.a)
    m.describe(f"{{}}: {name} {s.b} {s.c}", x)
    if s.quiet and x.requires_grad:  # in PyTorch 2.13 such a view requires grad as a leaf; in rl_lab it is off the tape
        x = x.detach()
    if name in ("expand", "unsqueeze") and x.dim() > 3:
        return None
    if name == "view":
        m.layouts.append(x.is_contiguous())
    result = VIEWS[name](x, s)
    if name in ("view", "reshape", "reshape back", "flatten"):
        m.layouts.append(result.data_ptr() == x.data_ptr())
    m.views += result if isinstance(result, list) else [] if result is None else [result]
    return result


# --- writes in place -------------------------------------------------------------------------------------------------


@step(
    0.5,
    "tanh_",
    "sigmoid_",
    "relu_",
    "sin_",
    "neg_",
    "abs_",
    "exp_",
    "square_",
    "sqrt_",
    "reciprocal_",
    "zero_",
    "cos_",
    "erf_",
)
def unary_in_place(m: Machine, s: Step, name: str) -> None:
    x = m.register(s.a)
    m.describe(f"{{}}.{name}()", x)
    getattr(x, name)()
    m.disturb(x)


@step(0.7, "add_", "sub_", "mul_", "div_", "copy_")
def binary_in_place(m: Machine, s: Step, name: str) -> None:
    x = m.register(s.a)
    grows = s.c % 16 == 15
    y = m.fitting(x, s.b, lambda y: broadcasts(x, y) and (grows or (y.dim() <= x.dim() and not larger(y, x))))
    m.describe(f"{{}}.{name}({{}})", x, y)
    m.overlaps |= y is not x and memory_of(y) == memory_of(x)
    getattr(x, name)(y)


def larger(y: Any, x: Any) -> bool:
    return any(a > b for a, b in zip(reversed(y.shape), reversed(x.shape), strict=False))


@step(0.6, "add_ number", "mul_ number", "fill_", "clamp_", "masked_fill_", "lerp_", "addcmul_", "pow_")
def number_in_place(m: Machine, s: Step, name: str) -> None:
    x, number = m.register(s.a), scalar(s.b)
    m.describe(f"{{}}.{name}({number})", x)
    if name == "clamp_":
        x.clamp_(-0.5, 0.5)
    elif name == "masked_fill_":
        x.masked_fill_(x > 0.25, number)
    elif name == "lerp_":
        x.lerp_(x.detach().clone() * 0.5, 0.25)
    elif name == "addcmul_":
        y = m.fitting(x, s.c, lambda y: y.shape == x.shape)
        m.describe("{}.addcmul_({}, {})", x, y, y)
        m.overlaps |= y is not x and memory_of(y) == memory_of(x)
        x.addcmul_(y, y, value=0.5)
    elif name == "pow_":
        x.pow_(2)
    else:
        getattr(x, name.split()[0])(number)


WRITES: dict[str, Callable[[Any], Any]] = {
    "x[0] =": lambda x: 0,
    "x[-1:] =": lambda x: slice(-1, None),
    "x[..., ::2] =": lambda x: (..., slice(None, None, 2)),
    "x[[0, -1]] =": lambda x: [0, -1],
    "x[x > 0] =": lambda x: x.detach() > 0,
}


@step(0.5, *WRITES)
def write(m: Machine, s: Step, name: str) -> None:
    x = m.register(s.a)
    if not x.numel():
        return
    key = WRITES[name](x)
    if s.c % 2 or name == "x[x > 0] =":
        m.describe(f"{{}}: {name} {scalar(s.b)}", x)
        x[key] = scalar(s.b)
        return
    part = x.detach()[key]
    y = m.fitting(x, s.b, lambda y: broadcasts(y, part) and y.dim() <= part.dim() and not larger(y, part))
    if y is not None:
        m.describe(f"{{}}: {name} {{}}", x, y)
        m.overlaps |= memory_of(y) == memory_of(x)
        x[key] = y


# --- the tape --------------------------------------------------------------------------------------------------------


@step(2.0, "backward", "backward and retain", "weighted backward")
def backward(m: Machine, s: Step, name: str) -> None:
    x = m.fitting(None, s.a, lambda y: y.requires_grad)
    if x is None:
        return
    m.describe(f"{{}}: {name}", x)
    try:
        if name == "weighted backward":
            x.backward(m.library.ones_like(x) * 0.5, retain_graph=s.b % 4 != 0)
        else:
            x.sum().backward(retain_graph=name == "backward and retain" or s.b % 3 > 0)
    except Exception as fault:
        raise Stop from fault


@step(0.6, "grad", "grad and graph")
def grad(m: Machine, s: Step, name: str) -> Any:
    x = m.fitting(None, s.a, lambda y: y.requires_grad)
    target = m.fitting(
        None, s.b, lambda y: y.requires_grad and all(y is not view for view in m.views)
    )  # the flag of a view may be out of date
    if x is None:
        return None
    if target is None:
        return None
    m.describe(f"{{}}: {name} with respect to {{}}", x, target)
    try:
        graph = name == "grad and graph"
        (result,) = m.library.autograd.grad(x.sum(), [target], retain_graph=True, create_graph=graph, allow_unused=True)
    except Exception as fault:
        raise Stop from fault
    return result


@step(0.4, "forget gradient", "read gradient", "descend", "retain_grad", "hook", "new leaf", "freeze", "detach_", "data")
def of_the_tape(m: Machine, s: Step, name: str) -> Any:
    x = m.register(s.a)
    m.describe(f"{{}}: {name}", x)
    if name in ("forget gradient", "read gradient", "descend"):
        leaf = m.leaves[s.a % len(m.leaves)]
        m.describe(f"{{}}: {name}", leaf)
        if name == "forget gradient":
            leaf.grad = None
        elif leaf.grad is not None and name == "read gradient":
            return leaf.grad
        elif leaf.grad is not None:
            with m.library.no_grad():
                leaf.sub_(leaf.grad * 0.1)
    elif name == "retain_grad":
        if all(x is not y for y in m.views):  # skip the base of views: after a write, PyTorch's views no longer pass through it
            x.retain_grad()
    elif name == "hook":
        if any(x is y for y in m.views):  # PyTorch 2.13 may crash on a view whose base was written to
            return None
        x.register_hook(lambda gradient: gradient * 2.0)
    elif name == "new leaf":
        leaf = x.detach().clone().requires_grad_()
        m.leaves.append(leaf)
        return leaf
    elif name == "freeze":
        if not has_views(m, x):  # in PyTorch they become leaves that require grad
            x.requires_grad_(s.b % 2 == 0)
    elif name == "detach_":
        if not has_views(m, x):  # in PyTorch they keep the old memory, in rl_lab they follow to the new one
            x.detach_()
    else:
        return x.data
    return None


# --- a run -----------------------------------------------------------------------------------------------------------

SHAPES = [(2, 3), (3,), (), (1, 3), (2, 1), (3, 2), (2, 2, 3), (3, 3), (1,), (0, 3)]


def random_program(seed: int) -> list[Step]:
    """A program of up to `DEPTH` steps. The first step chooses the initial leaves."""
    choices = random.Random(seed)
    kinds, weights = list(STEPS), [weight for weight, _ in STEPS.values()]
    steps = [Step("begin", *[choices.randrange(NUMBERS) for _ in range(3)])]
    quiet = choices.choice([0.0, 0.05, 0.2])
    far = choices.choice([3, 8, NUMBERS])  # how far back a step may choose its operands
    for kind in choices.choices(kinds, weights, k=choices.randint(1, DEPTH)):
        numbers = choices.randrange(far), choices.randrange(NUMBERS), choices.randrange(NUMBERS)
        steps.append(Step(kind, *numbers, choices.random() < quiet))
    return steps


def begin(m: Machine, s: Step) -> None:
    """Two or three leaves. The step's numbers choose their shapes, values and flags."""
    choices = random.Random(f"{s.a} {s.b} {s.c}")
    rounded = choices.random() < 0.4  # multiples of a quarter: ties are frequent, and sums are exact
    for number in range(choices.choice([2, 3])):
        shape = choices.choice(SHAPES[: 3 if number == 0 else len(SHAPES)])
        array = np.array([choices.gauss(0.0, 1.0) for _ in range(math.prod(shape))]).reshape(shape)
        leaf = m.number(np.round(array * 4) / 4 if rounded else array)
        leaf.requires_grad_(number == 0 or choices.random() < 0.5)
        m.registers.append(leaf)
        m.leaves.append(leaf)
        m.first += 1
        m.trace.append(f"r{number} = tensor{shape}{' requires grad' if leaf.requires_grad else ''}")


def run(library: Any, dtype: Any, program: Sequence[Step], noise: Any = None) -> tuple[Machine, list[str]]:
    """(the machine after the last step, the outcome of each step: "done" or the name of the error's type)."""
    m, outcomes = Machine(library, dtype, noise), []
    begin(m, program[0])
    for leaf in m.leaves:
        m.disturb(leaf)
    for s in [*program[1:], Step("backward and retain")]:
        m.text = s.kind
        before = len(m.registers)
        try:
            if s.quiet:
                with library.no_grad():
                    result = STEPS[s.kind][1](m, s)
            else:
                result = STEPS[s.kind][1](m, s)
            results = result if isinstance(result, list) else [] if result is None else [result]
            for value in results:
                m.disturb(value)
            m.registers += [value for value in results if value.numel() <= 200]
            facts = [f" {tuple(value.shape)}{' requires grad' * value.requires_grad}" for value in results]
            outcomes.append(f"done{','.join(facts)}")
        except Stop as stop:
            outcomes.append(f"{type(stop.__cause__).__name__}: {str(stop.__cause__).splitlines()[0]}")
        except Exception as fault:
            outcomes.append(f"{type(fault).__name__}: {str(fault).splitlines()[0]}")
        names = ", ".join(f"r{i}" for i in range(before, len(m.registers)))
        mode = "  (no_grad)" if s.quiet else ""
        m.trace.append(
            f"{names + ' = ' if names else ''}{m.text}{mode}{'' if is_done(outcomes[-1]) else '  # ' + outcomes[-1]}"
        )
        if not is_done(outcomes[-1]) and s.kind in ENDING:
            break
    return m, outcomes


def is_done(outcome: str) -> bool:
    return outcome.startswith("done")


ENDING = ("backward", "backward and retain", "weighted backward", "grad", "grad and graph")
ERRORS = (RuntimeError, IndexError, TypeError, ValueError)
"""What a step may raise in rl_lab; any other exception is a fault by itself."""


EXPLAINED = {
    "refer to a single memory location": "rl_lab copies first when source and target of a write overlap",
    "refers to a single memory location": "rl_lab writes into expanded tensors whose elements do not overlap",
    "leaf variable has been moved into the graph interior": "PyTorch refuses a gradient for what was a leaf and then written to",
    "ZeroTensors are immutable": "PyTorch adds to zeros that have no memory",
    "has been detached in-place": "rl_lab keeps what it saved when a value is detached in place",
    "Can't detach views in-place": "rl_lab detaches a view in place",
    "for *: 'NoneType' and 'float'": "PyTorch calls a hook with None, rl_lab does not call it",
    "A view was created in no_grad mode": "rl_lab takes writes into views from under no_grad",
    "please report a bug to PyTorch": "PyTorch fails at an assertion of its own",
    "Such functions do not allow the output views to be modified inplace": "rl_lab differentiates writes into split, chunk and unbind",
}
"""What PyTorch refuses and rl_lab does, by a part of PyTorch's message. The comparison ends there."""

EXPLAINED_HERE = {"an expanded tensor was written to": "PyTorch only warns about masked_fill_ of an expanded tensor"}
"""The other way round."""


TRACKED = " requires grad"
LAYOUTS = "PyTorch's results keep an operand's strides and rl_lab's lie row by row"


def stale_view(theirs: str, ours: Machine, number: int) -> str | None:
    """Note a difference of PyTorch: for a view older than the last write to its base, it answers is_leaf from the old flag."""
    written = re.match(r"r(\d+)[.:]", ours.trace[number + ours.first])
    if written is None or "leaf Variable that requires grad is being used in an in-place operation" not in theirs:
        return None
    return (
        "rl_lab lets a view be written to after its base was written to or detached"
        if base_of(ours.registers[int(written[1])]) is not None
        else None
    )


def explanation(message: str, known: dict[str, str] = EXPLAINED) -> str | None:
    return next((why for part, why in known.items() if part in message), None)


class Comparison(NamedTuple):
    """(the first difference or None, the number of arrays compared, how many of them PyTorch's precision leaves open, an explanation)."""

    difference: str | None
    arrays: int = 0
    undecided: int = 0
    explained: str | None = None


class State(NamedTuple):
    """The properties of a tensor that are compared."""

    array: np.ndarray
    flags: dict[str, bool]


def array_of(value: Any) -> np.ndarray:
    return (
        value.detach().numpy() if isinstance(value, rl.Tensor) else value.detach().numpy(force=True)
    )  # PyTorch represents some zeros without memory


def arrays_of(m: Machine) -> dict[str, State | None]:
    """The registers and their gradients, by name."""
    found: dict[str, State | None] = {}
    for i, x in enumerate(m.registers):
        for name, value in ((f"r{i}", x), (f"r{i}.grad", x.grad)):
            flags = {} if value is None else {"requires_grad": value.requires_grad, "is_leaf": value.is_leaf}
            found[name] = None if value is None else State(array_of(value), flags)
    return found


def compare(program: Sequence[Step]) -> Comparison:
    import torch

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        exact, expected = run(torch, torch.float64, program), run(torch, torch.float32, program)
        actual = run(rl, rl.float32, program)
        result = judge(exact, [expected], actual)
        if result.difference and (expected[0].overlaps or actual[0].overlaps):
            return Comparison(None, explained="rl_lab copies first when source and target of a write overlap")
        if result.difference and any(s.kind == "stack" for s in program) and "grad: torch" in result.difference:
            return Comparison(None, explained="PyTorch adds up gradients of stacked scalars in one memory")
        if result.difference and "nan" in result.difference and any(s.kind == "prod" for s in program):
            return Comparison(
                None, explained="PyTorch divides the product by an element that is NaN, rl_lab multiplies the others"
            )
        if result.difference and "second time" in result.difference and any(s.kind in ("addcmul", "addcmul_") for s in program):
            return Comparison(None, explained="rl_lab's addcmul is a sum and a product, and of those the sum saves nothing")
        if result.difference and any(s.kind == "grad and graph" for s in program) and zero_against_nan(result.difference):
            return Comparison(
                None, explained="PyTorch has zeros without memory for the derivative of a sign: times NaN they are 0"
            )
        if result.difference and any(re.search(r"= div\((r\d+), \1\)", line) for line in expected[0].trace):
            return Comparison(
                None, explained="the gradient of x / x is the difference of two large numbers, in any order with others"
            )
        if result.difference and signs_of_zeros(exact[0], actual[0]):
            return Comparison(None, explained="which of two zeros a product of matrices is depends on what the sum began with")
        if result.difference and writes_through_data(program):
            return Comparison(
                None, explained="a write through .data is unseen, and gradients use what was saved, or what is there"
            )
        if result.difference:  # PyTorch's rounding errors may have cancelled
            noisy = [run(torch, torch.float64, program, np.random.default_rng(seed)) for seed in range(NOISY_RUNS)]
            result = judge(exact, [expected, *noisy], actual)
        return result


def zero_against_nan(difference: str) -> bool:
    """Whether PyTorch's array is zero throughout while rl_lab's is zero or NaN."""
    arrays = re.search(r"grad: torch (.*), rl_lab (.*)", difference)
    numbers = [set(re.findall(r"[^\s\[\],]+", text)) for text in arrays.groups()] if arrays else [set("?")] * 2
    return numbers[0] <= {"0.0", "-0.0"} and "nan" in numbers[1] and numbers[1] <= {"0.0", "-0.0", "nan"}


def signs_of_zeros(theirs: Machine, ours: Machine) -> bool:
    """Whether a matrix product contains zeros of different signs."""
    for line in theirs.trace:
        product = re.match(r"r(\d+) = .*@", line)
        if product is not None:
            left, right = (array_of(m.registers[int(product[1])]) for m in (theirs, ours))
            if ((left == 0) & (right == 0) & (np.signbit(left) != np.signbit(right))).any():
                return True
    return False


def writes_through_data(program: Sequence[Step]) -> bool:
    """Whether a write in place follows on a use of `.data`."""
    kinds = [s.kind for s in program]
    later = kinds[kinds.index("data") :] if "data" in kinds else []
    return any(kind.split()[0].endswith("_") or kind.endswith("=") for kind in later)


def judge(exact: Outcome, others: list[Outcome], actual: Outcome) -> Comparison:
    """Compare with ``others``: first PyTorch in float32, then further runs that show how well the numbers are conditioned."""
    errors = [error.__name__ for error in all_errors(ERRORS)]
    layouts = all(theirs == ours for theirs, ours in zip(others[0][0].layouts, actual[0].layouts, strict=False))
    for number, (theirs, ours) in enumerate(zip(others[0][1], actual[1], strict=False)):
        if not is_done(ours) and ours.split(":")[0] not in errors:
            return Comparison(f"step {number + 1}: rl_lab raises {ours}")
        if (is_done(theirs) or is_done(ours)) and theirs != ours:
            explained = explanation(theirs) or explanation(ours, EXPLAINED_HERE)
            explained = explained or (None if layouts else LAYOUTS) or stale_view(theirs, actual[0], number)
            asked = "grad and graph" in actual[0].trace[number + actual[0].first]
            if asked and is_done(theirs) and ours in (theirs.replace(TRACKED, ""), f"{theirs}{TRACKED}", "done"):
                explained = "the gradient does not depend on anything, and only one of the two has it on its tape"
            if explained or (exact[1][number] != theirs and is_done(exact[1][number]) == is_done(theirs)):
                return Comparison(
                    None, undecided=not explained, explained=explained
                )  # what follows from an undecided value is undecided
            return Comparison(f"step {number + 1}: torch {theirs!r}, rl_lab {ours!r}")
    if not layouts:
        return Comparison(None, explained=LAYOUTS)
    if not is_done(others[0][1][-1]):
        return Comparison(None)  # when a backward pass fails, PyTorch has added to some gradients already, rl_lab to none
    try:
        wanted, given = arrays_of(exact[0]), arrays_of(actual[0])
        nearby = [arrays_of(machine) for machine, _ in others]
    except RuntimeError as fault:
        if not explanation(str(fault)):
            raise
        return Comparison(None, explained=explanation(str(fault)))
    verdicts = [(name, differ(wanted[name], [table.get(name) for table in nearby], given[name])) for name in nearby[0]]
    for name, difference in verdicts:
        if difference:
            return Comparison(f"{name}: {difference}")
    return Comparison(None, len(verdicts), sum(difference is None for _, difference in verdicts))


def differ(exact: State | None, nearby: list[State | None], ours: State | None) -> str | None:
    """How rl_lab's tensor differs from PyTorch's: "" if it does not, None if PyTorch's precision leaves it open."""
    theirs = nearby[0]
    if theirs is None or ours is None or exact is None:
        return "" if theirs is ours else f"torch {show(theirs)}, rl_lab {show(ours)}"
    if theirs.flags != ours.flags:
        return f"torch {theirs.flags}, rl_lab {ours.flags}"
    verdict = agree(exact.array, [state.array for state in nearby if state is not None], ours.array)
    return None if verdict is None else "" if verdict else f"torch {show(theirs)}, rl_lab {show(ours)}"


def all_errors(errors: Sequence[type]) -> set[type]:
    found = set(errors)
    for error in errors:
        found |= all_errors(error.__subclasses__())
    return found


def show(state: State | None) -> str:
    return "None" if state is None else str(state.array.tolist())


def agree(exact: np.ndarray, nearby: list[np.ndarray], actual: np.ndarray) -> bool | None:
    """Whether rl_lab's array is right, or None if PyTorch's answers are too far apart to tell."""
    finite = np.isfinite(exact)
    if any(array.shape != exact.shape or (finite != np.isfinite(array)).any() for array in nearby):
        return None
    scale = max(1.0, np.abs(exact[finite]).max(initial=0.0))
    distance = max(np.abs(exact[finite] - array[finite]).max(initial=0.0) for array in nearby)
    if distance > UNDECIDED * scale or scale > 1e30:
        return None
    if actual.shape != exact.shape or np.isfinite(actual[~finite]).any():
        return False
    if not np.array_equal(exact[~finite], actual[~finite], equal_nan=True):
        return (
            None  # the sign of a maximum of 0.0 and -0.0 is undefined: reciprocals make infinities of it, and sums of these NaN
        )
    return bool(np.abs(actual[finite] - exact[finite]).max(initial=0.0) <= TOLERANCE * scale + AMPLIFIED * distance)


# --- the smallest example --------------------------------------------------------------------------------------------


def shrink(program: Sequence[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """Leave out steps and lower numbers for as long as the program still fails."""
    best = list(program)
    changed = True
    while changed:
        changed = False
        for candidate in smaller(best):
            if fails(candidate):
                best, changed = candidate, True
                break
    return best


def smaller(program: list[Step]) -> Any:
    for width in (8, 4, 2, 1):
        for start in range(len(program) - width, 0, -1):
            yield program[:start] + program[start + width :]
    for i, s in enumerate(program):
        for field in ("a", "b", "c"):
            value = getattr(s, field)
            for lower in sorted({0, value // 2, value - 1} - {value, -1}):
                yield [*program[:i], s._replace(**{field: lower}), *program[i + 1 :]]
        if s.quiet:
            yield [*program[:i], s._replace(quiet=False), *program[i + 1 :]]


def explain(program: Sequence[Step]) -> str:
    """Describe a program and the difference between the two libraries, as text."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = run(torch, torch.float32, program)[0].trace
    return "\n".join(["", *[f"    {line}" for line in lines], f"  {compare(program).difference}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="programs seed * 1,000,000 onward")
    parser.add_argument("--show", type=int, default=5, help="how many mismatches to shrink and print")
    options = parser.parse_args()
    begin_time = time.perf_counter()
    faults: list[int] = []
    steps: collections.Counter[str] = collections.Counter()
    explained: collections.Counter[str] = collections.Counter()
    arrays = undecided = 0
    for seed in range(options.seed * 10**6, options.seed * 10**6 + options.count):
        program = random_program(seed)
        result = compare(program)
        arrays, undecided = arrays + result.arrays, undecided + result.undecided
        steps.update(s.kind for s in program)
        explained.update([result.explained] if result.explained else [])
        if result.difference:
            faults.append(seed)
            if len(faults) <= options.show:
                least = shrink(program, lambda p: compare(p).difference is not None)
                print(f"program {seed}: {explain(least)}", flush=True)
            else:
                print(f"program {seed}: {result.difference[:200]}", flush=True)
    for why, number in explained.most_common():
        print(f"{number} programs end where {why}")
    print(
        f"{options.count} programs of {sum(steps.values()) / max(options.count, 1):.1f} steps, {arrays} arrays compared, "
        f"{undecided} left open by precision, {len(faults)} mismatches, {time.perf_counter() - begin_time:.0f} s"
    )


if __name__ == "__main__":
    main()

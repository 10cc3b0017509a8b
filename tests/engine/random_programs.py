"""Random training programs, each run eagerly and compiled: after every call the two twins must agree in every bit.

A seed determines a program: `Twin.step` draws every decision from a stream of choices. Each call starts the same stream again, so
all calls of one program do the same. ``python -m tests.engine.random_programs --count 10000`` prints each mismatch, and counts after
every 1,000 programs.
"""

import argparse
import random
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab.engine.ops.multi_tensor import polyak_

CALLS = 10
OPTIMIZERS: list[Callable] = [
    lambda p: rl.optim.SGD(p, lr=0.05),
    lambda p: rl.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.01, nesterov=True),
    lambda p: rl.optim.SGD(p, lr=0.01, momentum=0.5, dampening=0.1, maximize=True),
    lambda p: rl.optim.Adam(p, lr=0.01),
    lambda p: rl.optim.Adam(p, lr=0.02, betas=(0.5, 0.9), eps=1e-5, weight_decay=0.1),
    lambda p: rl.optim.AdamW(p, lr=0.01, maximize=True),
    lambda p: rl.optim.AdamW([{"params": p[:1]}, {"params": p[1:], "lr": 0.5}] if p[1:] else p, lr=0.01, weight_decay=0.2),
]
UNARY = (
    rl.neg,
    rl.exp,
    rl.log,
    rl.sqrt,
    rl.square,
    rl.reciprocal,
    rl.sin,
    rl.cos,
    rl.tanh,
    rl.sigmoid,
    rl.relu,
    rl.abs,
    rl.erf,
)
FUNCTIONS = (F.softplus, F.silu, F.gelu, F.leaky_relu, F.logsigmoid, rl.floor, rl.log1p, lambda x: x.clamp(-0.5, 0.5))


class Result(NamedTuple):
    """A named output, to test that the type of a result survives."""

    loss: Any
    more: Any


class Twin:
    """Parameters, optimisers and a random stream made from a seed, with a step that trains the parameters."""

    def __init__(self, seed: int):
        self.seed = seed
        choices = random.Random(f"parts {seed}")
        self.generator = rl.Generator(seed)
        self.width = choices.randint(1, 5)
        shapes = [(self.width, self.width), (self.width,), (1, self.width), (), (3, self.width)]
        shapes = choices.sample(shapes, choices.randint(2, 5))
        self.parameters = [rl.nn.Parameter(rl.randn(*shape, generator=self.generator)) for shape in shapes]
        self.layers = rl.nn.Sequential()
        for _ in range(choices.randint(0, 2)):
            self.layers.append(rl.nn.Linear(self.width, self.width, generator=self.generator))
            self.layers.append(choices.choice([rl.nn.Tanh, rl.nn.ReLU, rl.nn.Sigmoid, rl.nn.SiLU])())
        self.parameters += self.layers.parameters()
        self.running = rl.zeros(self.width)
        choices.shuffle(self.parameters)
        self.targets = [p.detach().clone() for p in self.parameters]
        cut = choices.randint(1, len(self.parameters))
        groups = [part for part in (self.parameters[:cut], self.parameters[cut:]) if part]
        self.optimizers: list[Any] = [choices.choice(OPTIMIZERS)(part) for part in groups]
        self.outside_zero = choices.random() < 0.3

    # --- one call ----------------------------------------------------------------------------------------------------

    def step(self, x: Any, more: dict[str, Any], scale: float) -> Any:
        choices = random.Random(f"step {self.seed}")
        kept = []
        for _ in range(choices.choice([1, 1, 2, 3])):
            for optimizer in self.optimizers:
                if not self.outside_zero or choices.random() < 0.2:
                    optimizer.zero_grad(set_to_none=choices.random() < 0.7)
            kept += self.differentiate(choices, x, more, scale)
            if choices.random() < 0.3 and any(p.grad is not None for p in self.parameters):
                kept.append(rl.nn.utils.clip_grad_norm_(self.parameters, choices.choice([0.1, 1.0, 100.0])))
            for optimizer in self.optimizers:
                if choices.random() < 0.9:
                    optimizer.step()
            self.change_in_place(choices, x)
        if choices.random() < 0.2:
            kept.append(choices.choice(self.parameters))
        if choices.random() < 0.2:
            kept.append(self.parameters[0].grad)
        return Result(kept[0], {"list": kept[1:], "tuple": (len(kept), x[:1], choices.choice(kept))})

    def differentiate(self, choices: random.Random, x: Any, more: dict[str, Any], scale: float) -> list[Any]:
        """A random trunk, and losses on it that are differentiated one by one, together, or by `autograd.grad`."""
        inner = x.detach().requires_grad_()
        pool = [inner if choices.random() < 0.3 else x, *more.values(), *self.parameters]
        if len(self.layers) and choices.random() < 0.8:
            pool.append(self.layers(x))
        pool += [self.product(choices, x), x * scale]
        for _ in range(choices.randint(3, 15)):
            pool.append(self.operation(choices, pool))
        if choices.random() < 0.3:
            with rl.no_grad():
                pool.append(self.operation(choices, pool))
        losses = [self.loss(choices, choices.choice(pool[-6:])) for _ in range(choices.randint(1, 3))]
        losses = [value for value in losses if value.requires_grad] or [self.parameters[0].square().sum()]
        used = choices.choice([p for p in self.parameters if p.requires_grad])
        how = choices.choice(["one by one", "together", "scaled", "grad", "penalty"])
        if how == "one by one":
            for value in losses:
                value.backward(retain_graph=True)
            if choices.random() < 0.5:
                losses[0].backward()
        elif how == "together":
            rl.autograd.backward(losses)
        elif how == "scaled":
            for value in losses:
                value.backward(value.detach() * 0.5, retain_graph=True)
        elif how == "grad":
            (gradient,) = rl.autograd.grad(sum(losses), [used], allow_unused=True)
            used.grad = None if gradient is None else choices.choice([gradient.contiguous(), gradient.clone()])
        else:
            (gradient,) = rl.autograd.grad(sum(losses), [used], create_graph=True, allow_unused=True)
            if gradient is not None and gradient.requires_grad:
                gradient.square().sum().backward()
        shown = choices.sample(
            pool, choices.choice([1, 2, len(pool)])
        )  # a value that is not returned may be computed in another way
        return [*losses, *shown, *([inner.grad] if inner.grad is not None else [])]

    def product(self, choices: random.Random, x: Any) -> Any:
        matrices = [p for p in self.parameters if p.dim() == 2 and p.shape[1] == self.width]
        return x @ choices.choice(matrices).t() if matrices else x

    def loss(self, choices: random.Random, value: Any) -> Any:
        kind = choices.randrange(6)
        if kind == 0 and value.dim() == 2:
            return F.cross_entropy(value, value.detach().argmin(1))
        if kind == 1:
            return F.mse_loss(value, rl.randn_like(value, generator=self.generator))
        if kind == 2:
            return F.smooth_l1_loss(value, (value * 0.5).detach())
        if kind == 3:
            return value.square().mean()
        return value.sum() if kind == 4 else value.tanh().mean()

    def operation(self, choices: random.Random, pool: list[Any]) -> Any:
        """A random differentiable operation on values of the pool."""
        x = choices.choice(pool)
        kind = choices.choice(["unary", "unary", "binary", "binary", "reduce", "layout", "index", "noise", "masks", "write"])
        return getattr(self, kind)(choices, x, pool)

    def unary(self, choices: random.Random, x: Any, pool: list[Any]) -> Any:
        return choices.choice(UNARY + FUNCTIONS)(x)

    def binary(self, choices: random.Random, x: Any, pool: list[Any]) -> Any:
        fitting = [y for y in pool if broadcasts(x, y)]
        y = choices.choice([*fitting, choices.uniform(-2.0, 2.0)])
        function = choices.choice([rl.add, rl.sub, rl.mul, rl.div, rl.maximum, rl.minimum, rl.where, rl.pow, rl.lerp])
        if not isinstance(y, rl.Tensor) and function in (rl.maximum, rl.minimum, rl.where, rl.lerp):
            function = rl.mul
        if function is rl.where:
            return rl.where(x > y.detach(), x, y)
        if function is rl.lerp:
            return rl.lerp(x, y, 0.25)
        return function(x.abs() + 0.1, y) if function is rl.pow else function(x, y)

    def reduce(self, choices: random.Random, x: Any, pool: list[Any]) -> Any:
        if not x.dim():
            return x.sum()
        dim, keep = choices.randrange(x.dim()), choices.random() < 0.6
        return choices.choice(
            [
                lambda: x.sum(dim, keep),
                lambda: x.mean(dim, keep),
                lambda: x.amax(dim, keep),
                lambda: x.max(dim, keep).values,
                lambda: x.logsumexp(dim, keep),
                lambda: x.softmax(dim),
                lambda: x.log_softmax(dim),
                lambda: x.cumsum(dim),
                lambda: x.var(dim, keepdim=keep),
                lambda: x.norm(2, dim, keep),
                lambda: x.prod(dim, keep),
                lambda: x.sum(),
            ]
        )()

    def layout(self, choices: random.Random, x: Any, pool: list[Any]) -> Any:
        same = [y for y in pool if y.shape == x.shape]
        if not x.dim():
            return choices.choice([x.unsqueeze(0), rl.stack(same[:3]), x.expand(2, 3)])
        dim = choices.randrange(x.dim())
        return choices.choice(
            [
                lambda: x.transpose(0, dim),
                lambda: x.reshape(-1),
                lambda: x.transpose(0, -1).reshape(x.shape),
                lambda: x.unsqueeze(dim) if x.dim() < 4 else x.flatten(),
                lambda: x.narrow(dim, x.shape[dim] - 1, 1),
                lambda: x[::2],
                lambda: x[..., -1:],
                lambda: x.select(dim, 0),
                lambda: rl.cat([x, choices.choice(same)], dim),
                lambda: rl.stack(choices.sample(same, min(2, len(same))), dim),
                lambda: x.split(2, dim)[-1],
                lambda: x.expand(2, *x.shape) if x.dim() < 3 else x,
                lambda: x.detach(),
            ]
        )()

    def index(self, choices: random.Random, x: Any, pool: list[Any]) -> Any:
        if not x.dim():
            return x * 1.0
        dim = choices.randrange(x.dim())
        index = rl.randint(0, x.shape[dim], (4,), generator=self.generator)
        best = x.detach().argmax(dim, keepdim=True)
        return choices.choice(
            [
                lambda: x.index_select(dim, index),
                lambda: x.gather(dim, best),
                lambda: x.scatter_add(dim, best, x.narrow(dim, 0, 1)),
                lambda: x[rl.randint(0, x.shape[0], (2, 2), generator=self.generator)],
                lambda: x[rl.tensor([0, -1])],
                lambda: F.one_hot(best, x.shape[dim]).float() * 0.5,
            ]
        )()

    def noise(self, choices: random.Random, x: Any, pool: list[Any]) -> Any:
        return choices.choice(
            [
                lambda: x * rl.bernoulli(rl.full(x.shape, 0.5), generator=self.generator) * 2.0,
                lambda: x + rl.randn(*x.shape, generator=self.generator),
                lambda: x * rl.rand_like(x, generator=self.generator),
                lambda: x + rl.multinomial(rl.ones(3), 1, generator=self.generator).float().sum(),
            ]
        )()

    def masks(self, choices: random.Random, x: Any, pool: list[Any]) -> Any:
        bound = choices.uniform(-1.0, 1.0)
        return choices.choice(
            [lambda: rl.where(x > bound, x, x * 0.1), lambda: x.masked_fill(x <= bound, bound), lambda: (x >= bound) * x]
        )()

    def write(self, choices: random.Random, x: Any, pool: list[Any]) -> Any:
        """A copy that is written to in place, as a whole or through a view."""
        y = x.clone()
        kind = choices.randrange(4)
        if kind == 0:
            y.mul_(1.5).add_(x.detach())
        elif kind == 1 and y.dim():
            y[-1:] = x[:1] * 2.0
        elif kind == 2 and y.dim() and y.shape[0] > 1:
            y[1].mul_(0.5)
        else:
            y.tanh_()
        return y

    def change_in_place(self, choices: random.Random, x: Any) -> None:
        """The surroundings of an optimiser: target networks, running means, weight decay, noise on the parameters."""
        with rl.no_grad():
            if choices.random() < 0.4:
                polyak_(self.targets, [p.detach() for p in self.parameters], 0.25)
            if choices.random() < 0.4:
                self.running.mul_(0.9).add_(x.mean(0) * 0.1)
            if choices.random() < 0.2:
                choices.choice(self.parameters).mul_(0.99)
            if choices.random() < 0.2:
                p = choices.choice(self.parameters)
                p.add_(rl.randn_like(p, generator=self.generator) * 0.01)
            if choices.random() < 0.1:
                self.parameters[0].copy_(self.targets[0])

    # --- between calls -----------------------------------------------------------------------------------------------

    def arguments(self, call: int) -> tuple[Any, ...]:
        """New arguments for every call. In some programs the batch size, the kind of array or the static number changes, too."""
        choices = random.Random(f"arguments {self.seed}")
        batches, scales = choices.choice([[4], [1], [3, 3, 3, 2]]), choices.choice([[1.0], [0.5], [0.5, 0.5, -2.0]])
        numbers = np.random.default_rng([self.seed, call])
        x = numbers.normal(size=(batches[call % len(batches)], self.width)).astype(np.float32)
        more = {"z": rl.tensor(numbers.normal(size=(self.width,))), "a": rl.tensor(numbers.normal(size=x.shape))}
        layouts = [rl.tensor(x), rl.tensor(x.T.copy()).t(), rl.tensor(np.concatenate([x, x], 1))[:, : self.width]]
        x = choices.choice(layouts)
        return x, more, scales[call % len(scales)]

    def between(self, call: int) -> None:
        """Changes from outside the program: schedules, gradients reset, parameters replaced."""
        choices = random.Random(f"between {self.seed} {call}")
        if self.outside_zero and choices.random() < 0.6:
            choices.choice(self.optimizers).zero_grad(set_to_none=choices.random() < 0.5)
        if choices.random() < 0.2:
            choices.choice(self.optimizers).param_groups[0]["lr"] *= 0.7
        if choices.random() < 0.1:
            with rl.no_grad():
                choices.choice(self.parameters).fill_(0.5)
        if choices.random() < 0.05:
            choices.choice(self.parameters).requires_grad_(choices.random() < 0.5)
            self.parameters[0].requires_grad_()
        if choices.random() < 0.05:
            self.optimizers[0].load_state_dict(self.optimizers[0].state_dict())
        if choices.random() < 0.1:
            self.parameters[0].square().sum().backward()

    def state(self) -> dict[str, Any]:
        """Everything that a step may change, by name."""
        found: dict[str, Any] = {"generator": self.generator.state, "running": self.running}
        for i, (p, target) in enumerate(zip(self.parameters, self.targets, strict=True)):
            found |= {f"parameter {i}": p, f"gradient {i}": p.grad, f"target {i}": target}
        for i, optimizer in enumerate(self.optimizers):
            for number, slots in optimizer.state_dict()["state"].items():
                found |= {f"optimizer {i} {name} {number}": value for name, value in slots.items()}
        return found


def broadcasts(x: Any, y: Any) -> bool:
    return all(a == b or 1 in (a, b) for a, b in zip(reversed(x.shape), reversed(y.shape), strict=False))


# --- what surrounds the tensors --------------------------------------------------------------------------------------


class Ambient:
    """A global object with an attribute that programs read."""

    scale = 1.0


AMBIENT = Ambient()


def squares(x: Any, count: int) -> Any:
    """A generator of tensors."""
    for k in range(count):
        yield (x * (k + 1.0)).square()


def nested(x: Any, depth: int) -> Any:
    """A function that calls itself."""
    return x if depth == 0 else nested(x, depth - 1) * 0.5 + 1.0


def closure_over(value: float) -> tuple[Callable[[Any], Any], Callable[[float], None]]:
    """(a function of a tensor with a number in its closure, a function that changes this number)."""

    def use(x: Any) -> Any:
        return x * value

    def change(other: float) -> None:
        nonlocal value
        value = other

    return use, change


class Surrounded(Twin):
    """A function that uses what surrounds tensors: numbers, attributes, containers, globals, closures, arguments that are written to."""

    width = 3

    def __init__(self, seed: int):
        choices = random.Random(f"surroundings {seed}")
        self.seed = seed
        self.generator = rl.Generator(seed)
        self.layer: Any = rl.nn.Linear(3, 3, generator=self.generator)
        self.other = rl.nn.Linear(3, 3, generator=self.generator)
        self.noise = rl.nn.Dropout(0.3, generator=self.generator)
        self.weight = rl.nn.Parameter(rl.randn(3, generator=self.generator))
        self.parameters = [self.weight, *self.layer.parameters(), *self.other.parameters()]
        self.optimizers = [choices.choice(OPTIMIZERS)(self.parameters)]
        self.offset = rl.randn(3, generator=self.generator)
        self.rows = rl.randn(5, 3, generator=self.generator)
        self.layers = [self.layer, self.other]
        self.clip, self.flags = 0.5, [0.5, 2.0]
        self.table = {"scale": 1.5, "inner": {"shift": 0.25}}
        self.count = 0
        self.log: list[Any] = []
        self.last: Any = None
        self.kept: list[Any] = []
        self.fails = False
        self.inner = rl.compile(self.halved)
        self.fold = rl.compile(self.folded)
        self.through, self.change_closure = closure_over(1.25)
        pure = [name for name in PURE if choices.random() < 0.5]
        names = pure + [name for name in IMPURE if choices.random() < 0.5] if choices.random() < 0.2 else pure
        self.names = choices.sample(names, min(len(names), choices.randint(1, 7)))

    def halved(self, x: Any) -> Any:
        return x * 0.5 + self.offset

    def folded(self, x: Any, depth: int) -> Any:
        return x - self.offset if depth == 0 else self.fold(x, depth - 1) * 0.5 + 1.0

    def step(self, a: Any, b: Any, number: float, count: int, index: Any, options: dict[str, Any], items: list[Any]) -> Any:
        with rl.no_grad():
            y = a * 1.0
        for name in self.names:
            y = getattr(self, name)(y, a=a, b=b, number=number, count=count, index=index, options=options, items=items)
        choices = random.Random(f"result {self.seed}")
        shown = {"a": a, "view": a[1:], "b": b, "offset": self.offset, "grad": self.weight.grad, "number": number * 2.0}
        names = choices.sample(sorted(shown), choices.randint(0, 3))
        return Result(y.detach(), {name: shown[name] for name in names})

    # each entry takes the value so far and the arguments, and returns the next value

    def writes(self, y: Any, a: Any, number: float, **rest: Any) -> Any:
        with rl.no_grad():
            a.add_(number)
        return y + a

    def writes_a_view(self, y: Any, a: Any, **rest: Any) -> Any:
        with rl.no_grad():
            a[:1].mul_(0.5)
        return y + a

    def reads_the_other(self, y: Any, b: Any, **rest: Any) -> Any:
        return y + b.mean(0)

    def adds_to_a_total(self, y: Any, **rest: Any) -> Any:
        with rl.no_grad():
            self.offset.add_(0.125)
        return y - self.offset

    def reads_attributes(self, y: Any, **rest: Any) -> Any:
        return y * self.clip + self.flags[0] * self.flags[-1]

    def reads_tables(self, y: Any, **rest: Any) -> Any:
        table = self.table
        return y * table["scale"] + table["inner"]["shift"]

    def reads_a_global(self, y: Any, **rest: Any) -> Any:
        return y * AMBIENT.scale

    def reads_a_closure(self, y: Any, **rest: Any) -> Any:
        return self.through(y)

    def clips(self, y: Any, number: float, **rest: Any) -> Any:
        return y.clamp(1.0 - (1.0 + number) ** 2, 1.0 + number)

    def branches_on_a_number(self, y: Any, number: float, **rest: Any) -> Any:
        return y * 2.0 if number > 0.45 else y - number

    def repeats(self, y: Any, count: int, **rest: Any) -> Any:
        for part in squares(y.tanh(), count):
            y = y * 0.5 + part
        return nested(y, count)

    def trains(self, y: Any, a: Any, **rest: Any) -> Any:
        optimizer = self.optimizers[0]
        for layer in self.layers:
            y = layer(y.detach()).tanh()
        loss = rl.nn.MSELoss()(y * self.weight, a.detach().tanh())
        optimizer.zero_grad()
        loss.backward()
        rl.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        optimizer.step()
        return y.detach() + loss.detach()

    def differentiates(self, y: Any, **rest: Any) -> Any:
        if self.weight.requires_grad:
            (self.weight * y.detach()).sum().backward()
        return y.detach()

    def drops(self, y: Any, **rest: Any) -> Any:
        return self.noise(y)

    def picks(self, y: Any, index: Any, **rest: Any) -> Any:
        return y + self.rows.index_select(0, index).mean(0)

    def calls_a_compiled_function(self, y: Any, **rest: Any) -> Any:
        return self.inner(y)

    def calls_a_compiled_function_that_calls_itself(self, y: Any, count: int, **rest: Any) -> Any:
        return self.fold(y, count)

    def differentiates_its_argument(self, y: Any, a: Any, **rest: Any) -> Any:
        if a.requires_grad:
            (y.detach().sum() * a.square()).sum().backward()
        return y

    def rebinds(self, y: Any, **rest: Any) -> Any:
        return self.layer(y.detach()).detach()

    def may_fail(self, y: Any, **rest: Any) -> Any:
        if self.fails:
            raise ZeroDivisionError("as asked for")
        return y

    def catches(self, y: Any, b: Any, **rest: Any) -> Any:
        try:
            return y.reshape(7, 11, 13)
        except RuntimeError:
            return y + b.sum()

    def reads_options(self, y: Any, options: dict[str, Any], items: list[Any], **rest: Any) -> Any:
        return y * options["gain"] + items[0].mean() + len(items)

    # actions that a replay cannot repeat

    def counts(self, y: Any, **rest: Any) -> Any:
        self.count += 1
        return y + float(self.count)

    def logs(self, y: Any, number: float, **rest: Any) -> Any:
        self.log.append(number)
        return y

    def remembers(self, y: Any, **rest: Any) -> Any:
        before, self.last = self.last, y.detach() * 1.0
        return y if before is None or before.shape != y.shape else y + before

    def extends_an_argument(self, y: Any, items: list[Any], **rest: Any) -> Any:
        items.append(y.detach() * 2.0)
        return y

    def sets_an_option(self, y: Any, a: Any, options: dict[str, Any], **rest: Any) -> Any:
        options["seen"] = a
        return y

    def reads_a_value(self, y: Any, **rest: Any) -> Any:
        return y * 2.0 if self.offset.sum().item() > 0 else y

    # --- between calls -----------------------------------------------------------------------------------------------

    def arguments(self, call: int) -> tuple[Any, ...]:
        choices = random.Random(f"arguments {self.seed}")
        kinds = choices.choice([["apart"], ["same"], ["view"], ["apart", "same", "view"]])
        rows = choices.choice([[4], [4], [1], [0], [4, 2, 0]])
        annealed, counts = choices.choice([True, False]), choices.choice([[1], [2], [1, 2]])
        now = random.Random(f"arguments {self.seed} {call}")
        numbers = np.random.default_rng([self.seed, call])
        a = rl.tensor(numbers.normal(size=(rows[call % len(rows)], 3)))
        b = {"apart": rl.tensor(numbers.normal(size=a.shape)), "same": a, "view": a[:1]}[kinds[call % len(kinds)]]
        if choices.random() < 0.1 and now.random() < 0.5:
            a.requires_grad_()
            b = a if b is a else a[:1] if b.sizes != a.sizes else b
        index = rl.tensor(numbers.integers(0, 5, size=2))
        if self.is_fault(call):
            index[1] = 5 + now.randrange(3)
        number = 0.5 * (1.0 - call / 20.0) if annealed else 0.5
        options = {"gain": choices.choice([1.0, 0.5 + call]), "x": a}
        return a, b, number, counts[call % len(counts)], index, options, [b, 1.5]

    def is_fault(self, call: int) -> bool:
        """Whether the call gets an index that is out of bounds."""
        return "picks" in self.names and random.Random(f"fault {self.seed} {call}").random() < 0.15

    def between(self, call: int) -> None:
        choices = random.Random(f"between {self.seed} {call}")
        happenings = [
            lambda: setattr(self, "clip", choices.choice([0.5, 0.25, 1])),
            lambda: self.flags.__setitem__(0, choices.choice([0.5, 1.5])),
            lambda: self.flags.append(choices.choice([2.0, 3.0])),
            lambda: self.table.update(scale=choices.choice([1.5, -0.0, 2])),
            lambda: self.table["inner"].update(shift=choices.random()),
            lambda: setattr(AMBIENT, "scale", choices.choice([1.0, 2.0])),
            lambda: self.change_closure(choices.choice([1.25, 0.75])),
            lambda: setattr(self, "layer", choices.choice([self.other, self.layers[0]])),
            lambda: self.layers.reverse(),
            lambda: setattr(self, "offset", rl.full((3,), choices.random())),
            lambda: self.noise.train(choices.random() < 0.5),
            lambda: setattr(self.noise, "p", choices.choice([0.3, 0.6])),
            lambda: self.kept.append(self.weight.grad),
            lambda: setattr(self.weight, "grad", None if choices.random() < 0.5 else rl.ones(3)),
            lambda: self.weight.requires_grad_(choices.random() < 0.7),
            lambda: self.optimizers[0].param_groups[0].update({"weight_decay": 0.5}),
            lambda: self.optimizers[0].param_groups[0].__setitem__("lr", choices.choice([0.01, 0.002])),
            lambda: rl.nn.Sequential(rl.nn.Linear(2, 2)).eval(),
            lambda: self.layer.register_forward_hook(lambda module, inputs, output: output * 1.5),
        ]
        for happening in choices.sample(happenings, choices.choice([0, 0, 0, 1, 2])):
            happening()

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = {"generator": self.generator.state, "offset": self.offset, "rows": self.rows}
        found |= {"count": self.count, "log": list(self.log), "last": self.last}
        found |= {f"kept {i}": gradient for i, gradient in enumerate(self.kept)}
        for i, p in enumerate(self.parameters):
            found |= {f"parameter {i}": p, f"gradient {i}": p.grad}
        for number, slots in self.optimizers[0].state_dict()["state"].items():
            found |= {f"optimizer {name} {number}": value for name, value in slots.items()}
        return found


PURE = [
    "writes",
    "writes_a_view",
    "reads_the_other",
    "adds_to_a_total",
    "reads_attributes",
    "reads_tables",
    "reads_a_global",
    "reads_a_closure",
    "clips",
    "branches_on_a_number",
    "repeats",
    "trains",
    "differentiates",
    "drops",
    "picks",
    "calls_a_compiled_function",
    "calls_a_compiled_function_that_calls_itself",
    "differentiates_its_argument",
    "rebinds",
    "may_fail",
    "catches",
    "reads_options",
]
IMPURE = ["counts", "logs", "remembers", "extends_an_argument", "sets_an_option", "reads_a_value"]


# --- the comparison --------------------------------------------------------------------------------------------------


def bits(value: Any, name: str = "output") -> dict[str, Any]:
    """Every tensor in a nested value as (shape, dtype, requires_grad, is_leaf, bytes).

    Reading changes nothing: it does not take the memory out of its pool.
    """
    if isinstance(value, rl.Tensor):
        return {
            name: (value.sizes, value.dtype.name, value.requires_grad, value.is_leaf, value._array(lasting=False).tobytes())
        }
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in bits(part, f"{name}.{key}").items()}
    if isinstance(value, (tuple, list)):
        parts = {k: v for i, part in enumerate(value) for k, v in bits(part, f"{name}.{i}").items()}
        return {f"{name}.type": type(value).__name__, **parts}
    return {name: value}


def in_thread(function: Callable, arguments: tuple[Any, ...]) -> Any:
    """The result of a call that is made by a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def looks_back(call: int, calls: int) -> bool:
    """Whether the results of all earlier calls are compared again after this call: a later call may not have changed them."""
    return call % 4 == 3 or call == calls - 1


class Comparison(NamedTuple):
    """The outcome of one seed: the first difference or None, and the number of replayed calls."""

    difference: str | None
    replays: int
    failures: int = 0


def compare_surrounded(seed: int, calls: int = 2 * CALLS) -> Comparison:
    """Call the function of this seed eagerly and compiled. A call that fails must not have changed anything."""
    AMBIENT.scale = 1.0
    eager, compiled = Surrounded(seed), Surrounded(seed)
    step = rl.compile(compiled.step)
    replays = failures = 0
    earlier: list[tuple[Any, Any]] = []
    for call in range(calls):
        fails = "may_fail" in eager.names and random.Random(f"raise {seed} {call}").random() < 0.1
        where = f"seed {seed}, call {call}"
        if fails or eager.is_fault(call):
            if step.why is None:  # eager code that fails has done part of its work already
                compiled.fails = fails
                arguments = compiled.arguments(call)
                before = bits(compiled.state(), "state") | bits(arguments, "argument")
                try:
                    step(*arguments)
                except (IndexError, ZeroDivisionError):
                    failures += 1
                else:
                    return Comparison(f"{where}: no error", replays)
                compiled.fails = False
                after = bits(compiled.state(), "state") | bits(arguments, "argument")
                different = [name for name in before | after if before.get(name, "") != after.get(name, "")]
                if different and step.why is None:
                    return Comparison(f"{where}: a failing call changed {', '.join(different)}", replays)
                if different:
                    break
        else:
            arguments, others = eager.arguments(call), compiled.arguments(call)
            programs = step.programs
            apart = random.Random(f"thread {seed} {call}").random() < 0.05
            right, output = eager.step(*arguments), in_thread(step, others) if apart else step(*others)
            earlier.append(((right, arguments, arguments[0].grad), (output, others, others[0].grad)))
            compared = earlier if looks_back(call, calls) else earlier[-1:]
            expected = bits(eager.state(), "state") | bits([one for one, _ in compared])
            actual = bits(compiled.state(), "state") | bits([other for _, other in compared])
            different = [name for name in expected | actual if expected.get(name, "") != actual.get(name, "")]
            if different:
                return Comparison(f"{where}: {', '.join(different)} ({' '.join(eager.names)})", replays, failures)
            if len(programs) > 32:
                return Comparison(f"{where}: {len(programs)} programs", replays)
            replays += bool(programs) and step.programs == programs and step.why is None
            changed = random.Random(f"change {seed} {call}")
            if changed.random() < 0.2:  # the caller may write to a result
                with rl.no_grad():
                    right.loss.fill_(7.0)
                    output.loss.fill_(7.0)
        eager.between(call)
        compiled.between(call)
    return Comparison(None, replays, failures)


def compare(seed: int, calls: int = CALLS) -> Comparison:
    """Run the program of this seed eagerly and compiled."""
    eager, compiled = Twin(seed), Twin(seed)
    step = rl.compile(compiled.step)
    programs, replays = [], 0
    earlier: list[tuple[Any, Any]] = []
    for call in range(calls):
        right = eager.step(*eager.arguments(call))
        expected = bits(right) | bits(eager.state(), "state")
        output = step(*compiled.arguments(call))
        actual = bits(output) | bits(compiled.state(), "state")
        different = [name for name in {**expected, **actual} if expected.get(name, "") != actual.get(name, "")]
        if different:
            return Comparison(f"seed {seed}, call {call}: {', '.join(different)}", replays)
        earlier.append((right, output))
        if looks_back(call, calls) and any(bits(expected) != bits(actual) for expected, actual in earlier):
            return Comparison(f"seed {seed}, call {call}: an earlier output differs", replays)
        replays += step.programs == programs
        programs = step.programs
        eager.between(call)
        compiled.between(call)
    return Comparison(None, replays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=CALLS, help="of each program; the first ones record")
    parser.add_argument(
        "--surrounded", action="store_true", help="programs that use numbers, attributes, containers and globals"
    )
    options = parser.parse_args()
    begin = time.perf_counter()
    run = compare_surrounded if options.surrounded else compare
    warnings.simplefilter("ignore", rl.errors.EagerWarning)
    replays = failures = mismatches = 0
    for done in range(1, options.count + 1):
        result = run(options.first_seed + done - 1, options.calls)
        replays += result.replays
        failures += result.failures
        if result.difference:
            mismatches += 1
            print(result.difference, flush=True)
        if done % 1000 == 0 or done == options.count:
            print(
                f"{done} programs, {replays} replayed calls, {failures} calls that failed as they should, "
                f"{mismatches} mismatches, {time.perf_counter() - begin:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()

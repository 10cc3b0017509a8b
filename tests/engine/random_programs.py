"""Random training programs, each run eagerly and compiled: after every call the two twins must agree in every bit.

A seed determines a program: `Twin.step` asks a stream of choices what to do next, and every call starts that stream anew, so all
calls of one program do the same. ``python -m tests.engine.random_programs --count 1000`` prints the number of mismatches.
"""

import argparse
import random
import time
from collections.abc import Callable
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
    """An output with a name, to see that its type survives."""

    loss: Any
    more: Any


class Twin:
    """Parameters, optimisers and a random stream made from a seed, and a step that trains them."""

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
        """A random trunk, and losses on it that are differentiated one by one, together, or with `autograd.grad`."""
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
        shown = choices.sample(pool, choices.choice([1, 2, len(pool)]))  # what is not shown may be computed in another way
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
        """One of the library's differentiable operations on values of the pool."""
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
        """A copy written to in place, as a whole or through a view."""
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
        """What surrounds an optimiser: target networks, running means, decay, noise on the parameters."""
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
        """New values at every call; in some programs the batch, the kind of array or the static number change too."""
        choices = random.Random(f"arguments {self.seed}")
        batches, scales = choices.choice([[4], [1], [3, 3, 3, 2]]), choices.choice([[1.0], [0.5], [0.5, 0.5, -2.0]])
        numbers = np.random.default_rng([self.seed, call])
        x = numbers.normal(size=(batches[call % len(batches)], self.width)).astype(np.float32)
        more = {"z": rl.tensor(numbers.normal(size=(self.width,))), "a": rl.tensor(numbers.normal(size=x.shape))}
        layouts = [rl.tensor(x), rl.tensor(x.T.copy()).t(), rl.tensor(np.concatenate([x, x], 1))[:, : self.width]]
        x = choices.choice(layouts)
        return x, more, scales[call % len(scales)]

    def between(self, call: int) -> None:
        """What a user does from outside: schedules, gradients reset, parameters set."""
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


# --- the comparison --------------------------------------------------------------------------------------------------


def bits(value: Any, name: str = "output") -> dict[str, Any]:
    """Every tensor in a nested value as shape, dtype and bytes, read from a copy so that nothing is disturbed."""
    if isinstance(value, rl.Tensor):
        with rl.no_grad():
            return {name: (value.shape, value.dtype.name, value.detach().clone().numpy().tobytes())}
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in bits(part, f"{name}.{key}").items()}
    if isinstance(value, (tuple, list)):
        parts = {k: v for i, part in enumerate(value) for k, v in bits(part, f"{name}.{i}").items()}
        return {f"{name}.type": type(value).__name__, **parts}
    return {name: value}


class Comparison(NamedTuple):
    """What came of one seed: the first difference or None, and how many calls were replayed."""

    difference: str | None
    replays: int


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
        if any(bits(expected) != bits(actual) for expected, actual in earlier):
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
    options = parser.parse_args()
    begin = time.perf_counter()
    results = [compare(seed, options.calls) for seed in range(options.first_seed, options.first_seed + options.count)]
    faults = [result.difference for result in results if result.difference]
    print("\n".join(faults[:20]))
    replays = sum(result.replays for result in results)
    print(f"{options.count} programs, {replays} replayed calls, {len(faults)} mismatches, {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()

"""Learning to learn: model-agnostic meta-learning on sines (Finn, Abbeel and Levine 2017, section 5.1).

    python examples/meta.py

Each task is a sine with an amplitude and a phase of its own, seen at ten points. The outer loss is the error after one gradient step on
the ten points; its gradient goes through this step, which needs create_graph.
"""

import math

import rl_lab as rl
import rl_lab.nn.functional as F

POINTS = 10
INNER_RATE = 0.01
TASKS = 16  # in a step of the outer loop
HIDDEN = 40

Parameters = list[rl.Tensor]


def make_parameters(stream: rl.Generator) -> Parameters:
    """Weights and biases of three layers, as plain tensors."""
    sizes = (1, HIDDEN, HIDDEN, 1)
    made = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        weight = rl.randn(outputs, inputs, generator=stream) / math.sqrt(inputs)
        made += [weight.requires_grad_(), rl.zeros(outputs, requires_grad=True)]
    return made


def forward(parameters: Parameters, x: rl.Tensor) -> rl.Tensor:
    w1, b1, w2, b2, w3, b3 = parameters
    return F.linear(F.linear(F.linear(x, w1, b1).relu(), w2, b2).relu(), w3, b3)


def make_task(stream: rl.Generator):
    """A function that draws points of one sine."""
    amplitude = 0.1 + 4.9 * rl.rand(1, generator=stream)
    phase = math.pi * rl.rand(1, generator=stream)

    def draw(count: int) -> tuple[rl.Tensor, rl.Tensor]:
        x = 10 * rl.rand(count, 1, generator=stream) - 5
        return x, amplitude * (x - phase).sin()

    return draw


def adapt(parameters: Parameters, x: rl.Tensor, y: rl.Tensor, steps: int, create_graph: bool) -> Parameters:
    """The parameters after gradient steps on one task."""
    for _ in range(steps):
        loss = F.mse_loss(forward(parameters, x), y)
        slopes = rl.autograd.grad(loss, parameters, create_graph=create_graph)
        parameters = [p - INNER_RATE * slope for p, slope in zip(parameters, slopes, strict=True)]
    return parameters


def meta_train(seed: int, steps: int = 3000) -> Parameters:
    """Initial parameters from which one gradient step goes far."""
    stream = rl.Generator(seed)
    parameters = make_parameters(stream)
    optimizer = rl.optim.Adam(parameters, lr=2e-3)

    @rl.compile
    def step():
        optimizer.zero_grad()
        for _ in range(TASKS):
            draw = make_task(stream)
            adapted = adapt(parameters, *draw(POINTS), steps=1, create_graph=True)
            x, y = draw(POINTS)
            (F.mse_loss(forward(adapted, x), y) / TASKS).backward()
        optimizer.step()

    for _ in range(steps):
        step()
    return parameters


def error_after(parameters: Parameters, steps: int, tasks: int = 200) -> float:
    """Mean squared error on new sines after gradient steps on ten points of each."""
    stream = rl.Generator(12345)
    total = 0.0
    for _ in range(tasks):
        draw = make_task(stream)
        adapted = adapt(parameters, *draw(POINTS), steps=steps, create_graph=False)
        x, y = draw(100)
        total += F.mse_loss(forward(adapted, x), y).item()
    return total / tasks


def test_one_gradient_step_goes_far(full):
    """As in the paper: one step halves the error, and ten do more, although one was trained for."""
    for seed in range(5 if full else 1):
        parameters = meta_train(seed)
        before, one, ten = [error_after(parameters, steps) for steps in (0, 1, 10)]
        assert one < 0.5 * before
        assert ten < 0.75 * one


def test_the_outer_gradient_goes_through_the_inner_step():
    """The gradient through an inner step agrees with finite differences. Without create_graph it is another one."""
    stream = rl.Generator(1)
    parameters = make_parameters(stream)
    draw = make_task(stream)
    seen, new = draw(POINTS), draw(POINTS)

    def outer(parameters: Parameters, create_graph: bool) -> rl.Tensor:
        return F.mse_loss(forward(adapt(parameters, *seen, 1, create_graph), new[0]), new[1])

    through = rl.autograd.grad(outer(parameters, True), parameters)
    bias, step = parameters[-1], 1e-2
    with rl.no_grad():
        original = bias.clone()
    around = []
    for sign in (1, -1):
        with rl.no_grad():
            bias.copy_(original + sign * step)
        around.append(outer(parameters, False).item())
    assert abs((around[0] - around[1]) / (2 * step) - through[-1].item()) < 1e-2 * abs(through[-1].item())
    first_order = rl.autograd.grad(outer(parameters, False), parameters)
    assert not rl.allclose(first_order[0], through[0], rtol=1e-2)


def main() -> None:
    parameters = meta_train(seed=0)
    random = make_parameters(rl.Generator(0))
    for steps in (0, 1, 10):
        learned, fresh = error_after(parameters, steps), error_after(random, steps)
        print(f"error after {steps:2} gradient steps: {learned:6.3f}, from random parameters {fresh:6.3f}")


if __name__ == "__main__":
    main()

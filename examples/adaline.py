"""One neuron by hand: the perceptron (Rosenblatt 1958) and the adaline (Widrow and Hoff 1960).

    python examples/adaline.py

Both compute z = w x + b and answer sign(z). They differ in the loss: the perceptron's is 0 for every point on the right side, the
adaline's is the squared distance of z from the label. Samples one by one give the same gradients as one batch.
"""

import rl_lab as rl
import rl_lab.nn.functional as F


def make_points(count: int, seed: int) -> tuple[rl.Tensor, rl.Tensor]:
    """Points (count, 2) and labels 1 and -1 (count,), on the two sides of the line x - 2 y + 0.5 = 0 and at least 0.1 away from it."""
    stream = rl.Generator(seed)
    points = rl.randn(4 * count, 2, generator=stream)
    height = points @ rl.tensor([1.0, -2.0]) + 0.5
    apart = height.abs() > 0.1 * 5**0.5
    return points[apart][:count], height[apart][:count].sign()


def forward(x: rl.Tensor, w: rl.Tensor, b: rl.Tensor) -> rl.Tensor:
    """z for one sample (2,) or a batch (n, 2)."""
    return x @ w + b


def perceptron(x: rl.Tensor, y: rl.Tensor, rate: float = 0.5, epochs: int = 200) -> tuple[rl.Tensor, rl.Tensor]:
    """Learn by the perceptron's loss, max(0, -y z), on the whole batch."""
    w = rl.zeros(2, requires_grad=True)
    b = rl.tensor(0.1, requires_grad=True)
    for _ in range(epochs):
        loss = F.perceptron_loss(forward(x, w, b), y)
        loss.backward()
        with rl.no_grad():
            w -= rate * w.grad
            b -= rate * b.grad
        w.grad = b.grad = None
    return w, b


def adaline(x: rl.Tensor, y: rl.Tensor, rate: float = 0.05, epochs: int = 20) -> tuple[rl.Tensor, rl.Tensor]:
    """Learn by the squared error, sample by sample: the rule w += rate * (y - z) * x, here from the gradient."""
    w = rl.zeros(2, requires_grad=True)
    b = rl.zeros((), requires_grad=True)
    optimizer = rl.optim.SGD([w, b], lr=rate)

    @rl.compile
    def step(sample, label):
        optimizer.zero_grad()
        loss = 0.5 * (forward(sample, w, b) - label) ** 2
        loss.backward()
        optimizer.step()

    for _ in range(epochs):
        for sample, label in zip(x, y, strict=True):
            step(sample, label)
    return w, b


def accuracy(x: rl.Tensor, y: rl.Tensor, w: rl.Tensor, b: rl.Tensor) -> float:
    """The share of points on the right side."""
    return (forward(x, w, b).sign() == y).float().mean().item()


def test_step_and_sign_make_the_same_decision():
    z = rl.tensor([-1.5, -0.1, 0.1, 2.0])
    step = rl.heaviside(z, rl.tensor(1.0))
    assert step.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert z.sign().equal(2 * step - 1)


def test_single_samples_and_a_batch_give_equal_results():
    x, y = make_points(32, seed=1)
    w = rl.tensor([0.25, -0.5], requires_grad=True)
    b = rl.tensor(0.125, requires_grad=True)

    F.perceptron_loss(forward(x, w, b), y, reduction="sum").backward()
    of_batch = w.grad.clone(), b.grad.clone()

    w.grad = b.grad = None
    for sample, label in zip(x, y, strict=True):
        F.perceptron_loss(forward(sample, w, b), label).backward()  # gradients add up
    assert rl.allclose(w.grad, of_batch[0], atol=1e-5)
    assert b.grad.equal(of_batch[1])
    one_by_one = rl.stack([forward(sample, w, b) for sample in x])
    assert rl.allclose(one_by_one, forward(x, w, b), rtol=0, atol=1e-6)


def test_the_perceptron_separates_what_a_line_separates():
    for seed in range(5):
        x, y = make_points(200, seed)
        assert accuracy(x, y, *perceptron(x, y)) == 1.0


def test_the_adaline_learns_a_line():
    for seed in range(5):
        x, y = make_points(200, seed)
        assert accuracy(x, y, *adaline(x, y)) >= 0.95


def main() -> None:
    x, y = make_points(200, seed=0)
    for learn in (perceptron, adaline):
        w, b = learn(x, y)
        shown = ", ".join(f"{value:.2f}" for value in w.tolist())
        print(f"{learn.__name__}: w = ({shown}), b = {b.item():.2f}, right {accuracy(x, y, w, b):.1%}")


if __name__ == "__main__":
    main()

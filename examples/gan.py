"""Generative adversarial networks (Goodfellow et al. 2014): a ring of eight Gaussians, and handwritten digits.

    python examples/gan.py [--out gan.png]

The discriminator learns from `fake.detach()`, so its loss leaves the generator alone; the generator learns through the discriminator,
whose gradients its step throws away. The zero-centred penalty of Mescheder et al. 2018 (R1) keeps the pair from running in circles.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab import nn

LATENT = 16
RADIUS = 2.0
SPREAD = 0.05
CENTRES = rl.tensor([[RADIUS * np.cos(k * np.pi / 4), RADIUS * np.sin(k * np.pi / 4)] for k in range(8)])


def ring(count: int, stream: rl.Generator) -> rl.Tensor:
    """Points (count, 2) of eight narrow Gaussians on a circle."""
    centres = CENTRES[rl.randint(8, (count,), generator=stream)]
    return centres + SPREAD * rl.randn(count, 2, generator=stream)


def perceptron(inputs: int, outputs: int, stream: rl.Generator, *last: nn.Module, hidden: int = 64) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, hidden, generator=stream),
        nn.LeakyReLU(0.2),
        nn.Linear(hidden, hidden, generator=stream),
        nn.LeakyReLU(0.2),
        nn.Linear(hidden, outputs, generator=stream),
        *last,
    )


@dataclass
class GAN:
    """A generator, a discriminator, and the random numbers that they use."""

    generator: nn.Module
    discriminator: nn.Module
    stream: rl.Generator

    def sample(self, count: int) -> rl.Tensor:
        return self.generator(rl.randn(count, LATENT, generator=self.stream))

    def discriminator_loss(self, real: rl.Tensor, fake: rl.Tensor) -> rl.Tensor:
        """Cross entropy: 1 for real, 0 for generated samples."""
        return F.softplus(-self.discriminator(real)).mean() + F.softplus(self.discriminator(fake)).mean()

    def generator_loss(self, fake: rl.Tensor) -> rl.Tensor:
        """The generator wants its samples to be taken for real ones."""
        return F.softplus(-self.discriminator(fake)).mean()

    def penalty(self, real: rl.Tensor) -> rl.Tensor:
        """Mean squared gradient of the discriminator at real samples; its own gradient needs create_graph."""
        real = real.detach().requires_grad_()
        (slope,) = rl.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
        return slope.square().flatten(1).sum(1).mean()


def train(gan: GAN, draw: Callable[[int], rl.Tensor], steps: int, penalty: float, rate: float = 2e-3) -> None:
    """Take turns: one step of the discriminator, one of the generator."""
    improve_d = rl.optim.Adam(gan.discriminator.parameters(), lr=rate, betas=(0.0, 0.9))
    improve_g = rl.optim.Adam(gan.generator.parameters(), lr=rate, betas=(0.0, 0.9))

    @rl.compile
    def step(real):
        fake = gan.sample(len(real))
        improve_d.zero_grad()
        (gan.discriminator_loss(real, fake.detach()) + 0.5 * penalty * gan.penalty(real)).backward()
        improve_d.step()

        improve_g.zero_grad()
        gan.generator_loss(fake).backward()
        improve_g.step()

    for i in range(steps):
        progress = i / steps
        improve_d.param_groups[0]["lr"] = improve_g.param_groups[0]["lr"] = rate * min(1.0, 2.0 - 2.0 * progress)
        step(draw(128))


def learn_ring(seed: int, steps: int = 4000) -> GAN:
    stream = rl.Generator(seed)
    gan = GAN(perceptron(LATENT, 2, stream), perceptron(2, 1, stream), stream)
    train(gan, lambda count: ring(count, stream), steps, penalty=0.1)
    return gan


def learn_digits(seed: int, steps: int = 6000) -> GAN:
    """Images of 8 x 8 pixels, flattened, with values in [0, 1]."""
    from sklearn import datasets

    images = rl.tensor(datasets.load_digits().data / 16.0)
    stream = rl.Generator(seed)
    gan = GAN(perceptron(LATENT, 64, stream, nn.Sigmoid(), hidden=256), perceptron(64, 1, stream, hidden=256), stream)
    train(gan, lambda count: images[rl.randint(len(images), (count,), generator=stream)], steps, penalty=1.0)
    return gan


@rl.no_grad()
def modes(gan: GAN, count: int = 2000) -> int:
    """How many of the eight Gaussians got at least 2 % of the samples within four standard deviations; an equal share is 12.5 %."""
    distances = (gan.sample(count).unsqueeze(1) - CENTRES).norm(2, -1)
    near = (distances < 4 * SPREAD).float().mean(0)
    return int((near >= 0.02).sum())


def gradients(network: nn.Module) -> list[rl.Tensor | None]:
    return [parameter.grad for parameter in network.parameters()]


def fresh(seed: int = 1) -> tuple[GAN, rl.Tensor]:
    stream = rl.Generator(seed)
    gan = GAN(perceptron(LATENT, 2, stream), perceptron(2, 1, stream), stream)
    return gan, ring(32, stream)


def test_the_loss_of_the_discriminator_leaves_the_generator_alone():
    gan, real = fresh()
    gan.discriminator_loss(real, gan.sample(32).detach()).backward()
    assert all(grad is not None for grad in gradients(gan.discriminator))
    assert all(grad is None for grad in gradients(gan.generator))


def test_without_detach_it_would_not():
    gan, real = fresh()
    gan.discriminator_loss(real, gan.sample(32)).backward()
    assert all(grad is not None for grad in gradients(gan.generator))


def test_two_losses_over_one_retained_graph_equal_two_passes():
    gan, real = fresh()
    fake = gan.sample(32)
    of_d = list(gan.discriminator.parameters())
    of_g = list(gan.generator.parameters())

    score = gan.discriminator(fake)  # one graph, which both losses share
    loss_d = F.softplus(-gan.discriminator(real)).mean() + F.softplus(score).mean()
    loss_g = F.softplus(-score).mean()
    loss_d.backward(retain_graph=True, inputs=of_d)
    assert all(grad is None for grad in gradients(gan.generator))
    before = [grad.clone() for grad in gradients(gan.discriminator)]
    loss_g.backward(retain_graph=True, inputs=of_g)  # the comparison below goes through the generator once more
    assert all(grad.equal(same) for grad, same in zip(gradients(gan.discriminator), before, strict=True))

    alone_d = rl.autograd.grad(gan.discriminator_loss(real, fake.detach()), of_d)
    alone_g = rl.autograd.grad(gan.generator_loss(fake), of_g)
    assert all(grad.equal(alone) for grad, alone in zip(gradients(gan.discriminator), alone_d, strict=True))
    assert all(grad.equal(alone) for grad, alone in zip(gradients(gan.generator), alone_g, strict=True))


def test_all_eight_modes(full):
    assert [modes(learn_ring(seed)) for seed in range(20 if full else 5)] == [8] * (20 if full else 5)


def save_picture(rings: GAN, digits: GAN, path: str) -> None:
    """Samples of both networks beside real points and digits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    with rl.no_grad():
        real, fake = ring(1000, rings.stream), rings.sample(1000)
        images = F.pad(digits.sample(48).reshape(-1, 8, 8), (1, 1, 1, 1))  # a white frame around each
        images = images.reshape(6, 8, 10, 10).permute(0, 2, 1, 3).reshape(60, 80)
    left.plot(*real.numpy().T, ".", color="0.8", label="real")
    left.plot(*fake.numpy().T, ".", markersize=3, label="generated")
    left.set_aspect("equal")
    left.legend(loc="center")
    right.imshow(images.numpy(), cmap="gray_r")
    right.set_axis_off()
    right.set_title("generated digits")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn to generate points and digits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="gan.png", help="a picture of samples")
    arguments = parser.parse_args()
    rings = learn_ring(arguments.seed)
    print(f"{modes(rings)} of 8 Gaussians")
    save_picture(rings, learn_digits(arguments.seed), arguments.out)
    print(f"samples: {arguments.out}")


if __name__ == "__main__":
    main()

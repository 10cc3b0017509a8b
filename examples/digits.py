"""Handwritten digits: a perceptron and a convolutional network.

    python examples/digits.py                       # scikit-learn's 1,797 digits of 8 x 8 pixels
    python examples/digits.py --mnist FOLDER        # MNIST's IDX files, fetched if they are missing
    python examples/digits.py --runs runs/digits    # loss, accuracy and confusion matrix for TensorBoard

Every image is shown turned, scaled and shifted a little, differently in every epoch.
"""

import argparse
import math

import numpy as np
from rich.progress import track

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab import nn
from rl_lab.errors import FileError
from rl_lab.utils.data import MNIST, DataLoader, Subset, TensorDataset, random_split


def load_digits(seed: int) -> tuple[Subset, Subset]:
    """scikit-learn's digits in two parts at random: four fifths to learn from, a fifth held out."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images = rl.tensor(digits.images / 16.0).unsqueeze(1)
    data = TensorDataset(images, rl.tensor(digits.target))
    train, test = random_split(data, [0.8, 0.2], rl.Generator(seed))
    return train, test


def perceptron(size: int, stream: rl.Generator) -> nn.Module:
    """Three layers, for images of ``size`` x ``size`` pixels."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(size * size, 256, generator=stream),
        nn.ReLU(),
        nn.Linear(256, 256, generator=stream),
        nn.ReLU(),
        nn.Linear(256, 10, generator=stream),
    )


def convolutional(size: int, stream: rl.Generator) -> nn.Module:
    """Three convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, generator=stream),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, generator=stream),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1, generator=stream),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * (size // 4) ** 2, 10, generator=stream),
    )


def augmented(images: rl.Tensor, stream: rl.Generator) -> rl.Tensor:
    """Every image turned by up to 0.15 radians, scaled by up to 15 % and shifted by up to 7.5 % of its size, at random."""
    n = len(images)
    angle, growth, right, down = (0.3 * rl.rand(4, n, generator=stream) - 0.15).unbind(0)
    x, y = (1 + growth) * angle.cos(), (1 + growth) * angle.sin()
    maps = rl.stack([x, -y, right, y, x, down], 1).reshape(n, 2, 3)
    return F.grid_sample(images, F.affine_grid(maps, images.shape, align_corners=False), align_corners=False)


def train(network: nn.Module, data, epochs: int, seed: int, log=None, quiet: bool = True) -> None:
    """Learn by Adam with a learning rate that falls along a cosine."""
    stream = rl.Generator(seed)
    loader = DataLoader(data, batch_size=64, shuffle=True, drop_last=True, generator=stream)
    optimizer = rl.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)

    @rl.compile
    def step(images, labels):
        loss = F.cross_entropy(network(augmented(images, stream)), labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    network.train()
    for epoch in track(range(epochs), "learning", disable=quiet):
        optimizer.param_groups[0]["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        losses = [step(images, labels) for images, labels in loader]
        if log is not None:
            log.add_scalar("loss", rl.stack(losses).mean().item(), epoch)


@rl.no_grad()
def confusion(network: nn.Module, data) -> np.ndarray:
    """How many held-out digits of each class (row) got each answer (column)."""
    network.eval()
    counts = np.zeros((10, 10), np.int64)
    for images, labels in DataLoader(data, batch_size=500):
        np.add.at(counts, (labels.numpy(), network(images).argmax(1).numpy()), 1)
    return counts


def accuracy(counts: np.ndarray) -> float:
    return counts.trace() / counts.sum()


def picture(counts: np.ndarray):
    """The confusion matrix as a figure; the diagonal, which is large, is left white."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="answer", ylabel="digit", xticks=range(10), yticks=range(10))
    wrong = counts * (1 - np.eye(10, dtype=np.int64))
    axes.imshow(wrong, cmap="Reds", vmin=0, vmax=2 * max(3, wrong.max()))
    for digit, answer in np.argwhere(counts):
        axes.text(answer, digit, counts[digit, answer], ha="center", va="center")
    return figure


def score(build, seed: int, epochs: int) -> float:
    """The share of held-out digits that a network learns to read."""
    learn, test = load_digits(seed)
    network = build(8, rl.Generator(seed))
    train(network, learn, epochs, seed)
    return accuracy(confusion(network, test))


def test_a_perceptron_reads_97_percent(full):
    scores = [score(perceptron, seed, epochs=60) for seed in range(5 if full else 1)]
    assert np.mean(scores) >= 0.97


def test_a_convolutional_network_reads_98_5_percent(full):
    scores = [score(convolutional, seed, epochs=40) for seed in range(5 if full else 1)]
    assert np.mean(scores) >= 0.985


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn to read handwritten digits.")
    parser.add_argument("--mnist", metavar="FOLDER", help="MNIST's files, instead of scikit-learn's digits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", metavar="FOLDER", help="write TensorBoard's records here")
    arguments = parser.parse_args()
    learn, test = load_digits(arguments.seed)
    epochs = {perceptron: 60, convolutional: 40}
    if arguments.mnist:
        try:
            learn, test = (MNIST(arguments.mnist, train=part, download=True) for part in (True, False))
        except (FileError, ImportError) as error:
            parser.error(str(error))
        epochs = {perceptron: 10, convolutional: 5}
    log = None
    if arguments.runs:
        from tensorboardX import SummaryWriter

        log = SummaryWriter(arguments.runs)
    for number, (build, count) in enumerate(epochs.items()):
        network = build(learn[0][0].shape[-1], rl.Generator(arguments.seed))
        train(network, learn, count, arguments.seed, log=log, quiet=False)
        counts = confusion(network, test)
        print(f"{build.__name__}: {accuracy(counts):.2%} of {counts.sum()} held-out digits")
        if log is not None:
            log.add_scalar("accuracy", accuracy(counts), number)
            log.add_figure(f"confusion/{build.__name__}", picture(counts))


if __name__ == "__main__":
    main()

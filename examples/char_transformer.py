"""A small transformer that learns to write like this repository's documentation, letter by letter.

python examples/char_transformer.py
"""

import math
from pathlib import Path

import numpy as np

import rl_lab as rl
import rl_lab.nn.functional as F
from rl_lab import nn

ROOT = Path(__file__).parents[1]
TEXT = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "agents/README.md", "docs/evolution.md"))
LETTERS = sorted(set(TEXT))
NUMBERS = np.array([LETTERS.index(letter) for letter in TEXT])
HELD_OUT = len(TEXT) // 10  # letters at the end of the text
CONTEXT = 48


class Writer(nn.Module):
    """Predicts each next letter from those before it: (n, length) numbers of letters give (n, length, letters) logits."""

    def __init__(self, seed: int, width: int = 64, heads: int = 4, layers: int = 2):
        super().__init__()
        stream = rl.Generator(seed)
        self.letters = nn.Embedding(len(LETTERS), width, generator=stream)
        self.places = nn.Embedding(CONTEXT, width, generator=stream)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True, generator=stream
        )
        self.body = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width))
        self.head = nn.Linear(width, len(LETTERS), generator=stream)
        with rl.no_grad():
            for table in (self.letters, self.places):
                table.weight.mul_(0.1)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, x: rl.Tensor) -> rl.Tensor:
        length = x.shape[1]
        embedded = self.letters(x) + self.places.weight[:length]
        return self.head(self.body(embedded, self.mask[:length, :length], is_causal=True))


def loss(network: Writer, text: rl.Tensor) -> rl.Tensor:
    """Mean cross entropy of the next letter, in nats, for pieces of text (n, CONTEXT + 1)."""
    return F.cross_entropy(network(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


def train(network: Writer, seed: int, steps: int = 1500, batch: int = 16) -> None:
    random = np.random.default_rng(seed)
    optimizer = rl.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)

    @rl.compile
    def step(text):
        optimizer.zero_grad()
        loss(network, text).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    network.train()
    for i in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (i + 1) / 50) * 0.5 * (1 + math.cos(math.pi * i / steps))
        starts = random.integers(0, len(NUMBERS) - HELD_OUT - CONTEXT, (batch, 1))
        step(rl.from_numpy(NUMBERS[starts + np.arange(CONTEXT + 1)]))


@rl.no_grad()
def held_out_loss(network: Writer) -> float:
    """The loss on the end of the text, which training does not see."""
    network.eval()
    starts = np.arange(len(NUMBERS) - HELD_OUT, len(NUMBERS) - CONTEXT - 1, CONTEXT)[:, None]
    return loss(network, rl.from_numpy(NUMBERS[starts + np.arange(CONTEXT + 1)])).item()


def bigram_loss() -> float:
    """The same of a table of pairs of letters, counted in the rest of the text."""
    counts = np.full((len(LETTERS),) * 2, 0.1)
    learn, test = NUMBERS[:-HELD_OUT], NUMBERS[-HELD_OUT:]
    np.add.at(counts, (learn[:-1], learn[1:]), 1)
    return float(-np.log(counts / counts.sum(1, keepdims=True))[test[:-1], test[1:]].mean())


@rl.no_grad()
def write(network: Writer, beginning: str, count: int, seed: int) -> str:
    """Continue a text, letter by letter."""
    network.eval()
    stream = rl.Generator(seed)
    text = [LETTERS.index(letter) for letter in beginning]
    for _ in range(count):
        logits = network(rl.tensor([text[-CONTEXT:]]))[0, -1]
        text.append(rl.multinomial((logits / 0.7).softmax(0), 1, generator=stream).item())
    return "".join(LETTERS[number] for number in text)


def test_a_letter_depends_on_the_letters_before_it_alone():
    network = Writer(seed=1).eval()
    text = rl.from_numpy(NUMBERS[None, :CONTEXT])
    changed = text.clone()
    changed[0, 20:] = 0
    with rl.no_grad():
        same = (network(text) - network(changed)).abs().amax(-1)[0]
    assert same[:20].max() == 0
    assert same[20:].min() > 0


def test_it_predicts_better_than_pairs_of_letters(full):
    for seed in range(5 if full else 1):
        network = Writer(seed)
        train(network, seed)
        assert held_out_loss(network) < bigram_loss() - 0.2


def main() -> None:
    network = Writer(seed=0)
    train(network, seed=0)
    print(f"{held_out_loss(network):.2f} nats a letter on unseen text; a table of pairs: {bigram_loss():.2f}\n")
    print(write(network, "The agent", 300, seed=0))


if __name__ == "__main__":
    main()

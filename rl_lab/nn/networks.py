"""Networks by description: ``mlp:64,64`` is a multilayer perceptron with two hidden layers of 64."""

import copy
import math
from typing import Any

from rl_lab.engine.random import Generator
from rl_lab.nn import init
from rl_lab.nn.activation import ReLU, Tanh
from rl_lab.nn.containers import Sequential
from rl_lab.nn.layers import Linear
from rl_lab.nn.module import Module

ACTIVATIONS: dict[str, type[Module]] = {"relu": ReLU, "tanh": Tanh}


def hidden_sizes(description: str) -> tuple[int, ...]:
    """The hidden layers that a description names. ValueError if it is not ``mlp:`` and sizes joined by commas."""
    kind, _, sizes = description.partition(":")
    parts = [part.strip() for part in sizes.split(",") if part.strip()]
    if kind != "mlp" or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"a network is described as mlp:64,64 with positive sizes, not {description!r}")
    return tuple(map(int, parts))


def mlp(
    inputs: int,
    hidden: tuple[int, ...],
    outputs: int,
    activation: str = "relu",
    *,
    orthogonal: bool = False,
    output_gain: float = 1.0,
    generator: Generator | None = None,
) -> Sequential:
    """A perceptron from (batch, inputs) to (batch, outputs).

    Weights start as `Linear` starts them or, with ``orthogonal``, orthogonal with the activation's gain and ``output_gain`` in the
    last layer, and zero biases.
    """
    sizes = (inputs, *hidden, outputs)
    network = Sequential()
    for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layer = Linear(a, b, generator=generator)
        last = i == len(sizes) - 2
        if orthogonal:
            init.orthogonal_(layer.weight, output_gain if last else math.sqrt(2.0), generator)
            init.zeros_(layer.bias)
        network.append(layer)
        if not last:
            network.append(ACTIVATIONS[activation]())
    return network


def copy_of(network: Any) -> Any:
    """A second network with the same values that requires no gradients: a target network."""
    return copy.deepcopy(network).requires_grad_(False)

"""Networks by description: ``mlp:64,64`` is a perceptron with two hidden layers of 64, ``cnn:16,32:128`` two convolutions and one layer.

Some agents take the path of an evolved network, too: a file that `nn.graph.files.save_graph` wrote, or a run of NEAT.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl_lab.engine.errors import GraphError, ShapeError
from rl_lab.engine.random import Generator
from rl_lab.nn import init
from rl_lab.nn.activation import ReLU, Sigmoid, SiLU, Tanh
from rl_lab.nn.containers import Sequential
from rl_lab.nn.convolution import Conv2d
from rl_lab.nn.graph import GraphNetwork
from rl_lab.nn.graph.files import load_graph
from rl_lab.nn.layers import Flatten, Linear
from rl_lab.nn.module import Module

ACTIVATIONS: dict[str, type[Module]] = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid, "silu": SiLU}


def hidden_sizes(description: str) -> tuple[int, ...]:
    """The hidden layers of a perceptron's description. ValueError if it is not ``mlp:`` and sizes joined by commas."""
    kind, _, sizes = description.partition(":")
    if evolved_path(description) is not None:
        raise ValueError(f"{description!r} holds an evolved network, and layers are needed here, as in mlp:64,64")
    if kind != "mlp":
        raise ValueError(f"a network is described as mlp:64,64 with positive sizes, not {description!r}")
    return _numbers(sizes, description)


def layer_sizes(description: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The convolutions' channels and the hidden layers that a description names. ValueError if it is neither mlp nor cnn."""
    kind, _, sizes = description.partition(":")
    if kind != "cnn":
        return (), hidden_sizes(description)
    channels, _, hidden = sizes.partition(":")
    if not _numbers(channels, description):
        raise ValueError(
            f"a convolutional network is described as cnn:16,32:128, channels and hidden sizes, not {description!r}"
        )
    return _numbers(channels, description), _numbers(hidden, description)


def _numbers(text: str, description: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"a network is described as mlp:64,64 or cnn:16,32:128 with positive sizes, not {description!r}")
    return tuple(map(int, parts))


ACTOR = "actor"
"""Name of the network in a run of NEAT that gradient agents go on from."""


def evolved_path(description: str) -> Path | None:
    """The evolved network that a description names, without suffix: a file, or a run directory's `ACTOR`. None if it is no path."""
    if description.partition(":")[0] in ("mlp", "cnn"):
        return None
    path = Path(description)
    if path.is_dir():
        path = path / ACTOR
    elif path.suffix in (".json", ".safetensors"):
        path = path.with_suffix("")
    return path if path.with_name(path.name + ".json").is_file() else None


def check_network(description: str) -> None:
    """ValueError if a description is neither of sizes nor the path of an evolved network."""
    if evolved_path(description) is not None:
        return
    if description.partition(":")[0] not in ("mlp", "cnn") and (Path(description).exists() or "/" in description):
        raise ValueError(f"{description!r} holds no evolved network: it has no {ACTOR}.json, as a run of NEAT has, and is none")
    layer_sizes(description)


def sizes_beside(description: str) -> str:
    """For a network without a counterpart in evolution, such as a critic: the same sizes, or ``mlp:64,64`` beside an evolved one."""
    return description if evolved_path(description) is None else "mlp:64,64"


def _evolved(path: Path, inputs: int, outputs: int) -> GraphNetwork:
    network = load_graph(path)
    if network.recurrent:
        raise GraphError(f"{path} is recurrent, and only feed-forward networks can be trained so")
    if (len(network.inputs), len(network.outputs)) != (inputs, outputs):
        raise GraphError(
            f"{path} has {len(network.inputs)} inputs and {len(network.outputs)} outputs, {inputs} and {outputs} are needed"
        )
    return network


def mlp(
    inputs: int,
    hidden: tuple[int, ...],
    outputs: int,
    activation: str = "relu",
    *,
    orthogonal: bool = False,
    output_gain: float = 1.0,
    generator: Generator | None = None,
    linear: Callable[..., Module] = Linear,
) -> Sequential:
    """A perceptron from (batch, inputs) to (batch, outputs).

    Weights start as `Linear` starts them or, with ``orthogonal``, orthogonal with the activation's gain and ``output_gain`` in the
    last layer, and zero biases. ``linear`` makes the layers.
    """
    sizes = (inputs, *hidden, outputs)
    network = Sequential()
    for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layer = linear(a, b, generator=generator)
        last = i == len(sizes) - 2
        if orthogonal:
            _orthogonal(layer, output_gain if last else math.sqrt(2.0), generator)
        network.append(layer)
        if not last:
            network.append(ACTIVATIONS[activation]())
    return network


def make_network(
    observation_shape: tuple[int, ...], description: str, outputs: int, activation: str = "relu", **options: Any
) -> Sequential:
    """The network of a description from observations (batch, *observation_shape) to (batch, outputs).

    Convolutions are 3x3 with stride 1, need observations of shape (channels, height, width), and are followed by the hidden layers;
    a perceptron sees any observation flattened. ``options`` are those of `mlp`. An evolved network is taken as it is, weights and all.
    GraphError if it is recurrent or has other inputs or outputs.
    """
    network, path = Sequential(), evolved_path(description)
    if path is not None:
        if len(observation_shape) != 1:
            network.append(Flatten())
        network.append(_evolved(path, math.prod(observation_shape), outputs))
        return network
    channels, hidden = layer_sizes(description)
    if channels:
        if len(observation_shape) != 3 or min(observation_shape[1:]) <= 2 * len(channels):
            raise ShapeError(
                f"network {description!r} needs observations of shape (channels, height, width) with room for {len(channels)} "
                f"3x3 convolutions, got {observation_shape}"
            )
        for a, b in zip((observation_shape[0], *channels), channels, strict=False):
            convolution = Conv2d(a, b, 3, generator=options.get("generator"))
            if options.get("orthogonal"):
                _orthogonal(convolution, math.sqrt(2.0), options.get("generator"))
            network.append(convolution)
            network.append(ACTIVATIONS[activation]())
        lost = 2 * len(channels)
        observation_shape = (channels[-1], observation_shape[1] - lost, observation_shape[2] - lost)
    if len(observation_shape) != 1:
        network.append(Flatten())
    for layer in mlp(math.prod(observation_shape), hidden, outputs, activation, **options):
        network.append(layer)
    return network


def _orthogonal(layer: Any, gain: float, generator: Generator | None) -> None:
    init.orthogonal_(layer.weight, gain, generator)
    init.zeros_(layer.bias)


class Dueling(Module):
    """Q(s, a) = V(s) + A(s, a) - mean_a A(s, a) over a common body (Wang et al. 2016, equation 9).

    ``value`` gives (batch, atoms) and ``advantage`` (batch, actions * atoms); the result is (batch, actions * atoms).
    """

    def __init__(self, body: Module, value: Module, advantage: Module, atoms: int = 1):
        super().__init__()
        self.body, self.value, self.advantage, self.atoms = body, value, advantage, atoms

    def forward(self, input: Any) -> Any:
        features = self.body(input)
        advantage = self.advantage(features)
        advantage = advantage.view(len(advantage), -1, self.atoms)
        value = self.value(features).unsqueeze(1)
        return (value + advantage - advantage.mean(1, keepdim=True)).flatten(1)


def copy_of(network: Any) -> Any:
    """A second network with the same values that requires no gradients: a target network."""
    return copy.deepcopy(network).requires_grad_(False)

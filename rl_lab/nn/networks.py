"""Networks built from a short description.

``mlp:64,64`` is a perceptron with two hidden layers of 64 units. ``cnn:16,32:128`` has two convolutions, with 16 and 32 channels, and
one hidden layer of 128 units. Some agents also accept the path of an evolved network: a file written by `nn.graph.files.save_graph`,
or the directory of a NEAT run.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rl_lab.engine.errors import GraphError, ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.random import Generator
from rl_lab.nn import init
from rl_lab.nn.activation import ReLU, Sigmoid, SiLU, Tanh
from rl_lab.nn.containers import Sequential
from rl_lab.nn.convolution import Conv2d
from rl_lab.nn.graph import GraphNetwork
from rl_lab.nn.graph.files import load_graph
from rl_lab.nn.layers import Flatten, Linear
from rl_lab.nn.module import Module

Network = TypeVar("Network", bound=Module)
ACTIVATIONS: dict[str, type[Module]] = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid, "silu": SiLU}


def hidden_sizes(description: str) -> tuple[int, ...]:
    """Sizes of the hidden layers in ``mlp:64,64``. Raises ValueError for any other description."""
    kind, _, sizes = description.partition(":")
    if evolved_path(description) is not None:
        raise ValueError(f"{description!r} is an evolved network, but layer sizes are needed here: use for example mlp:64,64")
    if kind != "mlp":
        raise ValueError(f"the network must be mlp: and positive sizes, as in mlp:64,64, got {description!r}")
    return _numbers(sizes, description)


def layer_sizes(description: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(channels of the convolutions, sizes of the hidden layers) of a description. Raises ValueError if it is neither mlp nor cnn."""
    kind, _, sizes = description.partition(":")
    if kind != "cnn":
        return (), hidden_sizes(description)
    channels, _, hidden = sizes.partition(":")
    if not _numbers(channels, description):
        raise ValueError(
            f"a convolutional network must be cnn:, channels, and hidden sizes, as in cnn:16,32:128, got {description!r}"
        )
    return _numbers(channels, description), _numbers(hidden, description)


def _numbers(text: str, description: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"the network must be like mlp:64,64 or cnn:16,32:128, with positive sizes, got {description!r}")
    return tuple(map(int, parts))


ACTOR = "actor"
"""File name, without suffix, of the network in a NEAT run with which a gradient agent can start."""


def evolved_path(description: str) -> Path | None:
    """Path, without suffix, of the evolved network that a description names; None if the description is not such a path.

    The description is the path of a network file, or of a run directory that contains `ACTOR`.
    """
    if description.partition(":")[0] in ("mlp", "cnn"):
        return None
    path = Path(description)
    if path.is_dir():
        path = path / ACTOR
    elif path.suffix in (".json", ".safetensors"):
        path = path.with_suffix("")
    return path if path.with_name(path.name + ".json").is_file() else None


def check_network(description: str) -> None:
    """Raise ValueError if a description is neither a list of sizes nor the path of an evolved network."""
    if evolved_path(description) is not None:
        return
    if description.partition(":")[0] not in ("mlp", "cnn") and (Path(description).exists() or "/" in description):
        raise ValueError(f"{description!r} is neither an evolved network nor a NEAT run with {ACTOR}.json")
    layer_sizes(description)


def sizes_beside(description: str) -> str:
    """Description of a network that evolution does not provide, such as a critic.

    The same sizes as in ``description``, or ``mlp:64,64`` if ``description`` is an evolved network.
    """
    return description if evolved_path(description) is None else "mlp:64,64"


def _evolved(path: Path, inputs: int, outputs: int) -> GraphNetwork:
    network = load_graph(path)
    if network.recurrent:
        raise GraphError(f"{path} is a recurrent network: gradient agents train feed-forward networks only")
    if (len(network.inputs), len(network.outputs)) != (inputs, outputs):
        raise GraphError(
            f"{path} has {len(network.inputs)} inputs and {len(network.outputs)} outputs, but {inputs} and {outputs} are needed"
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
    """Perceptron from (batch, inputs) to (batch, outputs), with ``activation`` after every layer but the last.

    Weights start as in `Linear`. With ``orthogonal`` they start orthogonal, with gain sqrt(2), and ``output_gain`` in the last layer,
    and the biases start at 0. ``linear(inputs, outputs, generator=...)`` builds each layer.
    """
    sizes = (inputs, *hidden, outputs)
    network = Sequential()
    for i, (layer_inputs, layer_outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        layer = linear(layer_inputs, layer_outputs, generator=generator)
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
    """Build the network of a description, from observations (batch, *observation_shape) to (batch, outputs).

    Convolutions are 3x3 with stride 1 and need observations of shape (channels, height, width); the hidden layers follow them. A
    perceptron flattens the observation. ``options`` are the keyword arguments of `mlp`. An evolved network is loaded with its weights.
    Raises ValueError if the description is invalid, ShapeError if the convolutions do not fit the observation, and GraphError if the
    evolved network is recurrent or has other numbers of inputs or outputs.
    """
    network = Sequential()
    path = evolved_path(description)
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
        for inputs, filters in zip((observation_shape[0], *channels), channels, strict=False):
            convolution = Conv2d(inputs, filters, 3, generator=options.get("generator"))
            if options.get("orthogonal"):
                _orthogonal(convolution, math.sqrt(2.0), options.get("generator"))
            network.append(convolution)
            network.append(ACTIVATIONS[activation]())
        border = 2 * len(channels)
        observation_shape = (channels[-1], observation_shape[1] - border, observation_shape[2] - border)
    if len(observation_shape) != 1:
        network.append(Flatten())
    for layer in mlp(math.prod(observation_shape), hidden, outputs, activation, **options):
        network.append(layer)
    return network


def _orthogonal(layer: Module, gain: float, generator: Generator | None) -> None:
    init.orthogonal_(layer.weight, gain, generator)
    init.zeros_(layer.bias)


class Dueling(Module):
    """Dueling network: Q(s, a) = V(s) + A(s, a) - mean over a' of A(s, a') (Wang et al. 2016, equation 9).

    ``body`` computes the features for both heads. ``value`` returns (batch, atoms), ``advantage`` (batch, actions * atoms), and the
    network (batch, actions * atoms).
    """

    def __init__(self, body: Module, value: Module, advantage: Module, atoms: int = 1):
        super().__init__()
        self.body = body
        self.value = value
        self.advantage = advantage
        self.atoms = atoms

    def forward(self, input: Tensor) -> Tensor:
        features = self.body(input)
        advantage = self.advantage(features)
        advantage = advantage.view(len(advantage), -1, self.atoms)
        value = self.value(features).unsqueeze(1)
        return (value + advantage - advantage.mean(1, keepdim=True)).flatten(1)


def copy_of(network: Network) -> Network:
    """Copy a network with its values and freeze the copy, for use as a target network."""
    return copy.deepcopy(network).requires_grad_(False)

"""Networks built from a short description.

``mlp:64,64`` is a perceptron with two hidden layers of 64 units. ``cnn:16,32:128`` has two convolutions, with 16 and 32 channels, and
one hidden layer of 128 units. A kernel size (default 3) and a stride (default 1) may follow the number of channels, as in
``cnn:32x8s4,64x4s2,64x3:512``. ``nature`` means this last network, of Mnih et al. 2015. Some agents also accept the path of an evolved
network: a file written by `nn.graph.files.save_graph`, or the directory of a NEAT run.
"""

import copy
import math
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rl_lab.engine.errors import GraphError, ShapeError
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import full
from rl_lab.engine.ops.layout import cat
from rl_lab.engine.random import Generator
from rl_lab.nn import init
from rl_lab.nn.activation import ReLU, Sigmoid, SiLU, Tanh
from rl_lab.nn.containers import Sequential
from rl_lab.nn.convolution import Conv2d
from rl_lab.nn.graph import GraphNetwork
from rl_lab.nn.graph.files import load_graph
from rl_lab.nn.layers import Flatten, Linear
from rl_lab.nn.module import Module, Parameter
from rl_lab.nn.noisy import NoisyLinear
from rl_lab.nn.normalization import GroupNorm, LayerNorm
from rl_lab.nn.pictures import Observed, PictureInput, picture_of

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


class Convolution(NamedTuple):
    """A convolution in a description."""

    filters: int
    kernel: int = 3
    stride: int = 1


NATURE = "cnn:32x8s4,64x4s2,64x3:512"
"""The network ``nature``: Mnih et al. 2015, "Human-level control through deep reinforcement learning"."""


def layer_sizes(description: str) -> tuple[tuple[Convolution, ...], tuple[int, ...]]:
    """(convolutions, sizes of the hidden layers) of a description. Raises ValueError if it is neither mlp, cnn nor nature."""
    kind, _, sizes = (NATURE if description == "nature" else description).partition(":")
    if kind != "cnn":
        return (), hidden_sizes(description)
    layers, _, hidden = sizes.partition(":")
    found = [re.fullmatch(r"(\d+)(?:x(\d+))?(?:s(\d+))?", part.strip()) for part in layers.split(",") if part.strip()]
    numbers = [tuple(int(number) for number in (m[1], m[2] or 3, m[3] or 1)) if m else (0,) for m in found]
    if not numbers or not all(min(layer) > 0 for layer in numbers):
        raise ValueError(
            "a convolutional network must be cnn:, channels, and hidden sizes, as in cnn:16,32:128 or cnn:32x8s4,64x4s2:512 with kernels "
            f"and strides, got {description!r}"
        )
    return tuple([Convolution(*layer) for layer in numbers]), _numbers(hidden, description)


def is_convolutional(description: str) -> bool:
    """Whether a description names a network with convolutions."""
    return description.partition(":")[0] in ("cnn", "nature")


def _numbers(text: str, description: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"the network must be like mlp:64,64 or cnn:16,32:128, with positive sizes, got {description!r}")
    return tuple(map(int, parts))


KINDS = ("mlp", "cnn", "nature")
"""First words of descriptions; a description with another first word is the path of an evolved network."""
ACTOR = "actor"
"""File name, without suffix, of the network in a NEAT run with which a gradient agent can start."""


def evolved_path(description: str) -> Path | None:
    """Path, without suffix, of the evolved network that a description names; None if the description is not such a path.

    The description is the path of a network file, or of a run directory that contains `ACTOR`.
    """
    if description.partition(":")[0] in KINDS:
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
    if description.partition(":")[0] not in KINDS and (Path(description).exists() or "/" in description):
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
    normalized: bool = False,
) -> Sequential:
    """Perceptron from (batch, inputs) to (batch, outputs), with ``activation`` after every layer but the last.

    Weights start as in `Linear`. With ``orthogonal`` they start orthogonal, with gain sqrt(2), and ``output_gain`` in the last layer,
    and the biases start at 0. ``linear(inputs, outputs, generator=...)`` builds each layer. With ``normalized`` a layer normalisation
    precedes each activation.
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
            if normalized:
                network.append(LayerNorm(layer_outputs))
            network.append(ACTIVATIONS[activation]())
    return network


def make_network(
    observed: Observed | tuple[int, ...], description: str, outputs: int, activation: str = "relu", **options: Any
) -> Sequential:
    """Build the network of a description, from observations (batch, *shape) to (batch, outputs).

    ``observed`` describes the observations, or is their shape if they are float32. The first layer converts and scales observations
    that are not float32. Convolutions need pictures, see `rl_lab.nn.pictures.picture_of`; the hidden layers follow them. A perceptron
    flattens the observation. ``options`` are the keyword arguments of `mlp`. An evolved network is loaded with its weights. Raises
    ValueError if the description is invalid, ShapeError if the convolutions do not fit the observation, and GraphError if the evolved
    network is recurrent or has other numbers of inputs or outputs.
    """
    seen = observed if isinstance(observed, Observed) else Observed(tuple(observed))
    path = evolved_path(description)
    if path is not None:
        layers: list[Module] = [] if len(seen.shape) == 1 else [Flatten()]
        evolved = _evolved(path, math.prod(seen.shape), outputs)
        return _in_order(None if seen.is_float else PictureInput(), [*layers, evolved])
    first, layers, features = _encoder(seen, description, activation, options)
    _, hidden = layer_sizes(description)
    return _in_order(first, [*layers, *mlp(features, hidden, outputs, activation, **options)])


class ActionValue(Sequential):
    """Q(s, a) of continuous actions: (batch, *shape) and (batch, size) give (batch, outputs).

    The actions are appended to the features of the observation before the first hidden layer.
    """

    joined = 0
    """Number of modules that see the observation alone."""

    def forward(self, input: Tensor, actions: Tensor) -> Tensor:  # type: ignore[override]
        x = input
        for i, module in enumerate(self):
            if i == self.joined:
                x = cat([x.flatten(1), actions], 1)
            x = module(x)
        return x


def make_action_value(
    observed: Observed | tuple[int, ...],
    description: str,
    size: int,
    outputs: int = 1,
    activation: str = "relu",
    **options: Any,
) -> ActionValue:
    """Build the critic of a description for actions of ``size`` components.

    Takes the same ``options`` and raises the same errors as `make_network`.
    """
    seen = observed if isinstance(observed, Observed) else Observed(tuple(observed))
    first, layers, features = _encoder(seen, description, activation, options)
    layers = [] if not is_convolutional(description) else layers
    _, hidden = layer_sizes(description)
    alone = len(layers) + (first is not None)
    network = _in_order(first, [*layers, *mlp(features + size, hidden, outputs, activation, **options)], ActionValue)
    network.joined = alone
    return network


def _encoder(
    seen: Observed, description: str, activation: str, options: dict[str, Any]
) -> tuple[PictureInput | None, list[Module], int]:
    """The layers before the hidden ones: the input layer or None, the others, and the number of features."""
    convolutions, _ = layer_sizes(description)
    if not convolutions:
        first = None if seen.is_float and seen.scale == 1.0 else PictureInput(seen.scale)
        return first, ([] if len(seen.shape) == 1 else [Flatten()]), math.prod(seen.shape)
    picture = picture_of(seen)
    plain = seen.is_float and seen.scale == 1.0 and picture.order == "first" and picture.frames == 1
    layers: list[Module] = []
    channels = picture.channels
    height = picture.height
    width = picture.width
    for filters, kernel, stride in convolutions:
        if min(height, width) < kernel:
            raise ShapeError(
                f"network {description!r} does not fit pictures of {picture.height} x {picture.width}: a kernel of {kernel} meets "
                f"{height} x {width}; use smaller kernels and strides, or fewer convolutions"
            )
        convolution = Conv2d(channels, filters, kernel, stride, generator=options.get("generator"))
        if options.get("orthogonal"):
            _orthogonal(convolution, math.sqrt(2.0), options.get("generator"))
        # with one group, the layer normalisation of a picture
        layers += [convolution, *([GroupNorm(1, filters)] if options.get("normalized") else []), ACTIVATIONS[activation]()]
        channels = filters
        height = (height - kernel) // stride + 1
        width = (width - kernel) // stride + 1
    return None if plain else PictureInput(seen.scale, picture), [*layers, Flatten()], channels * height * width


Made = TypeVar("Made", bound=Sequential)


def _in_order(first: Module | None, layers: list[Module], kind: type[Made] = Sequential) -> Made:  # type: ignore[assignment]
    """A network of layers that are named by their numbers. The input layer ``first`` has no parameters and no number."""
    named: list[tuple[str, Module]] = [] if first is None else [("input", first)]
    return kind(OrderedDict([*named, *[(str(i), layer) for i, layer in enumerate(layers)]]))


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


def make_value_network(
    observed: Observed | tuple[int, ...],
    description: str,
    actions: int,
    activation: str = "relu",
    *,
    atoms: int = 1,
    dueling: bool = False,
    noise: Generator | None = None,
    generator: Generator | None = None,
) -> Sequential | Dueling:
    """Build a network from observations (batch, ...) to action values (batch, actions), or (batch, actions * atoms) for distributions.

    ``dueling`` splits the last layer into two heads, see `Dueling`. With ``noise``, a generator, the layers are `NoisyLinear` and draw from
    it. Raises the errors of `make_network`.
    """

    def linear(inputs: int, outputs: int, generator: Generator | None) -> Linear | NoisyLinear:
        if noise is None:
            return Linear(inputs, outputs, generator=generator)
        layer = NoisyLinear(inputs, outputs, generator=generator)
        layer.generator = noise
        return layer

    network = make_network(observed, description, actions * atoms, activation, generator=generator, linear=linear)
    if not dueling:
        return network
    features = network[-1].in_features
    value, advantage = (mlp(features, (), outputs * atoms, generator=generator, linear=linear) for outputs in (1, actions))
    return Dueling(network[:-1], value, advantage, atoms)


class StateDependentActor(Module):
    """Actor with generalized state-dependent exploration (Raffin, Kober and Stulp 2021, "Smooth exploration for robotic reinforcement
    learning", section 3).

    The noise of an action is a linear function of the features, the inputs of the last layer of ``network``, which computes the means
    (batch, size). The entries of the function's matrix are Gaussian, with standard deviations exp(``log_std``), a parameter (features,
    size). The forward pass returns (batch, 2 size): the means, within ±2 as in Stable-Baselines3, and the log standard deviations of the
    noise over all matrices.
    """

    def __init__(self, network: Sequential, log_std: float):
        super().__init__()
        self.body = network[:-1]
        self.mean = network[-1]
        self.log_std = Parameter(full((self.mean.in_features, self.mean.out_features), log_std))

    def forward(self, input: Tensor) -> Tensor:
        return self.outputs(self.body(input))

    def outputs(self, features: Tensor) -> Tensor:
        """Means and log standard deviations, (batch, 2 size), for features (batch, features)."""
        variance = (features**2) @ (2.0 * self.log_std).exp()
        return cat([self.mean(features).clamp(-2.0, 2.0), 0.5 * (variance + 1e-6).log()], 1)

    def noise(self, features: Tensor, matrices: Tensor) -> Tensor:
        """Noise (batch, size) for features (batch, features) and standard normal matrices (batch, features, size)."""
        return (features.unsqueeze(1) @ (self.log_std.exp() * matrices)).squeeze(1)


def copy_of(network: Network, noise: Generator | None = None) -> Network:
    """Copy a network with its values and freeze the copy, for use as a target network.

    Noisy layers of the copy draw from ``noise``, if given: a copied generator would repeat the noise of the original.
    """
    copied = copy.deepcopy(network).requires_grad_(False)
    if noise is not None:
        for module in copied.modules():
            if isinstance(module, NoisyLinear):
                module.generator = noise
    return copied

"""A table of a module's layers: kind, shapes and numbers of parameters."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

from rl_lab.engine.html import html_table
from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import zeros
from rl_lab.engine.tape import no_grad
from rl_lab.nn.module import Module

Shape = tuple[int, ...]


class Layer(NamedTuple):
    """One row of a `Summary`."""

    name: str
    """Dotted name in the module; empty for the module itself."""
    kind: str
    output: str
    """Shape of its output in the last call, empty if the layer was not called or no inputs were given."""
    weights: str
    """Shapes of its own parameters by name."""
    size: int
    """Number of elements of its own parameters."""
    trainable: int
    """Number of those that require a gradient."""


class Summary:
    """The layers of a module as a table, as text (`print`) and in notebooks. See `summary`."""

    def __init__(self, kind: str, layers: Sequence[Layer]):
        self.kind = kind
        self.layers = tuple(layers)
        self.parameters = sum(layer.size for layer in layers)
        self.trainable = sum(layer.trainable for layer in layers)

    def _table(self) -> tuple[tuple[str, ...], list[tuple[str | int, ...]], str]:
        """Heads, rows and the line of sums."""
        has_outputs = any(layer.output for layer in self.layers)
        heads = ("layer", "kind", *(["output"] if has_outputs else []), "parameters", "count")
        rows: list[tuple[str | int, ...]] = []
        for layer in self.layers:
            output = (layer.output,) if has_outputs else ()
            rows.append((layer.name or "(itself)", layer.kind, *output, layer.weights, layer.size))
        frozen = self.parameters - self.trainable
        sums = f"{self.kind}: {self.parameters:,} parameters" + (f", {frozen:,} of them frozen" if frozen else "")
        return heads, rows, sums

    def __str__(self) -> str:
        heads, rows, sums = self._table()
        texts = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
        widths = [max(len(line[k]) for line in [list(heads), *texts]) for k in range(len(heads))]
        lines = []
        for line in [list(heads), *texts]:
            cells = [cell.ljust(width) for cell, width in zip(line[:-1], widths[:-1], strict=True)]
            lines.append("  ".join([*cells, line[-1].rjust(widths[-1])]))
        return "\n".join([*lines, sums])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        heads, rows, sums = self._table()
        return html_table(heads, rows, sums)


def summary(module: Module, *inputs: Tensor | Sequence[int]) -> Summary:
    """The layers of a module with their parameters, and the shapes of their outputs if ``inputs`` are given.

    An input is a tensor, or the shape of one, which is then filled with zeros. A copy of the module is called in evaluation mode, so
    the module itself does not change. A parameter that several layers share is counted once. Raises whatever the call raises.
    """
    outputs = _outputs(module, inputs) if inputs else {}
    seen: set[int] = set()
    layers = []
    for name, layer in module.named_modules():
        own = dict(layer.named_parameters(recurse=False))
        fresh = [weight for weight in own.values() if id(weight) not in seen]
        seen |= {id(weight) for weight in own.values()}
        if not own and any(True for _ in layer.children()):
            continue  # a container
        weights = ", ".join(f"{key} {_shape(weight.shape)}" for key, weight in own.items())
        count = sum(weight.numel() for weight in fresh)
        trainable = sum(weight.numel() for weight in fresh if weight.requires_grad)
        layers.append(Layer(name, type(layer).__name__, outputs.get(name, ""), weights, count, trainable))
    return Summary(type(module).__name__, layers)


def _outputs(module: Module, inputs: Sequence[Tensor | Sequence[int]]) -> dict[str, str]:
    """The shape of each layer's output, by the layer's name."""
    called = copy.deepcopy(module).eval()
    found: dict[str, str] = {}

    def watch(name: str, layer: Module) -> None:
        def keep(_: Module, __: object, output: Any) -> None:
            found[name] = _shapes(output)

        layer.register_forward_hook(keep)

    for name, layer in called.named_modules():
        watch(name, layer)
    with no_grad():
        called(*[given if isinstance(given, Tensor) else zeros(*given) for given in inputs])
    return found


def _shapes(value: Any) -> str:
    """The shape of a tensor, or the shapes of the tensors in a tuple, list or dict."""
    if isinstance(value, Tensor):
        return _shape(value.shape)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return ", ".join(text for part in value if (text := _shapes(part)))
    return ""


def _shape(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "1"

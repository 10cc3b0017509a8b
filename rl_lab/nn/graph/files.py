"""Files of a GraphNetwork: JSON that a person can read, and safetensors with the exact weights."""

import json
from pathlib import Path

import numpy as np

from rl_lab.engine.errors import GraphError
from rl_lab.nn.graph.network import GraphNetwork
from rl_lab.serialization import read_safetensors, save_file, write_file

LARGEST = 1 << 28
"""Bytes of the largest JSON file that is read."""


def save_graph(network: GraphNetwork, path: str | Path) -> None:
    """Write the network to ``path``.json and its weights and biases to ``path``.safetensors.

    The JSON file holds the whole network, with numbers as the shortest decimals that round to the same float32. A crash at any moment
    leaves either the old network or the new one: while the safetensors file is replaced, the JSON file stands alone.
    """
    text, binary = _files(path)
    arrays = {"weight": network.weight.detach().numpy(), "bias": network.bias.detach().numpy()}
    description = network.describe()
    description["nodes"] = [{**node, "bias": _shortest(node["bias"])} for node in description["nodes"]]
    description["edges"] = [{**edge, "weight": _shortest(edge["weight"])} for edge in description["edges"]]
    head = {key: value for key, value in description.items() if key not in ("nodes", "edges")}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    for key in ("nodes", "edges"):
        rows = ",\n".join("  " + json.dumps(row) for row in description[key])
        lines.append(f' "{key}": [\n{rows}\n ]' + ("," if key == "nodes" else ""))
    binary.unlink(missing_ok=True)
    write_file(text, [("{\n" + "\n".join(lines) + "\n}\n").encode()])
    save_file(arrays, binary)


def load_graph(path: str | Path) -> GraphNetwork:
    """Load a network written by `save_graph`, equal bit for bit. ``path`` is what `save_graph` was given, or one of the two files.

    Raises GraphError if the files cannot be read or do not belong together. To edit a network, delete the safetensors file and change
    the JSON file: without the safetensors file the weights are read from the JSON file.
    """
    text, binary = _files(path)
    path = text.with_suffix("")
    try:
        if text.stat().st_size > LARGEST:
            raise ValueError(f"{text} has more than {LARGEST:,} bytes")
        network = GraphNetwork.from_description(json.loads(text.read_text(encoding="utf-8")))
        arrays = read_safetensors(binary)[0] if binary.exists() else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise GraphError(f"the network {path} cannot be read: {error}") from None
    for name, values in arrays.items():
        own = dict(network.named_parameters()).get(name)
        if own is None or values.shape != own.shape or not np.array_equal(values, own.detach().numpy(), equal_nan=True):
            raise GraphError(
                f"{path}.json and {path}.safetensors differ in {name}: delete the safetensors file to use the JSON file"
            )
    if arrays:
        network.load_state_dict(arrays)
    return network


def _files(path: str | Path) -> tuple[Path, Path]:
    """The JSON file and the safetensors file of a network, from the name without suffix or from one of the two names."""
    path = Path(path)
    name = path.name.removesuffix(".json").removesuffix(".safetensors")
    return path.with_name(name + ".json"), path.with_name(name + ".safetensors")


def _shortest(value: float) -> float:
    """Shortest decimal number that rounds to the float32 ``value``."""
    return float(str(np.float32(value)))

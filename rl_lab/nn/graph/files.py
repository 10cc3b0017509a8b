"""Files of a GraphNetwork: JSON that a person can read, and safetensors with the exact weights."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rl_lab.engine.errors import GraphError
from rl_lab.nn.graph.network import GraphNetwork
from rl_lab.serialization import flush


def save_graph(network: GraphNetwork, path: str | Path) -> None:
    """Write the network to ``path``.json and its weights and biases to ``path``.safetensors.

    The JSON file holds the whole network, with numbers as the shortest decimals that round to the same float32. A crash at any moment
    leaves either the old network or the new one: while the safetensors file is replaced, the JSON file stands alone.
    """
    path = Path(path)
    text = path.with_name(path.name + ".json")
    binary = path.with_name(path.name + ".safetensors")
    new_text = text.with_name(f".{text.name}.new")
    new_binary = binary.with_name(f".{binary.name}.new")
    arrays = {"weight": network.weight.detach().numpy(), "bias": network.bias.detach().numpy()}
    save_file(arrays, str(new_binary))
    description = network.describe()
    description["nodes"] = [{**node, "bias": _shortest(node["bias"])} for node in description["nodes"]]
    description["edges"] = [{**edge, "weight": _shortest(edge["weight"])} for edge in description["edges"]]
    head = {key: value for key, value in description.items() if key not in ("nodes", "edges")}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    for key in ("nodes", "edges"):
        rows = ",\n".join("  " + json.dumps(row) for row in description[key])
        lines.append(f' "{key}": [\n{rows}\n ]' + ("," if key == "nodes" else ""))
    new_text.write_text("{\n" + "\n".join(lines) + "\n}\n", encoding="utf-8")
    flush(new_text)
    flush(new_binary)
    binary.unlink(missing_ok=True)
    new_text.replace(text)
    new_binary.replace(binary)
    flush(path.parent)


def load_graph(path: str | Path) -> GraphNetwork:
    """Load a network written by `save_graph`, equal bit for bit.

    Raises GraphError if the files cannot be read or do not belong together. To edit a network, delete the safetensors file and change
    the JSON file: without the safetensors file the weights are read from the JSON file.
    """
    path = Path(path)
    try:
        description = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
        network = GraphNetwork.from_description(description)
        binary = path.with_name(path.name + ".safetensors")
        arrays = load_file(str(binary)) if binary.exists() else {}
    except (OSError, ValueError, SafetensorError, TypeError) as error:
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


def _shortest(value: float) -> float:
    """Shortest decimal number that rounds to the float32 ``value``."""
    return float(str(np.float32(value)))

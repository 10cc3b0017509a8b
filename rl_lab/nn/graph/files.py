"""A GraphNetwork on disk: JSON for people beside safetensors for bits."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rl_lab.engine.errors import GraphError
from rl_lab.nn.graph.network import GraphNetwork
from rl_lab.serialization import flush


def save_graph(network: GraphNetwork, path: str | Path) -> None:
    """Write ``path``.json, the whole network in words and shortest decimal numbers, and ``path``.safetensors, weights and biases.

    At every moment the old network or the new one can be loaded: the JSON says all, and stands alone while the other file is changed.
    """
    path = Path(path)
    text, binary = (path.with_name(path.name + suffix) for suffix in (".json", ".safetensors"))
    new_text, new_binary = (file.with_name(f".{file.name}.new") for file in (text, binary))
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
    """The network that `save_graph` wrote, equal bit for bit.

    GraphError if the files cannot be read or do not belong together. A network may be edited in the JSON if the safetensors file is
    taken away: then the numbers are read from there, too.
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
            raise GraphError(f"{path}.json and {path}.safetensors differ in {name}")
    if arrays:
        network.load_state_dict(arrays)
    return network


def _shortest(value: float) -> float:
    """The shortest decimal number that rounds to this float32."""
    return float(str(np.float32(value)))

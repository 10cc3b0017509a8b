"""Configuration files of neat-python: the keys that mean something here, and a list of those that do not."""

import configparser
from pathlib import Path
from typing import Any, NamedTuple

from agents.neat.config import NEATConfig
from rl_lab.engine.kernels.graph import ACTIVATIONS, AGGREGATIONS
from rl_lab.experiment.config import make_config
from rl_lab.experiment.faults import Fault


class Imported(NamedTuple):
    """A configuration from elsewhere."""

    config: NEATConfig
    settings: dict[str, Any]
    """The fields of ``config`` that the file sets."""
    inputs: int | None
    outputs: int | None
    fitness_threshold: float | None
    unused: list[str]
    """Keys, as ``section.key``, without effect here."""
    notes: list[str]
    """What is nearly but not exactly the same here."""


# neat-python's key: ours
_SAME = {
    "pop_size": "population",
    "num_hidden": "initial_hidden",
    "compatibility_excess_coefficient": "excess_coefficient",
    "compatibility_disjoint_coefficient": "disjoint_coefficient",
    "compatibility_weight_coefficient": "weight_coefficient",
    "compatibility_threshold": "compatibility_threshold",
    "max_stagnation": "stagnation",
    "survival_threshold": "survival_threshold",
    "interspecies_crossover_prob": "interspecies_mating",
    "conn_add_prob": "add_connection",
    "conn_delete_prob": "delete_connection",
    "node_add_prob": "add_node",
    "node_delete_prob": "delete_node",
    "enabled_mutate_rate": "toggle_enabled",
    "activation_mutate_rate": "mutate_activation",
    "weight_max_value": "weight_limit",
    "target_num_species": "species_target",
}
# Scaled in neat-python: sigmoid(5 z), tanh(2.5 z), sin(5 z), exp(-5 z^2), 0.2 log(1 + exp(5 z)).
_ACTIVATIONS = {name: name for name in ACTIVATIONS} | {"sigmoid": "steepened_sigmoid", "lelu": "leaky_relu"}
_SCALED = {"sigmoid": "sigmoid(5 z) is sigmoid(4.9 z)", "tanh": "tanh(2.5 z) is tanh(z)", "sin": "sin(5 z) is sin(z)"} | {
    "gauss": "exp(-5 z^2) is exp(-z^2)",
    "softplus": "log(1 + exp(5 z)) / 5 is log(1 + exp(z))",
    "lelu": "a slope of 0.005 is one of 0.01",
}


def read_neat_python(path: str | Path) -> Imported:
    """Read a neat-python configuration file. Fault if it cannot be read or asks for what there is not."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as error:
        raise Fault(f"cannot read {path}: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise Fault(f"{path} is not a neat-python configuration: {first}") from None
    if "NEAT" not in parser:
        raise Fault(f"{path} is not a neat-python configuration: it has no section [NEAT]")
    values: dict[str, Any] = {}
    unused: list[str] = []
    notes: list[str] = []
    given = {key: text for section in parser.sections() for key, text in parser[section].items()}
    rest: dict[str, Any] = {"num_inputs": None, "num_outputs": None, "fitness_threshold": None}
    read = {
        "weight_mutate_rate",
        "weight_mutate_power",
        "weight_replace_rate",
        "weight_init_stdev",
        "weight_min_value",
        "activation_options",
    }
    for section in parser.sections():
        for key, text in parser[section].items():
            if key in _SAME:
                values[_SAME[key]] = text
            elif key in rest:
                rest[key] = _number(path, key, text)
            elif key == "feed_forward":
                values["recurrent"] = not _truth(path, key, text)
            elif key == "activation_default":
                if text != "random":
                    values["activation"] = values["output_activation"] = _activation(path, text, notes)
            elif key == "aggregation_default":
                if text not in AGGREGATIONS:
                    raise Fault(f"{path}: aggregation {text!r} is not one of {', '.join(AGGREGATIONS)}")
                values["aggregation"] = text
            elif key == "initial_connection":
                values["initially_connected"] = _initial(path, text)
            elif key == "elitism":
                if _number(path, key, text) == 0:
                    values["elitism_from"] = 10**9
            elif key not in read:
                unused.append(f"{section}.{key}")
    if "activation_options" in given:
        names = [_activation(path, name, notes) for name in given["activation_options"].split() if name != "random"]
        values["activation_options"] = tuple(dict.fromkeys(names))
    _weights(path, given, values, notes)
    config = make_config(NEATConfig, values, f" in {path}")
    inputs, outputs, threshold = rest.values()
    return Imported(
        config,
        {name: getattr(config, name) for name in values},
        None if inputs is None else int(inputs),
        None if outputs is None else int(outputs),
        threshold,
        sorted(unused),
        list(dict.fromkeys(notes)),
    )


def _weights(path: Any, given: dict[str, str], values: dict[str, Any], notes: list[str]) -> None:
    """Each weight there is perturbed at one rate and replaced at another; here a genome is mutated, then each of its weights."""
    if "weight_mutate_rate" in given or "weight_replace_rate" in given:
        mutate = _number(path, "weight_mutate_rate", given.get("weight_mutate_rate", "0"))
        replace = _number(path, "weight_replace_rate", given.get("weight_replace_rate", "0"))
        values["mutate_weights"] = min(1.0, mutate + replace)
        values["perturb_weight"] = mutate / (mutate + replace) if mutate + replace else 1.0
        notes.append("weight rates are a weight's there, here a genome's: all of its weights change together or none")
    if "weight_init_stdev" in given:
        # uniform on +-sqrt(3) sigma has the same variance
        values["weight_range"] = 3.0**0.5 * _number(path, "weight_init_stdev", given["weight_init_stdev"])
        notes.append("new weights are uniform with the variance of the normal ones there")
    if "weight_mutate_power" in given:
        values["weight_power"] = 3.0**0.5 * _number(path, "weight_mutate_power", given["weight_mutate_power"])
        notes.append("perturbations are uniform with the variance of the normal ones there")


def _activation(path: Any, text: str, notes: list[str]) -> str:
    if text not in _ACTIVATIONS:
        raise Fault(f"{path}: activation {text!r} is not one of {', '.join(_ACTIVATIONS)}")
    if text in _SCALED:
        notes.append(f"activation {text}: {_SCALED[text]} here")
    return _ACTIVATIONS[text]


def _initial(path: Any, text: str) -> float:
    kind, _, share = text.partition(" ")
    if kind.startswith("partial"):
        return _number(path, "initial_connection", share or "0.5")
    if kind.startswith("full"):
        return 1.0
    if kind.startswith("unconnected"):
        return 0.0
    raise Fault(f"{path}: initial_connection {text!r} is unknown here: full, partial or unconnected")


def _number(path: Any, key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Fault(f"{path}: {key} is a number, not {text!r}") from None


def _truth(path: Any, key: str, text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise Fault(f"{path}: {key} is true or false, not {text!r}")
    return words[text.lower()]

"""Configuration files of neat-python: the keys that mean something here, and a list of those that do not."""

import configparser
import math
from pathlib import Path
from typing import Any, NamedTuple

from rl_lab.agents.neat.config import NEATConfig
from rl_lab.experiment.config import make_config, option_name
from rl_lab.experiment.faults import Fault
from rl_lab.nn.graph.kernels import ACTIVATIONS, AGGREGATIONS


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
_A_GENE_THERE = {"enabled_mutate_rate": "connection", "activation_mutate_rate": "node"}
_ELSEWHERE = {"num_inputs", "num_outputs", "fitness_threshold"}
"""What is no parameter of evolution: an environment says how many inputs and outputs there are, and a run when it ends."""
_WEIGHTS = {"weight_mutate_rate", "weight_replace_rate", "weight_init_stdev", "weight_mutate_power", "weight_min_value"}
# Scaled in neat-python: sigmoid(5 z), tanh(2.5 z), sin(5 z), exp(-5 z^2), 0.2 log(1 + exp(5 z)).
_ACTIVATIONS = {name: name for name in ACTIVATIONS} | {"sigmoid": "steepened_sigmoid", "lelu": "leaky_relu"}
_ACTIVATIONS_THERE = ("random", *sorted({"hat", "inv", "log", "selu", "square"} - set(ACTIVATIONS)))
_AGGREGATIONS_THERE = ("random", "max", "min", "maxabs", "mean", "median")
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
    given = {key: (section, text) for section in parser.sections() for key, text in parser[section].items()}
    values: dict[str, Any] = {}
    unused: list[str] = []
    notes: list[str] = []
    elsewhere: dict[str, float] = {}
    for key, (section, text) in given.items():
        if key in _SAME:
            _checked(path, key, {_SAME[key]: text})
            values[_SAME[key]] = text
            if key in _A_GENE_THERE and _number(path, key, text):
                notes.append(f"{key} is the rate of each {_A_GENE_THERE[key]} gene there, here of a genome, in one gene of it")
        elif key in _ELSEWHERE:
            elsewhere[key] = _number(path, key, text)
        elif key == "feed_forward":
            values["recurrent"] = not _truth(path, key, text)
        elif key == "activation_default":
            name = _activation(path, key, text, notes)
            if name is not None:
                values["activation"] = values["output_activation"] = name
        elif key == "activation_options":
            names = [_activation(path, key, name, notes) for name in text.split()]
            values["activation_options"] = tuple(dict.fromkeys(name for name in names if name is not None))
        elif key == "aggregation_default":
            if text in AGGREGATIONS:
                values["aggregation"] = text
            elif text in _AGGREGATIONS_THERE:
                notes.append(f"{key} {text}: there is none here, nodes sum up")
            else:
                raise Fault(f"{path}: aggregation {text!r} is not one of {', '.join((*AGGREGATIONS, *_AGGREGATIONS_THERE))}")
        elif key == "initial_connection":
            values["initially_connected"] = _initial(path, text, notes)
        elif key == "elitism":
            values["elitism_from"] = _elitism(path, text, notes)
        elif key not in _WEIGHTS:
            unused.append(f"{section}.{key}")
    if "compatibility_disjoint_coefficient" in given and "compatibility_excess_coefficient" not in given:
        values["excess_coefficient"] = values["disjoint_coefficient"]  # that one coefficient is of both there
    if "compatibility_threshold" in given:
        values["normalize_from"] = 1
        notes.append("distances are those of connection genes, there of node genes, too")
    _weights(path, {key: text for key, (_, text) in given.items()}, values, notes)
    config = make_config(NEATConfig, values, f" in {path}")
    inputs, outputs = (int(elsewhere[key]) if key in elsewhere else None for key in ("num_inputs", "num_outputs"))
    return Imported(
        config,
        {name: getattr(config, name) for name in values},
        inputs,
        outputs,
        elsewhere.get("fitness_threshold"),
        sorted(unused),
        list(dict.fromkeys(notes)),
    )


def _weights(path: Any, given: dict[str, str], values: dict[str, Any], notes: list[str]) -> None:
    """Each weight there is perturbed at one rate and replaced at another; here a genome is mutated, then each of its weights."""
    number = {key: _number(path, key, given[key]) for key in (*_WEIGHTS, "weight_max_value") if key in given}
    for key in ("weight_mutate_rate", "weight_replace_rate", "weight_init_stdev", "weight_mutate_power"):
        most = 1.0 if key.endswith("rate") else math.inf
        if not 0 <= number.get(key, 0.0) <= most:
            raise Fault(f"{path}: {key} is a number from 0{' to 1' if most == 1 else ' on'}, not {given[key]}")
    if "weight_mutate_rate" in number or "weight_replace_rate" in number:
        mutate = number.get("weight_mutate_rate", 0.0)
        replace = number.get("weight_replace_rate", 0.0)
        values["mutate_weights"] = min(1.0, mutate + replace)
        values["perturb_weight"] = mutate / (mutate + replace) if mutate + replace else 1.0
        notes.append("weight rates are a weight's there, here a genome's: all of its weights change together or none")
    if "weight_init_stdev" in number:
        # uniform on +-sqrt(3) sigma has the same variance
        values["weight_range"] = 3.0**0.5 * number["weight_init_stdev"]
        notes.append("new weights are uniform with the variance of the normal ones there")
    if "weight_mutate_power" in number:
        values["weight_power"] = 3.0**0.5 * number["weight_mutate_power"]
        notes.append("perturbations are uniform with the variance of the normal ones there")
    low = number.get("weight_min_value")
    high = number.get("weight_max_value")
    if low is not None:
        limit = abs(low) if high is None else high
        values["weight_limit"] = limit
        if -low != limit:
            notes.append(f"weight_min_value {low:g}: weights are bounded on both sides alike, here by {limit:g}")


def _checked(path: Any, key: str, value: dict[str, Any]) -> None:
    """Fault that names the file's key if a value is none for its field."""
    ((name, text),) = value.items()
    try:
        make_config(NEATConfig, value)
    except Fault as fault:
        if str(text).strip().lower().lstrip("+-") in ("inf", "infinity", "nan"):
            _number(path, key, str(text))
        raise Fault(f"{path}: {key}{str(fault).removeprefix(option_name(name))}") from None
    _number(path, key, str(text))


def _elitism(path: Any, text: str, notes: list[str]) -> int:
    """Genomes of a species there are copied unchanged; here one of each species that is large enough."""
    count = _number(path, "elitism", text)
    if count < 0 or count != int(count):
        raise Fault(f"{path}: elitism is a whole number from 0 on, not {text!r}")
    if count > 1:
        notes.append(f"elitism {int(count)}: one champion of each species is copied unchanged here")
    return 0 if count else 10**9


def _activation(path: Any, key: str, text: str, notes: list[str]) -> str | None:
    """The name here, None where there is none."""
    if text in _ACTIVATIONS_THERE:
        notes.append(f"{key} {text}: there is none here, it is left out")
        return None
    if text not in _ACTIVATIONS:
        raise Fault(f"{path}: activation {text!r} is not one of {', '.join((*_ACTIVATIONS, *_ACTIVATIONS_THERE))}")
    if text in _SCALED:
        notes.append(f"activation {text}: {_SCALED[text]} here")
    return _ACTIVATIONS[text]


def _initial(path: Any, text: str, notes: list[str]) -> float:
    kind, _, share = text.partition(" ")
    if kind in ("full", "full_nodirect", "partial", "partial_nodirect"):
        notes.append(f"initial_connection {kind}: inputs are connected to outputs beside hidden nodes, too, as in full_direct")
    if kind.startswith("partial"):
        number = _number(path, "initial_connection", share or "0.5")
        if not 0 <= number <= 1:
            raise Fault(f"{path}: initial_connection {text!r}: the share is a number from 0 to 1")
        return number
    if kind.startswith("full"):
        return 1.0
    if kind.startswith("unconnected"):
        return 0.0
    if kind.startswith("fs_neat"):
        notes.append(f"initial_connection {kind}: one input is connected there, here all are")
        return 1.0
    raise Fault(f"{path}: initial_connection {text!r} is unknown: unconnected, fs_neat, full or partial")


def _number(path: Any, key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Fault(f"{path}: {key} is a number, not {text!r}")
    return number


def _truth(path: Any, key: str, text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise Fault(f"{path}: {key} is true or false, not {text!r}")
    return words[text.lower()]

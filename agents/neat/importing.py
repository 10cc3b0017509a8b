"""Read configuration files of neat-python. Keys without an equivalent here are listed, not silently dropped."""

import configparser
import math
from pathlib import Path
from typing import Any, NamedTuple

from rl_lab.agents.neat.config import NEATConfig
from rl_lab.experiment.config import make_config, option_name
from rl_lab.experiment.faults import Fault
from rl_lab.nn.graph.kernels import ACTIVATIONS, AGGREGATIONS


class Imported(NamedTuple):
    """An imported configuration."""

    config: NEATConfig
    settings: dict[str, Any]
    """The fields of ``config`` that the file sets."""
    inputs: int | None
    outputs: int | None
    fitness_threshold: float | None
    unused: list[str]
    """Ignored keys, as ``section.key``."""
    notes: list[str]
    """Differences between the meaning of a key in neat-python and here."""


# neat-python's keys and the fields of NEATConfig with the same meaning
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
_RATES_PER_GENE = {"enabled_mutate_rate": "connection", "activation_mutate_rate": "node"}
_NOT_PARAMETERS = {"num_inputs", "num_outputs", "fitness_threshold"}
"""Keys that are not parameters of evolution: the environment sets the sizes, the training command the end of a run."""
_WEIGHTS = {"weight_mutate_rate", "weight_replace_rate", "weight_init_stdev", "weight_mutate_power", "weight_min_value"}
# neat-python scales the argument: sigmoid(5 z), tanh(2.5 z), sin(5 z), exp(-5 z^2), 0.2 log(1 + exp(5 z)).
_ACTIVATIONS = {name: name for name in ACTIVATIONS} | {"sigmoid": "steepened_sigmoid", "lelu": "leaky_relu"}
_MISSING_ACTIVATIONS = ("random", *sorted({"hat", "inv", "log", "selu", "square"} - set(ACTIVATIONS)))
_MISSING_AGGREGATIONS = ("random", "max", "min", "maxabs", "mean", "median")
_SCALED = {
    "sigmoid": "sigmoid(4.9 z) instead of sigmoid(5 z)",
    "tanh": "tanh(z) instead of tanh(2.5 z)",
    "sin": "sin(z) instead of sin(5 z)",
    "gauss": "exp(-z^2) instead of exp(-5 z^2)",
    "softplus": "log(1 + exp(z)) instead of log(1 + exp(5 z)) / 5",
    "lelu": "a negative slope of 0.01 instead of 0.005",
}


def read_neat_python(path: str | Path) -> Imported:
    """Read a neat-python configuration file. Raises Fault if it cannot be read or has an unknown or invalid value."""
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
            if key in _RATES_PER_GENE and _number(path, key, text):
                gene = _RATES_PER_GENE[key]
                notes.append(
                    f"{key}: the probability that one {gene} gene of a genome changes; in neat-python, of each {gene} gene"
                )
        elif key in _NOT_PARAMETERS:
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
            elif text in _MISSING_AGGREGATIONS:
                notes.append(f"{key} {text}: not available, sum is used")
            else:
                raise Fault(f"{path}: aggregation {text!r} is not one of {', '.join((*AGGREGATIONS, *_MISSING_AGGREGATIONS))}")
        elif key == "initial_connection":
            values["initially_connected"] = _initial(path, text, notes)
        elif key == "elitism":
            values["elitism_from"] = _elitism(path, text, notes)
        elif key not in _WEIGHTS:
            unused.append(f"{section}.{key}")
    if "compatibility_disjoint_coefficient" in given and "compatibility_excess_coefficient" not in given:
        values["excess_coefficient"] = values["disjoint_coefficient"]  # neat-python has one coefficient for both
    if "compatibility_threshold" in given:
        values["normalize_from"] = 1
        notes.append("compatibility_threshold: distances compare connection genes; in neat-python node genes as well")
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


def _weights(path: str | Path, given: dict[str, str], values: dict[str, Any], notes: list[str]) -> None:
    """Convert the weight mutation parameters.

    neat-python perturbs each weight with one probability and replaces it with another. Here a genome is mutated with one probability,
    and then each of its weights is perturbed or replaced.
    """
    number = {key: _number(path, key, given[key]) for key in (*_WEIGHTS, "weight_max_value") if key in given}
    for key in ("weight_mutate_rate", "weight_replace_rate", "weight_init_stdev", "weight_mutate_power"):
        most = 1.0 if key.endswith("rate") else math.inf
        if not 0 <= number.get(key, 0.0) <= most:
            raise Fault(f"{path}: {key} must be a number {'from 0 to 1' if most == 1 else 'of at least 0'}, got {given[key]}")
    if "weight_mutate_rate" in number or "weight_replace_rate" in number:
        mutate = number.get("weight_mutate_rate", 0.0)
        replace = number.get("weight_replace_rate", 0.0)
        values["mutate_weights"] = min(1.0, mutate + replace)
        values["perturb_weight"] = mutate / (mutate + replace) if mutate + replace else 1.0
        notes.append("weight rates: the probability that all weights of a genome mutate; in neat-python, of each weight")
    if "weight_init_stdev" in number:
        # uniform on +-sqrt(3) sigma has the same variance
        values["weight_range"] = 3.0**0.5 * number["weight_init_stdev"]
        notes.append("weight_init_stdev: new weights are uniform with this standard deviation; in neat-python normal")
    if "weight_mutate_power" in number:
        values["weight_power"] = 3.0**0.5 * number["weight_mutate_power"]
        notes.append("weight_mutate_power: perturbations are uniform with this standard deviation; in neat-python normal")
    low = number.get("weight_min_value")
    high = number.get("weight_max_value")
    if low is not None:
        limit = abs(low) if high is None else high
        values["weight_limit"] = limit
        if -low != limit:
            notes.append(f"weight_min_value {low:g}: bounds are symmetric, weights stay within -{limit:g} and {limit:g}")


def _checked(path: str | Path, key: str, value: dict[str, Any]) -> None:
    """Raise Fault, naming the key in the file, if a value has the wrong type for its field or is not finite."""
    ((name, text),) = value.items()
    try:
        make_config(NEATConfig, value)
    except Fault as fault:
        if str(text).strip().lower().lstrip("+-") in ("inf", "infinity", "nan"):
            _number(path, key, str(text))
        raise Fault(f"{path}: {key}{str(fault).removeprefix(option_name(name))}") from None
    _number(path, key, str(text))


def _elitism(path: str | Path, text: str, notes: list[str]) -> int:
    """The value of ``elitism_from`` for neat-python's number of unchanged copies per species: every species has one, or none has."""
    count = _number(path, "elitism", text)
    if count < 0 or count != int(count):
        raise Fault(f"{path}: elitism must be an integer of at least 0, got {text!r}")
    if count > 1:
        notes.append(f"elitism {int(count)}: only the champion of each species is copied unchanged")
    return 0 if count else 10**9


def _activation(path: str | Path, key: str, text: str, notes: list[str]) -> str | None:
    """The activation's name here, or None, with a note, if it is not available."""
    if text in _MISSING_ACTIVATIONS:
        notes.append(f"{key} {text}: not available, left out")
        return None
    if text not in _ACTIVATIONS:
        raise Fault(f"{path}: activation {text!r} is not one of {', '.join((*_ACTIVATIONS, *_MISSING_ACTIVATIONS))}")
    if text in _SCALED:
        notes.append(f"activation {text}: {_SCALED[text]}")
    return _ACTIVATIONS[text]


def _initial(path: str | Path, text: str, notes: list[str]) -> float:
    """The share of initial connections for a value of ``initial_connection``."""
    kind, _, share = text.partition(" ")
    if kind in ("full", "full_nodirect", "partial", "partial_nodirect"):
        notes.append(f"initial_connection {kind}: inputs are also connected directly to outputs, as in full_direct")
    if kind.startswith("partial"):
        number = _number(path, "initial_connection", share or "0.5")
        if not 0 <= number <= 1:
            raise Fault(f"{path}: initial_connection {text!r}: the share must be from 0 to 1, as in partial_direct 0.5")
        return number
    if kind.startswith("full"):
        return 1.0
    if kind.startswith("unconnected"):
        return 0.0
    if kind.startswith("fs_neat"):
        notes.append(f"initial_connection {kind}: all inputs are connected; in neat-python one input")
        return 1.0
    raise Fault(f"{path}: initial_connection {text!r} is unknown: unconnected, fs_neat, full or partial")


def _number(path: str | Path, key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Fault(f"{path}: {key} must be a finite number, got {text!r}")
    return number


def _truth(path: str | Path, key: str, text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise Fault(f"{path}: {key} must be true or false (also yes/no, on/off, 1/0), got {text!r}")
    return words[text.lower()]

"""What goes around an environment: its arguments, the user's wrappers, and the global random streams.

Arguments and wrappers are kept as text, ``name=value`` and ``module:Class:name=value,...``: so they stand on the command line and in
config.toml, and so they are made again in every process.
"""

import ast
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rl_lab.experiment.faults import Fault
from rl_lab.experiment.finding import attribute, import_beside
from rl_lab.experiment.suggestions import nearest

_WORDS = {
    "true": True,
    "false": False,
    "none": None,
    "null": None,
    "inf": float("inf"),
    "-inf": float("-inf"),
    "nan": float("nan"),
}


# --- arguments -----------------------------------------------------------------------------------------------------------


def typed(text: str) -> Any:
    """The value that a text stands for: a number, true, false, none, a list, tuple or dict as in Python, or else the text itself."""
    plain = text.strip()
    if plain.lower() in _WORDS:
        return _WORDS[plain.lower()]
    try:
        return ast.literal_eval(plain)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def written(value: Any) -> str:
    """The text from which `typed` makes a value. Raises ValueError for a value that no text stands for, such as an object."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    text = value if isinstance(value, str) else repr(value)
    found = typed(text)
    if type(found) is not type(value) or (found != value and found == found):
        text = repr(value)
        found = typed(text)
    if type(found) is not type(value) or (found != value and found == found):
        raise ValueError(f"{value!r} cannot be written as text")
    return text


def split_assignments(text: str) -> list[str]:
    """The parts of ``a=1,b=[2,3]``: commas inside brackets and quotes do not separate."""
    parts = [""]
    depth = 0
    quote = ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def as_arguments(given: Any, asked_by: str = "--env-kwargs") -> dict[str, Any]:
    """Arguments by name from ``name=value`` texts or a mapping. Raises Fault for a text without a name."""
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif not isinstance(given, (str, list, tuple)):
        raise Fault(f"{asked_by} takes name=value, not {given!r}")
    else:
        pairs = []
        for part in split_assignments(given) if isinstance(given, str) else given:
            name, equals, value = str(part).partition("=")
            if not equals:
                raise Fault(f"{asked_by} takes name=value, as in {asked_by} size=7, not {str(part)!r}")
            pairs.append((name.strip(), typed(value)))
    for name, _ in pairs:
        if not isinstance(name, str) or not name.isidentifier():
            raise Fault(f"{asked_by}: {name!r} is not the name of an argument")
    return dict(pairs)


def as_texts(arguments: Mapping[str, Any], asked_by: str = "--env-kwargs") -> tuple[str, ...]:
    """``name=value`` for each argument. Raises Fault for a value that a file cannot hold."""
    try:
        return tuple([f"{name}={written(value)}" for name, value in arguments.items()])
    except ValueError as error:
        raise Fault(f"{asked_by}: {error}: pass a function that makes the environment") from None


# --- wrappers ------------------------------------------------------------------------------------------------------------


def find_wrapper(text: str) -> Callable[[gym.Env], gym.Env]:
    """The wrapper that ``module:Class`` or ``module:Class:name=value,...`` names, with its arguments.

    Raises Fault for a module or class that does not exist, and for a wrapper of vector environments.
    """
    module, _, rest = text.partition(":")
    name, _, assignments = rest.partition(":")
    if not name:
        raise Fault(f"--wrapper takes module:Class, as in --wrapper gymnasium.wrappers:ClipReward, not {text!r}")
    source = import_beside(module, f"--wrapper {text!r}")
    found = attribute(source, name)
    if found is None:
        classes = [key for key, value in vars(source).items() if isinstance(value, type) and issubclass(value, gym.Wrapper)]
        raise Fault(f"module {module!r} has no wrapper {name!r}{nearest(name, classes)}")
    if not callable(found):
        raise Fault(f"{module}:{name} is {found!r}, not a class of wrappers or a function that wraps an environment")
    if isinstance(found, type) and issubclass(found, gym.vector.VectorWrapper):
        raise Fault(f"{module}:{name} wraps vector environments: name the wrapper for one environment")
    arguments = as_arguments(assignments, f"--wrapper {module}:{name}:")

    def wrap(env: gym.Env) -> gym.Env:
        wrapped = found(env, **arguments)
        if not isinstance(wrapped, gym.Env):
            raise Fault(f"wrapper {text!r} returned {wrapped!r}, not an environment")
        return wrapped

    return wrap


def as_wrappers(given: Any) -> tuple[Any, ...]:
    """Wrappers, texts or functions of an environment, as a tuple in the order in which they are applied. Raises Fault for another kind."""
    listed = given if isinstance(given, (list, tuple)) else (given,)
    for wrapper in listed:
        if isinstance(wrapper, str):
            if not wrapper.isprintable():
                raise Fault(f"--wrapper takes printable characters, not {wrapper!r}")
            find_wrapper(wrapper)
        elif not callable(wrapper):
            raise Fault(f"--wrapper takes module:Class, or a function of an environment, not {wrapper!r}")
    return tuple(listed)


def recordable_wrappers(given: Any) -> tuple[str, ...]:
    """`as_wrappers` of texts. Raises Fault for a function, which config.toml cannot hold."""
    wrappers = as_wrappers(given)
    if texts_of(wrappers) is None:
        raise Fault("--wrapper: a run records its wrappers: name each as module:Class, as in gymnasium.wrappers:ClipReward")
    return wrappers


def wrap(env: gym.Env, wrappers: Iterable[Any]) -> gym.Env:
    """The environment inside the wrappers, the first one innermost."""
    for wrapper in wrappers:
        env = (find_wrapper(wrapper) if isinstance(wrapper, str) else wrapper)(env)
    return env


# --- global random streams -----------------------------------------------------------------------------------------------


def seed_globals(seed: int) -> None:
    """Seed the generators that some environments draw from although Gymnasium gives each its own: Python's and NumPy's."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the generator that those environments use


class seeded_globals:
    """Inside, Python's and NumPy's global generators are seeded; afterwards they continue where they were."""

    def __init__(self, seed: int):
        self.seed = seed

    def __enter__(self) -> None:
        self._kept = (random.getstate(), np.random.get_state())  # noqa: NPY002
        seed_globals(self.seed)

    def __exit__(self, *exception: object) -> None:
        random.setstate(self._kept[0])
        np.random.set_state(self._kept[1])  # noqa: NPY002


def texts_of(wrappers: Sequence[Any]) -> tuple[str, ...] | None:
    """The wrappers as text, or None if one of them is a function, which a file cannot hold."""
    return tuple(wrappers) if all(isinstance(wrapper, str) for wrapper in wrappers) else None

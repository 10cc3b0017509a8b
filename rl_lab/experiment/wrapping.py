"""Arguments of environments, the user's wrappers, and seeds of the global random streams.

The command line and config.toml hold arguments as text, ``name=value``, and wrappers as ``module:Class:name=value,...``. Every process
builds its own wrappers from this text.
"""

import ast
import inspect
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np

from rl_lab.experiment.faults import Fault
from rl_lab.experiment.finding import attribute, import_beside, parameters_of, require_switches
from rl_lab.experiment.suggestions import nearest

Wrapper: TypeAlias = str | Callable[[gym.Env], gym.Env]
"""A wrapper: ``module:Class:name=value,...``, or a function that takes an environment and returns the wrapped one."""
Wrappers: TypeAlias = Wrapper | Sequence[Wrapper]
Arguments: TypeAlias = Mapping[str, Any] | Sequence[str] | str
"""Arguments by name: a mapping, ``name=value`` texts, or one text with commas."""

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
    """Parse a text: a number, true, false, none, or a Python list, tuple or dict. Any other text is returned unchanged."""
    plain = text.strip()
    if plain.lower() in _WORDS:
        return _WORDS[plain.lower()]
    try:
        return ast.literal_eval(plain)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def written(value: Any) -> str:
    """Write a value as text that `typed` parses back to an equal value of the same type.

    NumPy scalars and arrays are written as numbers and lists. Raises ValueError for any other object.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    for text in (value, repr(value)) if isinstance(value, str) else (repr(value),):
        found = typed(text)
        if type(found) is type(value) and (found == value or found != found):  # NaN differs from itself
            return text
    raise ValueError(f"{value!r} cannot be written as text")


def split_assignments(text: str) -> list[str]:
    """Split ``a=1,b=[2,3]`` at the commas that stand outside brackets and quotes."""
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


def as_arguments(given: Arguments, asked_by: str = "--env-kwargs") -> dict[str, Any]:
    """Read arguments by name from ``name=value`` texts or a mapping; messages begin with ``asked_by``.

    Raises Fault if ``given`` has another type, if a text has no ``=``, or if a name is not a Python identifier.
    """
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
    if len(dict(pairs)) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise Fault(f"{asked_by} names {twice} twice")
    return dict(pairs)


def as_texts(arguments: Mapping[str, Any], asked_by: str = "--env-kwargs") -> tuple[str, ...]:
    """Write each argument as ``name=value``. Raises Fault if a value cannot be written as text."""
    try:
        return tuple([f"{name}={written(value)}" for name, value in arguments.items()])
    except ValueError as error:
        raise Fault(f"{asked_by}: {error}: pass a function that makes the environment") from None


# --- wrappers ------------------------------------------------------------------------------------------------------------


def find_wrapper(text: str) -> Callable[[gym.Env], gym.Env]:
    """Import the wrapper ``module:Class`` or ``module:Class:name=value,...`` and bind its arguments.

    Raises Fault if the module or class does not exist, or if the class wraps vector environments. The returned function raises Fault if
    the wrapper does not return an environment.
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
    asked_by = f"--wrapper {module}:{name}:"
    arguments = as_arguments(assignments, asked_by)
    require_switches(parameters_of(found) or {}, arguments, asked_by)

    def wrap(env: gym.Env) -> gym.Env:
        try:
            inspect.signature(found).bind(env, **arguments)
        except TypeError as error:  # before the call, whose own errors are the wrapper's
            raise Fault(f"--wrapper {text!r}: {error}, write --wrapper {module}:{name}:argument=VALUE") from None
        except ValueError:
            pass  # without a signature
        wrapped = found(env, **arguments)
        if not isinstance(wrapped, gym.Env):
            raise Fault(f"wrapper {text!r} returned {wrapped!r}, not an environment")
        return wrapped

    return wrap


def as_wrappers(given: Wrappers) -> tuple[Wrapper, ...]:
    """Return one wrapper or several as a tuple, in the order in which they are applied.

    Raises Fault if an entry is neither a text nor callable, or if `find_wrapper` does not find it.
    """
    listed: Sequence[Any] = given if isinstance(given, (list, tuple)) else (given,)
    for wrapper in listed:
        if isinstance(wrapper, str):
            if not wrapper.isprintable():
                raise Fault(f"--wrapper takes printable characters, not {wrapper!r}")
            find_wrapper(wrapper)
        elif not callable(wrapper):
            raise Fault(f"--wrapper takes module:Class, or a function of an environment, not {wrapper!r}")
    return tuple(listed)


def texts_of(wrappers: Sequence[Wrapper]) -> tuple[str, ...] | None:
    """Return wrappers that are all texts, or None if one is a function, which a file cannot hold."""
    texts = tuple([wrapper for wrapper in wrappers if isinstance(wrapper, str)])
    return texts if len(texts) == len(wrappers) else None


def recordable_wrappers(given: Wrappers) -> tuple[str, ...]:
    """Return wrappers as `as_wrappers` does. Raises Fault if one is a function, which config.toml cannot hold."""
    texts = texts_of(as_wrappers(given))
    if texts is None:
        raise Fault("--wrapper: a run records its wrappers: name each as module:Class, as in gymnasium.wrappers:ClipReward")
    return texts


def wrap(env: gym.Env, wrappers: Iterable[Wrapper]) -> gym.Env:
    """Wrap an environment; the first wrapper is the innermost."""
    for wrapper in wrappers:
        env = (find_wrapper(wrapper) if isinstance(wrapper, str) else wrapper)(env)
    return env


# --- global random streams -----------------------------------------------------------------------------------------------


def seed_globals(seed: int) -> None:
    """Seed Python's and NumPy's global generators.

    Gymnasium gives each environment a generator of its own, but some environments draw from the global ones. rl_lab itself never does.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - see above


class seeded_globals:
    """Context in which Python's and NumPy's global generators start from ``seed``. On exit their former states are restored."""

    def __init__(self, seed: int):
        self.seed = seed

    def __enter__(self) -> None:
        self._kept = (random.getstate(), np.random.get_state())  # noqa: NPY002
        seed_globals(self.seed)

    def __exit__(self, *exception: object) -> None:
        random.setstate(self._kept[0])
        np.random.set_state(self._kept[1])  # noqa: NPY002

"""Settings: stated once as the fields of a frozen dataclass, read from the command line, a preset or a file, and checked."""

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rl_lab.experiment.faults import Fault, first_line
from rl_lab.experiment.files import LARGEST_CONFIG, read_file
from rl_lab.experiment.suggestions import nearest, nearest_option

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
LARGEST_INTEGER = 2**63 - 1
"""What int64, and so a TOML file, can hold."""
LARGEST_NUMBER = 3.4028234663852886e38
"""The largest float32: beyond it a setting would be infinite in every kernel."""


def setting(
    default: T,
    help: str,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    choices: tuple = (),
    check: Callable[[Any], Any] | None = None,
    shapes: bool = False,
    read: Callable[[Any], Any] | None = None,
    metavar: str = "",
) -> T:
    """A documented field of a config: its default, a sentence on it, and the values that make sense.

    These are bounds, choices, or a ``check`` that raises ValueError for a value that makes none. ``shapes`` says that the field
    decides which parameters there are: it comes with the networks of an earlier run. ``read`` makes the value of what was given; its
    option can then be repeated on the command line.
    """
    rules = {"help": help, "above": above, "least": least, "most": most, "choices": choices, "check": check, "shapes": shapes}
    rules |= {"read": read, "metavar": metavar}
    return dataclasses.field(default=default, metadata=rules)  # type: ignore[return-value]


def option_name(field: str) -> str:
    return "--" + field.replace("_", "-")


def field_types(config_class: type) -> dict[str, Any]:
    """The type of each field, with ``X | None`` reduced to X."""
    hints = typing.get_type_hints(config_class)
    result = {}
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
            hint = next(h for h in typing.get_args(hint) if h is not type(None))
        result[field.name] = hint
    return result


def parse_value(name: str, kind: Any, text: Any) -> Any:
    """A field's value from the command line's text or a file's value. Fault if it is of another kind."""
    what = {int: "a whole number", float: "a number", bool: "true or false"}
    if kind is bool:
        words = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
        value = words.get(str(text).lower())
        if value is None:
            raise Fault(f"{name} takes true or false, not {text!r}")
        return value
    if typing.get_origin(kind) is tuple:
        if not isinstance(text, (str, list, tuple)):
            raise Fault(f"{name} takes a list of values, not {text!r}")
        parts = [p for p in text.split(",") if p] if isinstance(text, str) else list(text)
        return tuple([parse_value(name, typing.get_args(kind)[0], part) for part in parts])
    if kind in (int, float):
        if isinstance(text, bool) or not isinstance(text, (str, int, float)):
            raise Fault(f"{name} takes {what[kind]}, not {_shown(text)}")
        plain = str(text).replace("_", "")
        try:
            if kind is int and plain.lstrip("-+").isdecimal():
                return int(plain)  # which float would round
            number = float(plain)
            if kind is float:
                return number
            if number != int(number):
                raise ValueError
            return int(number)
        except (ValueError, OverflowError):
            raise Fault(f"{name} takes {what[kind]}, not {_shown(text)}") from None
    if not isinstance(text, str):
        raise Fault(f"{name} takes a word, not {_shown(text)}")
    if not text.isprintable():  # line breaks, null bytes, and bytes of a command line that are not UTF-8
        raise Fault(f"{name} takes printable characters, not {_shown(text)}")
    return text


def _shown(value: Any) -> str:
    """A value for a message: its first characters."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of too many digits, a list of too many levels
        text = f"such a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:50]}..."


def make_config(config_class: type[T], values: dict[str, Any], source: str = "") -> T:
    """An instance with these values, each of the field's kind and within its bounds. Fault names the first that is not."""
    kinds = field_types(config_class)
    optional = {field.name for field in dataclasses.fields(config_class) if field.default is None}  # type: ignore[arg-type]
    readers = {field.name: field.metadata.get("read") for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    clean = {}
    for key, value in values.items():
        if key not in kinds:
            raise Fault(f"unknown setting {key!r}{source}{nearest_option(key, kinds)}")
        if readers[key] is not None:
            clean[key] = readers[key](value)
            continue
        clean[key] = (
            None if key in optional and str(value).lower() == "none" else parse_value(option_name(key), kinds[key], value)
        )
    config = config_class(**clean)
    check_config(config)
    return config


def check_config(config: Any) -> None:
    """Fault for the first value outside its field's bounds."""
    for field in dataclasses.fields(config):
        value, rules = getattr(config, field.name), field.metadata
        name = option_name(field.name)
        if value is None:
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and math.isnan(number):
                raise Fault(f"{name} must be a number, got nan")
            if isinstance(number, float) and abs(number) > LARGEST_NUMBER:
                raise Fault(f"{name} must be finite in float32, got {number:g}: the largest is {LARGEST_NUMBER:.2g}")
            if isinstance(number, int) and abs(number) > LARGEST_INTEGER:
                raise Fault(f"{name} must be an integer of 64 bits, at most {LARGEST_INTEGER}")
            if rules.get("above") is not None and not number > rules["above"]:
                raise Fault(f"{name} must be above {rules['above']:g}, got {number:g}")
            if rules.get("least") is not None and not number >= rules["least"]:
                raise Fault(f"{name} must be at least {rules['least']:g}, got {number:g}")
            if rules.get("most") is not None and not number <= rules["most"]:
                raise Fault(f"{name} must be at most {rules['most']:g}, got {number:g}")
        if rules.get("choices") and value not in rules["choices"]:
            raise Fault(f"{name} {value!r} is unknown{nearest(str(value), map(str, rules['choices']))}")
        if rules.get("check") is not None:
            try:
                rules["check"](value)
            except ValueError as error:
                raise Fault(f"{name}: {error}") from None


def read_toml(path: Path, foreign: bool = False) -> dict[str, Any]:
    """A TOML file's content; a byte order mark is skipped. Raises Fault if the file is missing, too large or not TOML.

    In a directory that may be somebody else's (``foreign``) it must be a regular file, not a link.
    """
    try:
        text = read_file(path, LARGEST_CONFIG, foreign).decode("utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        raise Fault(f"cannot read {path}: {error.strerror}") from None
    except RecursionError:
        raise Fault(f"{path} is not valid TOML: too many levels of tables") from None
    except ValueError as error:  # not TOML, not UTF-8, an integer of thousands of digits
        raise Fault(f"{path} is not valid TOML: {first_line(error)}") from None


def as_plain(config: Any) -> dict[str, Any]:
    """A config as a dict that TOML can hold: tuples become lists, None is left out."""
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(config).items()}
    return {key: value for key, value in plain.items() if value is not None}

"""Settings: stated once as the fields of a frozen dataclass, read from the command line, a preset or a file, and checked."""

import dataclasses
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rl_lab.experiment.faults import Fault, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


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
) -> T:
    """A documented field of a config: its default, a sentence on it, and the values that make sense.

    These are bounds, choices, or a ``check`` that raises ValueError for a value that makes none. ``shapes`` says that the field
    decides which parameters there are: it comes with the networks of an earlier run.
    """
    rules = {"help": help, "above": above, "least": least, "most": most, "choices": choices, "check": check, "shapes": shapes}
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
        parts = [p for p in text.split(",") if p] if isinstance(text, str) else list(text)
        return tuple([parse_value(name, typing.get_args(kind)[0], part) for part in parts])
    if kind in (int, float):
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
            raise Fault(f"{name} takes {what[kind]}, not {text!r}") from None
    return str(text)


def make_config(config_class: type[T], values: dict[str, Any], source: str = "") -> T:
    """An instance with these values, each of the field's kind and within its bounds. Fault names the first that is not."""
    kinds = field_types(config_class)
    optional = {field.name for field in dataclasses.fields(config_class) if field.default is None}  # type: ignore[arg-type]
    clean = {}
    for key, value in values.items():
        if key not in kinds:
            raise Fault(f"unknown setting {key!r}{source}{nearest(key, kinds)}")
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
            if isinstance(number, float) and not number == number:
                raise Fault(f"{name} must be a number, got nan")
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


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's content. Fault if it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Fault(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Fault(f"{path} is not valid TOML: {error}") from None


def as_plain(config: Any) -> dict[str, Any]:
    """A config as a dict that TOML can hold: tuples become lists, None is left out."""
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(config).items()}
    return {key: value for key, value in plain.items() if value is not None}

"""Settings: stated once as the fields of a frozen dataclass, read from the command line, a preset or a file, and checked."""

import dataclasses
import functools
import math
import os
import re
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from rl_lab.experiment.faults import Fault, first_line
from rl_lab.experiment.files import LARGEST_CONFIG, read_file
from rl_lab.experiment.suggestions import nearest, nearest_option

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
LARGEST_INTEGER = 2**63 - 1
"""The largest int64, which is also the largest integer of a TOML file."""
LARGEST_NUMBER = 3.4028234663852886e38
"""The largest float32: a larger setting would be infinite in every kernel."""


class Between(NamedTuple):
    """A range in which ``--optimize`` looks for a setting; with ``log`` on a logarithmic scale. Ends that are integers give integers."""

    low: float
    high: float
    log: bool = False


Search = Between | tuple[bool | int | float | str, ...]
"""Where ``--optimize`` looks for a setting: a range, or the values among which it chooses."""


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
    search: Search | None = None,
) -> T:
    """Declare a field of a config: its default, a help text, and the allowed values.

    A value must be within the bounds, among the choices, and accepted by ``check``, which raises ValueError for a wrong one. ``shapes``
    marks a field that determines the shapes of parameters: its value comes with the networks of an earlier run. ``read`` converts the
    given value; the option can then be repeated on the command line, where ``metavar`` stands for its value in the help. ``search``
    says where ``--optimize`` looks for better values.
    """
    rules = {"help": help, "above": above, "least": least, "most": most, "choices": choices, "check": check, "shapes": shapes}
    rules |= {"read": read, "metavar": metavar, "search": search}
    return dataclasses.field(default=default, metadata=rules)  # type: ignore[return-value]


def option_name(field: str) -> str:
    return "--" + field.replace("_", "-")


class Kind(NamedTuple):
    """What a field's annotation says: a type, whether None is a value, too, and the values of a Literal."""

    type: Any
    is_optional: bool
    choices: tuple = ()


@functools.cache
def kinds_of(config_class: type) -> dict[str, Kind]:
    """The kind of each field. Raises Fault, naming the field, for a class or an annotation that settings cannot have."""
    name = config_class.__name__
    if not dataclasses.is_dataclass(config_class):
        raise Fault(f"{name} is not a dataclass: write @dataclass(frozen=True) above it")
    try:
        hints = typing.get_type_hints(config_class)
    except (NameError, TypeError) as error:
        raise Fault(f"the annotations of {name} cannot be read: {first_line(error)}") from None
    found = {}
    for field in dataclasses.fields(config_class):
        who = f"the setting {field.name} of {name}"
        if not field.init:
            raise Fault(f"{who} has init=False, so it can never be set: leave it out, or make it a property")
        if default_of(field) is dataclasses.MISSING:
            raise Fault(f"{who} has no default: declare it with setting(default, help)")
        kind = _kind(hints[field.name])
        if kind is None and field.metadata.get("read") is None:
            raise Fault(
                f"{who} is of the type {_written(hints[field.name])}, which a command line and a file do not hold: use bool, int, float, "
                "str, a Literal, tuple[..., ...] of one of them, or one of these | None"
            )
        found[field.name] = kind or Kind(hints[field.name], False)
    return found


def _kind(hint: Any) -> Kind | None:
    """The kind of an annotation; None if a setting cannot have it."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        others = [part for part in typing.get_args(hint) if part is not types.NoneType]
        inner = _kind(others[0]) if len(others) == 1 else None
        return None if inner is None else inner._replace(is_optional=True)
    if typing.get_origin(hint) is typing.Literal:
        values = typing.get_args(hint)
        of = {type(value) for value in values}
        return Kind(of.pop(), False, values) if len(of) == 1 and of <= _PLAIN else None
    if typing.get_origin(hint) is tuple:
        of = {part for part in typing.get_args(hint) if part is not ...}
        return Kind(hint, False) if len(of) == 1 and of <= _PLAIN else None
    return Kind(hint, False) if hint in (bool, int, float, str) else None


_PLAIN = {bool, int, float, str}


def _written(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """The default of a field; MISSING if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def field_types(config_class: type) -> dict[str, Any]:
    """The type of each field, with ``X | None`` reduced to X and a Literal to the type of its values. Raises Fault as `kinds_of` does."""
    return {name: kind.type for name, kind in kinds_of(config_class).items()}


def parse_value(name: str, kind: type, value: object) -> Any:
    """Convert the text of the command line, or a value of a file, to the type of a field. Raises Fault if it is of another type."""
    if kind is bool:
        words = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "1": True, "0": False}
        if str(value).lower() not in words:
            raise Fault(f"{name} takes true or false, not {_shown(value)}")
        return words[str(value).lower()]
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (str, list, tuple)):
            raise Fault(f"{name} takes a list of values, not {_shown(value)}")
        parts = [part for part in value.split(",") if part] if isinstance(value, str) else list(value)
        return tuple([parse_value(name, typing.get_args(kind)[0], part) for part in parts])
    if kind in (int, float):
        number = number_of(kind, value)
        if number is None:
            what = "an integer" if kind is int else "a number"
            raise Fault(f"{name} takes {what}, not {_shown(value)}{_plain_digits(value) or _plainnumber_of(kind, value)}")
        return number
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise Fault(f"{name} takes a word, not {_shown(value)}")
    if not value.isprintable():  # line breaks, null bytes, and bytes of a command line that are not UTF-8
        raise Fault(f"{name} takes printable characters, not {_shown(value)}")
    return value


def number_of(kind: type, value: object) -> int | float | None:
    """The number that a text or value stands for, or None. An integer may be written as 1_000 or 1e3."""
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        plain = str(value).replace("_", "")
        if kind is int and plain.lstrip("-+").isdecimal():
            return int(plain)  # which float would round
        number = float(plain)
        if kind is float:
            return number
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None


def _plain_digits(value: object) -> str:
    """The end of a message on an integer such as 1M, 10k or 1,000: how it is written here."""
    found = re.fullmatch(r"(\d+|\d{1,3}(?:,\d{3})+|\d+\.\d+)\s?([kKmM]?)", value) if isinstance(value, str) else None
    if found is None or len(found[1]) > 15:
        return ""
    number = float(found[1].replace(",", "")) * {"": 1, "k": 1000, "m": 1_000_000}[found[2].lower()]
    zeros = len(str(int(number))) - len(str(int(number)).rstrip("0"))
    if number != int(number) or not zeros:
        return ""
    return f": write {int(number)} or {int(number) // 10**zeros}e{zeros}"


def _plainnumber_of(kind: type, value: object) -> str:
    """The end of a message on a number such as ``1e-3,``, ``0,99`` or ``10%``: how it is written here."""
    if not isinstance(value, str):
        return ""
    found = re.fullmatch(r"(-?)(\d*)[.,]?(\d*)(e-?\d+)?\s*(%?)[,;]?", value.strip().lower())
    if found is None or not (found[2] or found[3]) or len(value) > 20:
        return ""
    sign, whole, part, power, percent = (piece or "" for piece in found.groups())
    plain = f"{sign}{whole or 0}" + (f".{part}" if part else "") + power
    if percent:
        plain = f"{float(plain) / 100:g}"
    return f": write {plain}" if number_of(kind, plain) is not None else ""


def _shown(value: object) -> str:
    """Return the first characters of a value, for a message."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of too many digits, a list of too many levels
        text = f"such a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:50]}..."


def make_config(config_class: type[T], values: dict[str, Any], source: str = "") -> T:
    """Make a config of these values. Raises Fault for the first one that is unknown, of another type or out of bounds."""
    kinds = field_types(config_class)
    optional = {name for name, kind in kinds_of(typing.cast(Any, config_class)).items() if kind.is_optional}
    readers = {field.name: field.metadata.get("read") for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    clean = {}
    for key, value in values.items():
        if key not in kinds:
            raise Fault(f"unknown setting {key!r}{source}{nearest_option(key, kinds)}")
        read = readers[key]
        if read is not None:
            clean[key] = read(value)
            continue
        clean[key] = (
            None if key in optional and str(value).lower() == "none" else parse_value(option_name(key), kinds[key], value)
        )
    config = config_class(**clean)
    check_config(typing.cast("DataclassInstance", config))
    return config


def check_config(config: "DataclassInstance") -> None:
    """Raise Fault for the first value outside the bounds of its field."""
    kinds = kinds_of(type(config))
    for field in dataclasses.fields(config):
        value, rules = getattr(config, field.name), field.metadata
        name = option_name(field.name)
        if value is None:
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and math.isnan(number):
                raise Fault(f"{name} must be a finite number, got nan")
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
        choices = rules.get("choices") or kinds[field.name].choices
        if choices and value not in choices:
            raise Fault(f"{name} {value!r} is unknown{nearest(str(value), map(str, choices))}")
        check = rules.get("check")
        if check is not None:
            try:
                check(value)
            except ValueError as error:
                raise Fault(f"{name}: {error}") from None


_DEEP_KEY = re.compile(r"""(?<![\w"'-])(?:[\w"'-]+[ \t]*\.[ \t]*){100}""")


def read_toml(path: Path, foreign: bool = False) -> dict[str, Any]:
    """Return the content of a TOML file, without a byte order mark. Raises Fault if it is missing, too large or not TOML.

    In a directory that may come from somebody else (``foreign``), the path must be a regular file, not a link.
    """
    try:
        text = read_file(path, LARGEST_CONFIG, foreign).decode("utf-8-sig")
        if _DEEP_KEY.search(text):  # whose reading takes time and memory that grow with the square of its parts
            raise Fault(f"{path} is not valid TOML: too many levels of tables")
        return tomllib.loads(text)
    except Fault:
        raise
    except OSError as error:
        raise Fault(f"cannot read {path}: {error.strerror}") from None
    except RecursionError:
        raise Fault(f"{path} is not valid TOML: too many levels of tables") from None
    except ValueError as error:  # not TOML, not UTF-8, an integer of thousands of digits
        raise Fault(f"{path} is not valid TOML: {first_line(error)}") from None


def as_plain(config: Any) -> dict[str, Any]:
    """Return a config as a dict for TOML: tuples become lists; None is left out, or written as "none" if it is not the default."""
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(config).items()}
    plain |= {f.name: "none" for f in dataclasses.fields(config) if plain[f.name] is None and default_of(f) is not None}
    return {key: value for key, value in plain.items() if value is not None}


def as_complete(config: Any) -> dict[str, Any]:
    """As `as_plain`, with "none" for settings that are None: a preset may have another value for them."""
    return {**{field.name: "none" for field in dataclasses.fields(config)}, **as_plain(config)}

"""The command line, derived from dataclasses of settings. Every fault is one line that names the nearest valid choice."""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from rl_lab.experiment.config import default_of, kinds_of, option_name
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.suggestions import nearest_option

_LONG_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
"""Dashes that text programs write in place of hyphens."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `Fault` and takes its options from the fields of dataclasses."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **options)
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")  # argparse's knows no -1e3

    def error(self, message: str) -> NoReturn:
        """Raise Fault with argparse's message, in plain words."""
        message = re.sub(r"^argument (\S+): expected one argument$", r"\1 needs a value", message)
        raise Fault(re.sub(r"^argument ([^/:]+)\S*: ignored explicit argument (.*)$", r"\1 takes no value, got \2", message))

    def refuse_slips(self, words: Sequence[str], options: Sequence[str]) -> None:
        """Raise Fault if one of the words looks like a misspelt one of these options, such as ``--agnet``."""
        for word in words:
            name = word.split("=")[0]
            close = nearest_option(name, options) if name.startswith("--") and name not in self._option_string_actions else ""
            if "did you mean" in close:
                raise Fault(f"unknown option {name!r}{close}")

    def add_settings(
        self, config_class: type, title: str, values: dict[str, Any] | None = None, only: Sequence[str] = ()
    ) -> None:
        """One option for each field, or for those named in ``only``; ``values`` replace the defaults that the help shows."""
        group = self.add_argument_group(title)
        kinds = kinds_of(config_class)
        for field in dataclasses.fields(config_class):
            if only and field.name not in only:
                continue
            name, rules = option_name(field.name), field.metadata
            kind = kinds[field.name]
            if name in self._option_string_actions:
                raise Fault(
                    f"the setting {field.name} of {config_class.__name__} has the name of an option of every run: rename it"
                )
            default = (values or {}).get(field.name, default_of(field))
            text = f"{rules.get('help', '')} (default: {default})".strip().replace("%", "%%")
            choices = rules.get("choices") or kind.choices
            if kind.type is bool:
                group.add_argument(
                    name, f"--no-{name[2:]}", action=_Switch, nargs="?", default=argparse.SUPPRESS, help=text, metavar="BOOL"
                )
            elif rules.get("read") is not None:
                group.add_argument(
                    name, action="append", default=argparse.SUPPRESS, help=text, metavar=rules.get("metavar") or "V"
                )
            else:
                metavar = "|".join(map(str, choices)) if choices else getattr(kind.type, "__name__", "V").upper()
                group.add_argument(name, default=argparse.SUPPRESS, help=text, metavar=metavar)

    def parse(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the given options as text. Raises Fault for an unknown option."""
        known, unknown = self.parse_known_args(arguments)
        if unknown:
            word = unknown[0].split("=")[0]
            options = [o for o in self._option_string_actions if o.startswith("--") and not o.startswith("--no-")]
            if word[:1] in _LONG_DASHES and word:
                typed = f"--{word.lstrip('-' + _LONG_DASHES)}"
                close = f": type {typed}" if typed in options else nearest_option(typed, options)
                raise Fault(f"{word!r} begins with a long dash, where options begin with two hyphens{close}")
            if not word.startswith("-"):
                raise Fault(f"unexpected argument {word!r}")
            raise Fault(f"unknown option {word!r}{nearest_option(word, options) or ': --help lists the options'}")
        return vars(known)


class _Switch(argparse.Action):
    """--flag, --flag true, --no-flag."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if option_string is not None and option_string.startswith("--no-"):
            if values is not None:
                parser.error(f"{option_string} takes no value, got {values!r}")
            values = "false"
        setattr(namespace, self.dest, "true" if values is None else values)

"""Faults that end a command: one line on stderr and an exit code."""

import difflib
from collections.abc import Iterable

USAGE, NUMERICAL, INTERRUPTED, TERMINATED = 2, 3, 130, 143


class Fault(ValueError):
    """A cause and what to do about it, in one line. ``code`` is the exit code of the command."""

    def __init__(self, message: str, code: int = USAGE):
        super().__init__(message)
        self.code = code


def nearest(word: str, choices: Iterable[str]) -> str:
    """ ", did you mean 'x'?" if one of the choices resembles the word, else the choices themselves if they are few."""
    listed = sorted(choices)
    folded = {choice.lower(): choice for choice in listed}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.5)
    if close:
        return f", did you mean {folded[close[0]]!r}?"
    return f": choose from {', '.join(listed)}" if len(listed) <= 12 else ""

"""What every command does around its work: faults become one line and an exit code."""

import sys
from collections.abc import Callable, Sequence

from rl_lab.engine.errors import EnvironmentFault, NumericalError
from rl_lab.experiment.faults import INTERRUPTED, NUMERICAL, USAGE, Fault


def run_command(body: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    """Run a command's body and return its exit code. ``--debug`` shows the traceback of a fault."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        return body([word for word in given if word != "--debug"])
    except Fault as fault:
        if debug:
            raise
        print(f"rl_lab: {fault}", file=sys.stderr)
        return fault.code
    except (EnvironmentFault, NumericalError) as fault:
        if debug:
            raise
        print(f"rl_lab: {fault}", file=sys.stderr)
        return NUMERICAL
    except MemoryError as error:
        if debug:
            raise
        print(f"rl_lab: not enough memory for these settings: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("rl_lab: interrupted", file=sys.stderr)
        return INTERRUPTED

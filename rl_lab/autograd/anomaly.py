"""`detect_anomaly`: find the operation whose gradient became NaN."""

from types import TracebackType

from rl_lab.engine import tape


class detect_anomaly:
    """Context manager in which backward raises AnomalyError if a gradient is NaN.

    The message names the operation and the line of its forward pass. With ``check_nan=False`` backward keeps the lines but does not
    search for NaN. The search reads every gradient and is slow: use it to find an error, not for training.
    """

    def __init__(self, check_nan: bool = True):
        self.mode = "nan" if check_nan else "lines"

    def __enter__(self) -> None:
        self._before = tape.set_anomaly(self.mode)

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None) -> None:
        tape.set_anomaly(self._before)


class set_detect_anomaly(detect_anomaly):
    """Switch `detect_anomaly` on or off at once; as a context manager, restore the previous mode at the end."""

    def __init__(self, mode: bool, check_nan: bool = True):
        super().__init__(check_nan)
        if not mode:
            self.mode = ""
        self._before = tape.set_anomaly(self.mode)

    def __enter__(self) -> None:
        pass


def is_anomaly_enabled() -> bool:
    """Whether `detect_anomaly` is active."""
    return bool(tape.anomaly)


def is_anomaly_check_nan_enabled() -> bool:
    """Whether backward searches for NaN."""
    return tape.anomaly == "nan"

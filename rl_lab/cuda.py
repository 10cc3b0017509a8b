"""torch.cuda for scripts that look for a GPU: there is none, and seeding or emptying nothing is harmless."""

from typing import TYPE_CHECKING, Any

from rl_lab.engine.device import check_device
from rl_lab.engine.names import not_covered

if not TYPE_CHECKING:  # a type checker would take every name for known
    __getattr__ = not_covered(__name__, globals())


def is_available() -> bool:
    return False


def is_initialized() -> bool:
    return False


def device_count() -> int:
    return 0


def manual_seed(seed: int) -> None:
    """Nothing: no generator lives on a GPU."""


def manual_seed_all(seed: int) -> None:
    """Nothing: no generator lives on a GPU."""


def empty_cache() -> None:
    """Nothing."""


def synchronize(device: Any = None) -> None:
    """Nothing: every operation has ended when it returns."""


def current_device() -> int:
    """DeviceError: there is none."""
    check_device("cuda")
    return -1


def get_device_name(device: Any = None) -> str:
    """DeviceError: there is none."""
    check_device("cuda")
    return ""

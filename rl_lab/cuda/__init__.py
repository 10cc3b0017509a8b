"""Functions of torch.cuda that PyTorch scripts call. There is no GPU: queries say so, and seeding or synchronising does nothing."""

from typing import TYPE_CHECKING

from rl_lab.cuda import amp as amp
from rl_lab.engine.device import DeviceLike, check_device
from rl_lab.engine.names import not_covered

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())


def is_available() -> bool:
    """Always False."""
    return False


def is_initialized() -> bool:
    """Always False."""
    return False


def device_count() -> int:
    """Always 0."""
    return 0


def manual_seed(seed: int) -> None:
    """Do nothing: there are no generators on a GPU."""


def manual_seed_all(seed: int) -> None:
    """Do nothing: there are no generators on a GPU."""


def empty_cache() -> None:
    """Do nothing."""


def synchronize(device: DeviceLike = None) -> None:
    """Do nothing: every operation is complete when it returns."""


def current_device() -> int:
    """Raise DeviceError, because there is no GPU."""
    check_device("cuda")
    return -1


def get_device_name(device: DeviceLike = None) -> str:
    """Raise DeviceError, because there is no GPU."""
    check_device("cuda")
    return ""

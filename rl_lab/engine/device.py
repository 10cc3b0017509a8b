"""The one device of the lab. Code that chooses a device runs unchanged as long as it chooses the cpu."""

from typing import Any

from rl_lab.engine.errors import DeviceError


class device:
    """Where a tensor lives, which is ``cpu``; as a context manager it does nothing. DeviceError for any other."""

    __slots__ = ()
    type = "cpu"
    index = None

    def __init__(self, type: Any = "cpu", index: int | None = None):
        check_device(type)

    def __str__(self) -> str:
        return "cpu"

    def __repr__(self) -> str:
        return "device(type='cpu')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device)

    def __hash__(self) -> int:
        return hash("cpu")

    def __enter__(self) -> "device":
        return self

    def __exit__(self, *fault: object) -> None:
        pass


def check_device(name: object) -> None:
    """Accept ``cpu`` in any spelling. DeviceError for anything else."""
    if name is not None and str(name).split(":")[0] != "cpu":
        raise DeviceError(f"device {str(name)!r} is not available: rl_lab runs on the cpu")


CPU = device()
DeviceLike = device | str | int | None
"""Values accepted by every ``device`` argument; None means the cpu."""

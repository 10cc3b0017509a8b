"""Devices. Every device may be named, but tensors live on the cpu: code that chooses a device runs as long as it chooses the cpu."""

from typing import Any

from rl_lab.engine.errors import DeviceError

KINDS = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "meta", "xla", "vulkan", "privateuseone")


class device:
    """The name of a device: ``device("cpu")``, ``device("cuda:0")``, ``device("cuda", 0)``. Only on the cpu can tensors be made.

    As a context manager it does nothing for the cpu and raises DeviceError for others. Raises DeviceError if PyTorch has no such kind
    of device.
    """

    __slots__ = ("index", "type")
    type: str
    index: int | None

    def __init__(self, type: Any = "cpu", index: int | None = None):
        if isinstance(type, device):
            type, index = type.type, type.index
        elif isinstance(type, int):
            type, index = "cuda", type  # as in PyTorch: a number is that of a GPU
        kind, _, number = str(type).partition(":")
        if kind not in KINDS or (number and not number.isdecimal()):
            raise DeviceError(f"{str(type)!r} is not a device: rl_lab runs on the cpu")
        self.type = kind
        self.index = int(number) if number else index

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device(type={self.type!r})" if self.index is None else f"device(type={self.type!r}, index={self.index})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> tuple[Any, ...]:
        return device, (self.type, self.index)

    def __enter__(self) -> "device":
        check_device(self)
        return self

    def __exit__(self, *fault: object) -> None:
        pass


def check_device(name: object) -> None:
    """Accept ``cpu`` in any spelling. DeviceError for anything else."""
    if name is not None and (isinstance(name, int) or str(name).split(":")[0] != "cpu"):
        raise DeviceError(f"device {str(name)!r} is not available: rl_lab runs on the cpu")


CPU = device()
DeviceLike = device | str | int | None
"""Values accepted by every ``device`` argument; None means the cpu."""

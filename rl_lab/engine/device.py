"""Devices. PyTorch's devices can be named, but tensors exist on the cpu only. Code that chooses a device must choose the cpu."""

from rl_lab.engine.errors import DeviceError

KINDS = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "meta", "xla", "vulkan", "privateuseone")


class device:
    """The name of a device: ``device("cpu")``, ``device("cuda:0")`` or ``device("cuda", 0)``.

    Raises DeviceError if PyTorch has no such kind of device. Entering a device as a context manager raises DeviceError unless it is
    the cpu.
    """

    __slots__ = ("index", "type")
    type: str
    index: int | None

    def __init__(self, type: "DeviceLike" = "cpu", index: int | None = None):
        if isinstance(type, device):
            index = type.index
            type = type.type
        elif isinstance(type, int):
            index = type
            type = "cuda"  # as in PyTorch, a number is the number of a GPU
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

    def __reduce__(self) -> tuple:
        return device, (self.type, self.index)

    def __enter__(self) -> "device":
        check_device(self)
        return self

    def __exit__(self, *fault: object) -> None:
        pass


def check_device(name: object) -> None:
    """Raise DeviceError unless ``name`` is None or a spelling of the cpu."""
    if name is not None and (isinstance(name, int) or str(name).split(":")[0] != "cpu"):
        raise DeviceError(f"device {str(name)!r} is not available: rl_lab runs on the cpu")


CPU = device()
DeviceLike = device | str | int | None
"""Values accepted by every ``device`` argument; None means the cpu."""

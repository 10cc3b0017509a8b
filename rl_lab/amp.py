"""Automatic mixed precision with the names of torch.amp. Everything is computed in float32, so there is nothing to switch on.

PyTorch without a GPU warns about ``autocast("cuda")`` and ``GradScaler("cuda")`` and switches them off. Here they are off, too.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from rl_lab.engine.dtype import DTypeLike, as_dtype, float32
from rl_lab.engine.errors import DtypeError
from rl_lab.engine.names import not_covered
from rl_lab.engine.ops import Tensor
from rl_lab.optim import Optimizer

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())

__all__ = ["GradScaler", "autocast"]

Function = TypeVar("Function", bound=Callable[..., object])
Values = TypeVar("Values", Tensor, Iterable[Tensor])


class autocast:
    """A context manager or decorator without effect. Raises DtypeError if it is on for the device "cpu" with another dtype than float32."""

    def __init__(
        self,
        device_type: str = "cuda",
        dtype: DTypeLike = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ):
        if enabled and device_type == "cpu" and (dtype is None or as_dtype(dtype) is not float32):
            raise DtypeError("autocast: everything is computed in float32 on the cpu; pass enabled=False, or leave it out")

    def __enter__(self) -> "autocast":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def __call__(self, function: Function) -> Function:
        return function


class GradScaler:
    """A scaler of losses that is switched off: losses and gradients stay as they are, and `step` calls the optimizer's."""

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        pass

    def scale(self, outputs: Values) -> Values:
        """The losses themselves."""
        return outputs

    def unscale_(self, optimizer: Optimizer) -> None:
        """Do nothing: gradients are not scaled."""

    def step(self, optimizer: Optimizer, *args: object, **kwargs: object) -> Tensor | None:
        """``optimizer.step(...)``."""
        return optimizer.step(*args, **kwargs)  # type: ignore[call-overload]

    def update(self, new_scale: float | None = None) -> None:
        """Do nothing."""

    def get_scale(self) -> float:
        """1.0."""
        return 1.0

    def is_enabled(self) -> bool:
        """False."""
        return False

    def state_dict(self) -> dict[str, object]:
        """An empty dict, as of a scaler in PyTorch that is switched off."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Do nothing."""

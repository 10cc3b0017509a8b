"""Automatic mixed precision under the path of torch.cuda.amp. It is switched off, as in PyTorch without a GPU."""

from rl_lab import amp
from rl_lab.amp import GradScaler
from rl_lab.engine.dtype import DTypeLike

__all__ = ["GradScaler", "autocast"]


class autocast(amp.autocast):
    """A context manager or decorator without effect."""

    def __init__(self, enabled: bool = True, dtype: DTypeLike = None, cache_enabled: bool = True):
        super().__init__("cuda", dtype, enabled, cache_enabled)

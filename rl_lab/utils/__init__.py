"""Tools beside tensors and networks, with the names of torch.utils."""

from rl_lab.utils import data

__all__ = ["data"]

"""Switches of torch.backends that scripts set. Nothing depends on them: the lab is deterministic and knows no accelerator."""

from rl_lab.backends import cudnn, mps

__all__ = ["cudnn", "mps"]

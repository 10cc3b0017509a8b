"""Settings of torch.backends that PyTorch scripts write to. They have no effect: rl_lab is deterministic and runs on the cpu."""

from rl_lab.backends import cudnn, mps

__all__ = ["cudnn", "mps"]

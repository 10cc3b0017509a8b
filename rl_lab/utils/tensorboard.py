"""``SummaryWriter`` under the path of torch.utils.tensorboard. The class is that of tensorboardX, which needs no PyTorch."""

from tensorboardX import SummaryWriter

__all__ = ["SummaryWriter"]

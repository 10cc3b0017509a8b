"""Optimisers with torch.optim's names."""

from rl_lab.optim import lr_scheduler
from rl_lab.optim.optimizer import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]

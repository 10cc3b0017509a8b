"""Optimisers and learning-rate schedules, with the names of torch.optim."""

from typing import TYPE_CHECKING

from rl_lab.engine.names import not_covered
from rl_lab.optim import lr_scheduler, swa_utils
from rl_lab.optim.adafactor import Adafactor
from rl_lab.optim.further import ASGD, Adadelta, Adamax, NAdam, RAdam, Rprop
from rl_lab.optim.lbfgs import LBFGS
from rl_lab.optim.muon import Muon
from rl_lab.optim.optimizer import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

if not TYPE_CHECKING:  # with __getattr__, a type checker would accept every name
    __getattr__ = not_covered(__name__, globals())

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "lr_scheduler",
    "swa_utils",
]

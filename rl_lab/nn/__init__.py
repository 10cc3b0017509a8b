"""Networks: torch.nn's names on the lab's tensors."""

from rl_lab.nn import functional, init, utils
from rl_lab.nn.layers import Flatten, Identity, Linear, ReLU, Sequential, Sigmoid, SiLU, Tanh
from rl_lab.nn.module import Module, Parameter

__all__ = [
    "Flatten",
    "Identity",
    "Linear",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Tanh",
    "functional",
    "init",
    "utils",
]

"""The activations as modules."""

from collections.abc import Callable
from typing import Any

from rl_lab.engine.ops.creation import full
from rl_lab.nn import functional
from rl_lab.nn.module import Module, Parameter


def _activation(name: str, function: Callable, **defaults: Any) -> type[Module]:
    """A module that applies a function; ``defaults`` are its settings in the order of the constructor."""

    class Activation(Module):
        def __init__(self, *values: Any, inplace: bool = False, **settings: Any):
            super().__init__()
            given = dict(zip(defaults, values, strict=False)) | settings
            unknown = given.keys() - defaults.keys()
            if unknown or len(values) > len(defaults) + (values[-1:] in ((True,), (False,))):
                raise TypeError(f"{name} takes the settings {', '.join(defaults) or 'none'}, got {', '.join(map(str, given))}")
            self.settings = defaults | given

        def __getattr__(self, key: str) -> Any:
            settings = self.__dict__.get("settings", {})
            return settings[key] if key in settings else super().__getattr__(key)

        def forward(self, input: Any) -> Any:
            return function(input, **self.settings)

        def extra_repr(self) -> str:
            return ", ".join(f"{key}={value}" for key, value in self.settings.items())

    Activation.__name__ = Activation.__qualname__ = name
    Activation.__doc__ = f"`functional.{getattr(function, '__name__', name)}`."
    Activation.__module__ = __name__
    return Activation


ReLU = _activation("ReLU", functional.relu)
ReLU6 = _activation("ReLU6", functional.relu6)
Tanh = _activation("Tanh", functional.tanh)
Sigmoid = _activation("Sigmoid", functional.sigmoid)
SiLU = _activation("SiLU", functional.silu)
Mish = _activation("Mish", functional.mish)
SELU = _activation("SELU", functional.selu)
Softsign = _activation("Softsign", functional.softsign)
LogSigmoid = _activation("LogSigmoid", functional.logsigmoid)
Tanhshrink = _activation("Tanhshrink", functional.tanhshrink)
Hardsigmoid = _activation("Hardsigmoid", functional.hardsigmoid)
Hardswish = _activation("Hardswish", functional.hardswish)
ELU = _activation("ELU", functional.elu, alpha=1.0)
CELU = _activation("CELU", functional.celu, alpha=1.0)
GELU = _activation("GELU", functional.gelu, approximate="none")
LeakyReLU = _activation("LeakyReLU", functional.leaky_relu, negative_slope=0.01)
Hardtanh = _activation("Hardtanh", functional.hardtanh, min_val=-1.0, max_val=1.0)
Softplus = _activation("Softplus", functional.softplus, beta=1.0, threshold=20.0)
Hardshrink = _activation("Hardshrink", functional.hardshrink, lambd=0.5)
Softshrink = _activation("Softshrink", functional.softshrink, lambd=0.5)
Threshold = _activation("Threshold", functional.threshold, threshold=0.0, value=0.0)
GLU = _activation("GLU", functional.glu, dim=-1)
Softmax = _activation("Softmax", functional.softmax, dim=-1)
Softmin = _activation("Softmin", functional.softmin, dim=-1)
LogSoftmax = _activation("LogSoftmax", functional.log_softmax, dim=-1)


class PReLU(Module):
    """`functional.prelu` with weights that are learned, 0.25 at first (He et al. 2015)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25):
        super().__init__()
        self.weight = Parameter(full((num_parameters,), init))

    def forward(self, input: Any) -> Any:
        return functional.prelu(input, self.weight)

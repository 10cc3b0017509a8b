"""Activation functions as modules, with PyTorch's names and settings."""

from collections.abc import Callable
from typing import Any

from rl_lab.engine.ops import Tensor
from rl_lab.engine.ops.creation import full
from rl_lab.nn import functional
from rl_lab.nn.module import Module, Parameter


class Activation(Module):
    """Base of the modules that apply one function to each call's input.

    A subclass sets ``function`` and the names and default values of its settings, in the order of the constructor's arguments.
    ``inplace`` is accepted and has no effect. Raises TypeError if a setting is unknown.
    """

    function: Callable[..., Tensor]
    defaults: dict[str, Any] = {}

    def __init__(self, *values: Any, inplace: bool = False, **settings: Any):
        super().__init__()
        defaults = self.defaults
        given = dict(zip(defaults, values, strict=False)) | settings
        unknown = given.keys() - defaults.keys()
        if unknown or len(values) > len(defaults) + (values[-1:] in ((True,), (False,))):
            known = ", ".join(defaults) or "none"
            raise TypeError(f"{type(self).__name__} takes the settings {known}, got {', '.join(map(str, given))}")
        self.settings = defaults | given

    def __getattr__(self, key: str) -> Any:
        settings = self.__dict__.get("settings", {})
        return settings[key] if key in settings else super().__getattr__(key)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the function to every element; the shape stays the same unless the class says otherwise."""
        return self.function(input, **self.settings)

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.settings.items())


class ReLU(Activation):
    """max(0, x)."""

    function = staticmethod(functional.relu)


class ReLU6(Activation):
    """min(max(0, x), 6)."""

    function = staticmethod(functional.relu6)


class Tanh(Activation):
    """tanh(x)."""

    function = staticmethod(functional.tanh)


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    function = staticmethod(functional.sigmoid)


class SiLU(Activation):
    """x * sigmoid(x), also called swish (Elfwing, Uchibe and Doya 2018)."""

    function = staticmethod(functional.silu)


class Mish(Activation):
    """x * tanh(softplus(x)) (Misra 2019)."""

    function = staticmethod(functional.mish)


class SELU(Activation):
    """Scaled exponential linear unit with fixed scale and alpha (Klambauer et al. 2017)."""

    function = staticmethod(functional.selu)


class Softsign(Activation):
    """x / (1 + |x|)."""

    function = staticmethod(functional.softsign)


class LogSigmoid(Activation):
    """log(sigmoid(x)), accurate for large |x|."""

    function = staticmethod(functional.logsigmoid)


class Tanhshrink(Activation):
    """x - tanh(x)."""

    function = staticmethod(functional.tanhshrink)


class Hardsigmoid(Activation):
    """min(max(0, x / 6 + 1 / 2), 1)."""

    function = staticmethod(functional.hardsigmoid)


class Hardswish(Activation):
    """x * hardsigmoid(x) (Howard et al. 2019)."""

    function = staticmethod(functional.hardswish)


class ELU(Activation):
    """x above 0, alpha * (exp(x) - 1) below (Clevert, Unterthiner and Hochreiter 2016). Setting: ``alpha``."""

    function = staticmethod(functional.elu)
    defaults = {"alpha": 1.0}


class CELU(Activation):
    """x above 0, alpha * (exp(x / alpha) - 1) below (Barron 2017). Setting: ``alpha``."""

    function = staticmethod(functional.celu)
    defaults = {"alpha": 1.0}


class GELU(Activation):
    """x * Phi(x), with Phi the standard normal CDF (Hendrycks and Gimpel 2016). Setting: ``approximate``, "none" or "tanh"."""

    function = staticmethod(functional.gelu)
    defaults = {"approximate": "none"}


class LeakyReLU(Activation):
    """x above 0, negative_slope * x below. Setting: ``negative_slope``."""

    function = staticmethod(functional.leaky_relu)
    defaults = {"negative_slope": 0.01}


class Hardtanh(Activation):
    """min(max(min_val, x), max_val). Settings: ``min_val``, ``max_val``."""

    function = staticmethod(functional.hardtanh)
    defaults = {"min_val": -1.0, "max_val": 1.0}


class Softplus(Activation):
    """log(1 + exp(beta * x)) / beta, accurate for every x. Settings: ``beta``, ``threshold``.

    ``threshold`` is accepted for PyTorch's sake and has no effect: it marks where PyTorch switches to an approximation.
    """

    function = staticmethod(functional.softplus)
    defaults = {"beta": 1.0, "threshold": 20.0}


class Hardshrink(Activation):
    """x where |x| > lambd, 0 elsewhere. Setting: ``lambd``."""

    function = staticmethod(functional.hardshrink)
    defaults = {"lambd": 0.5}


class Softshrink(Activation):
    """sign(x) * max(|x| - lambd, 0). Setting: ``lambd``."""

    function = staticmethod(functional.softshrink)
    defaults = {"lambd": 0.5}


class Threshold(Activation):
    """x where x > threshold, ``value`` elsewhere. Settings: ``threshold``, ``value``."""

    function = staticmethod(functional.threshold)
    defaults = {"threshold": 0.0, "value": 0.0}


class GLU(Activation):
    """Gated linear unit: a * sigmoid(b) for the halves a and b of the input along ``dim`` (Dauphin et al. 2017).

    The result has half the size along ``dim``, which must be even. Setting: ``dim``.
    """

    function = staticmethod(functional.glu)
    defaults = {"dim": -1}


class Softmax(Activation):
    """exp(x) / sum(exp(x)), with the sum along ``dim``. Setting: ``dim``."""

    function = staticmethod(functional.softmax)
    defaults = {"dim": -1}


class Softmin(Activation):
    """softmax(-x) along ``dim``. Setting: ``dim``."""

    function = staticmethod(functional.softmin)
    defaults = {"dim": -1}


class LogSoftmax(Activation):
    """log(softmax(x)) along ``dim``, computed without overflow. Setting: ``dim``."""

    function = staticmethod(functional.log_softmax)
    defaults = {"dim": -1}


class PReLU(Module):
    """Parametric ReLU: x above 0, weight * x below (He et al. 2015). The weight is trained and starts at 0.25.

    With ``num_parameters`` above 1 every channel (dimension 1 of the input) has a weight of its own.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25):
        super().__init__()
        self.weight = Parameter(full((num_parameters,), init))

    def forward(self, input: Tensor) -> Tensor:
        return functional.prelu(input, self.weight)

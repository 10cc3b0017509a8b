"""Activation functions as modules, with PyTorch's names and settings."""

from collections.abc import Callable
from typing import Any

from rl_lab.engine.device import DeviceLike
from rl_lab.engine.dtype import DTypeLike
from rl_lab.engine.errors import ShapeError
from rl_lab.engine.ops import Tensor, elementwise
from rl_lab.engine.ops.creation import full
from rl_lab.engine.ops.in_place import write_in_place
from rl_lab.nn import functional
from rl_lab.nn.module import Module, Parameter


class Activation(Module):
    """Base of the modules that apply one function to each call's input.

    A subclass sets ``function`` and the names and default values of its settings, in the order of the constructor's arguments.
    Classes with ``takes_inplace`` have a last setting ``inplace``, which writes the result into the input. Raises TypeError if a
    setting is unknown.
    """

    function: Callable[..., Tensor]
    defaults: dict[str, Any] = {}
    takes_inplace = False
    inplace = False

    def __init__(self, *values: Any, **settings: Any):
        super().__init__()
        defaults = self.defaults | ({"inplace": False} if self.takes_inplace else {})
        given = dict(zip(defaults, values, strict=False)) | settings
        if given.keys() - defaults.keys() or len(values) > len(defaults):
            known = ", ".join(defaults) or "none"
            raise TypeError(f"{type(self).__name__} takes the settings {known}, got {', '.join(map(str, settings)) or values}")
        self.settings = defaults | given
        if self.takes_inplace:
            self.inplace = bool(self.settings.pop("inplace"))

    def __getattr__(self, key: str) -> Any:
        settings = self.__dict__.get("settings", {})
        return settings[key] if key in settings else super().__getattr__(key)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the function to every element; the shape stays the same unless the class says otherwise."""
        if self.inplace:
            return write_in_place(input, lambda x: self.function(x, **self.settings))
        return self.function(input, **self.settings)

    def extra_repr(self) -> str:
        shown = self.settings | ({"inplace": True} if self.inplace else {})
        return ", ".join(f"{key}={value}" for key, value in shown.items())


class ReLU(Activation):
    """max(0, x)."""

    function = staticmethod(elementwise.relu)
    takes_inplace = True


class ReLU6(Activation):
    """min(max(0, x), 6)."""

    function = staticmethod(functional.relu6)
    takes_inplace = True


class Tanh(Activation):
    """tanh(x)."""

    function = staticmethod(elementwise.tanh)


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    function = staticmethod(elementwise.sigmoid)


class SiLU(Activation):
    """x * sigmoid(x), also called swish (Elfwing, Uchibe and Doya 2018)."""

    function = staticmethod(elementwise.silu)
    takes_inplace = True


class Mish(Activation):
    """x * tanh(softplus(x)) (Misra 2019)."""

    function = staticmethod(elementwise.mish)
    takes_inplace = True


class SELU(Activation):
    """Scaled exponential linear unit with fixed scale and alpha (Klambauer et al. 2017)."""

    function = staticmethod(elementwise.selu)
    takes_inplace = True


class Softsign(Activation):
    """x / (1 + |x|)."""

    function = staticmethod(elementwise.softsign)


class LogSigmoid(Activation):
    """log(sigmoid(x)), accurate for large |x|."""

    function = staticmethod(elementwise.logsigmoid)


class Tanhshrink(Activation):
    """x - tanh(x)."""

    function = staticmethod(elementwise.tanhshrink)


class Hardsigmoid(Activation):
    """min(max(0, x / 6 + 1 / 2), 1)."""

    function = staticmethod(elementwise.hardsigmoid)
    takes_inplace = True


class Hardswish(Activation):
    """x * hardsigmoid(x) (Howard et al. 2019)."""

    function = staticmethod(elementwise.hardswish)
    takes_inplace = True


class ELU(Activation):
    """x above 0, alpha * (exp(x) - 1) below (Clevert, Unterthiner and Hochreiter 2016). Setting: ``alpha``."""

    function = staticmethod(elementwise.elu)
    defaults = {"alpha": 1.0}
    takes_inplace = True


class CELU(Activation):
    """x above 0, alpha * (exp(x / alpha) - 1) below (Barron 2017). Setting: ``alpha``."""

    function = staticmethod(elementwise.celu)
    defaults = {"alpha": 1.0}
    takes_inplace = True


class GELU(Activation):
    """x * Phi(x), with Phi the standard normal CDF (Hendrycks and Gimpel 2016). Setting: ``approximate``, "none" or "tanh"."""

    function = staticmethod(elementwise.gelu)
    defaults = {"approximate": "none"}


class LeakyReLU(Activation):
    """x above 0, negative_slope * x below. Setting: ``negative_slope``."""

    function = staticmethod(elementwise.leaky_relu)
    defaults = {"negative_slope": 0.01}
    takes_inplace = True


class Hardtanh(Activation):
    """min(max(min_val, x), max_val). Settings: ``min_val``, ``max_val``."""

    function = staticmethod(functional.hardtanh)
    defaults = {"min_val": -1.0, "max_val": 1.0}
    takes_inplace = True


class Softplus(Activation):
    """log(1 + exp(beta * x)) / beta, accurate for every x. Settings: ``beta``, ``threshold``.

    ``threshold``, where PyTorch switches to an approximation, is accepted and has no effect.
    """

    function = staticmethod(elementwise.softplus)
    defaults = {"beta": 1.0, "threshold": 20.0}


class Hardshrink(Activation):
    """x where |x| > lambd, 0 elsewhere. Setting: ``lambd``."""

    function = staticmethod(elementwise.hardshrink)
    defaults = {"lambd": 0.5}


class Softshrink(Activation):
    """sign(x) * max(|x| - lambd, 0). Setting: ``lambd``."""

    function = staticmethod(elementwise.softshrink)
    defaults = {"lambd": 0.5}


class Threshold(Activation):
    """x where x > threshold, ``value`` elsewhere. Settings: ``threshold``, ``value``."""

    function = staticmethod(functional.threshold)
    defaults = {"threshold": 0.0, "value": 0.0}
    takes_inplace = True


class GLU(Activation):
    """Gated linear unit: a * sigmoid(b) for the halves a and b of the input along ``dim`` (Dauphin et al. 2017).

    The result has half the size along ``dim``, which must be even. Setting: ``dim``.
    """

    function = staticmethod(functional.glu)
    defaults = {"dim": -1}


class Softmax(Activation):
    """exp(x) / sum(exp(x)), with the sum along ``dim``. Setting: ``dim``, see `functional.softmax`."""

    function = staticmethod(functional.softmax)
    defaults = {"dim": None}


class Softmin(Activation):
    """softmax(-x) along ``dim``. Setting: ``dim``, see `functional.softmax`."""

    function = staticmethod(functional.softmin)
    defaults = {"dim": None}


class LogSoftmax(Activation):
    """log(softmax(x)) along ``dim``, computed without overflow. Setting: ``dim``, see `functional.softmax`."""

    function = staticmethod(functional.log_softmax)
    defaults = {"dim": None}


class Softmax2d(Module):
    """softmax over the channels of (n, channels, h, w) or (channels, h, w)."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise ShapeError(f"Softmax2d takes 3 or 4 dimensions, got shape {list(input.shape)}")
        return functional.softmax(input, -3)


class RReLU(Module):
    """Randomized leaky ReLU: in training the slope below 0 is uniform on [lower, upper], else their mean (Xu et al. 2015)."""

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False):
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return functional.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """Parametric ReLU: x above 0, weight * x below (He et al. 2015). The weight is trained and starts at 0.25.

    With ``num_parameters`` above 1 every channel (dimension 1 of the input) has a weight of its own.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: DeviceLike = None, dtype: DTypeLike = None):
        super().__init__()
        self.to(device=device, dtype=dtype)
        self.weight = Parameter(full((num_parameters,), init))

    def forward(self, input: Tensor) -> Tensor:
        return functional.prelu(input, self.weight)

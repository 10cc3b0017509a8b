"""Functions of one tensor, element by element, each beside its gradient rule.

Rules consist of differentiable operations, so second derivatives work. If a kernel computes the same gradient in one launch, a
backward pass that records no graph uses the kernel.
"""

import math
from collections.abc import Callable

from rl_lab.engine.dtype import bool_, float32, int64
from rl_lab.engine.errors import DtypeError, StateError
from rl_lab.engine.kernels import elementwise as elementwise_kernels
from rl_lab.engine.launch import launch
from rl_lab.engine.number import real
from rl_lab.engine.ops.conversion import convert
from rl_lab.engine.ops.operands import as_float, binary, constant, elementwise, unary
from rl_lab.engine.tape import Node, attach, modes, no_grad
from rl_lab.engine.tensor import Tensor, empty, needs_gradient
from rl_lab.engine.types import Gradients
from rl_lab.native.primitive import Primitive

# --- functions of one argument ---------------------------------------------------------------------------------------


Slope = Callable[[Tensor, Tensor], Tensor]
"""The gradient of a function's input, from the gradient of its output and the saved tensor."""


class Unary:
    """A function of one float32 tensor, computed by ``kernel``.

    ``saves`` names what the gradient needs: the input "x", the output "y", or nothing "". ``rule(g, saved)`` computes the gradient
    in differentiable operations; ``fast``, a kernel of (g, saved), computes the same in one launch. ``integer`` is the kernel for
    int64 tensors; without it they become float32.
    """

    def __init__(
        self, kernel: Primitive, saves: str, rule: Slope, fast: Primitive | None = None, integer: Primitive | None = None
    ):
        self.__name__ = kernel.name
        self.__doc__ = f"{kernel.name} of each element. Integers {'stay int64' if integer else 'become float32'}."
        self.kernel = kernel
        self.saves = saves
        self.integer = integer
        self.of_bool = {"sign": bool_, "square": int64}.get(kernel.name)
        """The dtype of the result for bools, whose values stay 0 and 1; None if they become float32."""

        def gradient_rule(g: Tensor, node: Node) -> Gradients:
            (saved,) = node.saved or (None,)
            if fast is not None and not modes.grad:
                return binary(fast, g, saved)
            return rule(g, saved)

        gradient_rule.__name__ = f"{kernel.name}_rule"
        self.rule = gradient_rule

    def __reduce__(self) -> str:
        """Pickle by name, as functions are pickled."""
        return next(name for name, value in globals().items() if value is self)

    def __call__(self, input: Tensor) -> Tensor:
        if input.dtype is not float32:
            if self.integer is not None and input.dtype is int64:
                return elementwise(self.integer, (input,), int64)
            if input.dtype is bool_:
                if self.kernel is elementwise_kernels.neg:
                    raise DtypeError("-x takes no bool tensor: use ~x or x.logical_not(), or x.float() to calculate with x")
                if self.of_bool is not None:
                    return convert(input, self.of_bool)
            input = input.to(float32)
        y = unary(self.kernel, input)
        if modes.grad and needs_gradient(input):
            attach(y, self.rule, (input,), (input,) if self.saves == "x" else (y,) if self.saves == "y" else ())
        return y


def _zero(g: Tensor, s: Tensor) -> Tensor:
    """Gradient of a step function: zeros, also where g is infinite or NaN."""
    with no_grad():
        return empty(g.sizes).zero_()


def _no_further(g: Tensor, s: Tensor) -> Tensor:
    raise StateError("lgamma is differentiable three times and digamma twice: their next derivatives are not implemented")


neg = Unary(elementwise_kernels.neg, "", lambda g, s: -g, integer=elementwise_kernels.neg_int)
absolute = Unary(
    elementwise_kernels.absolute,
    "x",
    lambda g, x: g * sign(x),
    elementwise_kernels.absolute_backward,
    elementwise_kernels.absolute_int,
)
sign = Unary(elementwise_kernels.sign, "", _zero, integer=elementwise_kernels.sign_int)
exp = Unary(elementwise_kernels.exp, "y", lambda g, y: g * y)
exp2 = Unary(elementwise_kernels.exp2, "y", lambda g, y: g * (y * math.log(2.0)))
expm1 = Unary(elementwise_kernels.expm1, "y", lambda g, y: g * (y + 1.0))
log = Unary(elementwise_kernels.log, "x", lambda g, x: g / x)
log1p = Unary(elementwise_kernels.log1p, "x", lambda g, x: g / (x + 1.0))
log2 = Unary(elementwise_kernels.log2, "x", lambda g, x: g / (x * math.log(2.0)))
log10 = Unary(elementwise_kernels.log10, "x", lambda g, x: g / (x * math.log(10.0)))
sqrt = Unary(elementwise_kernels.sqrt, "y", lambda g, y: g / (y * 2.0), elementwise_kernels.sqrt_backward)
rsqrt = Unary(elementwise_kernels.rsqrt, "y", lambda g, y: g * (y * y * y) * -0.5)
square = Unary(
    elementwise_kernels.square,
    "x",
    lambda g, x: g * (x * 2.0),
    elementwise_kernels.square_backward,
    elementwise_kernels.square_int,
)
reciprocal = Unary(elementwise_kernels.reciprocal, "y", lambda g, y: -g * (y * y))
sin = Unary(elementwise_kernels.sin, "x", lambda g, x: g * cos(x), elementwise_kernels.sin_backward)
cos = Unary(elementwise_kernels.cos, "x", lambda g, x: -g * sin(x), elementwise_kernels.cos_backward)
tan = Unary(elementwise_kernels.tan, "y", lambda g, y: g * (1.0 + y * y))
acosh = Unary(elementwise_kernels.acosh, "x", lambda g, x: g * rsqrt(square(x) - 1.0))
asinh = Unary(elementwise_kernels.asinh, "x", lambda g, x: g * rsqrt(square(x) + 1.0))
atanh = Unary(elementwise_kernels.atanh, "x", lambda g, x: g * reciprocal(1.0 - square(x)))
asin = Unary(elementwise_kernels.asin, "x", lambda g, x: g * rsqrt(1.0 - x * x))
acos = Unary(elementwise_kernels.acos, "x", lambda g, x: -g * rsqrt(1.0 - x * x))
atan = Unary(elementwise_kernels.atan, "x", lambda g, x: g / (1.0 + x * x))
sinh = Unary(elementwise_kernels.sinh, "x", lambda g, x: g * cosh(x))
cosh = Unary(elementwise_kernels.cosh, "x", lambda g, x: g * sinh(x))
sech = Unary(elementwise_kernels.sech, "x", lambda g, x: -g * sech(x) * tanh(x))
tanh = Unary(elementwise_kernels.tanh, "y", lambda g, y: g * (1.0 - y * y), elementwise_kernels.tanh_backward)
sigmoid = Unary(elementwise_kernels.sigmoid, "y", lambda g, y: g * (1.0 - y) * y, elementwise_kernels.sigmoid_backward)
relu = Unary(
    elementwise_kernels.relu,
    "y",
    lambda g, y: _relu_slope(g, y),
    elementwise_kernels.relu_backward,
    elementwise_kernels.relu_int,
)
softplus_plain = Unary(elementwise_kernels.softplus, "x", lambda g, x: g * sigmoid(x), elementwise_kernels.softplus_backward)
logsigmoid = Unary(
    elementwise_kernels.logsigmoid, "x", lambda g, x: _logsigmoid_slope(g, x), elementwise_kernels.logsigmoid_backward
)
silu = Unary(
    elementwise_kernels.silu, "x", lambda g, x: g * sigmoid(x) * (1.0 + x * sigmoid(-x)), elementwise_kernels.silu_backward
)
gelu_exact = Unary(
    elementwise_kernels.gelu,
    "x",
    lambda g, x: g * (0.5 * (1.0 + erf(x * math.sqrt(0.5))) + x * exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))),
    elementwise_kernels.gelu_backward,
)
softsign = Unary(elementwise_kernels.softsign, "x", lambda g, x: g / square(absolute(x) + 1.0))
erf = Unary(elementwise_kernels.erf, "x", lambda g, x: g * exp(-square(x)) * (2.0 / math.sqrt(math.pi)))
erfc = Unary(elementwise_kernels.erfc, "x", lambda g, x: g * exp(-square(x)) * (-2.0 / math.sqrt(math.pi)))
erfinv = Unary(elementwise_kernels.erfinv, "x", lambda g, x: g * exp(square(erfinv(x))) * (0.5 * math.sqrt(math.pi)))
sinc = Unary(elementwise_kernels.sinc, "x", lambda g, x: _sinc_slope(g, x))
lgamma = Unary(elementwise_kernels.lgamma, "x", lambda g, x: g * digamma(x))
digamma = Unary(elementwise_kernels.digamma, "x", lambda g, x: g * trigamma(x))
trigamma = Unary(elementwise_kernels.trigamma, "x", lambda g, x: g * tetragamma(x))
tetragamma = Unary(elementwise_kernels.tetragamma, "x", _no_further)
floor = Unary(elementwise_kernels.floor, "", _zero, integer=elementwise_kernels.same_int)
ceil = Unary(elementwise_kernels.ceil, "", _zero, integer=elementwise_kernels.same_int)
rint = Unary(elementwise_kernels.rint, "", _zero, integer=elementwise_kernels.same_int)
trunc = Unary(elementwise_kernels.trunc, "", _zero, integer=elementwise_kernels.same_int)


def _relu_slope(g: Tensor, y: Tensor) -> Tensor:
    """g where y > 0, else 0: differentiable with respect to g only."""
    result = binary(elementwise_kernels.relu_backward, g, y)

    def rule(gg: Tensor, node: Node) -> Tensor:
        return _relu_slope(gg, node.context)

    return attach(result, rule, (g,), context=y.detach())


def _logsigmoid_slope(g: Tensor, x: Tensor) -> Tensor:
    """g * sigmoid(-x). The derivative is computed as in PyTorch, -s * (1 - s) with s = sigmoid(x), which is exact for x far below 0."""

    def rule(gg: Tensor, node: Node) -> Gradients:
        g, x = node.saved
        y = sigmoid(x)
        return _logsigmoid_slope(gg, x), gg * g * (y - 1.0) * y

    with no_grad():
        result = binary(elementwise_kernels.logsigmoid_backward, g, x)
    return attach(result, rule, (g, x), (g, x))


def _sinc_slope(g: Tensor, x: Tensor) -> Tensor:
    turn = x * math.pi
    squared = square(turn)
    near = absolute(turn) < 0.05  # near 0 the formula's difference cancels, and the series is exact to float32
    series = turn * (squared * (squared * (-1.0 / 840.0) + 1.0 / 30.0) - 1.0 / 3.0)
    far = (turn * cos(turn) - sin(turn)) / (squared + near.float())
    return g * ((_keep_where(near, series) + _keep_where(near.logical_not(), far)) * math.pi)


def _keep_where(condition: Tensor, x: Tensor) -> Tensor:
    """x where the condition holds, elsewhere zeros, which have no gradient."""
    result = binary(elementwise_kernels.keep_where, x, condition)
    return attach(result, lambda g, node: _keep_where(condition, g), (x,))


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Round to ``decimals`` decimal places, halves to the even neighbour. Integers stay as they are."""
    if decimals == 0 or input.dtype is not float32:
        return rint(input)
    factor = 10.0 ** abs(decimals)
    return rint(input * factor) / factor if decimals > 0 else rint(input / factor) * factor


def mish(input: Tensor) -> Tensor:
    """input * tanh(softplus(input)) (Misra 2019)."""
    return input * tanh(softplus_plain(input))


def frac(input: Tensor) -> Tensor:
    """The fractional part, input - trunc(input), with the sign of input."""
    return input - trunc(input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input * Phi(input), where Phi is the standard normal distribution function (Hendrycks and Gimpel 2016).

    ``approximate`` "tanh" takes the authors' approximation. Raises ValueError if it is neither "none" nor "tanh".
    """
    if approximate == "tanh":
        return input * 0.5 * (tanh((input + input * input * input * 0.044715) * math.sqrt(2.0 / math.pi)) + 1.0)
    if approximate != "none":
        raise ValueError(f"approximate must be 'none' or 'tanh', not {approximate!r}")
    return gelu_exact(input)


# --- functions with parameters: the parameters are constants, only x gets a gradient ----------------------------------


def _with_parameters(
    forward: Primitive, backward: Primitive, bend: Callable[..., Tensor] | None = None
) -> Callable[..., Tensor]:
    """A function of x and numbers. ``backward`` is the kernel of its gradient.

    ``bend(h, x, *numbers)`` is h times the second derivative, in differentiable operations. None stands for a second derivative of 0.
    """
    name = forward.name

    def slope(g: Tensor, x: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
        result = elementwise(backward, (g, x, *parameters), float32)
        saved = (g, x) if bend is not None and modes.grad else ()
        return attach(result, slope_rule, (g, x) if bend is not None else (g,), saved, (x.detach(), parameters))

    def slope_rule(gg: Tensor, node: Node) -> Gradients:
        x, parameters = node.context
        if bend is None:
            return slope(gg, x, parameters)
        g, x = node.saved
        return (
            slope(gg, x, parameters) if node.wants(0) else None,
            bend(gg * g, x, *parameters) if node.wants(1) else None,
        )

    def rule(g: Tensor, node: Node) -> Gradients:
        (x,) = node.saved
        return slope(g, x, node.context)

    rule.__name__ = f"{name}_rule"
    slope_rule.__name__ = f"{name}_slope_rule"
    repeated = (0, 0) * (len(forward.buffers) - 2)

    def apply(x: Tensor, *values: float) -> Tensor:
        x = as_float(x)
        parameters = tuple([constant(v if type(v) is float else real(v)) for v in values])
        if x.strides is not None:
            return attach(elementwise(forward, (x, *parameters), float32), rule, (x,), (x,), parameters)
        out = empty(x.sizes)
        launch(forward, (out, x, *parameters), (1, out.storage.nbytes // 4, 0, 1, *repeated))
        return attach(out, rule, (x,), (x,), parameters)

    apply.__name__ = apply.__qualname__ = name
    return apply


clamp_between = _with_parameters(elementwise_kernels.clamp, elementwise_kernels.clamp_backward)
_hardtanh = _with_parameters(elementwise_kernels.hardtanh, elementwise_kernels.hardtanh_backward)
_elu = _with_parameters(
    elementwise_kernels.elu,
    elementwise_kernels.elu_backward,
    lambda h, x, low, high, inner: _keep_where(x < 0.0, h * exp(_keep_where(x < 0.0, x) * inner) * (inner * inner * low)),
)
_leaky_relu = _with_parameters(elementwise_kernels.leaky_relu, elementwise_kernels.leaky_relu_backward)
_softplus = _with_parameters(
    elementwise_kernels.softplus_from,
    elementwise_kernels.softplus_from_backward,
    lambda h, x, beta, threshold: _keep_where(x * beta < threshold, h * sigmoid(x * beta) * sigmoid(x * -beta) * beta),
)
_smooth_l1 = _with_parameters(
    elementwise_kernels.smooth_l1,
    elementwise_kernels.smooth_l1_backward,
    lambda h, x, beta: _keep_where(absolute(x) < beta, h / beta),
)
_threshold = _with_parameters(elementwise_kernels.threshold, elementwise_kernels.threshold_backward)
_hardshrink = _with_parameters(elementwise_kernels.hardshrink, elementwise_kernels.hardshrink_backward)
_softshrink = _with_parameters(elementwise_kernels.softshrink, elementwise_kernels.hardshrink_backward)
hardsigmoid = _with_parameters(elementwise_kernels.hardsigmoid, elementwise_kernels.hardsigmoid_backward)
hardswish = _with_parameters(
    elementwise_kernels.hardswish,
    elementwise_kernels.hardswish_backward,
    lambda h, x: _keep_where(absolute(x) < 3.0, h / 3.0),
)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * input)) / beta, or input where beta * input exceeds ``threshold``."""
    if beta == 1.0 and threshold == 20.0:  # above 20 the exact function equals input in float32
        return softplus_plain(input)
    return _softplus(input, beta, threshold)


def threshold(input: Tensor, threshold: float, value: float) -> Tensor:
    """input where it is above ``threshold``, ``value`` elsewhere."""
    return _threshold(input, threshold, value)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input outside the interval [-lambd, lambd], 0 inside."""
    return _hardshrink(input, lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """input moved towards 0 by ``lambd``, but not beyond 0. Raises ValueError if ``lambd`` is negative."""
    if lambd < 0:
        raise ValueError(f"lambd must not be negative, got {lambd}")
    return _softshrink(input, lambd)


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """input above 0, negative_slope * input below (Maas, Hannun and Ng 2013)."""
    return _leaky_relu(input, negative_slope)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Values clamped to [min_val, max_val]. At a bound the gradient is 0, unlike that of `clamp`, as in PyTorch.

    Raises ValueError if min_val is above max_val.
    """
    if min_val > max_val:
        raise ValueError(f"hardtanh needs min_val not above max_val, got min_val={min_val} and max_val={max_val}")
    return _hardtanh(input, min_val, max_val)


def relu6(input: Tensor) -> Tensor:
    """min(max(input, 0), 6)."""
    return _hardtanh(input, 0.0, 6.0)


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """input above 0, alpha * (exp(input) - 1) below (Clevert, Unterthiner and Hochreiter 2016)."""
    return _elu(input, alpha, 1.0, 1.0)


def celu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """max(input, 0) + min(alpha * (exp(input / alpha) - 1), 0) (Barron 2017). Raises ZeroDivisionError if alpha is 0."""
    if alpha == 0:
        raise ZeroDivisionError("celu divides by alpha, got alpha=0")
    return _elu(input, alpha, 1.0, 1.0 / alpha)


SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def selu(input: Tensor) -> Tensor:
    """The scaled exponential linear unit, which keeps mean 0 and variance 1 from layer to layer (Klambauer et al. 2017)."""
    return _elu(input, SELU_ALPHA * SELU_SCALE, SELU_SCALE, 1.0)


def tanhshrink(input: Tensor) -> Tensor:
    """input - tanh(input)."""
    return input - tanh(input)


def smooth_l1(difference: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1 loss of a difference d (Girshick 2015): d^2 / (2 beta) if |d| < beta, else |d| - beta / 2.

    This is the Huber loss divided by beta. Raises ValueError if beta is negative.
    """
    if beta < 0:
        raise ValueError(f"beta must not be negative, got {beta}")
    return absolute(difference) if beta == 0 else _smooth_l1(difference, beta)

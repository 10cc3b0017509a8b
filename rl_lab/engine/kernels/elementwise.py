"""Elementwise kernels: one expression each, over one or more operands that broadcast.

The output is contiguous: ``n`` rows of ``m`` elements. An operand ``a`` has the strides ``a0`` between rows and ``a1`` between
elements, where 0 repeats an element. So rows, columns, scalars and transposed matrices need no copy. Contiguous rows and scalar
operands get loops of their own, which LLVM vectorises.
"""

import math

import numpy as np

from rl_lab.engine.kernels import elementary, scalar
from rl_lab.native.primitive import In, InBool, InInt, InOut, Int, Out, OutBool, OutInt, Primitive, Role, primitive_from_source

_NAMESPACE = {"math": math, "np": np, "F": np.float32, "I": np.int64, "nan": np.float32(np.nan), "inf": np.float32(np.inf)} | {
    name: getattr(scalar, name)
    for name in (
        "exp32",
        "exp232",
        "sech32",
        "relu32",
        "sigmoid32",
        "tanh32",
        "softplus32",
        "fmod32",
        "remainder32",
        "floor_quotient32",
        "trigamma32",
    )
}
_NAMESPACE |= {
    name: function for name, function in vars(elementary).items() if name.endswith(("64", "64_near")) and name.islower()
}
_OUTPUT_TYPE = {"float32": "F", "int64": "I", "uint8": "np.uint8"}


def _loop(condition: str, loads: dict[str, str], expression: str) -> str:
    """Source of one inner loop over j. Loads that do not depend on j stand before the loop."""
    outside = "".join(f"            {name} = {index}\n" for name, index in loads.items() if "j" not in index)
    inside = "".join(f"                {name} = {index}\n" for name, index in loads.items() if "j" in index)
    return f"        {condition}:\n{outside}            for j in range(m):\n{inside}                out[o + j] = {expression}\n"


def _elementwise(name: str, expression: str, out: Role, *, near: tuple[str, str] | None = None, **operands: Role) -> Primitive:
    """A primitive ``name(out, operands..., n, m, a0, a1, b0, b1, ...)``: out = ``expression`` of the operands' elements.

    ``near`` is a condition on x, and an expression with the same values where it holds for every x of a row; LLVM vectorises it.
    """
    names = list(operands)
    own = {"a": "out[o + j]"} if out.reads else {}
    formula = ((*own, *names), expression)
    expression = f"{_OUTPUT_TYPE[out.dtype]}({expression})"
    body = "    for i in range(n):\n        o = i * m\n" + "".join(f"        p{v} = i * {v}0\n" for v in names)
    contiguous = own | {v: f"p_{v}[p{v} + j]" for v in names}
    if near:
        body += "        far = 0\n        if x1 == 1:\n            for j in range(m):\n"
        body += f"                x = p_x[px + j]\n                far += not ({near[0]})\n"
        body += _loop("if x1 == 1 and far == 0", contiguous, f"{_OUTPUT_TYPE[out.dtype]}({near[1]})") + "            continue\n"
    body += _loop("if " + " and ".join(f"{v}1 == 1" for v in names), contiguous, expression)
    if len(names) + len(own) == 2:
        for constant in names:
            loads = {**contiguous, constant: f"p_{constant}[p{constant}]"}
            conditions = [f"{constant}1 == 0", *[f"{v}1 == 1" for v in names if v != constant]]
            body += _loop("elif " + " and ".join(conditions), loads, expression)
    elif len(names) > 1:
        scalars = {v: f"p_{v}[p{v}]" for v in names[1:]}
        body += _loop(
            "elif " + " and ".join([f"{names[0]}1 == 1", *[f"{v}1 == 0" for v in scalars]]), contiguous | scalars, expression
        )
    body += _loop("else", own | {v: f"p_{v}[p{v} + {v}1 * j]" for v in names}, expression)
    numbers = {"n": Int, "m": Int} | {f"{v}{axis}": Int for v in names for axis in (0, 1)}
    parameters = {"out": out, **{f"p_{v}": r for v, r in operands.items()}, **numbers}
    primitive = primitive_from_source(name, parameters, body, _NAMESPACE, __file__)
    primitive.elementwise = True
    primitive.formula = formula
    return primitive


def _unary(name: str, expression: str, x: Role = In, out: Role = Out) -> Primitive:
    return _elementwise(name, expression, out, x=x)


def _binary(name: str, expression: str, operands: Role = In, out: Role = Out) -> Primitive:
    return _elementwise(name, expression, out, a=operands, b=operands)


def _into(name: str, expression: str) -> Primitive:
    """``out = expression`` of out's own elements ``a`` and an operand ``b``, in place.

    `_binary` with out = a would be slow: LLVM does not vectorise a loop over two pointers that turn out to be the same.
    """
    return _elementwise(name, expression, InOut, b=In)


def _backward(name: str, expression: str) -> Primitive:
    """The gradient of a unary function's input, from the gradient ``g`` of its output and ``s``, its saved input or output."""
    return _elementwise(name, expression, Out, g=In, s=In)


_NEAR = "abs(x) < F(8388608)"

# --- float32 ---------------------------------------------------------------------------------------------------------

neg = _unary("neg", "-x")
absolute = _unary("absolute", "abs(x)")
sign = _unary("sign", "F(x > F(0)) - F(x < F(0))")
exp = _unary("exp", "exp32(x)")
exp2 = _unary("exp2", "exp232(x)")
expm1 = _unary("expm1", "expm164(x)")
log = _unary("log", "log64(x)")
log1p = _unary("log1p", "log1p64(x)")
log2 = _unary("log2", "log264(x)")
log10 = _unary("log10", "log1064(x)")
sqrt = _unary("sqrt", "np.sqrt(x)")
rsqrt = _unary("rsqrt", "F(1) / np.sqrt(x)")
square = _unary("square", "x * x")
reciprocal = _unary("reciprocal", "F(1) / x")
sin = _elementwise("sin", "sin64(x)", Out, near=(_NEAR, "sin64_near(x)"), x=In)
cos = _elementwise("cos", "cos64(x)", Out, near=(_NEAR, "cos64_near(x)"), x=In)
tanh = _unary("tanh", "tanh32(x)")
sigmoid = _unary("sigmoid", "sigmoid32(x)")
relu = _unary("relu", "relu32(x)")
softplus = _unary("softplus", "softplus32(x)")
erf = _unary("erf", "erf64(x)")
lgamma = _elementwise("lgamma", "lgamma64(x)", Out, near=("(x > F(0)) & (x < inf)", "lgamma64_near(x)"), x=In)
digamma = _unary("digamma", "digamma64(x)")
trigamma = _unary("trigamma", "trigamma32(x)")
tetragamma = _unary("tetragamma", "tetragamma64(x)")
floor = _unary("floor", "np.floor(x)")
ceil = _unary("ceil", "np.ceil(x)")
rint = _unary("rint", "np.rint(x)")
trunc = _unary("trunc", "np.trunc(x)")
tan = _elementwise("tan", "tan64(x)", Out, near=(_NEAR, "tan64_near(x)"), x=In)
acosh = _unary("acosh", "acosh64(x)")
asinh = _unary("asinh", "asinh64(x)")
atanh = _unary("atanh", "atanh64(x)")
erfc = _unary("erfc", "erfc64(x)")
erfinv = _unary("erfinv", "erfinv64(x)")
sinc = _unary("sinc", "F(1) if x == F(0) else sin64(F(np.pi) * x) / (F(np.pi) * x)")
asin = _unary("asin", "asin64(x)")
acos = _unary("acos", "acos64(x)")
atan = _unary("atan", "atan64(x)")
sinh = _unary("sinh", "sinh64(x)")
cosh = _unary("cosh", "cosh64(x)")
sech = _unary("sech", "sech32(x)")
silu = _unary("silu", "x * sigmoid32(x)")
logsigmoid = _unary("logsigmoid", "-softplus32(-x)")
logit = _unary("logit", "log64(x / (F(1) - x))")
softsign = _unary("softsign", "x / (F(1) + abs(x)) if abs(x) < inf else F(x > F(0)) - F(x < F(0)) if x == x else x")
gelu = _unary("gelu", "F(0.5) * x * (F(1) + F(erf64(x * F(0.70710678118654752))))")
softplus_from = _elementwise(  # linear above the threshold, as in PyTorch
    "softplus_from", "x if x * beta > threshold else softplus32(x * beta) / beta", Out, x=In, beta=In, threshold=In
)
# low * (exp(x * inner) - 1) up to 0, high * x above 0; NaN counts as above
elu = _elementwise("elu", "low * F(expm164(x * inner)) if x <= F(0) else x * high", Out, x=In, low=In, high=In, inner=In)
threshold = _elementwise("threshold", "value if x <= threshold else x", Out, x=In, threshold=In, value=In)
hardshrink = _elementwise("hardshrink", "F(0) if abs(x) <= limit else x", Out, x=In, limit=In)
softshrink = _elementwise(
    "softshrink", "x - limit if x > limit else x + limit if x < -limit else x * F(0)", Out, x=In, limit=In
)
hardsigmoid = _unary("hardsigmoid", "F(0) if x <= F(-3) else F(1) if x >= F(3) else (x + F(3)) / F(6)")
hardswish = _unary("hardswish", "x * min(max(x + F(3), F(0)), F(6)) / F(6) if x == x else x")
hardtanh = _elementwise("hardtanh", "low if x < low else high if x > high else x", Out, x=In, low=In, high=In)

add = _binary("add", "a + b")
sub = _binary("sub", "a - b")
mul = _binary("mul", "a * b")
div = _binary("div", "a / b")
power = _binary("power", "pow64(a, b)")
maximum = _binary("maximum", "a if a >= b or a != a else b")
minimum = _binary("minimum", "a if a <= b or a != a else b")
remainder = _binary("remainder", "remainder32(a, b)")
fmod = _binary("fmod", "fmod32(a, b)")
atan2 = _binary("atan2", "atan264(a, b)")
heaviside = _binary("heaviside", "b if a == F(0) else F(a > F(0))")  # NaN gives 0
hypot = _binary(
    "hypot", "inf if abs(a) == inf or abs(b) == inf else math.sqrt(np.float64(a) * a + np.float64(b) * b)"
)  # float64: the squares of float32 numbers do not overflow
xlogy = _binary("xlogy", "b if b != b else F(0) if a == F(0) else a * F(log64(b))")
logaddexp = _binary("logaddexp", "a if a == b and abs(a) == inf else max(a, b) + softplus32(-abs(a - b))")
copysign = _binary("copysign", "np.copysign(a, b)")
fmax = _binary("fmax", "b if a != a or b > a else a")
fmin = _binary("fmin", "b if a != a or b < a else a")
floor_quotient = _binary("floor_quotient", "floor_quotient32(a, b)")
lerp = _elementwise("lerp", "a + w * (b - a) if abs(w) < F(0.5) else b - (b - a) * (F(1) - w)", Out, a=In, b=In, w=In)

add_scaled_into = _elementwise("add_scaled_into", "a + b * s", InOut, b=In, s=In)
add_into = _into("add_into", "a + b")
sub_into = _into("sub_into", "a - b")
mul_into = _into("mul_into", "a * b")
div_into = _into("div_into", "a / b")

absolute_backward = _backward("absolute_backward", "g * (F(s > F(0)) - F(s < F(0)))")
tanh_backward = _backward("tanh_backward", "g * (F(1) - s * s)")
sigmoid_backward = _backward("sigmoid_backward", "g * (F(1) - s) * s")
relu_backward = _backward("relu_backward", "g if s > F(0) else (F(0) if s == s else g)")
square_backward = _backward("square_backward", "g * (s + s)")
sqrt_backward = _backward("sqrt_backward", "g / (s + s)")
softplus_backward = _backward("softplus_backward", "g * sigmoid32(s)")
logsigmoid_backward = _backward("logsigmoid_backward", "g * sigmoid32(-s)")
sin_backward = _backward("sin_backward", "g * F(cos64(s))")
cos_backward = _backward("cos_backward", "-(g * F(sin64(s)))")
silu_backward = _backward("silu_backward", "g * sigmoid32(s) * (F(1) + s * (F(1) - sigmoid32(s)))")
gelu_backward = _backward(
    "gelu_backward",
    "g * (F(0.5) * (F(1) + F(erf64(s * F(0.70710678118654752)))) + s * F(0.39894228040143268) * exp32(F(-0.5) * s * s))",
)
softplus_from_backward = _elementwise(
    "softplus_from_backward", "g if s * beta > threshold else g * sigmoid32(s * beta)", Out, g=In, s=In, beta=In, threshold=In
)
elu_backward = _elementwise(
    "elu_backward", "g * inner * low * exp32(s * inner) if s <= F(0) else g * high", Out, g=In, s=In, low=In, high=In, inner=In
)
threshold_backward = _elementwise(
    "threshold_backward", "F(0) if s <= threshold else g", Out, g=In, s=In, threshold=In, value=In
)
hardshrink_backward = _elementwise("hardshrink_backward", "F(0) if abs(s) <= limit else g", Out, g=In, s=In, limit=In)
hardsigmoid_backward = _backward("hardsigmoid_backward", "g / F(6) if s > F(-3) and s < F(3) else F(0)")
hardswish_backward = _backward("hardswish_backward", "F(0) if s <= F(-3) else g * (s / F(3) + F(0.5)) if s < F(3) else g")
logit_backward = _elementwise(
    "logit_backward",
    "outside if s < low or s > F(1) - low else g * inf if s == F(0) or s == F(1) else g / (s * (F(1) - s))",
    Out,
    g=In,
    s=In,
    low=In,
    outside=In,
)
hardtanh_backward = _elementwise("hardtanh_backward", "F(0) if s <= low or s >= high else g", Out, g=In, s=In, low=In, high=In)
leaky_relu = _elementwise("leaky_relu", "x if x > F(0) else x * slope", Out, x=In, slope=In)
leaky_relu_backward = _elementwise("leaky_relu_backward", "g if s > F(0) else g * slope", Out, g=In, s=In, slope=In)
clamp = _elementwise(
    "clamp", "(high if x > high else x) if not x < low else (low if low < high else high)", Out, x=In, low=In, high=In
)
clamp_backward = _elementwise("clamp_backward", "g if s >= low and s <= high else F(0)", Out, g=In, s=In, low=In, high=In)
where = _elementwise("where", "a if c else b", Out, c=InBool, a=In, b=In)
div_backward = _elementwise("div_backward", "-g * ((a / b) / b)", Out, g=In, a=In, b=In)
put_where = _elementwise("put_where", "b if c else a", InOut, c=InBool, b=In)
keep_where = _elementwise("keep_where", "g if c else F(0)", Out, g=In, c=InBool)
keep_where_not = _elementwise("keep_where_not", "F(0) if c else g", Out, g=In, c=InBool)
# smooth L1 (Huber) of a difference, and its slope, for beta > 0
smooth_l1 = _elementwise("smooth_l1", "F(0.5) * x * x / beta if abs(x) < beta else abs(x) - F(0.5) * beta", Out, x=In, beta=In)
smooth_l1_backward = _elementwise(
    "smooth_l1_backward", "g if x >= beta else -g if x <= -beta else g * x / beta", Out, g=In, x=In, beta=In
)  # NaN stays NaN

# binary cross entropy of probabilities; its slope is bounded near 0 and 1, as in PyTorch
bce = _binary("bce", "(b - F(1)) * max(F(log1p64(-a)), F(-100)) - b * max(F(log64(a)), F(-100))")
bce_backward = _elementwise("bce_backward", "g * (a - b) / max((F(1) - a) * a, F(1e-12))", Out, g=In, a=In, b=In)

isnan = _unary("isnan", "x != x", out=OutBool)
isinf = _unary("isinf", "abs(x) == inf", out=OutBool)
isfinite = _unary("isfinite", "abs(x) < inf", out=OutBool)

# --- int64 -----------------------------------------------------------------------------------------------------------

relu_int = _unary("relu_int", "max(x, 0)", InInt, OutInt)
same_int = _unary("same_int", "x", InInt, OutInt)
square_int = _unary("square_int", "x * x", InInt, OutInt)
neg_int = _unary("neg_int", "-x", InInt, OutInt)
absolute_int = _unary("absolute_int", "abs(x)", InInt, OutInt)
sign_int = _unary("sign_int", "I(x > 0) - I(x < 0)", InInt, OutInt)
add_int = _binary("add_int", "a + b", InInt, OutInt)
sub_int = _binary("sub_int", "a - b", InInt, OutInt)
mul_int = _binary("mul_int", "a * b", InInt, OutInt)
# a negative power of an integer is a fraction, which rounds towards 0; 0 has none, and gives 0
power_int = _binary("power_int", "a ** b if b >= 0 else a ** (-b % 2) if abs(a) == 1 else I(0)", InInt, OutInt)
maximum_int = _binary("maximum_int", "max(a, b)", InInt, OutInt)
minimum_int = _binary("minimum_int", "min(a, b)", InInt, OutInt)
# Python's floor division and remainder. The caller refuses a divisor of 0 before the launch.
# Division by -1 is a negation: the smallest integer has no quotient on the processor, and its negative wraps to itself.
floordiv_int = _binary("floordiv_int", "-a if b == -1 else a // b", InInt, OutInt)
truncdiv_int = _binary(
    "truncdiv_int", "-a if b == -1 else a // b if (a < 0) == (b < 0) or a % b == 0 else a // b + 1", InInt, OutInt
)
remainder_int = _binary("remainder_int", "I(0) if b == -1 else a % b", InInt, OutInt)
# the floored remainder, minus one divisor if its sign differs from that of a
fmod_int = _binary("fmod_int", "I(0) if b == -1 else a % b if (a < 0) == (b < 0) or a % b == 0 else a % b - b", InInt, OutInt)
and_int = _binary("and_int", "a & b", InInt, OutInt)
or_int = _binary("or_int", "a | b", InInt, OutInt)
left_shift_int = _binary("left_shift_int", "a << b if 0 <= b < 64 else I(0)", InInt, OutInt)
right_shift_int = _binary("right_shift_int", "a >> (b if 0 <= b < 63 else I(63))", InInt, OutInt)
xor_int = _binary("xor_int", "a ^ b", InInt, OutInt)
where_int = _elementwise("where_int", "a if c else b", OutInt, c=InBool, a=InInt, b=InInt)
where_bool = _elementwise("where_bool", "a if c else b", OutBool, c=InBool, a=InBool, b=InBool)

# --- comparisons and logic -------------------------------------------------------------------------------------------

_COMPARISONS = {"eq": "a == b", "ne": "a != b", "lt": "a < b", "le": "a <= b", "gt": "a > b", "ge": "a >= b"}
compare = {name: _binary(name, text, In, OutBool) for name, text in _COMPARISONS.items()}
compare_int = {name: _binary(f"{name}_int", text, InInt, OutBool) for name, text in _COMPARISONS.items()}
logical_not = _unary("logical_not", "x == 0", InBool, OutBool)
logical_and = _binary("logical_and", "a & b", InBool, OutBool)
logical_or = _binary("logical_or", "a | b", InBool, OutBool)
logical_xor = _binary("logical_xor", "a ^ b", InBool, OutBool)

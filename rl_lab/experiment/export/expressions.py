"""Formulas of elementwise operations in other languages.

A formula is the Python expression of which an elementwise kernel is compiled, such as ``x if x > F(0) else x * slope``. A `Language`
walks over its syntax tree and builds the same in NumPy, C or ONNX.
"""

import ast
import math
from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np

from rl_lab.experiment.faults import Fault

Term = TypeVar("Term")

_CASTS = {"F": "float32", "I": "int64", "np.float32": "float32", "np.int64": "int64"}
# The functions of formulas by their names in a `Language`.
_FUNCTIONS = {
    "exp32": "exp",
    "exp232": "exp2",
    "expm132": "expm1",
    "math.expm1": "expm1",
    "relu32": "relu",
    "sigmoid32": "sigmoid",
    "tanh32": "tanh",
    "softplus32": "softplus",
    "sech32": "sech",
    "np.log": "log",
    "np.log1p": "log1p",
    "np.sqrt": "sqrt",
    "math.sqrt": "sqrt",
    "np.sin": "sin",
    "np.cos": "cos",
    "math.tan": "tan",
    "math.asin": "asin",
    "math.acos": "acos",
    "math.atan": "atan",
    "math.sinh": "sinh",
    "math.cosh": "cosh",
    "math.asinh": "asinh",
    "acosh32": "acosh",
    "math.atanh": "atanh",
    "math.erf": "erf",
    "np.floor": "floor",
    "np.ceil": "ceil",
    "np.rint": "rint",
    "np.trunc": "trunc",
    "abs": "abs",
    "max": "max",
    "min": "min",
    "np.arctan2": "atan2",
    "np.fmod": "fmod",
    "fmod32": "fmod",
}
# the kernels' own functions, which are computed in float64 and rounded
_FUNCTIONS |= {
    f"{name}64": name for name in ("expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "erf", "asin", "acos")
}
_FUNCTIONS |= {f"{name}64": name for name in ("atan", "sinh", "cosh", "asinh", "acosh", "atanh", "atan2")}
_CONSTANTS = {"inf": math.inf, "nan": math.nan, "np.inf": math.inf, "np.pi": math.pi}
_BINARY: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
}
_COMPARISONS: dict[type, str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


class Language(Generic[Term]):
    """Builds terms of a language from formulas. A term comes with the dtype of its numbers: float32, int64 or bool."""

    name = ""

    def constant(self, value: float, dtype: str) -> Term:
        """A number."""
        raise NotImplementedError

    def binary(self, sign: str, a: Term, b: Term, dtype: str) -> Term:
        """An arithmetic operation of two terms of one dtype, which the result has, too."""
        raise NotImplementedError

    def compare(self, sign: str, a: Term, b: Term) -> Term:
        """A comparison."""
        raise NotImplementedError

    def logical(self, sign: str, a: Term, b: Term) -> Term:
        """``and`` or ``or`` of truth values."""
        raise NotImplementedError

    def negative(self, a: Term) -> Term:
        """The negative of a term."""
        raise NotImplementedError

    def no(self, a: Term) -> Term:
        """The negation of a truth value."""
        raise NotImplementedError

    def choose(self, condition: Term, a: Term, b: Term) -> Term:
        """``a`` where the condition holds, else ``b``."""
        raise NotImplementedError

    def cast(self, a: Term, given: str, dtype: str) -> Term:
        """The same numbers as another dtype."""
        raise NotImplementedError

    def call(self, function: str, arguments: list[Term], dtype: str) -> Term:
        """A function of terms. Raises Fault if the language does not have it."""
        raise NotImplementedError

    def missing(self, what: str) -> Fault:
        """The fault for a part of a formula that this language cannot say."""
        return Fault(f"the policy cannot be exported to {self.name}: there is no translation of {what}")

    # --- walking -----------------------------------------------------------------------------------------------------

    def build(self, formula: str, operands: Mapping[str, tuple[Term, str]], dtype: str) -> Term:
        """The term of a formula, as ``dtype``. ``operands`` are terms with their dtypes, by name."""
        term, given = self._walk(ast.parse(formula, mode="eval").body, operands)
        return self._as(term, given, dtype)

    def _as(self, term: Term, given: str, dtype: str) -> Term:
        return term if given == dtype else self.cast(term, given, dtype)

    def _together(self, a: tuple[Term, str], b: tuple[Term, str]) -> tuple[Term, Term, str]:
        """Two terms as the wider of their dtypes."""
        order = ["bool", "uint8", "int64", "float32"]
        dtype = max(a[1], b[1], key=order.index)
        return self._as(a[0], a[1], dtype), self._as(b[0], b[1], dtype), dtype

    def _walk(self, node: ast.expr, operands: Mapping[str, tuple[Term, str]]) -> tuple[Term, str]:
        name = ast.unparse(node)
        if isinstance(node, ast.Name) and node.id in operands:
            return operands[node.id]
        if name in _CONSTANTS:
            return self.constant(_CONSTANTS[name], "float32"), "float32"
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            dtype = "float32" if isinstance(node.value, float) else "int64"
            return self.constant(node.value, dtype), dtype
        if isinstance(node, ast.UnaryOp):
            term, dtype = self._walk(node.operand, operands)
            if isinstance(node.op, ast.Not):
                return self.no(term), "bool"
            return self.negative(term), dtype
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            a, b, dtype = self._together(self._walk(node.left, operands), self._walk(node.right, operands))
            sign = _BINARY[type(node.op)]
            if dtype == "bool" and sign in "+-*/":
                a, b = self._as(a, dtype, "float32"), self._as(b, dtype, "float32")
                dtype = "float32"
            return self.binary(sign, a, b, dtype), dtype
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
            a, b, _ = self._together(self._walk(node.left, operands), self._walk(node.comparators[0], operands))
            return self.compare(_COMPARISONS[type(node.ops[0])], a, b), "bool"
        if isinstance(node, ast.BoolOp):
            terms = [self._walk(value, operands)[0] for value in node.values]
            sign = "and" if isinstance(node.op, ast.And) else "or"
            whole = terms[0]
            for term in terms[1:]:
                whole = self.logical(sign, whole, term)
            return whole, "bool"
        if isinstance(node, ast.IfExp):
            condition, given = self._walk(node.test, operands)
            condition = self._as(condition, given, "bool")
            a, b, dtype = self._together(self._walk(node.body, operands), self._walk(node.orelse, operands))
            return self.choose(condition, a, b), dtype
        if isinstance(node, ast.Call):
            return self._call(ast.unparse(node.func), node.args, operands)
        raise self.missing(name)

    def _call(self, function: str, given: list[ast.expr], operands: Mapping[str, tuple[Term, str]]) -> tuple[Term, str]:
        if function in _CASTS:
            dtype = _CASTS[function]
            if isinstance(given[0], ast.Constant):
                return self.constant(float(given[0].value), dtype), dtype  # type: ignore[arg-type]
            number = given[0].operand if isinstance(given[0], ast.UnaryOp) else None
            if isinstance(number, ast.Constant) and isinstance(given[0].op, ast.USub):  # type: ignore[attr-defined]
                return self.constant(-float(number.value), dtype), dtype  # type: ignore[arg-type]
            term, own = self._walk(given[0], operands)
            return self._as(term, own, dtype), dtype
        if function not in (*_FUNCTIONS, "pow64"):
            raise self.missing(f"the function {function}")
        arguments = [self._walk(one, operands) for one in given]
        dtype = arguments[0][1]
        terms = [term for term, _ in arguments]
        if function == "pow64":
            first, second, dtype = self._together(*arguments)
            return self.binary("**", first, second, dtype), dtype
        if len(arguments) == 2:
            first, second, dtype = self._together(*arguments)
            terms = [first, second]
        elif function != "abs" and dtype != "float32":
            terms = [self._as(terms[0], dtype, "float32")]
            dtype = "float32"
        return self.call(_FUNCTIONS[function], terms, dtype), dtype


class Numpy(Language[str]):
    """Formulas as text for NumPy, with the functions of `HELPERS`."""

    name = "NumPy"
    _calls = {
        "relu": "np.maximum({}, F(0))",
        "exp2": "np.exp2({})",
        "exp": "_exp({})",
        "tanh": "_tanh({})",
        "sigmoid": "_sigmoid({})",
        "softplus": "_softplus({})",
        "sech": "(F(1) / np.cosh({}))",
        "asin": "np.arcsin({})",
        "acos": "np.arccos({})",
        "atan": "np.arctan({})",
        "asinh": "np.arcsinh({})",
        "acosh": "np.arccosh({})",
        "atanh": "np.arctanh({})",
        "erf": "_erf({})",
        "max": "np.maximum({}, {})",
        "min": "np.minimum({}, {})",
        "atan2": "np.arctan2({}, {})",
    }
    _plain = {
        *("expm1", "log", "log1p", "log2", "log10", "sqrt", "sin", "cos", "tan", "sinh", "cosh"),
        *("floor", "ceil", "rint", "trunc", "abs", "fmod"),
    }

    def constant(self, value: float, dtype: str) -> str:
        if dtype == "int64":
            return str(int(value))
        if not math.isfinite(value):
            return f"F({str(value)!r})"
        return f"F({float(value)!r})"

    def binary(self, sign: str, a: str, b: str, dtype: str) -> str:
        return f"({a} {sign} {b})"

    def compare(self, sign: str, a: str, b: str) -> str:
        return f"({a} {sign} {b})"

    def logical(self, sign: str, a: str, b: str) -> str:
        return f"({a} {'&' if sign == 'and' else '|'} {b})"

    def negative(self, a: str) -> str:
        return f"(-{a})"

    def no(self, a: str) -> str:
        return f"(~{a})"

    def choose(self, condition: str, a: str, b: str) -> str:
        return f"np.where({condition}, {a}, {b})"

    def cast(self, a: str, given: str, dtype: str) -> str:
        kind = {"float32": "np.float32", "int64": "np.int64", "bool": "bool", "uint8": "np.uint8"}[dtype]
        return f"np.asarray({a}).astype({kind})"

    def call(self, function: str, arguments: list[str], dtype: str) -> str:
        if function not in self._calls and function not in self._plain:
            raise self.missing(function)
        return self._calls.get(function, f"np.{function}({', '.join(['{}'] * len(arguments))})").format(*arguments)


HELPERS = """
def _exp(x):
    return np.exp(x, dtype=np.float64).astype(F)  # rounded once, as the policy's own functions nearly are


def _tanh(x):
    return np.tanh(x, dtype=np.float64).astype(F)


def _sigmoid(x):
    e = np.exp(-np.abs(x), dtype=np.float64)
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(F)


def _softplus(x):
    return (np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x), dtype=np.float64))).astype(F)


def _erf(x):
    return np.vectorize(math.erf, otypes=[F])(x)
"""
"""Functions that the NumPy formulas use."""


def evaluate(formula: str, dtype: str, operands: Mapping[str, object]) -> np.ndarray:
    """The value of a formula of constant arrays."""
    arrays = {name: np.asarray(array) for name, array in operands.items()}
    scope: dict[str, object] = {"np": np, "math": math, "F": np.float32, **{f"_{n}": a for n, a in arrays.items()}}
    exec(HELPERS, scope)
    text = Numpy().build(formula, {name: (f"_{name}", array.dtype.name) for name, array in arrays.items()}, dtype)
    with np.errstate(all="ignore"):
        found = np.asarray(eval(text, scope))
    return np.broadcast_to(found, np.broadcast_shapes(*[array.shape for array in arrays.values()])).astype(dtype)

"""A policy as one C99 file: no allocation, no global state, and a test behind ``#ifdef POLICY_MAIN``."""

import math
import re
import textwrap
from collections.abc import Iterator

import numpy as np

from rl_lab.experiment.export.checking import Examples
from rl_lab.experiment.export.expressions import Language
from rl_lab.experiment.export.graph import BOOL, FLOAT, INT, Graph, Node, Operand, Output, Ref

C_TYPES = {FLOAT: "float", INT: "int64_t", BOOL: "unsigned char", "uint8": "unsigned char"}
LARGEST_STACK = 1 << 18
"""Bytes of working memory up to which it lives on the stack; a larger one is static, and the policy is then not reentrant."""


class C(Language[str]):
    """Formulas as C expressions, with the functions of `FUNCTIONS`."""

    name = "C"
    _calls = {
        **{
            n: f"{n}f({{}})"
            for n in ("expm1", "exp2", "log", "log1p", "log2", "log10", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan")
        },
        **{n: f"{n}f({{}})" for n in ("sinh", "cosh", "asinh", "acosh", "atanh", "erf", "floor", "ceil", "rint", "trunc")},
        **{n: f"{n}f({{}}, {{}})" for n in ("atan2", "fmod")},
        **{n: f"{n}32({{}})" for n in ("exp", "tanh", "sigmoid", "relu", "softplus", "sech")},
    }

    def constant(self, value: float, dtype: str) -> str:
        return literal(value) if dtype == FLOAT else f"INT64_C({int(value)})"

    def binary(self, sign: str, a: str, b: str, dtype: str) -> str:
        if dtype == FLOAT and sign == "**":
            return f"powf({a}, {b})"
        if sign in ("**", "//") or (dtype == FLOAT and sign == "%"):
            raise self.missing(f"the operator {sign} of {dtype}")
        return f"mod64({a}, {b})" if sign == "%" else f"({a} {sign} {b})"

    def compare(self, sign: str, a: str, b: str) -> str:
        return f"({a} {sign} {b})"

    def logical(self, sign: str, a: str, b: str) -> str:
        return f"({a} {'&&' if sign == 'and' else '||'} {b})"

    def negative(self, a: str) -> str:
        return f"(-{a})"

    def no(self, a: str) -> str:
        return f"(!{a})"

    def choose(self, condition: str, a: str, b: str) -> str:
        return f"({condition} ? {a} : {b})"

    def cast(self, a: str, given: str, dtype: str) -> str:
        return f"({a} != 0)" if dtype == BOOL else f"({C_TYPES[dtype]})({a})"

    def call(self, function: str, arguments: list[str], dtype: str) -> str:
        if function in ("max", "min"):
            a, b = arguments
            return f"({a} {'>=' if function == 'max' else '<='} {b} ? {a} : {b})"
        if function == "abs":
            return f"{'fabsf' if dtype == FLOAT else 'llabs'}({arguments[0]})"
        if function not in self._calls:
            raise self.missing(function)
        return self._calls[function].format(*arguments)


# The functions of the policy's own kernels (rl_lab/engine/kernels/scalar.py), without branches, so that loops over them are vectorised.
FUNCTIONS = {
    "mod64": "static inline int64_t mod64(int64_t a, int64_t b) { int64_t r = a % b; return r && (r < 0) != (b < 0) ? r + b : r; }",
    "fused": """#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define fused(a, b, c) fmaf(a, b, c)
#else
#define fused(a, b, c) ((a) * (b) + (c))
#endif""",
    "bits": """static inline int32_t bits(float x) { int32_t i; memcpy(&i, &x, 4); return i; }
static inline float from_bits(int32_t i) { float x; memcpy(&x, &i, 4); return x; }""",
    "polynomial": """static inline float polynomial(float r) {
    float p = fused(0.0013814540579915047f, r, 0.00836874544620514f);
    p = fused(p, r, 0.04166838899254799f);
    p = fused(p, r, 0.1666652113199234f);
    return fused(p, r, 0.4999999403953552f);
}""",
    "exp32": """static inline float exp32(float x) {
    x = x > 89.0f ? 89.0f : x;
    x = x < -105.0f ? -105.0f : x;
    float shifted = fused(x, 1.44269504f, 12582912.0f), n = shifted - 12582912.0f;
    float r = fused(n, 2.12194440e-4f, fused(n, -0.693359375f, x)), p = polynomial(r);
    float high = r + 1.0f, low = fused(p, r * r, r - (high - 1.0f));
    int32_t exponent = bits(shifted) - bits(12582912.0f), half = exponent >> 1;
    return (high + low) * from_bits((half + 127) << 23) * from_bits((exponent - half + 127) << 23);
}""",
    "sigmoid32": """static inline float sigmoid32(float x) {
    float e = exp32(-fabsf(x)), small = e / (e + 1.0f);
    return x >= 0.0f ? 1.0f - small : small;
}""",
    "sech32": """static inline float sech32(float x) {
    float e = exp32(-fabsf(x));
    return (e + e) / fused(e, e, 1.0f);
}""",
    "relu32": "static inline float relu32(float x) { return x < 0.0f ? 0.0f : x; }",
    "softplus32": "static inline float softplus32(float x) { return (x < 0.0f ? 0.0f : x) + log1pf(exp32(-fabsf(x))); }",
    "tanh32": """static inline float tanh32(float x) {
    float y = fabsf(x), z = y > 9.02f ? 9.02f : y;
    float shifted = fused(z, 2.88539008f, 12583039.0f);
    float r = fused(shifted - 12583039.0f, -0.346573590f, z);
    float p = fused(0.0442065299f, r, 0.133899927f);
    p = fused(p, r, 0.333347112f);
    p = fused(p, r, 0.666660845f);
    p = fused(p, r, 0.999999881f);
    float power = from_bits((int32_t)((uint32_t)bits(shifted) << 23));
    float h = fused(power, fused(p, r * r, r), fused(power, 0.5f, -0.5f));
    int near = y < 0.55f;
    float rest = near ? fused(-y, h, h - y) : h;
    return copysignf((near ? y : 0.0f) + rest / (h + 1.0f), x);
}""",
    "column": """/* y = x w + b for a block of columns of w (k, m); the sums stay in registers. */
#define COLUMNS(N) \\
    static inline void columns##N(float *y, const float *x, const float *w, const float *b, int k, int m) { \\
        float s[N]; \\
        for (int c = 0; c < N; c++) s[c] = b[c]; \\
        for (int i = 0; i < k; i++) \\
            for (int c = 0; c < N; c++) s[c] = fused(x[i], w[(size_t)i * m + c], s[c]); \\
        for (int c = 0; c < N; c++) y[c] = s[c]; \\
    }
COLUMNS(64)
COLUMNS(16)
COLUMNS(4)
COLUMNS(1)

static inline void columns(float *y, const float *x, const float *w, const float *b, int k, int m) {
    int j = 0;
    for (; j + 64 <= m; j += 64) columns64(y + j, x, w + j, b + j, k, m);
    for (; j + 16 <= m; j += 16) columns16(y + j, x, w + j, b + j, k, m);
    for (; j + 4 <= m; j += 4) columns4(y + j, x, w + j, b + j, k, m);
    for (; j < m; j++) columns1(y + j, x, w + j, b + j, k, m);
}""",
    "rows": """/* y = x w + b for the few columns of w, which are stored as rows (m, k). */
static inline void rows(float *y, const float *x, const float *w, const float *b, int k, int m) {
    for (int j = 0; j < m; j++, w += k) {
        float s[16] = {0}, total = b[j];
        int i = 0;
        for (; i + 16 <= k; i += 16)
            for (int c = 0; c < 16; c++) s[c] = fused(x[i + c], w[i + c], s[c]);
        for (; i < k; i++) total = fused(x[i], w[i], total);
        for (int c = 0; c < 8; c++) s[c] += s[c + 8];
        y[j] = total + (((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])));
    }
}""",
}


def literal(value: float) -> str:
    """A float32 number as C writes it."""
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    text = f"{float(np.float32(value)):.9g}"
    text = text if re.search(r"[.e]", text) else f"{text}.0"
    return f"({text}f)" if value < 0 else f"{text}f"


class _Writer:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.lines: list[str] = []
        self.declared: list[str] = []
        self.tables: list[str] = []
        self.bytes = 0
        self._known: dict[tuple[str, bytes], str] = {}

    # --- operands ----------------------------------------------------------------------------------------------------

    def table(self, array: np.ndarray) -> str:
        """The name of a constant table."""
        key = (array.dtype.str, array.tobytes())
        if key not in self._known:
            name = self._known[key] = f"c{len(self._known)}"
            kind = C_TYPES.get(array.dtype.name, "int64_t")
            flat = array.ravel()
            numbers = [literal(v) if array.dtype == np.float32 else str(int(v)) for v in flat] or ["0"]
            text = "\n".join(textwrap.wrap(", ".join(numbers), 118, break_long_words=False))
            self.tables.append(f"static const {kind} {name}[{max(1, flat.size)}] = {{\n{text}}};")
        return self._known[key]

    def source(self, given: Operand) -> str:
        """The name of an operand's numbers."""
        return f"v{given.value}" if isinstance(given, Ref) else self.table(given)

    def dtype(self, given: Operand) -> str:
        return self.graph.values[given.value].dtype if isinstance(given, Ref) else given.dtype.name

    def declare(self, node: Node) -> None:
        self.declared.append(f"{C_TYPES[node.dtype]} v{node.out}[{max(1, node.size)}];")
        self.bytes += node.size * {FLOAT: 4, INT: 8}.get(node.dtype, 1)

    # --- nodes -------------------------------------------------------------------------------------------------------

    def node(self, node: Node) -> None:
        """Add the code of a node."""
        write = getattr(self, f"_{node.kind}", self._reduction)
        self.lines += write(node)

    def _map(self, node: Node) -> Iterator[str]:
        self.declare(node)
        partial = any(1 < math.prod(o.shape) < node.size for o in node.operands)
        shape = node.shape if partial else (node.size,)
        axes = "ijk"[: len(shape)] if len(shape) <= 3 else [f"i{a}" for a in range(len(shape))]
        operands = {}
        for name, given in zip(node.names, node.operands, strict=True):
            dtype = self.dtype(given)
            if not isinstance(given, Ref) and given.size == 1:
                term = C().constant(given.ravel()[0], FLOAT if dtype == FLOAT else INT)
                dtype = FLOAT if dtype == FLOAT else INT
            else:
                own = (1,) * (len(shape) - len(given.shape)) + tuple(given.shape) if partial else (math.prod(given.shape),)
                term = f"{self.source(given)}[{_place(axes, own)}]"
            operands[name] = (term, dtype)
        text = C().build(node.formula, operands, node.dtype)
        line = f"v{node.out}[{_place(axes, shape)}] = {text};"
        loops = [f"for (int {a} = 0; {a} < {n}; {a}++) " for a, n in zip(axes, shape, strict=True) if n > 1]
        yield "".join(loops) + line

    def _take(self, node: Node) -> Iterator[str]:
        assert node.index is not None
        sources = [(self.source(o), math.prod(o.shape)) for o in node.operands]
        index = node.index.ravel()
        if len(sources) == 1 and len(index) and (np.diff(index) == 1).all():
            self.lines.append(f"const {C_TYPES[node.dtype]} *v{node.out} = {sources[0][0]} + {index[0]};")
            return
        self.declare(node)
        at = 0
        for name, size in sources:
            chosen = np.flatnonzero((index >= at) & (index < at + size))
            own = index[chosen] - at
            at += size
            runs = np.split(np.arange(len(chosen)), 1 + np.flatnonzero((np.diff(chosen) != 1) | (np.diff(own) != 1)))
            if len(runs) > 16:
                to, of = self.table(chosen.astype(np.int64)), self.table(own.astype(np.int64))
                yield f"for (int i = 0; i < {len(own)}; i++) v{node.out}[{to}[i]] = {name}[{of}[i]];"
                continue
            for run in runs:
                if len(run):
                    size_of = f"{len(run)} * sizeof *v{node.out}"
                    yield f"memcpy(v{node.out} + {chosen[run[0]]}, {name} + {own[run[0]]}, {size_of});"

    def _lookup(self, node: Node) -> Iterator[str]:
        self.declare(node)
        values, index = node.operands
        last = math.prod(values.shape) - 1
        at = f"{self.source(index)}[i]"
        yield f"for (int i = 0; i < {node.size}; i++) {{"
        yield f"    int64_t at = {at} < 0 ? 0 : {at} > {last} ? {last} : {at};"
        yield f"    v{node.out}[i] = {self.source(values)}[at];"
        yield "}"

    def _product(self, node: Node) -> Iterator[str]:
        self.declare(node)
        a, b, *rest = node.operands
        batch, n, m = node.shape
        k = a.shape[-1]
        bias = self.table(np.zeros(m, np.float32)) if not rest else self.source(rest[0])
        few = m < 16
        if isinstance(b, np.ndarray):
            matrices = b.reshape(-1, k, m)
            weights = self.table(np.ascontiguousarray(matrices.transpose(0, 2, 1) if few else matrices))
        else:
            weights = self.source(b)
            few = False
        call = "rows" if few else "columns"
        step_a = n * k if math.prod(a.shape) == batch * n * k else 0
        step_b = k * m if math.prod(b.shape) == batch * k * m else 0
        if batch == n == 1:
            yield f"{call}(v{node.out}, {self.source(a)}, {weights}, {bias}, {k}, {m});"
            return
        yield f"for (int t = 0; t < {batch}; t++) for (int i = 0; i < {n}; i++)"
        place = f"v{node.out} + (t * {n} + i) * {m}, {self.source(a)} + t * {step_a} + i * {k}, {weights} + t * {step_b}"
        yield f"    {call}({place}, {bias}, {k}, {m});"

    def _reduction(self, node: Node) -> Iterator[str]:
        self.declare(node)
        (x,) = node.operands
        n, size, m = x.shape
        value = f"{self.source(x)}[(i * {size} + k) * {m} + j]"
        kind = C_TYPES[self.dtype(x)]
        begin = {"sum": "0", "product_of": "1", "any": "0"}.get(node.kind, value.replace("+ k)", "+ 0)"))
        step = {
            "sum": f"s += {value};",
            "product_of": f"s *= {value};",
            "any": f"s |= {value};",
            "max": f"s = {value} > s ? {value} : s;",
            "argmax": f"if ({value} > s) {{ s = {value}; at = k; }}",
        }[node.kind]
        result = "at" if node.kind == "argmax" else "s"
        yield f"for (int i = 0; i < {n}; i++) for (int j = 0; j < {m}; j++) {{"
        yield f"    {kind} s = {begin};{' int64_t at = 0;' if node.kind == 'argmax' else ''}"
        yield f"    for (int k = 0; k < {size}; k++) {step}"
        yield f"    v{node.out}[i * {m} + j] = {result};"
        yield "}"

    def _convolve(self, node: Node) -> Iterator[str]:
        self.declare(node)
        x, weight, bias = node.operands
        w = node.window
        groups, filters, channels, kh, kw = weight.shape
        height, width = x.shape[-2:]
        yield f"for (int f = 0; f < {groups * filters}; f++) for (int y = 0; y < {w['oh']}; y++) {{"
        yield f"    float *row = v{node.out} + (f * {w['oh']} + y) * {w['ow']};"
        yield f"    for (int z = 0; z < {w['ow']}; z++) row[z] = {self.source(bias)}[f];"
        yield f"    for (int c = 0; c < {channels}; c++) for (int p = 0; p < {kh}; p++) {{"
        yield f"        int at = y * {w['sh']} - {w['ph']} + p * {w['dh']};"
        yield f"        if (at < 0 || at >= {height}) continue;"
        line = f"((f / {filters}) * {channels} + c) * {height} + at"
        yield f"        const float *line = {self.source(x)} + ({line}) * {width};"
        yield f"        for (int q = 0; q < {kw}; q++) {{"
        yield f"            float g = {self.source(weight)}[((f * {channels} + c) * {kh} + p) * {kw} + q];"
        shift = f"q * {w['dw']} - {w['pw']}"
        if w["pw"] == 0 and (w["ow"] - 1) * w["sw"] + (kw - 1) * w["dw"] < width:
            yield f"            for (int z = 0; z < {w['ow']}; z++) row[z] = fused(g, line[z * {w['sw']} + {shift}], row[z]);"
        else:
            yield f"            for (int z = 0; z < {w['ow']}; z++) {{"
            yield f"                int to = z * {w['sw']} + {shift};"
            yield f"                if (to >= 0 && to < {width}) row[z] = fused(g, line[to], row[z]);"
            yield "            }"
        yield "        }"
        yield "    }"
        yield "}"

    def _pool(self, node: Node, begin: str, step: str, end: str) -> Iterator[str]:
        self.declare(node)
        (x,) = node.operands
        w = node.window
        planes, height, width = x.shape
        yield f"for (int f = 0; f < {planes}; f++) for (int y = 0; y < {w['oh']}; y++) for (int z = 0; z < {w['ow']}; z++) {{"
        yield f"    float s = {begin};"
        yield f"    for (int p = 0; p < {w['kh']}; p++) for (int q = 0; q < {w['kw']}; q++) {{"
        yield f"        int at = y * {w['sh']} - {w['ph']} + p * {w['dh']}, to = z * {w['sw']} - {w['pw']} + q * {w['dw']};"
        yield f"        if (at < 0 || at >= {height} || to < 0 || to >= {width}) continue;"
        yield f"        float x = {self.source(x)}[(f * {height} + at) * {width} + to];"
        yield f"        {step}"
        yield "    }"
        yield f"    v{node.out}[(f * {w['oh']} + y) * {w['ow']} + z] = s{end};"
        yield "}"

    def _max_pool(self, node: Node) -> Iterator[str]:
        return self._pool(node, "-INFINITY", "s = x > s ? x : s;", "")

    def _avg_pool(self, node: Node) -> Iterator[str]:
        return self._pool(node, "0.0f", "s += x;", f" / {node.window['kh'] * node.window['kw']}.0f")


def _place(axes: "str | list[str]", shape: tuple[int, ...]) -> str:
    """The index of an element of a contiguous array, at the loops' counters; an axis of size 1 has none."""
    terms = []
    for i, (axis, size) in enumerate(zip(axes, shape, strict=True)):
        step = math.prod(shape[i + 1 :])
        if size > 1:
            terms.append(axis if step == 1 else f"{axis} * {step}")
    return " + ".join(terms) or "0"


_TEST = """
#ifdef POLICY_MAIN
#include <stdio.h>
#include <time.h>

{tables}

/* Compares the policy with the agent on {count} observations, and measures a step. Returns the number of observations that differ. */
int main(void) {{
    int wrong = 0;
    {action} action[{actions}];
{memory}    for (int i = 0; i < {count}; i++) {{
{load}        policy_step({call});
        int differs = 0;
        for (int j = 0; j < {actions}; j++) {{
            double wanted = (double){wanted}[i * {actions} + j];
            differs |= fabs((double)action[j] - wanted) > 1e-5 * fmax(1.0, fabs(wanted));
        }}
        wrong += differs;
    }}
    long steps = 0;
    double checked = 0.0;
    clock_t begin = clock();
    do {{
        for (int i = 0; i < 1000; i++, steps++) {{
            policy_step({timed});
            checked += (double)action[0];
        }}
    }} while (clock() - begin < CLOCKS_PER_SEC / 2);
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    double each = 1.0 / (double)steps;
    printf("%d of {count} observations differ; %.4f us a step (mean action %.3f)\\n", wrong, 1e6 * seconds * each, checked * each);
    return wrong;
}}
#endif
"""


def write_c(graph: Graph, examples: Examples) -> str:
    """The source of a C99 file with ``policy_step``, and a test of it with the agent's answers in ``examples``."""
    writer = _Writer(graph)
    for node in graph.nodes:
        writer.node(node)
    found = {output.name: output for output in graph.outputs}
    observation, mask = graph.input("observation"), graph.input("action_mask")
    assert observation is not None
    given = C_TYPES[graph.values[observation.value].dtype]
    action = found["action"]
    sizes = [part[0].size for part in graph.memory]
    kind = C_TYPES[action.dtype]
    parameters = [f"const {given} *observation"]
    begin = [f"const {given} *v{observation.value} = observation;"]
    end: list[str] = []
    if sizes:
        parameters.append("float *memory")
        at = 0
        for i, size in enumerate(sizes):
            part = graph.input(f"memory{i}")
            if part is not None:
                begin.append(f"const float *v{part.value} = memory + {at};")
            end += _stored(writer, found[f"memory{i}"], f"memory + {at}")
            at += size
    if mask is not None:
        parameters.append("const unsigned char *mask")
        begin.append(f"static const unsigned char all[{mask.shape[0]}] = {{{', '.join('1' * mask.shape[0])}}};")
        begin.append(f"const unsigned char *v{mask.value} = mask ? mask : all;")
    parameters.append(f"{kind} *action")
    stores = _stored(writer, action, "action")
    scores = found.get("scores")
    if scores is not None:
        parameters.append("float *scores")
        stores += [f"if (scores) {line}" for line in _stored(writer, scores, "scores")]
    inputs = {f"v{i.value}" for i in graph.inputs}
    used = " ".join([*writer.lines, *stores, *end])
    begin = [line for line in begin if not (m := re.search(r"\*(v\d+) =", line)) or re.search(rf"\b{m[1]}\b", used)]
    assert inputs
    static = "static " if writer.bytes > LARGEST_STACK else ""
    body = [*begin, *[static + line for line in writer.declared], *writer.lines, *stores, *end]
    if not re.search(r"\bobservation\b", " ".join(body)):
        body.insert(0, "(void)observation;")
    text = "\n    ".join(body)
    step = f"void policy_step({', '.join(parameters)}) {{\n    {text}\n}}"
    helpers = _helpers(" ".join(body))
    count = math.prod(action.shape)
    defines = {
        "POLICY_OBSERVATION": math.prod(observation.shape),
        "POLICY_ACTION": count,
        "POLICY_MEMORY": sum(sizes),
        "POLICY_OPTIONS": 0 if scores is None else scores.shape[0],
    }
    shape = " x ".join(map(str, observation.shape))
    about = [
        f"{graph.title} Exported by rl_lab; C99, no allocation.",
        "",
        "    cc -O3 -march=native -c policy.c",
        "    cc -O3 -march=native -DPOLICY_MAIN policy.c -lm -o policy && ./policy    compares with the agent, and measures a step",
        "",
        f"observation: {shape or '1'} numbers, as the agent sees them. action: as the environment takes it.",
        *["memory: kept between steps; copy policy_memory into it when an episode begins."][: len(sizes)],
        *["mask: 1 for allowed options, or NULL. "][: mask is not None],
        *["scores: what the arg max is taken of, or NULL."][: scores is not None],
        f"Working memory: {writer.bytes:,} bytes{', static: not reentrant' if static else ' on the stack'}.",
    ]
    head = "/* " + "\n   ".join(about) + " */\n"
    head += "#include <math.h>\n#include <stdint.h>\n#include <stdlib.h>\n#include <string.h>\n\n"
    head += "\n".join(f"#define {name} {size}" for name, size in defines.items())
    tables = "\n".join(writer.tables)
    memory = ""
    if sizes:
        numbers = ", ".join(literal(v) for part in graph.memory for v in part.ravel())
        memory = f"\nconst float policy_memory[POLICY_MEMORY] = {{{numbers}}};\n"
    test = _test(graph, examples, bool(sizes), mask is not None, scores is not None, kind, count)
    return f"{head}\n\n{tables}\n\n{helpers}\n{memory}\n{step}\n{test}"


def _stored(writer: _Writer, output: Output, target: str) -> list[str]:
    """The lines that copy an output to the caller's memory."""
    size = math.prod(output.shape)
    kind = C_TYPES[output.dtype]
    return [f"memcpy({target}, {writer.source(output.operand)}, {size} * sizeof({kind}));"]


def _helpers(text: str) -> str:
    """The functions that a text uses, and those that they use, in the order of `FUNCTIONS`."""
    needed: set[str] = set()
    seen = text
    names = {"column": "columns", "bits": "(?:from_)?bits"}
    while True:
        more = {n for n in FUNCTIONS if n not in needed and re.search(rf"\b{names.get(n, n)}(?:64|16|4|1)?\(", seen)}
        if not more:
            break
        needed |= more
        seen = " ".join([text, *[FUNCTIONS[name] for name in needed]])
    return "\n\n".join(body for name, body in FUNCTIONS.items() if name in needed)


def _test(graph: Graph, examples: Examples, memory: bool, mask: bool, scores: bool, kind: str, actions: int) -> str:
    writer = _Writer(graph)
    writer._known[("", b"")] = ""  # tables of the test have names of their own
    count = len(examples.observations)
    observation = math.prod(examples.observations.shape[1:])
    names = {}
    for name, array in (
        ("observations", examples.observations),
        ("memories", np.concatenate([part.reshape(count, -1) for part in examples.memory], 1) if memory else None),
        ("actions", examples.actions),
    ):
        if array is None:
            continue
        before = len(writer.tables)
        table = writer.table(np.ascontiguousarray(array))
        writer.tables[before:] = [re.sub(rf"\b{table}\[", f"test_{name}[", line, count=1) for line in writer.tables[before:]]
        names[name] = f"test_{name}"
    rest = ["memory"] * memory + ["NULL"] * mask + ["action"] + ["NULL"] * scores
    load = f"        memcpy(memory, {names['memories']} + i * POLICY_MEMORY, sizeof memory);\n" if memory else ""
    return _TEST.format(
        tables="\n".join(writer.tables),
        count=count,
        action=kind,
        actions=actions,
        wanted=names["actions"],
        memory="    float memory[POLICY_MEMORY];\n" if memory else "",
        load=load,
        call=", ".join([f"{names['observations']} + i * {observation}", *rest]),
        timed=", ".join([f"{names['observations']} + i % {count} * {observation}", *rest]),
    )

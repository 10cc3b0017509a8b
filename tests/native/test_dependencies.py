"""Cache keys cover everything that a kernel reaches: an edit recompiles the kernels that depend on it, and no others."""

import importlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from rl_lab.native import cache
from rl_lab.native.primitive import Primitive

KERNEL = """
from numba import float64
from rl_lab.native.cache import compile_c_function

def make():
    from {package}.main import kernel
    return compile_c_function(kernel, float64(float64))
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A new cache directory."""
    found = tmp_path / "cache"
    found.mkdir()
    monkeypatch.setattr(cache, "_directory", found)
    monkeypatch.setattr(cache, "_looked", True)
    return found


class Package:
    """A package of kernels on disk, imported again after each edit."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.root = folder
        self.folder = folder / "edited"
        self.folder.mkdir(parents=True)
        (self.folder / "__init__.py").write_text("")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(cache, "on_compile", self._note)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        self.compiled: list[str] = []

    def _note(self, name: str) -> None:
        self.compiled.append(name)

    def write(self, **sources: str) -> None:
        for name, source in sources.items():
            (self.folder / f"{name}.py").write_text(textwrap.dedent(source))

    def forget(self) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "edited"]:
            del sys.modules[name]
        importlib.invalidate_caches()

    def run(self, argument: float = 2.0) -> tuple[float, list[str]]:
        """Result of ``main.kernel`` at ``argument``, and the names of the kernels that were compiled."""
        from numba import float64

        self.forget()
        self.compiled.clear()
        made = cache.compile_c_function(importlib.import_module("edited.main").kernel, float64(float64))
        return made.ctypes(argument), list(self.compiled)


@pytest.fixture
def package(tmp_path, monkeypatch, place):
    made = Package(tmp_path / "source", monkeypatch)
    yield made
    made.forget()


NJIT = "from numba import njit\n"

# name: source of helper.py, source of main.py, an edit (old text, new text) of one of them, results at 2.0 before and after the edit
EDITS = {
    "a global number": ("", "K = 3.0\ndef kernel(x):\n    return x * K\n", ("K = 3.0", "K = 4.0"), 6.0, 8.0),
    "the type of a global": ("", "K = 7\ndef kernel(x):\n    return x + K // 2\n", ("K = 7", "K = 7.5"), 5.0, 5.0),
    "an imported number": ("K = 3.0", "from edited.helper import K\ndef kernel(x):\n    return x * K\n", ("3.0", "4.0"), 6.0, 8.0),
    "a number of a module": (
        "K = 3.0", "from edited import helper\ndef kernel(x):\n    return x * helper.K\n", ("3.0", "4.0"), 6.0, 8.0,
    ),
    "a number of a module in a package": (
        "K = 3.0", "import edited.helper\ndef kernel(x):\n    return x * edited.helper.K\n", ("3.0", "4.0"), 6.0, 8.0,
    ),
    "a closure": (
        "", "def make(k):\n    def kernel(x):\n        return x * k\n    return kernel\nkernel = make(3.0)\n", ("(3.0)", "(4.0)"), 6.0, 8.0,
    ),
    "a module in a closure": (
        NJIT + "@njit\ndef f(x):\n    return x + 1\n",
        "def make():\n    from edited import helper\n    def kernel(x):\n        return helper.f(x)\n    return kernel\nkernel = make()\n",
        ("x + 1", "x + 2"), 3.0, 4.0,
    ),
    "an array": (
        "", "import numpy as np\nT = np.array([1.0, 2.0])\ndef kernel(x):\n    return x * T[1]\n", ("2.0]", "5.0]"), 4.0, 10.0,
    ),
    "the order of an array": (
        "", "import numpy as np\nT = np.asfortranarray(np.ones((2, 2)))\ndef kernel(x):\n    return x * T[1, 1]\n",
        ("np.asfortranarray", "np.ascontiguousarray"), 2.0, 2.0,
    ),
    "a tuple": ("", "T = (1.0, (2.0, 3))\ndef kernel(x):\n    return x * T[1][0]\n", ("(2.0", "(5.0"), 4.0, 10.0),
    "fields of a named tuple": (
        "", "from collections import namedtuple\nT = namedtuple('T', 'a b')(1.0, 2.0)\ndef kernel(x):\n    return x * T.a\n",
        ("'a b'", "'b a'"), 2.0, 4.0,
    ),
    "a member of an enumeration": (
        "import enum\nclass Mode(enum.IntEnum):\n    FAST = 3\n",
        "from edited.helper import Mode\ndef kernel(x):\n    return x * Mode.FAST.value\n", ("= 3", "= 4"), 6.0, 8.0,
    ),
    "a helper": (
        NJIT + "@njit\ndef f(x):\n    return x + 1\n", "from edited.helper import f\ndef kernel(x):\n    return f(x)\n",
        ("x + 1", "x + 2"), 3.0, 4.0,
    ),
    "a helper's constant": (
        NJIT + "K = 1\n@njit\ndef f(x):\n    return x + K\n", "from edited.helper import f\ndef kernel(x):\n    return f(x)\n",
        ("K = 1", "K = 2"), 3.0, 4.0,
    ),
    "a helper of a helper of a module": (
        NJIT + "@njit\ndef g(x):\n    return x + 1\n@njit\ndef f(x):\n    return g(x)\n",
        "from edited import helper\ndef kernel(x):\n    return helper.f(x)\n", ("x + 1", "x + 2"), 3.0, 4.0,
    ),
    "a helper's default": (
        NJIT + "@njit\ndef f(x, k=1.0):\n    return x + k\n", "from edited.helper import f\ndef kernel(x):\n    return f(x)\n",
        ("k=1.0", "k=2.0"), 3.0, 4.0,
    ),
    "a helper's options": (
        NJIT + "@njit(error_model='numpy')\ndef f(x):\n    return 1 / (x - 1.0)\n",
        "from edited.helper import f\ndef kernel(x):\n    return f(x)\n",
        ("njit(error_model='numpy')", "njit(error_model='python')"), 1.0, 1.0,
    ),
    "a helper's signature": (
        NJIT + "@njit('float64(float64)')\ndef f(x):\n    return x + 0.5\n",
        "from edited.helper import f\ndef kernel(x):\n    return f(x)\n",
        ("float64(float64)", "int64(float64)"), 2.5, 2.0,
    ),
    "a type": (
        "from numba import int64 as T", "from edited.helper import T\ndef kernel(x):\n    return T(x + 0.5)\n",
        ("int64", "float64"), 2.0, 2.5,
    ),
    "an overload": (
        "from numba.extending import overload\ndef f(x): pass\n@overload(f)\ndef _f(x):\n    return lambda x: x + 1\n",
        "from edited.helper import f\ndef kernel(x):\n    return f(x)\n", ("x + 1", "x + 2"), 3.0, 4.0,
    ),
    "a function that may be compiled": (
        "from numba.extending import register_jitable\n@register_jitable\ndef f(x):\n    return x + 1\n",
        "from edited.helper import f\ndef kernel(x):\n    return f(x)\n", ("x + 1", "x + 2"), 3.0, 4.0,
    ),
    "what an overload reads when it is compiled": (
        "from numba.extending import overload\ndef chosen(): return 1\ndef f(x): pass\n"
        "@overload(f)\ndef _f(x):\n    k = chosen()\n    return lambda x: x + k\n",
        "from edited.helper import f\ndef kernel(x):\n    return f(x)\n", ("return 1", "return 2"), 3.0, 4.0,
    ),
    "an intrinsic": (
        "from numba import types\nfrom numba.extending import intrinsic\n@intrinsic\ndef f(_, x):\n"
        "    def build(context, builder, signature, args):\n        return builder.fadd(args[0], args[0])\n"
        "    return types.float64(types.float64), build\n",
        "from edited.helper import f\ndef kernel(x):\n    return f(x)\n", ("fadd", "fsub"), 4.0, 0.0,
    ),
    "what an intrinsic calls": (
        "from numba import types\nfrom numba.extending import intrinsic\n"
        "def put(builder, x): return builder.fadd(x, x)\n@intrinsic\ndef f(_, x):\n"
        "    return types.float64(types.float64), lambda context, builder, signature, args: put(builder, args[0])\n",
        "from edited.helper import f\ndef kernel(x):\n    return f(x)\n", ("fadd", "fsub"), 4.0, 0.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of(edit, package):
    helper, main, (old, new), before, after = EDITS[edit]
    package.write(helper=helper, main=main)
    assert package.run() == (before, ["kernel"])
    assert package.run() == (before, [])
    assert (old in helper) != (old in main)
    package.write(helper=helper.replace(old, new), main=main.replace(old, new))
    result, compiled = package.run()
    assert compiled == ["kernel"]
    assert after is None or result == after
    package.write(helper=helper, main=main)
    assert package.run() == (before, []), "both versions are kept, and each loads its own code"


SEVERAL = """
import numba
from rl_lab.native.cache import cached_njit
SCALE = 2.0
UNUSED = 5.0

@cached_njit
def one(x):
    return x + 1.0

@cached_njit
def two(x):
    return SCALE * x

@cached_njit
def user_of_one(x):
    return one(x) * 10.0

@cached_njit
def three(x):
    return x - 1.0
"""


def kernels_compiled(package: Package) -> tuple[list[float], set[str]]:
    package.forget()
    package.compiled.clear()
    main = importlib.import_module("edited.main")
    results = [kernel(2.0) for kernel in (main.one, main.two, main.user_of_one, main.three)]
    return results, set(package.compiled)


def test_an_edit_of_one_kernel_compiles_that_kernel_and_its_users(package):
    package.write(main=SEVERAL)
    assert kernels_compiled(package) == ([3.0, 4.0, 30.0, 1.0], {"one", "two", "user_of_one", "three"})
    assert kernels_compiled(package) == ([3.0, 4.0, 30.0, 1.0], set())
    package.write(main=SEVERAL.replace("x + 1.0", "x + 2.0"))
    assert kernels_compiled(package) == ([4.0, 4.0, 40.0, 1.0], {"one", "user_of_one"})
    package.write(main=SEVERAL.replace("SCALE = 2.0", "SCALE = 3.0"))
    assert kernels_compiled(package) == ([3.0, 6.0, 30.0, 1.0], {"two"})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import numba", "import numba\n\n\n# why the lines below stand where they do\n"),
        ("    return x + 1.0", "    # one more\n    return x + 1.0  # at the end"),
        ("UNUSED = 5.0", "UNUSED = 6.0\n\n\ndef plain():\n    return UNUSED\n"),
        ("x - 1.0", "(x  -  1.0)"),
    ],
)
def test_edits_that_change_no_code_compile_nothing(package, old, new):
    package.write(main=SEVERAL)
    kernels_compiled(package)
    assert old in SEVERAL
    package.write(main=SEVERAL.replace(old, new))
    assert kernels_compiled(package) == ([3.0, 4.0, 30.0, 1.0], set())


def test_an_edited_module_is_reloaded(package):
    package.write(helper=NJIT + "@njit\ndef f(x):\n    return x + 1\n")
    package.write(main="from rl_lab.native.cache import cached_njit\nfrom edited import helper\n"
                  "@cached_njit\ndef kernel(x):\n    return helper.f(x)\n")  # fmt: skip
    main = importlib.import_module("edited.main")
    assert main.kernel(2.0) == 3.0
    package.write(helper=NJIT + "@njit\ndef f(x):\n    return x + 20\n")
    importlib.reload(sys.modules["edited.helper"])
    importlib.reload(main)
    assert main.kernel(2.0) == 22.0


def test_a_constant_that_changes_between_two_signatures_keys_the_second(package):
    """Numba reads a global when it compiles, so the first signature's key must not serve the second."""
    package.write(main="from rl_lab.native.cache import cached_njit\nK = 1\n@cached_njit\ndef kernel(x):\n    return x + K\n")
    main = importlib.import_module("edited.main")
    assert main.kernel(1) == 2
    main.K = 100
    assert main.kernel(1.0) == 101.0
    package.forget()
    main = importlib.import_module("edited.main")
    assert main.kernel(1.0) == 2.0


def test_a_constant_that_changes_while_a_kernel_compiles_is_not_kept(package):
    package.write(main="K = 1.0\ndef kernel(x):\n    return x + K\n")
    from numba import float64
    from numba.core.compiler_lock import global_compiler_lock

    main = importlib.import_module("edited.main")
    made = cache.Cache(main.kernel, {})
    context = cache.CFunc._targetdescr.target_context
    assert made.load_overload(float64(float64), context) is None
    main.K = 5.0
    with global_compiler_lock:
        compiled = cache.CFunc(main.kernel, ((float64,), float64), {}, {"nopython": True})._compile_uncached()
        made.save_overload(float64(float64), compiled)
    assert not list(cache.directory().iterdir())


def test_types_of_arguments_are_described_to_the_end(package):
    """Two named tuples of the same name and types, but with another order of fields, are different argument types."""
    source = """
    from collections import namedtuple
    from rl_lab.native.cache import cached_njit
    P = namedtuple("P", "a b")
    @cached_njit
    def kernel(p):
        return p.a
    """
    package.write(main=source)
    main = importlib.import_module("edited.main")
    assert main.kernel(main.P(1.0, 2.0)) == 1.0
    package.write(main=source.replace('"a b"', '"b a"'))
    package.forget()
    main = importlib.import_module("edited.main")
    assert main.kernel(main.P(1.0, 2.0)) == 2.0


def test_an_overload_of_another_librarys_function(package):
    package.write(main="import shutil\ndef kernel(x):\n    return shutil.which(x)\n")
    package.write(helper="import shutil\nfrom numba.extending import overload\n"
                  "def add():\n    @overload(shutil.which)\n    def _f(x):\n        return lambda x: x + 1\n")  # fmt: skip
    kernel = importlib.import_module("edited.main").kernel
    before = cache.describe(kernel)
    importlib.import_module("edited.helper").add()
    assert None not in (before, cache.describe(kernel))
    assert before != cache.describe(kernel)


@pytest.mark.parametrize(
    "value", ["object()", "[K for K in ()].append", "functools.partial(max, 1)", "ctypes.CFUNCTYPE(None)(print)", "cell()"]
)
def test_what_cannot_be_described_is_not_kept(package, value):
    package.write(main=f"import ctypes, functools\ndef cell():\n    if 0: x = 1\n    return lambda: x\n"
                  f"K = {value}\ndef kernel(x):\n    return K\n")  # fmt: skip
    assert cache.describe(importlib.import_module("edited.main").kernel) is None


def test_constants_are_told_apart():
    one = np.ones(3, np.float32)
    values = [
        *(
            1,
            1.0,
            True,
            "1",
            b"1",
            None,
            np.float32(1),
            np.float64(1),
            np.int64(1),
            0.0,
            -0.0,
            1j,
            (),
            [],
            {},
            (1,),
            [1],
            ((1,),),
        ),
        *(
            one,
            one.astype(np.float64),
            one.reshape(3, 1),
            one.astype(">f4"),
            np.zeros(3, np.float32),
            one[::2],
            frozenset((1,)),
        ),
        *({1: 2}, {2: 1}, range(3), slice(3), ..., int, float, max, min, np.add, np.dot, np.dtype("f4"), np.dtype("f8")),
    ]
    described = [cache.describe(value) for value in values]
    assert None not in described
    assert len(set(described)) == len(values)


def test_every_kernel_of_ours_can_be_kept():
    """A kernel that reads a value that the cache cannot describe would be compiled in every process."""
    import pkgutil

    import rl_lab.agents
    import rl_lab.envs

    for owner in (rl_lab, rl_lab.agents, rl_lab.envs):
        for found in pkgutil.walk_packages(owner.__path__, f"{owner.__name__}."):
            importlib.import_module(found.name)
    primitives = {
        id(value): value
        for module in list(sys.modules.values())
        if (getattr(module, "__name__", None) or "").startswith("rl_lab.")
        for value in vars(module).values()
        if isinstance(value, Primitive)
    }
    assert len(primitives) > 60
    for made in primitives.values():
        namespace = dict(made._namespace)
        exec(compile(made._source, made._filename, "exec"), namespace)
        assert cache.describe(namespace[made.name]) is not None, made


# --- several processes -------------------------------------------------------------------------------------------------------

SCRIPT = """
import importlib, json, sys
sys.path[:0] = json.loads(sys.argv[1])
from numba import float64
from rl_lab.native import cache
compiled = []
cache.on_compile = compiled.append
results = []
for folder in json.loads(sys.argv[1]):
    sys.path.insert(0, folder)
    for name in ("helper", "main"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    made = cache.compile_c_function(importlib.import_module("main").kernel, float64(float64))
    results.append([made.ctypes(2.0), made])
print(json.dumps([[made.ctypes(2.0) for _, made in results], [first for first, _ in results], compiled]))
"""


def in_a_process(place: Path, *folders: Path) -> tuple[list[float], list[str]]:
    """Run the kernel of each folder in one new process; returns the results and the names of the compiled kernels."""
    environment = {**os.environ, "RL_LAB_CACHE": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-c", SCRIPT, json.dumps([str(folder) for folder in folders])]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results, first, compiled = json.loads(done.stdout)
    assert results == first
    return results, compiled


def write_version(folder: Path, number: int, parallel: bool) -> Path:
    folder.mkdir()
    if parallel:
        loop = f"    total = 0.0\n    for i in prange(1000):\n        total += x + {number}\n    return total / 1000\n"
        helper = f"from numba import njit, prange\n@njit(parallel=True)\ndef f(x):\n{loop}"
    else:
        helper = f"from numba import njit\n@njit\ndef f(x):\n    return x + {number}\n"
    (folder / "helper.py").write_text(helper)
    start = "from rl_lab.native.threads import start_threads\nstart_threads()\n" if parallel else ""
    (folder / "main.py").write_text(start + "from helper import f\ndef kernel(x):\n    return f(x)\n")
    return folder


@pytest.mark.parametrize("parallel", [False, True], ids=["one core", "several cores"])
def test_versions_from_two_processes_do_not_collide_in_a_third(tmp_path, parallel):
    """Symbols contain a number that each process counts separately. With equal symbols one version would run the other's code."""
    old, new = (write_version(tmp_path / f"v{k}", k, parallel) for k in (1, 2))
    place = tmp_path / "cache"
    assert in_a_process(place, old) == ([3.0], ["kernel"])
    assert in_a_process(place, new) == ([4.0], ["kernel"])
    assert in_a_process(place, old, new) == ([3.0, 4.0], [])
    assert in_a_process(place, new, old) == ([4.0, 3.0], [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_numbers_its_functions_anew():
    from numba.core.bytecode import FunctionIdentity

    code = "import os\nfrom rl_lab.native import cache\nfrom numba.core.bytecode import FunctionIdentity as F\n"
    code += "if os.fork() == 0:\n    print(next(F._unique_ids), flush=True)\n    os._exit(0)\nos.wait()\nprint(next(F._unique_ids))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    child, parent = map(int, done.stdout.split())
    assert abs(child - parent) > 1000
    assert next(FunctionIdentity._unique_ids) > 1000


def test_nothing_is_written_into_the_source_tree(tmp_path):
    """Numba's own cache would write index files into ``__pycache__`` beside the kernels."""
    import rl_lab

    root = Path(rl_lab.__file__).parents[1]
    before = {path for suffix in ("nbi", "nbc") for path in root.rglob(f"*.{suffix}")}
    environment = {**os.environ, "RL_LAB_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    code = "import rl_lab as rl, gymnasium\ngymnasium.make_vec('rl_lab/CartPole-v1', 2).reset()\n"
    code += "print((rl.ones(3) * 2.0).sum().item())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "6.0", done.stderr
    assert {path for suffix in ("nbi", "nbc") for path in root.rglob(f"*.{suffix}")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]

"""The floors of the code: a module imports only from its own floor and from lower floors."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The floor of each module; the longest matching prefix decides.
FLOORS = {
    "rl_lab.native": 0,
    "rl_lab.engine": 1,
    "rl_lab.envs": 1,
    "rl_lab.nn": 2,
    "rl_lab.optim": 2,
    "rl_lab.autograd": 2,
    "rl_lab.distributions": 2,
    "rl_lab.serialization": 2,
    "rl_lab.compatibility": 2,
    "rl_lab.cuda": 2,
    "rl_lab.amp": 2,
    "rl_lab.special": 2,
    "rl_lab.linalg": 2,
    "rl_lab.backends": 2,
    "rl_lab.utils": 2,
    "rl_lab.multiprocessing": 2,
    "rl_lab.errors": 2,
    "rl_lab": 2,  # the names at the top: tensors, nn and optim
    "rl_lab.rollout": 3,
    "rl_lab.experiment": 4,
    "rl_lab.agents": 5,
    "rl_lab.testing": 5,
    "rl_lab.train": 6,
    "rl_lab.check": 6,
    "rl_lab.evaluate": 6,
    "rl_lab.sweep": 6,
    "rl_lab.compare": 6,
    "rl_lab.export": 6,
    "rl_lab.record": 6,
}
# The modules of the engine in reading order; ops/ and kernels/ count as one module each. Imports for type checkers count here as well,
# because two modules that name each other's types cannot be read in order.
ENGINE = [
    ("errors", "html", "names", "dtype", "device"),
    ("memory",),
    ("kernels",),
    ("launch",),
    ("tape", "finite"),
    ("operations",),
    ("tensor",),
    ("latest",),
    ("number", "types"),
    ("ops",),
    ("random",),
    ("reads",),
    ("passes", "watch"),
    ("recorder",),
    ("program",),
    ("svg",),
    ("compile", "draw"),
]
# Inside engine/ops: each family imports only those before it.
OPS = [
    "operands",
    "creation",
    "conversion",
    "layout",
    "in_place",
    "comparison",
    "elementwise",
    "arithmetic",
    "reduction",
    "matmul",
    "gathering",
    "indexing",
    "rearrange",
    "running",
    "diagonals",
    "sorting",
    "composed",
    "linalg",
    "matrices",
    "bags",
    "ctc",
    "normalization",
    "convolution",
    "recurrent",
    "nll_loss",
    "bce_loss",
    "multi_tensor",
    "methods",
    "absent",
    "__init__",
]
DIRECTORIES = {"rl_lab": "rl_lab", "agents": "rl_lab.agents", "envs": "rl_lab.envs"}
"""Top-level directories and the packages that they are installed as."""


def module_name(path: Path) -> str:
    top, *parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([DIRECTORIES[top], *(parts[:-1] if parts[-1] == "__init__" else parts)])


def sources() -> list[Path]:
    return [path for folder in DIRECTORIES for path in sorted((ROOT / folder).rglob("*.py"))]


MODULES = {module_name(path) for path in sources()}


def imports_of(source: str, module: str, is_package: bool = False, for_types: bool = False) -> set[str]:
    """The modules of this repository that ``source`` imports, in every form of import, also inside functions.

    Imports under TYPE_CHECKING count only ``for_types``.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not for_types:
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                package = parts[: len(parts) - node.level + is_package]
                base = ".".join([*package, base]) if base else ".".join(package)
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                found.add(deeper if deeper in MODULES else base)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__"):
                found.add(str(node.args[0].value))
    return {name for name in found if name.split(".")[0] == "rl_lab"}


def imports_of_file(path: Path, for_types: bool = False) -> set[str]:
    return imports_of(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py", for_types)


def floor(module: str) -> int:
    matches = [prefix for prefix in FLOORS if module == prefix or module.startswith(prefix + ".")]
    return FLOORS[max(matches, key=len)]


def violations(module: str, imported: set[str]) -> list[str]:
    """Imports of a module from a higher floor, or from a neighbour on the same floor that it must not know."""
    faults = []
    for other in imported:
        if module == "rl_lab":
            continue
        if floor(other) > floor(module):
            faults.append(f"{module} (floor {floor(module)}) imports {other} (floor {floor(other)})")
        here, there = (name.split(".")[1:2] for name in (module, other))
        if here == ["envs"] and there not in (["envs"], ["native"]):
            faults.append(f"environment {module} may import only rl_lab.native, but imports {other}")
        if there == ["envs"] and here in (["engine"], ["nn"], ["agents"]):
            faults.append(f"{module} must not know {other}")
        if here == there == ["agents"] and module.split(".")[2:3] != other.split(".")[2:3]:
            faults.append(f"agent {module} imports agent {other}")
    return faults


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_point_down(path):
    assert not violations(module_name(path), imports_of_file(path))


def test_every_module_has_a_floor():
    """Every module has a prefix of its own in `FLOORS`, not only ``rl_lab``."""
    for path in sources():
        module = module_name(path)
        assert module == "rl_lab" or any(
            module == prefix or module.startswith(prefix + ".") for prefix in FLOORS if prefix != "rl_lab"
        ), module


def test_the_page_describes_the_floors():
    """The table of docs/architecture.md names the same modules on the same floors, and the text the engine in the same order."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = {}
    for line in re.findall(r"^\| \d .*$", page, flags=re.MULTILINE):
        _, number, paths, _, _ = line.split("|")
        for top, rest in re.findall(r"`(\w+)/([\w/]*?)(?:\.py|/)?`", paths):
            found[".".join([DIRECTORIES[top], *filter(None, rest.split("/"))])] = int(number)
    assert found == {name: number for name, number in FLOORS.items() if name != "rl_lab"}
    order = page[page.index("in this order:") : page.index("The families in")]
    named = re.findall(r"`(\w+)(?:\.py|/)`", order)
    heights = {name: height for height, names in enumerate(ENGINE) for name in names}
    assert sorted(named) == sorted(heights)
    assert [heights[name] for name in named] == sorted(heights.values())


def test_the_engine_is_read_from_top_to_bottom():
    order = {name: height for height, names in enumerate(ENGINE) for name in names}
    for path in sorted((ROOT / "rl_lab" / "engine").rglob("*.py")):
        module = module_name(path)
        if module == "rl_lab.engine":
            continue
        for other in imports_of_file(path, for_types=True):
            if other == "rl_lab.engine" or not other.startswith("rl_lab.engine."):
                continue
            here, there = order[module.split(".")[2]], order[other.split(".")[2]]
            assert there <= here, f"{module} imports {other}"


def late_families(family: str, imported: set[str]) -> list[str]:
    """The families of operations imported by ``family`` that are not before it in the order."""
    package = "rl_lab.engine.ops"
    later = [package, *[f"{package}.{name}" for name in OPS[OPS.index(family) :]]]
    return sorted(imported & set(later))


@pytest.mark.parametrize("path", sorted((ROOT / "rl_lab" / "engine" / "ops").glob("*.py")), ids=lambda path: path.stem)
def test_a_family_of_operations_imports_only_those_before_it(path):
    assert not late_families(path.stem, imports_of_file(path, for_types=True))


def test_the_order_of_families_sees_imports_that_point_forward():
    for source in (
        "from rl_lab.engine.ops.reduction import sum",
        "from rl_lab.engine.ops import reduction",
        "from .reduction import sum",
        "def rule(g, node):\n    from rl_lab.engine.ops.gathering import gather",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rl_lab.engine.ops import Tensor",
    ):
        assert late_families("layout", imports_of(source, "rl_lab.engine.ops.layout", for_types=True)), source
    assert not late_families("layout", {"rl_lab.engine.ops.operands", "rl_lab.engine.tensor"})


def test_the_check_sees_an_import_that_points_up():
    assert violations("rl_lab.engine.tape", {"rl_lab.nn"})
    assert violations("rl_lab.native.cache", {"rl_lab.engine.memory"})
    assert violations("rl_lab.agents.dqn", {"rl_lab.envs.cartpole"})
    assert violations("rl_lab.agents.dqn", {"rl_lab.agents.ppo"})
    assert violations("rl_lab.envs.cartpole", {"rl_lab.engine.ops"})
    assert not violations("rl_lab.agents.dqn", {"rl_lab.experiment.config", "rl_lab.rollout"})


@pytest.mark.parametrize(
    "source",
    [
        "import rl_lab.nn.module",
        "import rl_lab.nn.module as m",
        "from rl_lab.nn import module",
        "from rl_lab.nn.module import Module",
        "from rl_lab.nn.module import (\n    Module,\n)",
        "from ..nn import module",
        "from ..nn.module import Module",
        "import importlib\nimportlib.import_module('rl_lab.nn.module')",
        "from importlib import import_module\nimport_module('rl_lab.nn.module')",
        "def f():\n    from rl_lab.nn import module",
        "try:\n    import rl_lab.nn.module\nexcept ImportError:\n    pass",
        "__import__('rl_lab.nn.module')",
    ],
)
def test_the_check_reads_every_form_of_import(source):
    assert violations("rl_lab.engine.tape", imports_of(source, "rl_lab.engine.tape"))


def test_no_torch_at_run_time():
    for path in sources():
        names = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert "torch" not in names, path


def test_no_fastmath():
    """No kernel uses fastmath, which lets LLVM assume that NaN does not occur."""
    for path in sources():
        assert "fastmath" not in path.read_text(encoding="utf-8"), path


def test_every_package_is_listed():
    """An unlisted package works from a checkout and is missing from an installation."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {module_name(path) for path in sources() if path.name == "__init__.py"}
    assert found == set(listed)

"""The floors: imports point down only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The longest matching prefix decides; `beside` are rooms of the same height that must not know each other.
FLOORS = {
    "rl_lab.engine": 0,
    "rl_lab.nn": 1,
    "rl_lab.optim": 1,
    "rl_lab.autograd": 1,
    "rl_lab.distributions": 1,
    "rl_lab.serialization": 1,
    "rl_lab.compatibility": 1,
    "rl_lab.cuda": 1,
    "rl_lab.backends": 1,
    "rl_lab": 1,  # the names at the top: tensors, nn and optim
    "rl_lab.data": 2,
    "envs": 2,
    "rl_lab.collect": 3,
    "rl_lab.policies": 3,
    "rl_lab.population": 3,
    "rl_lab.experiment": 3,
    "agents": 4,
    "rl_lab.train": 5,
    "rl_lab.evaluate": 5,
}
# Inside the engine, in the order in which a reader meets the rooms; ops/ and kernels/ count as one room each.
ENGINE = [
    ("errors", "names", "dtype", "device", "threads"),
    ("primitive", "memory"),
    ("machine", "kernels"),
    ("launch",),
    ("tape",),
    ("tensor",),
    ("ops",),
    ("random",),
    ("passes",),
    ("program",),
    ("compile", "draw"),
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[Path]:
    return [path for room in ("rl_lab", "agents", "envs") for path in sorted((ROOT / room).rglob("*.py"))]


def imports_of(path: Path) -> set[str]:
    """The modules of this repository that a file imports, those under TYPE_CHECKING left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                is_module = (ROOT / deeper.replace(".", "/")).with_suffix(".py").exists() or (
                    ROOT / deeper.replace(".", "/")
                ).is_dir()
                found.add(deeper if is_module else base)
    return {name for name in found if name.split(".")[0] in ("rl_lab", "agents", "envs")}


def floor(module: str) -> int:
    matches = [prefix for prefix in FLOORS if module == prefix or module.startswith(prefix + ".")]
    return FLOORS[max(matches, key=len)]


def violations(module: str, imported: set[str]) -> list[str]:
    """Imports of a module that point up, or sideways where rooms must not know each other."""
    faults = []
    for other in imported:
        if module == "rl_lab":
            continue
        if floor(other) > floor(module):
            faults.append(f"{module} (floor {floor(module)}) imports {other} (floor {floor(other)})")
        rooms = {module.split(".")[0], other.split(".")[0]}
        if rooms == {"agents", "envs"} or (module.startswith("envs") and other.startswith("rl_lab")):
            faults.append(f"{module} must not know {other}")
        if module.startswith("agents.") and other.startswith("agents.") and module.split(".")[1] != other.split(".")[1]:
            faults.append(f"agent {module} imports agent {other}")
    return faults


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_point_down(path):
    assert not violations(module_name(path), imports_of(path))


def test_every_module_has_a_floor():
    """Not that of ``rl_lab`` itself, which is no room."""
    for path in sources():
        module = module_name(path)
        assert module == "rl_lab" or any(
            module == room or module.startswith(room + ".") for room in FLOORS if room != "rl_lab"
        ), module


def test_the_engine_is_read_from_top_to_bottom():
    order = {room: height for height, rooms in enumerate(ENGINE) for room in rooms}
    for path in sorted((ROOT / "rl_lab" / "engine").rglob("*.py")):
        module = module_name(path)
        if module == "rl_lab.engine":
            continue
        for other in imports_of(path):
            if other == "rl_lab.engine":
                continue
            here, there = order[module.split(".")[2]], order[other.split(".")[2]]
            assert there <= here, f"{module} imports {other}"


def test_the_check_sees_an_import_that_points_up():
    assert violations("rl_lab.engine.tape", {"rl_lab.nn"})
    assert violations("agents.dqn", {"envs.cartpole"})
    assert violations("agents.dqn", {"agents.ppo"})
    assert violations("envs.cartpole", {"rl_lab.engine.ops"})
    assert not violations("agents.dqn", {"rl_lab.experiment.config", "rl_lab.data"})


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
    """fastmath would let LLVM assume that there is no NaN."""
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

"""The names of PyTorch that the library covers: the table of rl_lab/README.md.

``python -m tests.coverage`` writes the table into the file. With ``--record`` it first records PyTorch's names (extra ``oracle``)
in torch_names.json, so that the tests and the table do not need PyTorch.
"""

import argparse
import importlib
import inspect
import json
import re
import types
from pathlib import Path
from typing import Any

NAMES = Path(__file__).with_name("torch_names.json")
README = Path(__file__).parents[1] / "rl_lab" / "README.md"
BEGIN, END = "<!-- coverage: python -m tests.coverage -->\n", "<!-- end of coverage -->\n"

PLACES = (
    "torch", "torch.Tensor", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.nn.utils", "torch.optim",
    "torch.optim.lr_scheduler", "torch.distributions", "torch.autograd", "torch.cuda",
)  # fmt: skip

# Names for other devices, other number formats, and PyTorch's own compilers and storage, which the table does not count.
ELSEWHERE = re.compile(
    r"^_|^[A-Z_]{2,}$|^(cudnn|miopen|mkldnn|fbgemm|mps|xpu|ipu|mtia|nnc|quant|q_|fake_quant|sym_|cuda|hip|vulkan|sparse|to_sparse|to_mkl|to_padded)"
    r"|sparse|quantize|_copy$|complex|storage|conj|cfloat|cdouble|chalf|_indices$|Type$|Script|_mkldnn|is_(ipu|maia|meta|mps|mtia|vulkan|xla|xpu|cuda)$"
    r"|^(bits|u?int\d|quint|qint|float\d|bfloat)|tf32|batch_norm_(e|g|s|b)|unsafe|autocast|named|name$|align_|refine_|rename|fused|functorch"
)


def public(owner: Any, place: str) -> set[str]:
    """The public names of a module or class: functions, classes and values that it defines, without modules and imported names."""
    found = set()
    listed = getattr(owner, "__all__", None)
    for name in listed if listed and place not in ("torch", "torch.nn.functional") else dir(owner):
        value = getattr(owner, name, None)
        of_typing = getattr(value, "__module__", None) in ("typing", "collections.abc", "collections")
        if name.startswith("_") or isinstance(value, types.ModuleType) or value is None or of_typing:
            continue
        compiler = place == "torch" and inspect.isclass(value) and name[0].isupper()
        if compiler and not name.endswith("Tensor") and name not in ("Generator", "Size"):
            continue
        found.add(name)
    return found


def resolve(place: str, root: str) -> Any:
    """The module or class at the dotted path ``place`` of PyTorch, under ``root``: in PyTorch or in rl_lab."""
    if place == "torch.Tensor":
        return importlib.import_module(root).Tensor
    return importlib.import_module(place.replace("torch", root, 1))


def record() -> None:
    import torch.distributions  # noqa: F401

    names = {
        place: sorted(name for name in public(resolve(place, "torch"), place) if not ELSEWHERE.search(name)) for place in PLACES
    }
    NAMES.write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")


def covers(place: str, name: str) -> bool:
    return hasattr(resolve(place, "rl_lab"), name)


def table() -> str:
    """The table as Markdown."""
    rows = ["| of | covered | not covered |\n|---|---|---|\n"]
    lists = []
    for place, names in json.loads(NAMES.read_text(encoding="utf-8")).items():
        there = [name for name in names if covers(place, name)]
        missing = [name for name in names if not covers(place, name)]
        rows.append(f"| `{place}` | {len(there)} | {len(missing)} |\n")
        lists.append(f"\n### {place}\n\nCovered: {listed(there)}\n\nNot covered: {listed(missing)}\n")
    return "".join(rows + lists)


def listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) + "." if names else "nothing."


def readme() -> str:
    """The text of rl_lab/README.md with the current table."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--record", action="store_true", help="take PyTorch's names first")
    if parser.parse_args().record:
        record()
    README.write_text(readme(), encoding="utf-8")


if __name__ == "__main__":
    main()

"""The names of PyTorch that the library covers: docs/coverage.md.

``python -m tests.coverage`` writes the file. With ``--record`` it first records PyTorch's names (extra ``oracle``)
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
PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"

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

HEAD = """# Names of PyTorch

Written by `python -m tests.coverage`. The table counts PyTorch's public names, except those for other devices, other number formats, sparse
tensors, storage and compilers. "Not yet" are names that may come. "Declined" are names that the library does without, each with its reason.
Using a name that is not covered raises an AttributeError that says so.

"""

DECLINED = {
    "there are no complex numbers and no spectra": (
        r"^(angle|imag|real|polar|is_neg|resolve_neg|adjoint|stft|istft|view_as_real)$"
    ),
    "rl_lab.linalg solves and decomposes; other decompositions are in NumPy and SciPy": (
        r"^(lu|eig|lstsq|lobpcg|geqrf|orgqr|ormqr|pca_|svd_lowrank|symeig|solve|matrix_(exp|rank)|triangular_solve|cond$|nuclear_norm"
        r"|norm_except_dim|frobenius_norm)"
    ),
    "the layout of a tensor does not change in place: write x = x.t()": r"^(t_|transpose_|swapaxes_|swapdims_)$",
    "Python functions of single elements: use NumPy": r"^(apply_|map_|map2_)$",
    "windows with random bounds": r"^(F|f)ractional",
    "torch's own form of a function of nn.functional or of a module of nn": (
        r"^(dropout_|(alpha|feature)_(alpha_)?dropout_?|feature_dropout|convolution|constant_pad_nd|affine_grid_generator|grid_sampler.*|ctc_loss"
        r"|embedding_(bag|renorm_)|instance_norm|(cosine|hinge)_embedding_loss|margin_ranking_loss|poisson_nll_loss|triplet_margin_loss"
        r"|adaptive_max_pool1d|gru|lstm|rnn_\w+|multi_head_attention_forward|RNNBase|RNNCellBase|rsub|fill)$"
    ),
    "a tensor reaches no memory but its own": (
        r"^(as_strided|empty_strided|new_empty_strided|empty_permuted|set_$|resize|from_file|frombuffer|from_dlpack|to_dlpack|const_data_ptr"
        r"|get_file_path|is_set_to)"
    ),
    "there is one device and one memory format": (
        r"(layout|memory_format|channels_last|contiguous_format|preserve_format|strided$|^jagged$|dim_order|is_vulkan|get_device|default_device"
        r"|record_stream|DataParallel|SyncBatchNorm|is_distributed)"
    ),
    "other number formats": r"^(BFloat16|Char|Half|Short)Tensor$|^(per_|q|int_repr|choose_qparams|scaled_|grouped_mm)|grad_dtype",
    "sparse and nested tensors": (
        r"^(coalesce|is_coalesced|dense_dim|indices|values|smm|sspaddmm|spmm|hspmm|dsmm|hsmm|saddmm|is_nested|to_dense|SparseAdam)$"
    ),
    "PyTorch's compilers, processes and internals": (
        r"^(parse_|import_ir|merge_type|unify_type|prepare_multi|profiler_|fork$|wait$|vmap$|while_loop|native_|batch_norm_update|bit$|classproperty"
        r"|compiled_with|has_|is_inference|is_warn|set_warn|set_printoptions|set_flush|get_deterministic|set_deterministic|init_num_threads"
        r"|get_num_interop|thread_safe|hash_tensor|slice_inverse|BroadcastingList|Tensor$|assert_int|boolean_dispatch|handle_torch|reproducibility"
        r"|factory_kwargs|LinearCrossEntropy|linear_cross|Uninitialized|module_load|as_subclass|output_nr|NestedIO|enforce_grad"
        r"|set_multithreading|swap_in_optimizer|set_anomaly_enabled|convert_conv|fuse_)"
    ),
    "removed or discouraged in PyTorch": (
        r"^(Container|NLLLoss2d|CrossMapLRN2d|volatile|reinforce|new$|variable|set_default_tensor_type|range$|upsample_|conv_tbc|clip_grad_norm$"
        r"|constant|dirac|eye|kaiming_(normal|uniform)|normal|orthogonal|uniform|xavier_(normal|uniform)|resize|renorm_$|get_float32)$|^upsample_"
    ),
}
"""Names that the lab does not have and is not meant to have, by reason; all others that are missing are listed as not there yet."""


def reason(place: str, name: str) -> str | None:
    """Why a name is not meant to be there; None if it is only missing so far."""
    if place == "torch.cuda":
        return "there is one device and one memory format"
    return next((why for why, names in DECLINED.items() if re.search(names, name)), None)


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

    names = {}
    for place in PLACES:
        owner = resolve(place, "torch")
        capitals = re.compile(r"^[A-Z]{2,}$")  # SGD, LSTM: classes with a name in capitals are no constants
        names[place] = sorted(
            name
            for name in public(owner, place)
            if not ELSEWHERE.search(name) or (capitals.search(name) and inspect.isclass(getattr(owner, name)))
        )
    NAMES.write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")


def covers(place: str, name: str) -> bool:
    return hasattr(resolve(place, "rl_lab"), name)


def page() -> str:
    """The page as Markdown."""
    rows = [HEAD, "| of | names | covered | not yet | declined |\n|---|---|---|---|---|\n"]
    lists = []
    for place, names in json.loads(NAMES.read_text(encoding="utf-8")).items():
        there = [name for name in names if covers(place, name)]
        declined: dict[str, list[str]] = {}
        missing = []
        for name in names:
            if covers(place, name):
                continue
            why = reason(place, name)
            (missing if why is None else declined.setdefault(why, [])).append(name)
        count = sum(map(len, declined.values()))
        share = f"{len(there)} ({len(there) / len(names):.0%})"
        rows.append(f"| `{place}` | {len(names)} | {share} | {len(missing)} | {count} |\n")
        lists.append(f"\n## {place}\n\nCovered: {listed(there)}\n\nNot yet: {listed(missing)}\n")
        lists += [f"\nDeclined, {why}: {listed(names)}\n" for why, names in declined.items()]
    return "".join(rows + lists)


def listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) + "." if names else "nothing."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--record", action="store_true", help="take PyTorch's names first")
    if parser.parse_args().record:
        record()
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

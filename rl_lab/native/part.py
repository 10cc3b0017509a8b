"""Functions that kernels call: optimised and translated to machine code once, as parts of each kernel that calls them.

For every function, also for one that only other compiled functions call, numba optimises its module, translates it to machine code and
makes a wrapper for Python. A caller links the optimised module into its own and optimises the whole again, so a function five calls below
a kernel is optimised six times. For the matrix product that is more than half of the time to compile. A part leaves all this to its
caller.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numba
from numba import _dynfunc  # type: ignore[attr-defined]
from numba.core import compiler, typed_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.registry import CPUDispatcher

_NO_WRAPPER = ctypes.cast(ctypes.pythonapi.PyErr_SetFromErrno, ctypes.c_void_p).value
"""The machine code behind the entry of a part: it raises SystemError and is never called, because `Part.__call__` takes calls."""


class _PartLibrary(JITCodeLibrary):
    """The code of a part: it is linked into the code of its callers and does not enter the execution engine itself."""

    def _optimize_final_module(self) -> None:
        pass  # the caller's passes see this code as well

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(typed_passes.BaseNativeLowering):
    """Lower a part, and enter it for the lowering of its callers."""

    _name: Any = "rl_lab_part_lowering"
    lowering_class = Lower

    def run_pass(self, state: Any) -> bool:
        library = _PartLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        library.enable_object_caching()
        state.library = library
        super().run_pass(state)
        lowered = state["cr"]
        description = lowered.fndesc
        name = description.qualname.rpartition(".")[2]
        entry = _dynfunc.make_function(description.lookup_module(), name, "", _NO_WRAPPER, lowered.env, (library,))
        state.targetctx.insert_user_function(entry, description, [library])
        state.reload_init.extend(library._reload_init)
        state["cr"] = lowered._replace(cfunc=entry)
        return True


class _PartCompiler(compiler.Compiler):
    def __init__(
        self, typing_context: Any, target_context: Any, library: Any, args: Any, return_type: Any, flags: Any, locals: Any
    ):
        flags.no_compile = True
        flags.no_cpython_wrapper = True
        flags.no_cfunc_wrapper = True
        super().__init__(typing_context, target_context, library, args, return_type, flags, locals)

    def define_pipelines(self) -> list[Any]:
        passes = compiler.PassManager("rl_lab_part")
        (usual,) = super().define_pipelines()
        passes.passes = [(_PartLowering if step is typed_passes.NativeLowering else step, why) for step, why in usual.passes]
        passes.finalize()
        return [passes]


class _KernelLibrary(JITCodeLibrary):
    """The code of a kernel and its parts; the parts are linked in unoptimised."""

    def _optimize_final_module(self) -> None:
        super()._optimize_final_module()
        if self._linking_libraries:  # only now is the code inlined and simple enough for some of the passes
            manager, builder = self._codegen._module_pass_manager()
            manager.run(self._final_module, builder)


class KernelCompiler(compiler.Compiler):
    """Numba's compiler for a C function that calls parts."""

    def __init__(self, typing_context: Any, target_context: Any, library: Any, *rest: Any):
        super().__init__(typing_context, target_context, library, *rest)
        self.state.library = _KernelLibrary(target_context.codegen(), "kernel")
        self.state.library.enable_object_caching()


class Part(CPUDispatcher):
    """A function that kernels call. Python may call it as well: for that it is compiled once more, on its own."""

    @functools.cached_property
    def _alone(self) -> Any:
        return numba.jit(**self.targetoptions)(self.py_func)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._alone(*args, **kwargs)


def part(function: Callable | None = None, **options: Any) -> Any:
    """Decorator for a function that kernels call: ``numba.njit`` with ``error_model="numpy"``, without code of its own."""
    if function is None:
        return functools.partial(part, **options)
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return function
    return Part(function, targetoptions={"error_model": "numpy", "nopython": True, **options}, pipeline_class=_PartCompiler)

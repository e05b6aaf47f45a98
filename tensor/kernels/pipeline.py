"""Compile a kernel with all that it calls once, instead of once at every level.

Numba optimizes and translates each function that a kernel calls, and the kernel, though each contains the ones before
and only the last is ever run.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import Any, ClassVar

from llvmlite.binding import Linkage, create_new_function_pass_manager
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from ...runtime.world import get_world
from . import uncollected
from .threads import split

_PATIENCE = 1.0  # seconds of compiling before the user is told what takes so long


class _Library(JITCodeLibrary):
    """Functions that are put together, and optimized only then."""

    def _optimize_functions(self, module: Any) -> None:
        """Only what has to come before: taken apart, arrays that are no other array are still known as such when a
        function has become part of another, and loops over them vectorize."""
        module.data_layout = self._codegen._data_layout
        builder, passes = self._codegen._pass_builder(), create_new_function_pass_manager()
        passes.add_sroa_pass()
        passes.add_simplify_cfg_pass()
        passes.add_instruction_combine_pass()
        for function in module.functions:
            if not function.is_declaration:
                passes.run(function, builder)


class _Whole(_Library):
    """A kernel with all that it calls.

    Functions that are linked into it are its own: Numba numbers names anew in each process, so that another kernel,
    kept by another process, may have another function of the same name.
    """

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if function.linkage == Linkage.linkonce_odr:
                function.linkage = Linkage.internal
        # Some loops vectorize only if rotated before; level 3 takes half as long again, and its kernels are no faster.
        for options in ({"cost": "cheap", "opt": 0, "loop_vectorize": False, "slp_vectorize": False}, {"opt": 2}):
            passes, builder = self._codegen._module_pass_manager(**options)
            passes.run(self._final_module, builder)


class Part(_Library):
    """What is linked into a kernel and gets no machine code of its own, nor functions for callers from outside."""

    environments: ClassVar[dict[str, Any]] = {}  # what would have been written into that code

    @property
    def codegen(self) -> Any:
        return _Deferred(self._codegen)

    def add_ir_module(self, module: Any) -> None:
        if module.name not in ("wrapper", "cfunc_wrapper"):
            super().add_ir_module(module)

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class _Deferred:
    """The code generator of a part."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)

    def set_env(self, name: str, environment: Any) -> None:
        Part.environments[name] = environment


@functools.cache
def _tell() -> None:
    if get_world().rank == 0:
        logging.getLogger("paceline.kernels").warning(
            "compiling CPU kernels, which are kept for the processes after this one; `paceline warmup` does it ahead "
            'of time, and logging.getLogger("paceline").setLevel("ERROR") hides this line'
        )


class Kernel(Compiler):
    """Numba's compiler for functions that are called from Python."""

    waited: ClassVar[float] = 0.0  # seconds that this process has compiled kernels for

    def _compile_core(self) -> Any:
        if Kernel.waited > _PATIENCE:
            _tell()
        start = time.perf_counter()
        codegen = self.state.targetctx.codegen()
        library = self.state.library = _Whole(codegen, self.state.func_id.func_qualname)
        library.enable_object_caching()
        before, codegen._library_class = codegen._library_class, Part
        try:
            with uncollected():
                result = super()._compile_core()
        finally:
            codegen._library_class = before
        for variable in library._final_module.global_variables:
            if variable.name in Part.environments:
                codegen.set_env(variable.name, Part.environments[variable.name])
        Kernel.waited += time.perf_counter() - start
        return result


class ThreadedKernel(Kernel):
    """The same for functions whose loops over `prange` run on several threads."""

    def compile_extra(self, function: Any) -> Any:
        return super().compile_extra(split(function, self.state.flags))

"""Compile a kernel with all that it calls once, instead of once at every level.

Numba makes machine code of each function that a kernel calls, of the body of each `prange`, of two wrappers around that
body and of the kernel, and each of these contains the ones before. Only the last is ever run.
"""

from __future__ import annotations

from typing import Any, ClassVar

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

_WRAPPERS = ("parallelgufuncwrapper", "<numba.np.ufunc.wrappers.")  # they add a call to what is optimized already


class Part(JITCodeLibrary):
    """What is linked into a kernel and gets no machine code of its own."""

    environments: ClassVar[dict[str, Any]] = {}  # what would have been written into that code

    @property
    def codegen(self) -> Any:
        return _Deferred(self._codegen)

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0

    def _optimize_final_module(self) -> None:
        if not self.name.startswith(_WRAPPERS):
            super()._optimize_final_module()

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


class Kernel(Compiler):
    """Numba's compiler for functions that are called from Python."""

    def _compile_core(self) -> Any:
        codegen = self.state.targetctx.codegen()
        library = self.state.library = codegen.create_library(self.state.func_id.func_qualname)
        library.enable_object_caching()
        before, codegen._library_class = codegen._library_class, Part
        try:
            result = super()._compile_core()
        finally:
            codegen._library_class = before
        for variable in library._final_module.global_variables:
            if variable.name in Part.environments:
                codegen.set_env(variable.name, Part.environments[variable.name])
        return result

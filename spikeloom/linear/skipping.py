"""What layers that skip zeros share: which way a call goes, and that it is seen as one."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..scan.emit_numba import FLOATS
from ..scan.select import numba_missing


class SkipsZeros(nn.Module):
    """Before a layer of torch's in the bases of a class: takes the layer's own way where zeros are not worth skipping.

    Attributes:
        path: "sparse" or "dense", as the last input went; "" before any, and while torch compiles.
    """

    path: str = ""

    def forward(self, input: Tensor) -> Tensor:
        """What the layer of torch's computes, to the order of summation."""
        if torch.compiler.is_compiling():
            out: Tensor = super().forward(input)
            return out
        if has_torch_function_unary(input):  # who watches torch's calls, such as a static unroll, is to see one
            return handle_torch_function(type(self)._run, (input,), self, input)
        return self._run(input)

    def _run(self, input: Tensor) -> Tensor:
        out = self._sparse(input) if self._can_skip(input) else None
        self.__dict__["path"] = "dense" if out is None else "sparse"
        return super().forward(input) if out is None else out

    def _can_skip(self, x: Tensor) -> bool:
        """Whether kernels can do this, and it is large enough; else it is the layer's own, errors included."""
        raise NotImplementedError

    def _sparse(self, x: Tensor) -> Tensor | None:
        """The result, without the zeros; None if too few values are zero."""
        raise NotImplementedError


def kernels_can(x: Any, weight: Tensor) -> bool:
    """Whether kernels can read these, and what they compute may be recorded as one operation."""
    return (
        type(x) is Tensor
        and type(weight) is nn.Parameter
        and x.layout is torch.strided
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype in FLOATS
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and not numba_missing()
    )

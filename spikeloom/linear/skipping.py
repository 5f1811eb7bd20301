"""What accelerated layers share: which way a call goes, and that it is seen as one."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..scan.emit_numba import FLOATS
from ..scan.select import forced, numba_missing


class Accelerated(nn.Module):
    """Before a layer of torch's in the bases of a class: takes a way of its own where that is faster.

    Attributes:
        path: which way the last input went; "" before any, and while torch compiles.
    """

    path: str = ""

    def forward(self, input: Tensor) -> Tensor:
        """What the layer of torch's computes."""
        if torch.compiler.is_compiling():
            return self._plain(input)
        if has_torch_function_unary(input):  # who watches torch's calls, such as a static unroll, is to see one
            return handle_torch_function(type(self)._run, (input,), self, input)
        return self._run(input)

    def _run(self, input: Tensor) -> Tensor:
        """The same, and `path` noted."""
        raise NotImplementedError

    def _plain(self, x: Tensor) -> Tensor:
        """The layer of torch's itself."""
        out: Tensor = super().forward(x)
        return out


class SkipsZeros(Accelerated):
    """Skips the zeros of its input where there are enough of them; its results are torch's to the order of summation.

    Attributes:
        path: "sparse" or "dense".
        strict: whether it always takes torch's way, so that all bits are torch's too.
    """

    strict: bool = False

    def _run(self, input: Tensor) -> Tensor:
        if self.strict:
            self.__dict__["path"] = "dense, strict"
            return self._plain(input)
        out = self._sparse(input) if self._can_skip(input) else None
        self.__dict__["path"] = "dense" if out is None else "sparse"
        return self._plain(input) if out is None else out

    def _can_skip(self, x: Tensor) -> bool:
        """Whether kernels can do this, and it is large enough; else it is the layer's own, errors included."""
        raise NotImplementedError

    def _sparse(self, x: Tensor) -> Tensor | None:
        """The result, without the zeros; None if too few values are zero."""
        raise NotImplementedError


def kernels_can(x: Any, weight: Tensor | None = None) -> bool:
    """Whether kernels can read these, and what they compute may be recorded as one operation."""
    return (
        type(x) is Tensor
        and x.layout is torch.strided
        and x.device.type == "cpu"
        and x.dtype in FLOATS
        and (weight is None or _goes_with(weight, x))
        and forced() in (None, "numba")
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and torch.autograd.forward_ad._current_level < 0
        and not numba_missing()
    )


def _goes_with(weight: Tensor, x: Tensor) -> bool:
    return type(weight) is nn.Parameter and weight.device == x.device and weight.dtype == x.dtype

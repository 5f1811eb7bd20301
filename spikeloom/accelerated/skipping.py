"""What accelerated layers share: which way a call goes, and that it is seen as one."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..engine.graph import FLOATS
from ..engine.jit import plain
from ..engine.run import forced, numba_missing, seen_through

Result = TypeVar("Result")
Backward = Callable[[Any, Tensor], tuple[Tensor | None, ...]]


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
        return seen_as_one(type(self)._run, self, input)

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
        path: "sparse", "dense", or another that a layer has.
        strict: whether it always takes torch's way, so that all bits are torch's too.
    """

    strict: bool = False
    weight: Tensor
    bias: Any

    def _run(self, input: Tensor) -> Tensor:
        if self.strict:
            self.__dict__["path"] = "dense, strict"
            return self._plain(input)
        return self.product(input, self.weight, self.bias)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None, *behind: Any) -> Tensor:
        """What the layer computes, with these for its weight and bias, and what is to follow as a part of it."""
        out = self._sparse(x, weight, bias, *behind) if self._can_skip(x, weight) else None
        self.__dict__["path"] = "dense" if out is None else "sparse"
        return self._dense(x, weight, bias, *behind) if out is None else out

    def _can_skip(self, x: Tensor, weight: Tensor) -> bool:
        """Whether kernels can do this, and it is large enough; else it is the layer's own, errors included."""
        raise NotImplementedError

    def _sparse(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """The result, without the zeros; None if too few values are zero."""
        raise NotImplementedError

    def _dense(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The result by torch's product."""
        raise NotImplementedError


def seen_as_one(run: Callable[..., Result], layer: Accelerated, x: Tensor, *more: Any) -> Result:
    """run(layer, x, *more); who watches torch's calls, such as a static unroll, sees one."""
    if has_torch_function_unary(x):
        out: Result = handle_torch_function(run, (x,), layer, x, *more)
        return out
    return run(layer, x, *more)


def kernels_can(x: Any, weight: Tensor | None = None) -> bool:
    """Whether kernels can read these, and what they compute may be recorded as one operation."""
    return (
        type(x) is Tensor
        and x.numel() > 0
        and x.layout is torch.strided
        and not x.is_neg()  # see `scan.kernels.plain`
        and x.device.type == "cpu"
        and x.dtype in FLOATS
        and (weight is None or goes_with(weight, x))
        and forced() in (None, "numba")
        and not torch.is_autocast_enabled("cpu")
        and not seen_through()
        and not numba_missing()
    )


def goes_with(weight: Tensor, x: Tensor) -> bool:
    """Whether it is a plain tensor like x."""
    plainly = type(weight) in (nn.Parameter, Tensor) and not weight.is_neg() and weight.numel() > 0
    return plainly and weight.device == x.device and weight.dtype == x.dtype


def of_plain(backward: Backward) -> Backward:
    """A backward by kernels: they get the gradient as it lies in memory."""
    return lambda ctx, grad: backward(ctx, plain(grad))

"""Shared parts of accelerated layers: the plan of a call, made before it runs, and the reasons not to use kernels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..engine import tuning
from ..engine.graph import FLOATS
from ..engine.jit import plain
from ..engine.run import forced, numba_missing, seen_through

Backward = Callable[[Any, Tensor], tuple[Tensor | None, ...]]


@dataclass(slots=True)  # not frozen: construction would take three times as long, which slows small layers
class Plan:
    """How one call of a layer runs.

    Args:
        route: the implementation, such as "sparse" or "dense", as shown by `explain`.
        reason: why no faster route was taken; empty if there is none.
        found: values computed for the decision and reused by the run.
    """

    route: str
    reason: str = ""
    found: tuple[Any, ...] = ()


_reports: ContextVar[dict[nn.Module, Plan] | None] = ContextVar("spikeloom_plans", default=None)


@contextmanager
def reported() -> Iterator[dict[nn.Module, Plan]]:
    """A context in which layers report their plans; a plan stays until it is removed from the dictionary."""
    plans: dict[nn.Module, Plan] = {}
    token = _reports.set(plans)
    try:
        yield plans
    finally:
        _reports.reset(token)


def report(layer: nn.Module, plan: Plan) -> None:
    """Report the plan of a layer."""
    plans = _reports.get()
    if plans is not None:
        plans.setdefault(layer, plan)


class Accelerated(nn.Module):
    """A mixin for a torch layer: `_run` plans a call, reports the plan, and runs it."""

    def forward(self, input: Tensor) -> Tensor:
        """Compute the layer's output."""
        if torch.compiler.is_compiling():
            return self._plain(input)
        if has_torch_function_unary(input):  # a mode that intercepts torch's calls, such as that of a static unroll
            out: Tensor = handle_torch_function(type(self)._run, (input,), self, input)
            return out
        return self._run(input)

    def _run(self, input: Tensor) -> Tensor:
        raise NotImplementedError

    def _plain(self, x: Tensor) -> Tensor:
        """The forward of the torch layer."""
        return super().forward(x)  # type: ignore[no-any-return]


class SkipsZeros(Accelerated):
    """Skips the zeros of its input if there are enough of them; not if `strict`, so that results are bit-identical."""

    strict: bool = False
    weight: Tensor
    bias: Any

    def _run(self, input: Tensor) -> Tensor:
        if self.strict:
            report(self, Plan("dense, strict"))
            return self._plain(input)
        plan = self.plan(input)
        report(self, plan)
        return self.run(input, plan)

    def plan(self, x: Tensor) -> Plan:
        """Plan the product of x and the weight."""
        raise NotImplementedError

    def run(self, x: Tensor, plan: Plan) -> Tensor:
        """Run as planned."""
        raise NotImplementedError


def kernel_refusals(x: Any, weight: Tensor | None = None) -> Iterator[str]:
    """Why kernels cannot read these tensors, or why torch must see each operation."""
    if type(x) is not Tensor or x.layout is not torch.strided or x.is_neg():  # see `plain`
        yield "the input is not a plain tensor"
    elif x.device.type != "cpu" or x.dtype not in FLOATS:
        yield f"kernels require float32 or float64 on the CPU, the input is {x.dtype} on {x.device}"
    elif not x.numel():
        yield "the input has no values"
    if weight is not None:
        plainly = type(weight) in (nn.Parameter, Tensor) and not weight.is_neg() and weight.numel() > 0
        if not plainly or weight.device != x.device or weight.dtype != x.dtype:
            yield "the weight is not a plain tensor of the input's dtype and device"
    if forced() not in (None, "numba"):
        yield f"the backend {forced()!r} was selected"
    if torch.is_autocast_enabled("cpu"):
        yield "autocast is on"
    if why := seen_through() or numba_missing():
        yield why


def fewer(number: int, what: str, limit: str) -> str:
    """A refusal of a layer that is too small: how many it has, and the limit, a field of `tuning.Limits`."""
    return f"it has {number:,} {what}; kernels pay off from {getattr(tuning.limits, limit):,} ({limit})"


def too_dense(dense_above: float, limit: str) -> str:
    """A refusal of an input with too few zeros, or of a layer with so few outputs that no number of zeros will do."""
    if dense_above <= 0:
        return f"skipping zeros does not pay off for so few outputs ({limit})"
    return f"too few inputs are zero; kernels pay off from {1 - dense_above:.0%} ({limit})"


def of_plain(backward: Backward) -> Backward:
    """Wrap a backward by kernels, which receives the gradient as a plain tensor."""
    return lambda ctx, grad: backward(ctx, plain(grad))

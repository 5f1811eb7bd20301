"""What accelerated layers share: the plan of a call, made once before it runs, and that torch sees the call as one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..engine.graph import FLOATS
from ..engine.jit import plain
from ..engine.run import forced, numba_missing, seen_through

Result = TypeVar("Result")
Backward = Callable[[Any, Tensor], tuple[Tensor | None, ...]]


@dataclass(slots=True)  # frozen, it would take three times as long to make, which a small layer feels
class Plan:
    """How one call of a layer runs.

    Args:
        route: such as "sparse" or "dense", as `explain` shows it.
        reason: why no faster route was taken, in a sentence; empty if there is none.
        found: what was computed for the decision and is used by the run.
    """

    route: str
    reason: str = ""
    found: tuple[Any, ...] = ()


_reports: ContextVar[dict[nn.Module, Plan] | None] = ContextVar("spikeloom_plans", default=None)


@contextmanager
def reported() -> Iterator[dict[nn.Module, Plan]]:
    """Within this context layers report their plans; a plan stays until it is removed from the dictionary."""
    plans: dict[nn.Module, Plan] = {}
    token = _reports.set(plans)
    try:
        yield plans
    finally:
        _reports.reset(token)


def report(layer: nn.Module, plan: Plan) -> None:
    """Report how a layer runs."""
    plans = _reports.get()
    if plans is not None:
        plans.setdefault(layer, plan)


class Accelerated(nn.Module):
    """A mixin before a layer of torch's: `_run` plans a call, reports the plan, and runs it."""

    def forward(self, input: Tensor) -> Tensor:
        """What the layer of torch's computes."""
        if torch.compiler.is_compiling():
            return self._plain(input)
        return seen_as_one(type(self)._run, self, input)

    def _run(self, input: Tensor) -> Tensor:
        raise NotImplementedError

    def _plain(self, x: Tensor) -> Tensor:
        """The layer of torch's itself."""
        return super().forward(x)  # type: ignore[no-any-return]


class SkipsZeros(Accelerated):
    """Skips the zeros of its input where there are enough of them, but if `strict`, so that all bits are torch's."""

    strict: bool = False
    weight: Tensor
    bias: Any

    def _run(self, input: Tensor) -> Tensor:
        if self.strict:
            report(self, Plan("dense, strict"))
            return self._plain(input)
        return self.run(input, self.plan(input, self.weight), self.weight, self.bias)

    def plan(self, x: Tensor, weight: Tensor) -> Plan:
        """How the product of x and this weight runs."""
        raise NotImplementedError

    def run(self, x: Tensor, plan: Plan, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Report a plan and run it."""
        raise NotImplementedError


def seen_as_one(run: Callable[..., Result], layer: Accelerated, x: Tensor, *more: Any) -> Result:
    """run(layer, x, *more); a mode that watches torch's calls, such as that of a static unroll, sees one."""
    if has_torch_function_unary(x):
        out: Result = handle_torch_function(run, (x,), layer, x, *more)
        return out
    return run(layer, x, *more)


def kernel_refusals(x: Any, weight: Tensor | None = None) -> Iterator[str]:
    """Why kernels cannot read these, or what they compute must not be recorded as one operation."""
    if type(x) is not Tensor or x.layout is not torch.strided or x.is_neg():  # see `plain`
        yield "the input is not a plain tensor"
    elif x.device.type != "cpu" or x.dtype not in FLOATS:
        yield f"kernels take float32 or float64 on the CPU, the input is {x.dtype} on {x.device}"
    elif not x.numel():
        yield "the input has no values"
    if weight is not None and not goes_with(weight, x):
        yield "the weight is not a plain tensor of the input's dtype and device"
    if forced() not in (None, "numba"):
        yield f"the backend {forced()!r} was asked for"
    if torch.is_autocast_enabled("cpu"):
        yield "autocast is on"
    if why := seen_through() or numba_missing():
        yield why


def goes_with(weight: Tensor, x: Tensor) -> bool:
    """Whether it is a plain tensor like x."""
    plainly = type(weight) in (nn.Parameter, Tensor) and not weight.is_neg() and weight.numel() > 0
    return plainly and weight.device == x.device and weight.dtype == x.dtype


def untouched(module: nn.Module) -> bool:
    """Whether a module has no hooks and no other forward in its place."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_compiled_call_impl")
    return "forward" not in vars(module) and not any(getattr(module, name) for name in hooks)


def of_plain(backward: Backward) -> Backward:
    """A backward by kernels: they get the gradient as it lies in memory."""
    return lambda ctx, grad: backward(ctx, plain(grad))

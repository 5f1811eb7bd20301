"""Feedback into a neuron's input: its spikes through a layer, or its membrane through a linear map."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, linear
from torch.nn.grad import conv2d_weight

from .graph import Cotangents, Gradients, InputGrad, Saved, State, Variant

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass  # not frozen: some releases of torch.compile cannot construct frozen ones
class Feedback:
    """A layer through which the spikes of a step are fed back into the input of the next."""

    layer: nn.Module

    def __call__(self, spk: Tensor) -> Tensor:
        """The term that the spikes add to the input, [B, *N], in their dtype."""
        weight = next(self.layer.parameters(), spk)
        fed: Tensor = self.layer(spk.to(weight.dtype))
        return fed.to(spk.dtype)

    def refusals(self, x: Tensor) -> Iterator[str]:
        """Why no fused scan can apply the layer to the spikes; x is [*, *S]."""
        layer = self.layer
        if type(layer) is not nn.Linear:
            yield f"the recurrent layer is {type(layer).__name__}, not nn.Linear: the steps are fused one by one"
            return
        if "forward" in vars(layer) or any(getattr(layer, name) for name in HOOKS):
            yield "the recurrent layer has hooks or a custom forward, which are called at every step"
        if type(layer.weight) is not nn.Parameter or (layer.weight.dtype, layer.weight.device) != (x.dtype, x.device):
            at = f"{layer.weight.dtype} on {layer.weight.device}"
            yield f"the recurrent weight is {at}, the state {x.dtype} on {x.device}"
        if layer.weight.shape != (x.shape[-1],) * 2:
            yield f"the recurrent weight is of shape {tuple(layer.weight.shape)}, for {x.shape[-1]} neurons"
        if torch.is_autocast_enabled("cuda" if x.is_cuda else "cpu"):
            yield "autocast is on, and lowers the precision of the recurrent layer"


@dataclass(frozen=True)
class LinearMap:
    """mem @ weight.T, with a weight [inputs * N, N] and mem [..., N].

    Args:
        axis: the axis along which the inputs are concatenated, that of the features of `mem`; negative.
    """

    axis: int = -1

    def of(self, weight: Tensor, mem: Tensor) -> Tensor:
        """The product."""
        return linear(mem, weight)

    def add_mem_gradient(self, weight: Tensor, grad: Tensor, total: Tensor) -> None:
        """Add the gradient of mem to `total`, from that of the result."""
        as_rows(total).addmm_(as_rows(grad), weight)

    def weight_gradient(self, weight: Tensor, mem: Tensor, grad: Tensor) -> Tensor:
        """The gradient of the weight, from sequences [T, ...] of mem and of the result's gradient."""
        return as_rows(grad).t() @ as_rows(mem)


@dataclass(frozen=True)
class ConvMap(LinearMap):
    """The convolution of images mem [..., C, H, W] with a weight [inputs * C, C, K, K], which preserves their size.

    Args:
        padding, dilation: of the convolution, for rows and columns.
    """

    axis: int = -3
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def of(self, weight: Tensor, mem: Tensor) -> Tensor:
        return conv2d(mem, weight, padding=self.padding, dilation=self.dilation)

    def add_mem_gradient(self, weight: Tensor, grad: Tensor, total: Tensor) -> None:
        total += conv_transpose2d(grad, weight, padding=self.padding, dilation=self.dilation)

    def weight_gradient(self, weight: Tensor, mem: Tensor, grad: Tensor) -> Tensor:
        images, results = (t.reshape(-1, *t.shape[-3:]) for t in (mem, grad))
        gradient: Tensor = conv2d_weight(images, weight.shape, results, padding=self.padding, dilation=self.dilation)
        return gradient


@dataclass  # not frozen: some releases of torch.compile cannot construct frozen ones
class MemFeedback:
    """A linear map with its weight."""

    map: LinearMap
    weight: Tensor

    def __call__(self, mem: Tensor) -> Tensor:
        """The term that the membrane adds to the inputs."""
        return self.map.of(self.weight, mem)

    def split(self, x: Tensor, count: int) -> Tensor | tuple[Tensor, ...]:
        """The inputs in x, as arguments of a cell."""
        return x if count == 1 else x.chunk(count, self.map.axis)


@dataclass(frozen=True)
class Recurrence:
    """A scan with weights between its steps, without its tensors.

    Args:
        key: the key of the program.
        variant: the variant of the kernel. It has one more state than the program: whether the full input of a step is
            saved, which the backward of some equations reads.
        layer: the name of the neuron in messages.
        steps: T.
        x_grad: the gradient of the input that is computed.
        weight_learns: whether the gradient of the weight is computed.
        map: the feedback of the membrane; None for feedback of spikes through an nn.Linear.
    """

    key: str
    variant: Variant
    layer: str
    steps: int
    x_grad: InputGrad
    weight_learns: bool
    map: LinearMap | None = None

    @property
    def through(self) -> LinearMap:
        """The linear map of the feedback."""
        return LinearMap() if self.map is None else self.map

    def placed(self, saved: Iterator[Any]) -> list[Any]:
        """The items of the saved states, as a list over all states of the program; None for the others."""
        return [next(saved) if state == State.SAVED else None for state in self.variant.states[:-1]]


class Runner(Protocol):
    """A way to run a scan with feedback.

    The first state is the value that is fed back at the first step: the last spikes or the membrane. The membrane is
    then the last state, too. The gradients of the final states have the same order.
    """

    def forward(
        self,
        plan: Recurrence,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        states: Sequence[Tensor],
        params: Sequence[Tensor],
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return the spikes, the last states of the program and the saved states after every step, and the full input
        (with feedback), [T, ...], if it is saved."""

    def backward(self, plan: Recurrence, weight: Tensor, saved: Saved, grads: Cotangents) -> Gradients:
        """Return the gradients of the full input, of the states and of the parameters; `saved.x` is the full
        input."""


def as_rows(x: Tensor) -> Tensor:
    """[..., N] -> [rows, N]."""
    return x.reshape(-1, x.shape[-1])


def weight_gradient(map: LinearMap, weight: Tensor, first: Tensor, series: Tensor, g: Gradients) -> Tensor:
    """The gradient of the weight over all time.

    Args:
        first: what comes back at the first step, [*S].
        series: what comes back later, after every step, [T, *S].
        g: with the gradient of the map's result at every step.
    """
    assert g.x is not None
    pairs: Sequence[tuple[Tensor, Tensor]] = ((first.unsqueeze(0), g.x[:1]), (series[:-1], g.x[1:]))
    parts = [map.weight_gradient(weight, back, grad) for back, grad in pairs if len(grad)]
    return sum(parts[1:], parts[0]) if parts else torch.zeros_like(weight)

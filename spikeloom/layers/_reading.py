"""Reading a series of inputs at a delay, and how what is read changes with the delay.

A delay is a real number, and what is read is the input of the nearest step. The gradient is that of a reading through a
window around the delay: a Gaussian over the lags 0 to max_delay, whose shares add up to one. A width of 0.5 reaches the
neighbouring steps; between two of them it is close to the slope of a straight line.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv1d_weight

from ..neurons._checks import compute_dtype


def lags_of(delay: Tensor, max_delay: int) -> Tensor:
    """The whole number of steps that each delay stands for."""
    # clamped again: of NaN, rounding makes a number that is no index
    return delay.clamp(0, max_delay).round().long().clamp(0, max_delay)


def slope(grads: Tensor, delay: Tensor, sigma: float) -> Tensor:
    """The gradient of a delay, at the bound where it is beyond one.

    It is linear in `grads`: the gradients of single steps add up to that of a sequence.

    Args:
        grads: [*D, max_delay + 1], the gradient of the share that each lag has in what is read, the longest lag first.
        delay: [*D].
        sigma: width of the window, in steps.
    """
    max_delay, delay = grads.shape[-1] - 1, delay.to(grads.dtype)
    lags = torch.arange(max_delay, -1, -1, dtype=grads.dtype, device=grads.device)
    held = delay.clamp(0, max_delay).unsqueeze(-1)
    shares = torch.softmax(-((lags - held) ** 2) / (2 * sigma**2), -1)
    centre = (shares * lags).sum(-1, keepdim=True)
    return (grads * shares * (lags - centre)).sum(-1) / sigma**2


class Shifted(torch.autograd.Function):
    """Each element of a series by itself, at its delay.

    out[t, *s] = series[max_delay + t - lag[*s], *s]; series [max_delay + T, *S], delay [*D] broadcast to [*S].
    """

    @staticmethod
    def forward(ctx: Any, series: Tensor, delay: Tensor, max_delay: int, sigma: float) -> Tensor:
        ctx.max_delay, ctx.sigma, ctx.shape = max_delay, sigma, series.shape
        ctx.save_for_backward(delay, series if ctx.needs_input_grad[1] else None)
        return series.gather(0, _rows(delay, series.shape, max_delay))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        delay, series = ctx.saved_tensors
        to_series = to_delay = None
        if ctx.needs_input_grad[0]:
            to_series = grad.new_zeros(ctx.shape).scatter(0, _rows(delay, ctx.shape, ctx.max_delay), grad)
        if ctx.needs_input_grad[1]:
            inner = series.shape[series.dim() - delay.dim() :]
            wide, size = compute_dtype(grad), inner.numel()
            by_channel = [t.to(wide).reshape(len(t), -1, size).permute(1, 2, 0) for t in (series, grad)]
            taps = (size, 1, ctx.max_delay + 1)
            grads = conv1d_weight(by_channel[0], taps, by_channel[1], groups=size).reshape(*inner, -1)
            to_delay = slope(grads.sum_to_size(*delay.shape, grads.shape[-1]), delay, ctx.sigma)
        return to_series, to_delay, None, None


def _rows(delay: Tensor, shape: torch.Size, max_delay: int) -> Tensor:
    """Which row of the series each step and element reads."""
    steps = torch.arange(max_delay, shape[0], device=delay.device).view(-1, *[1] * (len(shape) - 1))
    return (steps - lags_of(delay, max_delay)).expand(len(steps), *shape[1:])


class Connected(torch.autograd.Function):
    """Each connection has a weight and a delay: a convolution over time with a single tap per connection.

    out[b, o, t] = sum_i weight[o, i] series[b, i, max_delay + t - lag[o, i]]; series [B, I, max_delay + T]. The kernel
    is made again in the backward, and not kept: it has max_delay + 1 numbers per connection.
    """

    @staticmethod
    def forward(ctx: Any, series: Tensor, weight: Tensor, delay: Tensor, max_delay: int, sigma: float) -> Tensor:
        ctx.max_delay, ctx.sigma = max_delay, sigma
        ctx.save_for_backward(series, weight, delay)
        kernel = _kernel(weight, delay, max_delay)
        if series.shape[-1] == kernel.shape[-1]:
            return (series.flatten(1) @ kernel.flatten(1).t()).unsqueeze(-1)
        return nn.functional.conv1d(series, kernel)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        series, weight, delay = ctx.saved_tensors
        to_series = to_weight = to_delay = None
        # one step, [B, O, 1], is a plain product over inputs and lags, which torch's convolutions do not notice
        one_step, rows = grad.shape[-1] == 1, grad.squeeze(-1)
        if ctx.needs_input_grad[0]:
            kernel = _kernel(weight, delay, ctx.max_delay).to(grad.dtype)
            if one_step:
                to_series = (rows @ kernel.flatten(1)).view(-1, *kernel.shape[1:])
            else:
                to_series = nn.functional.conv_transpose1d(grad, kernel)
        if any(ctx.needs_input_grad[1:3]):
            series, taps = series.to(grad.dtype), (*weight.shape, ctx.max_delay + 1)
            grads = (rows.t() @ series.flatten(1)).view(taps) if one_step else conv1d_weight(series, taps, grad)
            grads = grads.to(weight.dtype)
            to_weight = grads.gather(-1, _tap(delay, ctx.max_delay)).squeeze(-1)
            to_delay = slope(grads * weight.unsqueeze(-1), delay, ctx.sigma) if ctx.needs_input_grad[2] else None
        return to_series, to_weight, to_delay, None, None


def _tap(delay: Tensor, max_delay: int) -> Tensor:
    """Where in its kernel the tap of each connection stands."""
    return (max_delay - lags_of(delay, max_delay)).unsqueeze(-1)


def _kernel(weight: Tensor, delay: Tensor, max_delay: int) -> Tensor:
    empty = weight.new_zeros(*weight.shape, max_delay + 1)
    return empty.scatter_(-1, _tap(delay, max_delay), weight.detach().unsqueeze(-1))

"""What layers with delays compute: a sequence read at delays, and products with a delay for each connection."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv1d_weight

from ..accelerated import kernel_refusals
from ..engine import tuning
from ..engine.jit import plain, sum_to
from ..engine.saved_tensors import saved_by
from ..engine.sparse import csr, delays
from ..neurons._state import compute_dtype


def lags_of(delay: Tensor, max_delay: int) -> Tensor:
    """Each delay in whole steps."""
    # clamped again: NaN rounds to a number that is not a valid index
    return delay.clamp(0, max_delay).round().long().clamp(0, max_delay)


def slope(grads: Tensor, delay: Tensor, sigma: float) -> Tensor:
    """The gradient of each delay; of a delay out of range, the gradient at the bound.

    It is linear in `grads`, so the gradients of single steps add up to that of a sequence.

    Args:
        grads: [*D, max_delay + 1], the gradient of the window's weight at each lag, the shortest first.
        delay: [*D].
        sigma: width of the window, in steps; 0: a linear interpolation.
    """
    max_delay, delay = grads.shape[-1] - 1, delay.to(grads.dtype)
    if sigma == 0 and max_delay:
        first = _first(delay, max_delay).unsqueeze(-1)
        return (grads.gather(-1, first + 1) - grads.gather(-1, first)).squeeze(-1)
    lags = torch.arange(max_delay + 1, dtype=grads.dtype, device=grads.device)
    held = delay.clamp(0, max_delay).unsqueeze(-1)
    width = sigma**2 or 1.0  # without a delay there is nothing to interpolate
    shares = torch.softmax(-((lags - held) ** 2) / (2 * width), -1)
    center = (shares * lags).sum(-1, keepdim=True)
    return (grads * shares * (lags - center)).sum(-1) / width


def _first(delay: Tensor, max_delay: int) -> Tensor:
    """The shorter of the two whole steps around each delay, of which the longer is at most max_delay."""
    return delay.floor().clamp(0, max_delay - 1).long().clamp(0, max_delay - 1)


# -- one delay per element ---------------------------------------------------------------------------------------------


def shifted(series: Tensor, delay: Tensor, max_delay: int, sigma: float) -> Tensor:
    """Read each element of a series at its own delay, see `Shifted`."""
    out: Tensor = Shifted.apply(series, delay, max_delay, sigma)
    return out


class Shifted(torch.autograd.Function):
    """Read each element of a series at its own delay.

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
            grads = conv1d_weight(by_channel[0], taps, by_channel[1], groups=size).reshape(*inner, -1).flip(-1)
            to_delay = slope(grads.sum_to_size(*delay.shape, grads.shape[-1]), delay, ctx.sigma)
        return to_series, to_delay, None, None


def _rows(delay: Tensor, shape: torch.Size, max_delay: int) -> Tensor:
    """The row of the series that each step and element reads."""
    steps = torch.arange(max_delay, shape[0], device=delay.device).view(-1, *[1] * (len(shape) - 1))
    return (steps - lags_of(delay, max_delay)).expand(steps.shape[0], *shape[1:])


# -- one delay per connection ------------------------------------------------------------------------------------------


def product(series: Tensor, weight: Tensor, delay: Tensor, bias: Tensor | None, max_delay: int, sigma: float) -> Tensor:
    """out[t, b, o] = bias[o] + sum_i weight[o, i] series[max_delay + t - lag[o, i], b, i].

    [max_delay + T, B, I], [O, I], [O, I] and [O] give [T, B, O]. Kernels add up the weights of nonzero inputs, if these
    are few enough; else it is a convolution.
    """
    if found := _places(series, weight, delay, bias, max_delay, sigma):
        kernel: Tensor = _SpikesConnected.apply(series, weight, delay, bias, sigma, found)
        return kernel
    out: Tensor = Connected.apply(series.permute(1, 2, 0), weight, delay, max_delay, sigma)
    out = out.permute(2, 0, 1)
    return out if bias is None else out + bias.to(out.dtype)


def _places(
    series: Tensor, weight: Tensor, delay: Tensor, bias: Tensor | None, max_delay: int, sigma: float
) -> delays.Places | None:
    """The nonzeros of a series, if kernels can compute its product and take less time than a convolution."""
    taps = series.numel() * (max_delay + 1)
    if taps * len(weight) < tuning.limits.linear_least_work or torch.compiler.is_compiling():
        return None
    tensors = (weight, delay) if bias is None else (weight, delay, bias)
    if any(why for tensor in tensors for why in kernel_refusals(series, tensor)) or not csr.finite(weight):
        return None
    if max(series.shape[1], len(weight)) * 2 * (len(series) + 64) >= 2**31:  # places are 32-bit integers
        return None
    cost = tuning.limits.delayed_cost * (2 if delay.requires_grad and sigma else 1)
    return delays.places_below(series.detach().contiguous(), max_delay, taps / cost)


class _SpikesConnected(torch.autograd.Function):
    """`product` by kernels; saves only the nonzeros of the series."""

    @staticmethod
    def forward(
        ctx: Any,
        series: Tensor,
        weight: Tensor,
        delay: Tensor,
        bias: Tensor | None,
        sigma: float,
        found: delays.Places,
    ) -> Tensor:
        ctx.layer, ctx.sigma, ctx.longest, ctx.of = (
            "a DelayedLinear",
            sigma,
            found.longest,
            (found.shape, found.longest),
        )
        ctx.save_for_backward(weight, delay, found.starts, found.places, found.values)
        return delays.product(found, weight.contiguous(), lags_of(delay, found.longest).int(), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, delay, *nonzeros = saved_by(ctx, grad)
        grad, lags, found = plain(grad).contiguous(), lags_of(delay, ctx.longest), delays.Places(*ctx.of, *nonzeros)
        wants_series, wants_weight, wants_delay, wants_bias = ctx.needs_input_grad[:4]
        dx = delays.input_gradient(grad, weight, lags.int(), ctx.longest) if wants_series else None
        total = sum_to(grad.flatten(0, 1), grad[0, 0])
        dweight = ddelay = None
        if not csr.finite(total):  # a zero of the series times a non-finite gradient is NaN
            taps = (*weight.shape, ctx.longest + 1)
            grads = conv1d_weight(found.dense().permute(1, 2, 0), taps, grad.permute(1, 2, 0)).flip(-1)
            dweight, ddelay = _from_lags(grads, weight, delay, ctx.sigma)
        elif wants_delay and ctx.sigma:
            dweight, ddelay = _from_lags(delays.weight_gradients(found, grad), weight, delay, ctx.sigma)
        elif wants_delay and ctx.longest:
            first = _first(delay, ctx.longest)
            near, far = delays.weight_gradient(found, grad, first.int()).unbind(-1)
            dweight, ddelay = torch.where(lags > first, far, near), (far - near) * weight
        elif wants_weight or wants_delay:
            dweight, ddelay = delays.weight_gradient(found, grad, lags.int())[..., 0], torch.zeros_like(delay)
        return (
            dx,
            dweight if wants_weight else None,
            ddelay if wants_delay else None,
            total if wants_bias else None,
            None,
            None,
        )


def _from_lags(grads: Tensor, weight: Tensor, delay: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The gradients of weight and delay from those at every lag, [O, I, max_delay + 1], the shortest first."""
    lags = lags_of(delay, grads.shape[-1] - 1).unsqueeze(-1)
    return grads.gather(-1, lags).squeeze(-1), slope(grads * weight.unsqueeze(-1), delay, sigma)


class Connected(torch.autograd.Function):
    """Apply a weight and a delay per connection: a convolution over time with a single tap per connection.

    out[b, o, t] = sum_i weight[o, i] series[b, i, max_delay + t - lag[o, i]]; series [B, I, max_delay + T]. The kernel
    has max_delay + 1 numbers per connection; it is recomputed in the backward pass instead of saved.
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
        # one step, [B, O, 1], is a matrix product over inputs and lags, a case that torch's convolutions do not detect
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
            to_weight, to_delay = _from_lags(grads.flip(-1), weight, delay, ctx.sigma)
        return to_series, to_weight, to_delay, None, None


def _tap(delay: Tensor, max_delay: int) -> Tensor:
    """The index of the tap of each connection in its kernel."""
    return (max_delay - lags_of(delay, max_delay)).unsqueeze(-1)


def _kernel(weight: Tensor, delay: Tensor, max_delay: int) -> Tensor:
    empty = weight.new_zeros(*weight.shape, max_delay + 1)
    return empty.scatter_(-1, _tap(delay, max_delay), weight.detach().unsqueeze(-1))

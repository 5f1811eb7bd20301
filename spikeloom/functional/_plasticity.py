"""The arithmetic of spike-timing-dependent plasticity: traces, and what a synapse sums up from both sides."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.grad import conv1d_weight, conv2d_weight

Synapse = nn.Linear | nn.Conv1d | nn.Conv2d
Trace = float | Tensor | None
OfWeight = Callable[[Tensor], Any]
Traces = tuple[Tensor, Tensor]

FEATURES = {nn.Linear: 1, nn.Conv1d: 2, nn.Conv2d: 3}
"""How many trailing dimensions of an input or output belong to one row of the batch."""


def arriving(synapse: Synapse, in_spike: Tensor) -> Tensor:
    """The input spikes as the weights meet them: padded, in the dtype of the weight."""
    spikes = in_spike.detach().to(synapse.weight.dtype)
    if isinstance(synapse, nn.Linear):
        return spikes
    mode = "constant" if synapse.padding_mode == "zeros" else synapse.padding_mode
    lead = spikes.shape[: -FEATURES[type(synapse)]]
    padded = pad(spikes.flatten(0, len(lead) - 1) if lead else spikes, synapse._reversed_padding_repeated_twice, mode)
    return padded.unflatten(0, lead) if lead else padded


def leaving(synapse: Synapse, out_spike: Tensor) -> Tensor:
    """The output spikes, in the dtype of the weight."""
    return out_spike.detach().to(synapse.weight.dtype)


def traced(spikes: Tensor, trace: Trace, fade: Callable[[Any], Any]) -> Tensor:
    """The trace after every step, [T, ...], of spikes [T, ...], from the trace before the first."""
    after: list[Tensor] = []
    for spike in spikes:
        before = after[-1] if after else 0.0 if trace is None else trace
        after.append(fade(before) + spike)
    return torch.stack(after)


def by_part(tau: float) -> Callable[[Any], Any]:
    """A trace loses 1 / tau of itself per step."""
    return lambda trace: trace - trace / tau


def exponentially(tau: float) -> Callable[[Any], Any]:
    """A trace is multiplied by exp(-1 / tau) per step."""
    return lambda trace: trace * math.exp(-1 / tau)


def products(synapse: Synapse, pre: Tensor, post: Tensor) -> Tensor:
    """For each weight the sum of what arrives times what leaves, over batch, time and places: as its gradient is."""
    if isinstance(synapse, nn.Linear):
        return post.reshape(-1, post.shape[-1]).T @ pre.reshape(-1, pre.shape[-1])
    rows = FEATURES[type(synapse)]
    pre, post = (t.reshape(-1, *t.shape[-rows:]) for t in (pre, post))
    of_weight = conv1d_weight if isinstance(synapse, nn.Conv1d) else conv2d_weight
    shape, groups = synapse.weight.shape, synapse.groups
    summed: Tensor = of_weight(pre, shape, post, synapse.stride, 0, synapse.dilation, groups)
    return summed


@torch.no_grad()
def change(synapse: Synapse, pre: Tensor, post: Tensor, traces: Traces, f_pre: OfWeight, f_post: OfWeight) -> Tensor:
    """dW of spikes [T, ...] and the traces after each of them."""
    trace_pre, trace_post = traces
    weight = synapse.weight.detach()
    stronger: Tensor = f_post(weight) * products(synapse, trace_pre, post)
    weaker: Tensor = f_pre(weight) * products(synapse, pre, trace_post)
    return stronger - weaker


@torch.no_grad()
def single_step(
    synapse: Synapse,
    in_spike: Tensor,
    out_spike: Tensor,
    trace_pre: Trace,
    trace_post: Trace,
    tau_pre: float,
    tau_post: float,
    f_pre: OfWeight,
    f_post: OfWeight,
) -> tuple[Tensor, Tensor, Tensor]:
    """The traces after one step, and dW."""
    check(synapse, tau_pre=tau_pre, tau_post=tau_post)
    pre, post = arriving(synapse, in_spike), leaving(synapse, out_spike)
    traces = (
        traced(pre[None], trace_pre, by_part(tau_pre))[0],
        traced(post[None], trace_post, by_part(tau_post))[0],
    )
    return *traces, change(synapse, pre, post, traces, f_pre, f_post)


@torch.no_grad()
def eligibility(
    fc: nn.Linear,
    in_spike: Tensor,
    out_spike: Tensor,
    trace_pre: Trace,
    trace_post: Trace,
    tau_pre: float,
    tau_post: float,
    f_pre: OfWeight,
    f_post: OfWeight,
) -> tuple[Tensor, Tensor, Tensor]:
    """The traces after one step, and the change that each row of the batch would make, [..., out, in]."""
    check(fc, tau_pre=tau_pre, tau_post=tau_post)
    pre, post = arriving(fc, in_spike), leaving(fc, out_spike)
    trace_pre = traced(pre[None], trace_pre, exponentially(tau_pre))[0]
    trace_post = traced(post[None], trace_post, exponentially(tau_post))[0]
    weight = fc.weight.detach()
    stronger: Tensor = f_post(weight) * (post.unsqueeze(-1) * trace_pre.unsqueeze(-2))
    return trace_pre, trace_post, stronger - f_pre(weight) * (trace_post.unsqueeze(-1) * pre.unsqueeze(-2))


def check(synapse: Any, **taus: float) -> None:
    """Refuse what is no synapse, and time constants that are none."""
    if not isinstance(synapse, tuple(FEATURES)):
        raise TypeError(
            f"STDP got a synapse of type {type(synapse).__name__}; pass an nn.Linear, nn.Conv1d or nn.Conv2d"
        )
    for name, tau in taus.items():
        if not tau > 0:
            raise ValueError(f"STDP got {name}={tau!r}; pass a number of steps above 0")

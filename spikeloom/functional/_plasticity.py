"""The arithmetic of spike-timing-dependent plasticity: traces, and what a synapse sums up from both sides."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.grad import conv1d_weight, conv2d_weight

from .._torch import padding_of

Synapse = nn.Linear | nn.Conv1d | nn.Conv2d
Trace = float | Tensor | None
OfWeight = Callable[[Tensor], Any]
Pair = tuple[Tensor, Tensor]
Factors = tuple[OfWeight, OfWeight]
Fade = Callable[[Any], Any]
Product = Callable[[Synapse, Tensor, Tensor], Tensor]

FEATURES = {nn.Linear: 1, nn.Conv1d: 2, nn.Conv2d: 3}
"""How many trailing dimensions of an input or output belong to one row of the batch."""


def arriving(synapse: Synapse, in_spike: Tensor) -> Tensor:
    """The input spikes as the weights meet them: padded, in the dtype of the weight."""
    spikes = in_spike.detach().to(synapse.weight.dtype)
    if isinstance(synapse, nn.Linear):
        return spikes
    mode = "constant" if synapse.padding_mode == "zeros" else synapse.padding_mode
    lead = spikes.shape[: -FEATURES[type(synapse)]]
    padded = pad(spikes.flatten(0, len(lead) - 1) if lead else spikes, padding_of(synapse), mode)
    return padded.unflatten(0, lead) if lead else padded


def leaving(synapse: Synapse, out_spike: Tensor) -> Tensor:
    """The output spikes, in the dtype of the weight."""
    return out_spike.detach().to(synapse.weight.dtype)


def traced(spikes: Tensor, trace: Trace, fade: Fade) -> Tensor:
    """The trace after every step, [T, ...], of spikes [T, ...], from the trace before the first."""
    after: list[Tensor] = []
    for spike in spikes:
        before = after[-1] if after else 0.0 if trace is None else trace
        after.append(fade(before) + spike)
    return torch.stack(after)


def by_part(tau: float) -> Fade:
    """A trace loses 1 / tau of itself per step."""
    return lambda trace: trace - trace / tau


def exponentially(tau: float) -> Fade:
    """A trace is multiplied by exp(-1 / tau) per step."""
    return lambda trace: trace * math.exp(-1 / tau)


def summed(synapse: Synapse, pre: Tensor, post: Tensor) -> Tensor:
    """For each weight the sum of what arrives times what leaves, over batch, time and places: as its gradient is."""
    if isinstance(synapse, nn.Linear):
        return post.reshape(-1, post.shape[-1]).T @ pre.reshape(-1, pre.shape[-1])
    rows = FEATURES[type(synapse)]
    pre, post = (t.reshape(-1, *t.shape[-rows:]) for t in (pre, post))
    of_weight = conv1d_weight if isinstance(synapse, nn.Conv1d) else conv2d_weight
    shape, groups = synapse.weight.shape, synapse.groups
    total: Tensor = of_weight(pre, shape, post, synapse.stride, 0, synapse.dilation, groups)
    return total


def apart(synapse: Synapse, pre: Tensor, post: Tensor) -> Tensor:
    """The same for each row of the batch by itself, [..., out, in]; for an nn.Linear."""
    return post.unsqueeze(-1) * pre.unsqueeze(-2)


def change(synapse: Synapse, spikes: Pair, traces: Pair, factors: Factors, product: Product = summed) -> Tensor:
    """dW of spikes and the traces after them."""
    (pre, post), (trace_pre, trace_post), (f_pre, f_post) = spikes, traces, factors
    weight = synapse.weight.detach()
    stronger: Tensor = f_post(weight) * product(synapse, trace_pre, post)
    weaker: Tensor = f_pre(weight) * product(synapse, pre, trace_post)
    return stronger - weaker


@torch.no_grad()
def single_step(
    synapse: Synapse,
    spikes: Pair,
    traces: tuple[Trace, Trace],
    taus: tuple[float, float],
    factors: Factors,
    fading: Callable[[float], Fade] = by_part,
    product: Product = summed,
) -> tuple[Tensor, Tensor, Tensor]:
    """The traces after one step, and the change that it makes. Of each pair the first is before the synapse."""
    check(synapse, tau_pre=taus[0], tau_post=taus[1])
    arrived = arriving(synapse, spikes[0]), leaving(synapse, spikes[1])
    pre, post = (traced(s[None], t, fading(tau))[0] for s, t, tau in zip(arrived, traces, taus, strict=True))
    return pre, post, change(synapse, arrived, (pre, post), factors, product)


def check(synapse: Any, **taus: float) -> None:
    """Refuse what is no synapse, and time constants that are none."""
    if not isinstance(synapse, tuple(FEATURES)):
        raise TypeError(
            f"STDP got a synapse of type {type(synapse).__name__}; pass an nn.Linear, nn.Conv1d or nn.Conv2d"
        )
    for name, tau in taus.items():
        if not tau > 0:
            raise ValueError(f"STDP got {name}={tau!r}; pass a number of steps above 0")

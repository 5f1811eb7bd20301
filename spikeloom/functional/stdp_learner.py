"""Spike-timing-dependent plasticity (STDP): weight changes from the spikes before and after a synapse.

Every input of the synapse and every output of the neuron that it feeds has a trace of its spikes:

    pre  <- pre  - pre / tau_pre   + in_spike
    post <- post - post / tau_post + out_spike

An output spike strengthens a weight by the trace of its input, and an input spike weakens it by the trace of its
output:

    dW = f_post(W) * out_spike pre^T - f_pre(W) * post in_spike^T,    summed over the batch

Traces are updated before dW is computed. `f_pre` and `f_post` set how the change depends on the weight: by default it
is proportional to it, and constant if they return a number. For a convolution the products of all positions are added.

Sources: Bi and Poo, "Synaptic modifications in cultured hippocampal neurons", 1998; Morrison, Diesmann and Gerstner,
"Phenomenological models of synaptic plasticity based on spike timing", 2008, section 4.1; Florian, "Reinforcement
learning through modulation of spike-timing-dependent synaptic plasticity", 2007 (the three-factor rules).

    >>> import torch, spikeloom as snn
    >>> from spikeloom.functional.stdp_learner import STDPLearner
    >>> fc, lif = torch.nn.Linear(4, 2, bias=False), snn.Leaky(beta=0.9, init_hidden=True)
    >>> learner = STDPLearner(fc, lif, tau_pre=20.0, tau_post=20.0, f_pre=lambda w: 0.01, f_post=lambda w: 0.01)
    >>> optimizer = torch.optim.SGD(fc.parameters(), lr=1.0)
    >>> for x in (torch.rand(25, 8, 4) > 0.5).float():
    ...     spk = lif(fc(x))
    ...     optimizer.zero_grad()
    ...     learner.step()           # fc.weight.grad -= dW, so SGD adds dW
    ...     optimizer.step()
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.grad import conv1d_weight, conv2d_weight

from .._torch import padding_of
from ..neurons._sequence import WholeSequence
from .probe import IDENTITY_LAMBDA, BaseMonitor, InputMonitor, OutputMonitor

__all__ = ["STDPLearner", "mstdp_linear_single_step", "mstdpet_linear_single_step"]
__all__ += ["stdp_conv1d_single_step", "stdp_conv2d_single_step", "stdp_linear_single_step"]

Synapse = nn.Linear | nn.Conv1d | nn.Conv2d
Trace = float | Tensor | None
OfWeight = Callable[[Tensor], Any]
Fade = Callable[[Any, float], Any]
"""A function from a trace and its time constant to the decayed trace of the next step."""

FEATURES = {nn.Linear: 1, nn.Conv1d: 2, nn.Conv2d: 3}
"""Number of dimensions of one sample, by the type of the synapse."""


def _arriving(synapse: Synapse, in_spike: Tensor) -> Tensor:
    """The input spikes that the weights are applied to: padded, in the dtype of the weight."""
    spikes = in_spike.detach().to(synapse.weight.dtype)
    if isinstance(synapse, nn.Linear):
        return spikes
    mode = "constant" if synapse.padding_mode == "zeros" else synapse.padding_mode
    lead = spikes.shape[: -FEATURES[type(synapse)]]
    padded = pad(spikes.flatten(0, len(lead) - 1) if lead else spikes, padding_of(synapse), mode)
    return padded.unflatten(0, lead) if lead else padded


def _traced(spikes: Tensor, trace: Trace, tau: float) -> Tensor:
    """The traces after every step, [T, ...], of spikes [T, ...], given the trace before the first step."""
    after: list[Tensor] = []
    for spike in spikes:
        before = after[-1] if after else 0.0 if trace is None else trace
        after.append(_by_part(before, tau) + spike)
    return torch.stack(after)


def _by_part(trace: Any, tau: float) -> Any:
    return trace - trace / tau


def _exponentially(trace: Any, tau: float) -> Any:
    return trace * math.exp(-1 / tau)


def _summed(synapse: Synapse, pre: Tensor, post: Tensor) -> Tensor:
    """For each weight, sum pre * post over batch, time and positions, as in the gradient of the weight."""
    if isinstance(synapse, nn.Linear):
        return post.reshape(-1, post.shape[-1]).T @ pre.reshape(-1, pre.shape[-1])
    rows = FEATURES[type(synapse)]
    pre, post = (t.reshape(-1, *t.shape[-rows:]) for t in (pre, post))
    of_weight = conv1d_weight if isinstance(synapse, nn.Conv1d) else conv2d_weight
    return of_weight(pre, synapse.weight.shape, post, synapse.stride, 0, synapse.dilation, synapse.groups)  # type: ignore[no-any-return]


def _apart(synapse: Synapse, pre: Tensor, post: Tensor) -> Tensor:
    """pre * post for each sample, [..., out, in]; for an nn.Linear."""
    return post.unsqueeze(-1) * pre.unsqueeze(-2)


@torch.no_grad()
def _single_step(
    synapse: Synapse,
    in_spike: Tensor,
    out_spike: Tensor,
    trace_pre: Trace,
    trace_post: Trace,
    tau_pre: float,
    tau_post: float,
    f_pre: OfWeight,
    f_post: OfWeight,
    fade: Fade = _by_part,
    product: Callable[[Synapse, Tensor, Tensor], Tensor] = _summed,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the traces after one step, and dW."""
    _check(synapse, tau_pre=tau_pre, tau_post=tau_post)
    weight = synapse.weight.detach()
    arrived, left = _arriving(synapse, in_spike), out_spike.detach().to(weight.dtype)
    pre = fade(0.0 if trace_pre is None else trace_pre, tau_pre) + arrived
    post = fade(0.0 if trace_post is None else trace_post, tau_post) + left
    return pre, post, f_post(weight) * product(synapse, pre, left) - f_pre(weight) * product(synapse, arrived, post)


def _check(synapse: Any, **taus: float) -> None:
    if not isinstance(synapse, tuple(FEATURES)):
        raise TypeError(
            f"STDP got a synapse of type {type(synapse).__name__}; pass an nn.Linear, nn.Conv1d or nn.Conv2d"
        )
    for name, tau in taus.items():
        if not tau > 0:
            raise ValueError(f"STDP got {name}={tau!r}; pass a number of steps above 0")


def stdp_linear_single_step(
    fc: nn.Linear,
    in_spike: Tensor,
    out_spike: Tensor,
    trace_pre: Trace,
    trace_post: Trace,
    tau_pre: float,
    tau_post: float,
    f_pre: OfWeight = IDENTITY_LAMBDA,
    f_post: OfWeight = IDENTITY_LAMBDA,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of STDP for an nn.Linear. See the module docstring for the rule.

    Args:
        fc: the synapse. Its weight is not changed.
        in_spike, out_spike: [..., in_features] and [..., out_features].
        trace_pre, trace_post: traces of the previous step, with the shapes of the spikes. None is zero.
        tau_pre, tau_post: time constants in steps; per step a trace is multiplied by 1 - 1 / tau.
        f_pre, f_post: functions of the weight, the factors of weakening and strengthening. Default: the identity.

    Returns:
        (trace_pre, trace_post, dW): the new traces, and dW with the shape of the weight.

        >>> import torch
        >>> fc = torch.nn.Linear(2, 1)
        >>> pre, post, dW = None, None, 0
        >>> for x, y in ((1.0, 0.0), (0.0, 1.0)):                   # the first input fires one step before the output
        ...     spikes = torch.tensor([[x, 0.0]]), torch.tensor([[y]])
        ...     pre, post, change = stdp_linear_single_step(
        ...         fc, *spikes, pre, post, tau_pre=4.0, tau_post=4.0, f_pre=torch.ones_like, f_post=torch.ones_like)
        ...     dW = dW + change
        >>> dW
        tensor([[0.7500, 0.0000]])
    """
    return _single_step(fc, in_spike, out_spike, trace_pre, trace_post, tau_pre, tau_post, f_pre, f_post)


def stdp_conv1d_single_step(
    conv: nn.Conv1d,
    in_spike: Tensor,
    out_spike: Tensor,
    trace_pre: Tensor | None,
    trace_post: Tensor | None,
    tau_pre: float,
    tau_post: float,
    f_pre: OfWeight = IDENTITY_LAMBDA,
    f_post: OfWeight = IDENTITY_LAMBDA,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of STDP for an nn.Conv1d: in_spike [B, C, L], out_spike [B, K, M]; see `stdp_linear_single_step`.

    The trace of the input includes the padding, [B, C, L + padding]. Supports stride, padding, dilation and groups.

        >>> import torch
        >>> conv = torch.nn.Conv1d(1, 1, kernel_size=2)
        >>> spikes = torch.tensor([[[1.0, 0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
        >>> pre, post, dW = stdp_conv1d_single_step(conv, *spikes, None, None, tau_pre=4.0, tau_post=4.0)
        >>> pre.shape, post.shape, dW.shape
        (torch.Size([1, 1, 3]), torch.Size([1, 1, 2]), torch.Size([1, 1, 2]))
    """
    return _single_step(conv, in_spike, out_spike, trace_pre, trace_post, tau_pre, tau_post, f_pre, f_post)


def stdp_conv2d_single_step(
    conv: nn.Conv2d,
    in_spike: Tensor,
    out_spike: Tensor,
    trace_pre: Tensor | None,
    trace_post: Tensor | None,
    tau_pre: float,
    tau_post: float,
    f_pre: OfWeight = IDENTITY_LAMBDA,
    f_post: OfWeight = IDENTITY_LAMBDA,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of STDP for an nn.Conv2d: in_spike [B, C, H, W], out_spike [B, K, h, w]; see `stdp_conv1d_single_step`.

    >>> import torch
    >>> conv = torch.nn.Conv2d(1, 2, kernel_size=3, padding=1)
    >>> spikes = torch.ones(1, 1, 4, 4), torch.ones(1, 2, 4, 4)
    >>> pre, post, dW = stdp_conv2d_single_step(conv, *spikes, None, None, tau_pre=4.0, tau_post=4.0)
    >>> pre.shape, post.shape, dW.shape
    (torch.Size([1, 1, 6, 6]), torch.Size([1, 2, 4, 4]), torch.Size([2, 1, 3, 3]))
    """
    return _single_step(conv, in_spike, out_spike, trace_pre, trace_post, tau_pre, tau_post, f_pre, f_post)


def mstdp_linear_single_step(
    fc: nn.Linear,
    in_spike: Tensor,
    out_spike: Tensor,
    trace_pre: Trace,
    trace_post: Trace,
    tau_pre: float,
    tau_post: float,
    f_pre: OfWeight = IDENTITY_LAMBDA,
    f_post: OfWeight = IDENTITY_LAMBDA,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of reward-modulated STDP (MSTDP): returns the eligibility of every weight.

    The traces decay exponentially, pre <- pre * exp(-1 / tau_pre) + in_spike, and the eligibility

        e = f_post(W) * out_spike pre^T - f_pre(W) * post in_spike^T

    is not summed over the batch. Multiply it by a reward [B, 1, 1] of this step: dW = (reward * e).sum(0). Arguments:
    see `stdp_linear_single_step`. Returns the new traces and e, [..., out_features, in_features]. Source: Florian 2007.

        >>> import torch
        >>> fc = torch.nn.Linear(2, 1)
        >>> spikes = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0], [1.0]])
        >>> traces = torch.full((2, 2), 0.5), torch.zeros(2, 1)
        >>> *traces, e = mstdp_linear_single_step(
        ...     fc, *spikes, *traces, tau_pre=4.0, tau_post=4.0, f_pre=torch.zeros_like, f_post=torch.ones_like)
        >>> reward = torch.tensor([1.0, -1.0]).view(2, 1, 1)
        >>> (reward * e).sum(0)
        tensor([[ 1., -1.]])
    """
    given = fc, in_spike, out_spike, trace_pre, trace_post, tau_pre, tau_post, f_pre, f_post
    return _single_step(*given, _exponentially, _apart)


def mstdpet_linear_single_step(
    fc: nn.Linear,
    in_spike: Tensor,
    out_spike: Tensor,
    trace_pre: Trace,
    trace_post: Trace,
    tau_pre: float,
    tau_post: float,
    tau_trace: float,
    f_pre: OfWeight = IDENTITY_LAMBDA,
    f_post: OfWeight = IDENTITY_LAMBDA,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of MSTDP with an eligibility trace (MSTDPET), for rewards that come later than the spikes.

    Returns the same as `mstdp_linear_single_step`. The caller updates the eligibility trace z of the weights, which
    decays with `tau_trace`:

        z <- z * exp(-1 / tau_trace) + e / tau_trace;    dW = reward * z

    For other arguments see `stdp_linear_single_step`. A time constant <= 0 is a ValueError. Source: Florian, 2007.

        >>> import math, torch
        >>> fc, z, pre, post = torch.nn.Linear(2, 1), 0.0, None, None
        >>> for x in (torch.rand(10, 2) > 0.5).float():
        ...     pre, post, e = mstdpet_linear_single_step(fc, x, torch.ones(1), pre, post, 4.0, 4.0, tau_trace=20.0)
        ...     z = z * math.exp(-1 / 20.0) + e / 20.0
        >>> fc.weight.data += 0.1 * z                               # a reward of 0.1 after ten steps
    """
    _check(fc, tau_trace=tau_trace)
    return mstdp_linear_single_step(fc, in_spike, out_spike, trace_pre, trace_post, tau_pre, tau_post, f_pre, f_post)


class STDPLearner(nn.Module):
    """Record the spikes of a synapse and of the neuron that it feeds, and compute weight changes by STDP.

    Args:
        synapse: an nn.Linear, nn.Conv1d or nn.Conv2d. Its inputs are the input spikes.
        sn: the neuron. Its outputs are the output spikes; if it also returns states, the first output is used.
        tau_pre, tau_post, f_pre, f_post: see `stdp_linear_single_step`.

    Spikes accumulate until `step` computes a change from them: after each time step, after a loop, or after a
    `spikeloom.unroll`. For an unchanged weight the total change is the same. The traces, `trace_pre` and `trace_post`
    (None at first), continue from one `step` to the next, until `reset`.

    Raises:
        TypeError: for another type of synapse, or a neuron that is not an nn.Module.
        ValueError: if a time constant is <= 0.

    See the module docstring for the rule and an example.
    """

    def __init__(
        self,
        synapse: Synapse,
        sn: nn.Module,
        tau_pre: float,
        tau_post: float,
        f_pre: OfWeight = IDENTITY_LAMBDA,
        f_post: OfWeight = IDENTITY_LAMBDA,
    ):
        super().__init__()
        _check(synapse, tau_pre=tau_pre, tau_post=tau_post)
        self.tau_pre, self.tau_post, self.f_pre, self.f_post = tau_pre, tau_post, f_pre, f_post
        self.synapse = synapse
        self.in_spike_monitor = InputMonitor(synapse)
        self.out_spike_monitor = OutputMonitor(sn)
        self._whole_sequences = isinstance(sn, WholeSequence)  # a plain call runs all steps
        self.trace_pre: Tensor | None = None
        self.trace_post: Tensor | None = None

    def reset(self) -> None:
        """Clear the traces and the spikes that no `step` has used. Call it before a new sequence."""
        self.trace_pre = self.trace_post = None
        self.in_spike_monitor.clear_recorded_data()
        self.out_spike_monitor.clear_recorded_data()

    def enable(self) -> None:
        """Resume recording."""
        self.in_spike_monitor.enable()
        self.out_spike_monitor.enable()

    def disable(self) -> None:
        """Pause recording until `enable`."""
        self.in_spike_monitor.disable()
        self.out_spike_monitor.disable()

    def step(self, on_grad: bool = True, scale: float = 1.0) -> Tensor | None:
        """Compute the change of the weight from the spikes since the last call.

        Args:
            on_grad: if True, ``synapse.weight.grad -= scale * dW``, so that gradient descent adds dW. If False, the
                change is returned. Default: True.
            scale: factor of the change. Default: 1.

        Returns:
            scale * dW, with the shape of the weight, zeros if no steps were recorded; None with on_grad.

        Raises:
            RuntimeError: if synapse and neuron ran different numbers of steps. The spikes are kept until `reset`.
        """
        weight, dW = self.synapse.weight, self._change()
        if not on_grad:
            return torch.zeros_like(weight) if dW is None else scale * dW
        if dW is not None:
            weight.grad = -scale * dW if weight.grad is None else weight.grad - scale * dW
        return None

    @torch.no_grad()
    def _change(self) -> Tensor | None:
        """dW of the steps recorded since the last call; None if there are none."""
        arrived, left = (self._steps(monitor) for monitor in (self.in_spike_monitor, self.out_spike_monitor))
        if len(arrived) != len(left):
            raise RuntimeError(
                f"the synapse ran {len(arrived)} steps and the neuron {len(left)} since STDPLearner's last step(); "
                "call both equally often, or call reset() after an incomplete sequence"
            )
        if not arrived:
            return None
        weight = self.synapse.weight.detach()
        pre, post = _arriving(self.synapse, _stacked(arrived)), _stacked(left).detach().to(weight.dtype)
        trace_pre = _traced(pre, self.trace_pre, self.tau_pre)
        trace_post = _traced(post, self.trace_post, self.tau_post)
        stronger = self.f_post(weight) * _summed(self.synapse, trace_pre, post)
        dW: Tensor = stronger - self.f_pre(weight) * _summed(self.synapse, pre, trace_post)
        self.in_spike_monitor.clear_recorded_data()
        self.out_spike_monitor.clear_recorded_data()
        self.trace_pre, self.trace_post = trace_pre[-1], trace_post[-1]
        return dW

    def _steps(self, monitor: BaseMonitor) -> list[Tensor]:
        """The recorded spikes of a monitor, one tensor [B, ...] per step."""
        steps: list[Tensor] = []
        for (name, record), length in monitor._log.entries():
            spikes = record[0] if isinstance(record, tuple) else record
            one_step = length is None and not self._whole_sequences
            if name == "":  # other names are submodules of the neuron
                steps.extend([spikes] if one_step else spikes[:length])
        return steps


def _stacked(steps: list[Tensor]) -> Tensor:
    shapes = {tuple(step.shape) for step in steps}
    if len(shapes) > 1:
        raise RuntimeError(
            f"STDPLearner recorded spikes of different shapes, {' and '.join(map(str, shapes))}; "
            "call step() and reset() before the batch changes"
        )
    return torch.stack(steps)

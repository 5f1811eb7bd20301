"""Latency coding, where larger values fire earlier, and ramps before spikes as targets for membranes."""

import torch
from torch import Tensor

from ._inputs import between, checked, computable, floating, given, over_time, single_spikes, whole, window


def latency(
    data: Tensor,
    num_steps: int | bool = False,
    threshold: float = 0.01,
    tau: float = 1,
    first_spike_time: float = 0,
    on_target: float = 1,
    off_target: float = 0,
    clip: bool = False,
    normalize: bool = False,
    linear: bool = False,
    interpolate: bool = False,
    bypass: bool = False,
    epsilon: float = 1e-7,
    *,
    stretch: bool = False,
) -> Tensor:
    """Fire once per element. Larger values fire earlier.

    spk[t] = 1 at t = round(s), else 0, with the times s of `latency_code`: logarithmic by default, or linear. Halves
    are rounded to even. For times beyond the last step, see `normalize` and `bypass`.

    Args:
        data: values in [0, 1], [*S].
        num_steps: T. Optional with `bypass`: the train then ends with its last spike.
        threshold: values below it are treated as equal, and fire last; in (0, 1). Default: 0.01.
        tau: time constant, in steps. Default: 1.
        first_spike_time: offset of the times. Default: 0.
        on_target: the value at a spike is max(on_target, off_target). Default: 1.
        off_target: the value elsewhere is max(0, off_target). Default: 0.
        clip: if True, elements below the threshold do not fire. Ignored with `interpolate`, as in snnTorch.
        normalize: if True, the times are scaled so that the latest is num_steps - 1.
        linear: if True, the times are linear in the data.
        interpolate: if True, a ramp precedes each spike, see `latency_interpolate`.
        bypass: if True, spikes beyond num_steps are dropped.
        epsilon: keeps the logarithmic times of values below the threshold finite. Default: 1e-7.
        stretch: with `normalize`: if True, the earliest spike is at first_spike_time.

    Returns:
        spk [T, *S].

    Raises:
        ValueError: for data outside [0, 1] or NaN; a threshold outside (0, 1); tau <= 0; if num_steps is missing; if
            first_spike_time is negative or after the last step; without bypass, for a spike after the last step.

    Source: Thorpe, "Spike arrival times: a highly efficient coding scheme for neural networks", 1990; the logarithmic
    time is that at which a leaky membrane with the constant input `data` reaches the threshold.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.latency(torch.tensor([0.0, 0.4, 1.0]), num_steps=4, normalize=True, linear=True)
        tensor([[0., 0., 1.],
                [0., 0., 0.],
                [0., 1., 0.],
                [1., 0., 0.]])
    """
    data = between(floating(data, "latency"), 0, 1, "latency")
    steps = given(num_steps)
    if steps is None and not bypass:
        raise ValueError("latency needs num_steps; or set bypass=True, and the train ends with its last spike")
    times = _times(data, linear, steps, threshold, tau, first_spike_time, normalize, epsilon, stretch).round()
    last = times.max().item() if times.numel() else first_spike_time
    steps = int(last) + 1 if steps is None else steps
    if last > steps - 1 and not bypass:
        raise ValueError(
            f"the last spike is at step {last:g}, after the last step of num_steps={steps}; increase num_steps, set "
            "normalize=True to scale the times, or bypass=True to drop late spikes"
        )
    if interpolate:
        return latency_interpolate(times, steps, on_target, off_target).to(data.dtype)
    silent = times > steps - 1
    if clip:
        silent |= data < threshold
    return single_spikes(times, steps, silent, data.dtype, max(on_target, off_target), max(0, off_target))


def latency_code(
    data: Tensor,
    num_steps: int | bool = False,
    threshold: float = 0.01,
    tau: float = 1,
    first_spike_time: float = 0,
    normalize: bool = False,
    linear: bool = False,
    epsilon: float = 1e-7,
    *,
    stretch: bool = False,
) -> tuple[Tensor, Tensor]:
    """Spike times of `latency_code_log` or, with `linear`, `latency_code_linear`, and the elements below the threshold.

    Args:
        data: values, [*S].
        num_steps: T; required with normalize.
        threshold, tau, first_spike_time, normalize, linear, epsilon, stretch: see `latency`.

    Returns:
        (times, below): times [*S], not rounded, and a bool tensor [*S], True below the threshold.

    Raises:
        ValueError: as `latency`, except for data outside [0, 1] and for late spikes.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> x = torch.tensor([0.1, 0.5, 1.0])
        >>> spikegen.latency_code(x, num_steps=11, threshold=0.2, normalize=True, linear=True)
        (tensor([8., 5., 0.]), tensor([ True, False, False]))
    """
    data = floating(data, "latency_code")
    times = _times(data, linear, given(num_steps), threshold, tau, first_spike_time, normalize, epsilon, stretch)
    return times.to(data.dtype), data < threshold


def latency_code_linear(
    data: Tensor,
    num_steps: int | bool = False,
    threshold: float = 0.01,
    tau: float = 1,
    first_spike_time: float = 0,
    normalize: bool = False,
    *,
    stretch: bool = False,
) -> Tensor:
    """Spike times that decrease linearly with the data, not rounded, [*S].

    s = tau * (1 - max(data, threshold)) + first_spike_time.

    With `normalize`, tau is num_steps - 1 - first_spike_time: the value 1 is at first_spike_time, and the value 0 would
    be at num_steps - 1 without the threshold. If data far above 1 have negative times, all times are scaled to
    [0, num_steps - 1], as in snnTorch. With `stretch`, the earliest time is first_spike_time and the latest
    num_steps - 1.

    For arguments and errors see `latency_code`.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.latency_code_linear(torch.tensor([0.0, 0.2, 1.0]), num_steps=11, normalize=True)
        tensor([9.9000, 8.0000, 0.0000])
    """
    data = floating(data, "latency_code_linear")
    times = _times(data, True, given(num_steps), threshold, tau, first_spike_time, normalize, 0.0, stretch)
    return times.to(data.dtype)


def latency_code_log(
    data: Tensor,
    num_steps: int | bool = False,
    threshold: float = 0.01,
    tau: float = 1,
    first_spike_time: float = 0,
    normalize: bool = False,
    epsilon: float = 1e-7,
    *,
    stretch: bool = False,
) -> Tensor:
    """Times at which a leaky membrane with the constant input `data` reaches the threshold, not rounded, [*S].

    s = tau * ln(d / (d - threshold)) + first_spike_time, with d = max(data, threshold + epsilon).

    With `normalize`, s - first_spike_time is scaled so that the latest time is num_steps - 1. The earliest is then
    slightly after first_spike_time; with `stretch` it is equal to it. Times are inf where epsilon is lost in rounding.

    For arguments and errors see `latency_code`.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.latency_code_log(torch.tensor([0.015, 0.02, 0.05, 1.0]), tau=5)
        tensor([5.4931, 3.4657, 1.1157, 0.0503])
    """
    data = floating(data, "latency_code_log")
    times = _times(data, False, given(num_steps), threshold, tau, first_spike_time, normalize, epsilon, stretch)
    return times.to(data.dtype)


def _times(
    data: Tensor,
    linear: bool,
    steps: int | None,
    threshold: float,
    tau: float,
    first: float,
    normalize: bool,
    epsilon: float,
    stretch: bool,
) -> Tensor:
    """Spike times, not rounded; float32 for half precision."""
    if first < 0:
        raise ValueError(f"first_spike_time is {first}; pass 0 or more")
    if steps is not None:
        window(steps, first)
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}; pass a number above 0 and below 1")
    if not tau > 0:
        raise ValueError(f"tau is {tau}; pass a number above 0")
    if normalize and steps is None:
        raise ValueError("normalize=True scales the times to num_steps; pass num_steps")
    if stretch and not normalize:
        raise ValueError("stretch=True requires normalization; set normalize=True too")
    data = computable(data)
    if linear:
        tau = steps - 1 - first if normalize and steps is not None else tau
        times = (-tau * (data - 1)).clamp(max=-tau * (threshold - 1)) + first
    else:
        above = data.clamp(min=threshold + epsilon)
        times = tau * torch.log(above / (above - threshold)) + first
    if normalize and steps is not None and times.numel():
        span = steps - 1 - first
        if stretch:
            return _scaled(times - times.min(), span) + first
        if not linear:
            return _scaled(times - first, span) + first
        if bool(times.min() < 0):
            return _scaled(times - times.min(), steps - 1)
    return times


def _scaled(times: Tensor, span: float) -> Tensor:
    """Scale times >= 0 so that the last is `span`; unchanged if all are 0."""
    last = times.max()
    return times * span / last.where(last != 0, 1)


# -- ramps before spikes, as targets for membranes ---------------------------------------------------------------------


def latency_interpolate(spike_time: Tensor, num_steps: int, on_target: float = 1, off_target: float = 0) -> Tensor:
    """A linear ramp from the first step to the spike of each element.

    With s = round(spike_time):

    out[t] = off + (on - off) * t / s for t <= s, else off. For a spike at step 0, out[0] = on.

    A spike at step T, one after the end, still has a ramp, as in snnTorch. Later spikes and negative times have none.

    Args:
        spike_time: one time per element, [*S].
        num_steps: T.
        on_target: value at the spike. Default: 1.
        off_target: value at the start of the ramp and after the spike, below `on_target`. Default: 0.

    Returns:
        [T, *S].

    Raises:
        ValueError: if on_target <= off_target.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.latency_interpolate(torch.tensor([0, 2, 4]), num_steps=5)
        tensor([[1.0000, 0.0000, 0.0000],
                [0.0000, 0.5000, 0.2500],
                [0.0000, 1.0000, 0.5000],
                [0.0000, 0.0000, 0.7500],
                [0.0000, 0.0000, 1.0000]])
    """
    if not on_target > off_target:
        raise ValueError(
            f"on_target is {on_target}, off_target {off_target}; a ramp needs an on_target above off_target"
        )
    times = floating(spike_time, "latency_interpolate")
    spike = computable(times.detach()).round()
    spike = spike.where(spike <= whole(num_steps, "num_steps"), -1)  # before the first step
    t = over_time(spike, num_steps)
    out = _between(off_target, on_target, t / spike.where(spike != 0, 1))
    out[:1].masked_fill_(spike == 0, on_target)
    return out.masked_fill_(t > spike, off_target).to(times.dtype)


def rate_interpolate(
    spike_time: Tensor, num_steps: int, on_target: float = 1, off_target: float = 0, epsilon: float = 1e-7
) -> Tensor:
    """A linear ramp to each spike of one train, from the step after the previous spike.

    With s the first spike at or after t, and p the step after the previous spike (0 before the first):

    out[t] = off + (on - off) * (t - p) / (s - p), or on if s = p. After the last spike it is off.

    Args:
        spike_time: spike times of a train, in any order and shape. They are rounded, and times outside of the train are
            ignored.
        num_steps: T.
        on_target: value at a spike. Default: 1.
        off_target: value at the start of a ramp and after the last spike. Default: 0.
        epsilon: no effect; for compatibility with snnTorch.

    Returns:
        [T].

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.rate_interpolate(torch.tensor([0, 5]), num_steps=8)
        tensor([1.0000, 0.0000, 0.2500, 0.5000, 0.7500, 1.0000, 0.0000, 0.0000])
    """
    times = checked(spike_time, "rate_interpolate").flatten()
    dtype = floating(times, "rate_interpolate").dtype
    steps = whole(num_steps, "num_steps")
    times = (times.round() if times.is_floating_point() else times).long()
    t = torch.arange(steps, device=times.device)
    fired = torch.isin(t, times)
    spike = t.where(fired, steps).flip(0).cummin(0).values.flip(0)
    last = t.where(fired, -1).cummax(0).values
    start = last.roll(1) + 1
    start[:1] = 0
    length = (spike - start).to(torch.promote_types(dtype, torch.float32))
    part = ((t - start) / length).where(length > 0, 1)
    return _between(off_target, on_target, part).where(spike < steps, off_target).to(dtype)


def _between(off: float, on: float, part: Tensor) -> Tensor:
    """off + part * (on - off), exactly `on` where part is 1."""
    return torch.lerp(part.new_tensor(off), part.new_tensor(on), part)

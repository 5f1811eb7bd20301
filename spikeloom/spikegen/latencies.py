"""Latency coding: a number is the time of one spike, the larger the earlier; and ramps that lead up to spikes."""

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
    """One spike per element, the earlier the larger the element is.

    spk[t] = H'(t = round(s)), with the times s of `latency_code`: logarithmic by default, or linear. Halves are rounded
    to the even step. Where no time fits, see `normalize` and `bypass`.

    Args:
        data: numbers from 0 to 1, [*S].
        num_steps: T. With `bypass` it may be left out: the spikes then end the train.
        threshold: the number below which all fire together, last of all; above 0, below 1.
        tau: the time constant in steps.
        first_spike_time: what is added to the times.
        on_target: the value at a spike: max(on_target, off_target).
        off_target: the value elsewhere: max(0, off_target).
        clip: if True, elements below the threshold do not fire. Ignored with `interpolate`, as in snnTorch.
        normalize: if True, the times are scaled so that the latest is num_steps - 1.
        linear: if True, the times are linear in the data.
        interpolate: if True, a ramp leads up to each spike, see `latency_interpolate`.
        bypass: if True, spikes beyond num_steps are left out.
        epsilon: keeps the logarithmic time of what is below the threshold finite.
        stretch: with `normalize`: if True, the earliest spike is at first_spike_time too.

    Returns:
        spk [T, *S].

    Raises:
        ValueError: for data outside 0 to 1, or NaN; a threshold not between 0 and 1; a tau of 0 or less; num_steps
            missing; a first_spike_time that is negative or beyond the last step; a spike beyond the last step, without
            bypass.

    Source: Thorpe, "Spike arrival times: a highly efficient coding scheme for neural networks", 1990; the logarithmic
    times are those at which a leaky membrane with a current of `data` reaches the threshold.

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
            f"the last spike comes at step {last:g}, beyond the last of num_steps={steps}; raise num_steps, set "
            "normalize=True to scale the times, or bypass=True to leave out what comes too late"
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
    """The times of `latency_code_log`, or with `linear` of `latency_code_linear`, and what is below the threshold.

    Args:
        data: numbers, [*S].
        num_steps: T; needed to normalize.
        threshold, tau, first_spike_time, normalize, linear, epsilon, stretch: as `latency` takes them.

    Returns:
        (times, below): not rounded, [*S]; and a bool for each, True below the threshold.

    Raises:
        ValueError: as `latency` does, but for data outside 0 to 1 and spikes beyond the last step.

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
    """Spike times that fall linearly with the data, not rounded, [*S].

    s = tau * (1 - max(data, threshold)) + first_spike_time.

    With `normalize`, tau is num_steps - 1 - first_spike_time, so that a 1 is at first_spike_time and a 0, were it not
    for the threshold, at num_steps - 1. Should data far above 1 have times below 0, then all times are stretched to
    0 ... num_steps - 1, as in snnTorch. With `stretch` too, the earliest is at first_spike_time and the latest at
    num_steps - 1.

    Arguments and errors are those of `latency_code`.

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
    """The times at which a leaky membrane with a current of `data` reaches the threshold, not rounded, [*S].

    s = tau * ln(d / (d - threshold)) + first_spike_time, with d = max(data, threshold + epsilon).

    With `normalize`, s - first_spike_time is scaled so that the latest is at num_steps - 1. The earliest is then a
    little behind first_spike_time; with `stretch` it is there. Where epsilon is lost in rounding, the time is inf.

    Arguments and errors are those of `latency_code`.

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
        raise ValueError("stretch=True is a way to normalize; set normalize=True too")
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
    """Times from 0 on, the last of which is at the end of the span; where all are 0 they stay."""
    last = times.max()
    return times * span / last.where(last != 0, 1)


# -- ramps that lead up to spikes: targets for a membrane that is to rise to its spike ---------------------------------


def latency_interpolate(spike_time: Tensor, num_steps: int, on_target: float = 1, off_target: float = 0) -> Tensor:
    """A ramp from the first step to each spike, one per element.

    With s = round(spike_time):

    out[t] = off + (on - off) * t / s for t <= s, else off. A spike at step 0 is `on_target` there.

    A spike at step T, one beyond the end, still has its ramp, as in snnTorch; a later one has none, nor has one before
    the first step.

    Args:
        spike_time: a time for each element, [*S].
        num_steps: T.
        on_target: the value at the spike.
        off_target: the value at the start of the ramp, and after the spike; less than `on_target`.

    Returns:
        [T, *S].

    Raises:
        ValueError: for an on_target that is not above off_target.

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
    spike = spike.where(spike <= whole(num_steps, "num_steps"), -1)  # no step comes before that
    t = over_time(spike, num_steps)
    out = _between(off_target, on_target, t / spike.where(spike != 0, 1))
    out[:1].masked_fill_(spike == 0, on_target)
    return out.masked_fill_(t > spike, off_target).to(times.dtype)


def rate_interpolate(
    spike_time: Tensor, num_steps: int, on_target: float = 1, off_target: float = 0, epsilon: float = 1e-7
) -> Tensor:
    """A ramp to each spike of one train, from the step after the spike before it.

    Where s is the next spike from t on, and p the step after the spike before (0 before the first):

    out[t] = off + (on - off) * (t - p) / (s - p), and on where s = p. After the last spike it is off.

    Args:
        spike_time: the times of a train, in any order and shape; they are rounded, and those outside of the train left
            out.
        num_steps: T.
        on_target: the value at a spike.
        off_target: the value at the start of a ramp, and after the last spike.
        epsilon: has no effect; an argument of snnTorch.

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

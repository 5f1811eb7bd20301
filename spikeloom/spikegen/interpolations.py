"""Ramps that lead up to each spike: targets for a membrane that is to rise to its spike."""

import torch
from torch import Tensor

from ._inputs import checked, computable, floating, whole
from ._trains import over_time


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
        [T, *S], in the dtype of the times (integers: the default dtype) and on their device.

    Raises:
        TypeError: for times that are no tensor.
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
        [T], in the dtype of the times (integers: the default dtype) and on their device.

    Raises:
        TypeError: for times that are no tensor.

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

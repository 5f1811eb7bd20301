"""Burst coding: a number is how many spikes come, and how close together."""

import torch
from torch import Tensor

from ._inputs import between, computable, floating, whole, window
from ._trains import over_time


def burst(
    data: Tensor,
    num_steps: int,
    max_spikes: int = 5,
    min_interval: int = 2,
    max_interval: int | None = None,
    first_spike_time: int = 0,
) -> Tensor:
    """A burst per element: the larger it is, the more spikes, and the closer together.

    | what     |                                                                             |
    | -------- | --------------------------------------------------------------------------- |
    | spikes   | n = ceil(max_spikes * data)                                                 |
    | interval | i = ceil(max_interval - (max_interval - min_interval) * data)               |

    spk[t] = 1 at t = first_spike_time + j * i for j = 0, ..., n - 1, else 0. A zero does not fire.

    Args:
        data: numbers from 0 to 1, [*S].
        num_steps: T.
        max_spikes: the spikes of a 1.
        min_interval: the steps from one spike to the next of a 1, at least 1.
        max_interval: those of a number near 0. None: the most with which every burst ends in time.
        first_spike_time: the step of the first spike.

    Returns:
        spk [T, *S], in the dtype of the data (integers: the default dtype) and on their device.

    Raises:
        TypeError: for data that are no tensor, or steps or spikes that are no whole number.
        ValueError: for data outside 0 to 1, or NaN; intervals in the wrong order, or with which a burst could outlast
            num_steps.

    Source: Guo, Fouda, Eltawil and Salama, "Neural coding in spiking neural networks: a comparative study for robust
    neuromorphic systems", 2021; bursts in networks: Park, Kim, Choe and Yoon, "Fast and efficient information
    transmission with burst spikes in deep spiking neural networks", 2019.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.burst(torch.tensor([0.0, 0.3, 0.6, 1.0]), num_steps=9, max_spikes=3).T
        tensor([[0., 0., 0., 0., 0., 0., 0., 0., 0.],
                [1., 0., 0., 0., 0., 0., 0., 0., 0.],
                [1., 0., 0., 1., 0., 0., 0., 0., 0.],
                [1., 0., 1., 0., 1., 0., 0., 0., 0.]])
    """
    data = between(floating(data, "burst"), 0, 1, "burst")
    first = whole(first_spike_time, "first_spike_time")
    steps = window(whole(num_steps, "num_steps", least=1), first)
    spikes, least = whole(max_spikes, "max_spikes", least=1), whole(min_interval, "min_interval", least=1)
    gaps, room = spikes - 1, steps - 1 - first
    most = whole(max_interval, "max_interval") if max_interval is not None else room // gaps if gaps else least
    if most < least or gaps * most > room:
        raise ValueError(
            f"{spikes} spikes, {least} to {most} steps apart, do not fit between step {first} and num_steps={steps}; "
            "they need min_interval <= max_interval and (max_spikes - 1) * max_interval < num_steps - first_spike_time"
        )
    exact = computable(data)
    count = (exact * spikes).ceil()
    interval = (most - exact * (most - least)).ceil().long()
    t = over_time(data, steps) - first
    fired = (t >= 0) & (t % interval == 0) & (torch.div(t, interval, rounding_mode="floor") < count)
    return fired.to(data.dtype)

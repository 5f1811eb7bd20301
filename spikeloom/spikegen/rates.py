"""Rate coding: a number is the chance of a spike at each step."""

import torch
from torch import Tensor

from ._inputs import floating, given, whole, window


def rate(
    data: Tensor,
    num_steps: int | bool = False,
    gain: float | Tensor = 1,
    offset: float | Tensor = 0,
    first_spike_time: int = 0,
    time_var_input: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw spikes whose chance at each step is the data: a Bernoulli process, which approximates a Poisson process.

    spk[t] = 1 with probability clamp(gain * data + offset, 0, 1), independently for each t, else 0.

    Args:
        data: numbers, 0 to 1 if nothing is to be clipped; [*S], or [T, *S] with `time_var_input`.
        num_steps: T. Not given with `time_var_input`.
        gain: what the data are multiplied by. Ignored with `time_var_input`, as in snnTorch.
        offset: what is added then. Ignored with `time_var_input`, as in snnTorch.
        first_spike_time: steps of silence at the beginning: the first of num_steps, or, with `time_var_input`, steps
            that are put before the data.
        time_var_input: if True, the data have their own time, and each step is drawn from its own numbers.
        generator: where the random numbers come from; None is torch's own.

    Returns:
        spk [T, *S], in the dtype of the data (integers: the default dtype) and on their device.

    Raises:
        TypeError: for data that are no tensor, or a number of steps that is not whole.
        ValueError: for num_steps missing, or given beside time_var_input; a first_spike_time that is negative or beyond
            the last step; NaN in the data.

    Source: Heeger, "Poisson model of spike generation", 2000.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> x = torch.tensor([0.0, 0.1, 0.5, 1.0])
        >>> spk = spikegen.rate(x, num_steps=10000, generator=torch.Generator().manual_seed(0))
        >>> spk.shape, spk.mean(0)
        (torch.Size([10000, 4]), tensor([0.0000, 0.0996, 0.4991, 1.0000]))
    """
    data = floating(data, "rate")
    first = whole(first_spike_time, "first_spike_time")
    steps = given(num_steps)
    if time_var_input:
        if steps is not None:
            raise ValueError(f"num_steps is {steps}, but with time_var_input=True dimension 0 of the data is time")
        if first and not data.dim():
            raise ValueError("with time_var_input=True dimension 0 of the data is time; got a single number")
        spk = _drawn(data, generator)
        return torch.cat([spk.new_zeros(first, *spk.shape[1:]), spk]) if first else spk
    if steps is None:
        raise ValueError("rate needs num_steps; or set time_var_input=True if dimension 0 of the data is time")
    spk = _drawn(gain * data + offset, generator, window(steps, first))
    spk[:first] = 0
    return spk


def rate_conv(data: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw one spike or none for each number: 1 with probability clamp(data, 0, 1), else 0.

    Args:
        data: numbers [*S], 0 to 1 if nothing is to be clipped.
        generator: where the random numbers come from; None is torch's own.

    Returns:
        spk [*S], in the dtype of the data (integers: the default dtype) and on their device.

    Raises:
        TypeError: for data that are no tensor.
        ValueError: for NaN in the data.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.rate_conv(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
        tensor([0., 0., 1., 1.])
    """
    return _drawn(floating(data, "rate_conv"), generator)


def _drawn(chance: Tensor, generator: torch.Generator | None, num_steps: int | None = None) -> Tensor:
    """Draws from clipped chances, or, with num_steps, so many of each: [T, *S], the chances not repeated in memory."""
    if bool(chance.isnan().any()):
        raise ValueError("there is NaN in the data, which is no chance of a spike")
    chance = chance.clamp(0, 1)
    if num_steps is not None:
        chance = chance.expand(num_steps, *chance.shape)
    return torch.bernoulli(chance, generator=generator)

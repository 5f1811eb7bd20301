"""Rate, delta, population, phase and burst codes."""

import torch
from torch import Tensor

from ._inputs import between, checked, computable, floating, given, over_time, single_spikes, whole, window

# -- rate: a number is the chance of a spike at each step --------------------------------------------------------------


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
        spk [T, *S].

    Raises:
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
    """Draw one spike or none for each number: 1 with probability clamp(data, 0, 1), else 0; [*S] to [*S].

    Args:
        data: numbers [*S], 0 to 1 if nothing is to be clipped; not NaN, which is a ValueError.
        generator: where the random numbers come from; None is torch's own.

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


# -- delta modulation: a spike where the data change -------------------------------------------------------------------

UNSIGNED = (torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
LARGE = (torch.int32, torch.int64, torch.uint32, torch.uint64)
"""Integers that float32 does not hold."""


def delta(data: Tensor, threshold: float | Tensor = 0.1, padding: bool = False, off_spike: bool = False) -> Tensor:
    """A spike where the data rise by the threshold or more from one step to the next.

    With change[t] = data[t] - data[t-1], and data[-1] = 0:

    spk[t] = H(change[t] - threshold) - off_spike * H(-change[t] - threshold), where H(0) = 1.

    Args:
        data: a sequence, [T, *S]; a single number is a ValueError.
        threshold: the change that makes a spike; a number, or a tensor that broadcasts over [T, *S].
        padding: if True, data[-1] is data[0]: no spike at the first step, unless the threshold is 0 or less.
        off_spike: if True, there is a spike of -1 where the data fall by the threshold or more.

    Returns:
        spk [T, *S], in the dtype of the data, integers too; unsigned ones and bools, which hold no -1, become the
        default dtype.

    Source: Lichtsteiner, Posch and Delbruck, "A 128x128 120 dB 15 us latency asynchronous temporal contrast vision
    sensor", 2008, where this is done to the logarithm of the light.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.delta(torch.tensor([1.0, 1.0, 1.5, 3.0, 2.0]), threshold=0.5, off_spike=True)
        tensor([ 1.,  0.,  1.,  1., -1.])
        >>> spikegen.delta(torch.tensor([1.0, 1.0, 1.5, 3.0, 2.0]), threshold=0.5, padding=True)
        tensor([0., 0., 1., 1., 0.])
    """
    if not checked(data, "delta").dim():
        raise ValueError("delta takes a sequence, with time in dimension 0; got a single number")
    dtype = torch.get_default_dtype() if data.dtype in UNSIGNED else data.dtype
    data = data.detach()
    if not data.is_floating_point():  # whose differences may be beyond their dtype
        data = data.to(torch.float64 if data.dtype in LARGE else torch.float32)
    change = torch.empty_like(data)
    torch.sub(data[1:], data[:-1], out=change[1:])
    change[:1] = 0 if padding else data[:1]
    falls = -change >= threshold if off_spike else None  # of an unsigned threshold there is no negative
    spk = change.copy_(change >= threshold)  # in the same memory: a video may be large
    return (spk if falls is None else spk.add_(falls, alpha=-1)).to(dtype)


# -- population: a number is the activity of several neurons, each tuned to a value of its own -------------------------


def receptive_fields(
    data: Tensor,
    num_neurons: int,
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    beta: float = 1.5,
) -> Tensor:
    """The responses of neurons with Gaussian receptive fields that overlap and cover the range of the data.

    For the neurons i = 1, ..., m:

    | what     |                                                              |
    | -------- | ------------------------------------------------------------ |
    | center   | c_i = low + (2 i - 3) / 2 * (high - low) / (m - 2)           |
    | width    | sigma = (high - low) / (beta * (m - 2))                      |
    | response | r_i = exp(-(data - c_i)^2 / (2 sigma^2)), 1 at the center    |

    The first and the last center lie outside of the range, so that its ends are covered like the rest.

    Args:
        data: numbers [*S].
        num_neurons: m, at least 3.
        low: the low end of the range; a number, or a tensor that broadcasts over [*S].
        high: the high end; likewise.
        beta: how narrow the fields are.

    Returns:
        responses [*S, m], 0 to 1.

    Raises:
        ValueError: for fewer than 3 neurons, a range whose high is not above its low, or a beta of 0 or less.

    Source: Bohte, Kok and La Poutré, "Error-backpropagation in temporally encoded networks of spiking neurons", 2002.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.receptive_fields(torch.tensor([0.0, 0.5]), num_neurons=4)
        tensor([[0.7548, 0.7548, 0.0796, 0.0009],
                [0.0796, 0.7548, 0.7548, 0.0796]])
    """
    data = floating(data, "receptive_fields")
    neurons = whole(num_neurons, "num_neurons", least=3)
    if not beta > 0:
        raise ValueError(f"beta is {beta}; pass a number above 0")
    exact = computable(data)
    bottom, top = (torch.as_tensor(end, dtype=exact.dtype, device=exact.device) for end in (low, high))
    if not bool((top > bottom).all()):
        raise ValueError(f"the range goes from low={low} to high={high}; pass a high above the low")
    scaled = ((exact - bottom) / (top - bottom)).unsqueeze(-1)
    centers = (torch.arange(neurons, dtype=scaled.dtype, device=data.device) - 0.5) / (neurons - 2)
    return torch.exp(-0.5 * ((scaled - centers) * (beta * (neurons - 2))) ** 2).to(data.dtype)


def population(
    data: Tensor,
    num_steps: int,
    num_neurons: int,
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    beta: float = 1.5,
    code: str = "latency",
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Spikes of neurons with Gaussian receptive fields: each number is told by several neurons.

    With the responses r of `receptive_fields`:

    | code      | the spikes                                                                           |
    | --------- | ------------------------------------------------------------------------------------ |
    | "latency" | one at t = round(T * (1 - r)), the stronger the earlier; none where that is T         |
    | "rate"    | at each step with probability r                                                      |

    Args:
        data, num_neurons, low, high, beta: see `receptive_fields`.
        num_steps: T, at least 1.
        code: "latency" or "rate".
        generator: where the random numbers of the rate code come from; None is torch's own.

    Returns:
        spk [T, *S, m]; `spk.flatten(2)` of data [B, N] is what a Linear of N * m inputs takes.

    Raises:
        ValueError: as `receptive_fields` does; for another code, for num_steps below 1, or NaN in the data.

    Source: that of `receptive_fields`; there T is 10, and the latest do not fire.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.population(torch.tensor(0.4), num_steps=4, num_neurons=5)
        tensor([[0., 0., 1., 0., 0.],
                [0., 0., 0., 0., 0.],
                [0., 1., 0., 0., 0.],
                [0., 0., 0., 1., 0.]])
    """
    steps = whole(num_steps, "num_steps", least=1)
    if code not in ("latency", "rate"):
        raise ValueError(f"code is {code!r}; pass 'latency' or 'rate'")
    data = floating(data, "population")
    responses = receptive_fields(computable(data), num_neurons, low, high, beta)
    if code == "rate":
        return rate(responses, steps, generator=generator).to(data.dtype)
    if bool(responses.isnan().any()):
        raise ValueError("there is NaN in the data, which has no time")
    times = (steps * (1 - responses)).round()
    return single_spikes(times, steps, times == steps, data.dtype)


# -- phase: a number is its binary digits, one after another -----------------------------------------------------------

MOST_DIGITS = 24
"""Binary digits that float32 tells apart."""


def phase(data: Tensor, num_steps: int, period: int = 8, weighted: bool = True) -> Tensor:
    """A spike where a binary digit of the data is 1, the highest digit first, over and over.

    With the digits d_1 ... d_K of min(floor(2^K * data), 2^K - 1), K = period, and k = 1 + t mod K:

    spk[t] = d_k * 2^-k, or d_k where not weighted.

    The weighted spikes of one period add up to the data, rounded down to K digits. With K = 8, b / 255 has the digits
    of the byte b.

    Args:
        data: numbers from 0 to 1, [*S].
        num_steps: T.
        period: K, 1 to 24.
        weighted: if False, all spikes are 1, and what follows has to weigh them.

    Returns:
        spk [T, *S].

    Raises:
        ValueError: for data outside 0 to 1, or NaN; a period that is not 1 to 24.

    Source: Kim, Kim, Huh, Lee and Choi, "Deep neural networks with weighted spikes", 2018.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.phase(torch.tensor([0.0, 0.625, 1.0]), num_steps=4, period=3)
        tensor([[0.0000, 0.5000, 0.5000],
                [0.0000, 0.0000, 0.2500],
                [0.0000, 0.1250, 0.1250],
                [0.0000, 0.5000, 0.5000]])
    """
    data = between(floating(data, "phase"), 0, 1, "phase")
    steps = whole(num_steps, "num_steps")
    if whole(period, "period", least=1) > MOST_DIGITS:
        raise ValueError(f"period is {period}; pass at most {MOST_DIGITS}, the digits that float32 holds")
    number = (computable(data) * 2**period).long().clamp(max=2**period - 1)
    place = over_time(number, steps) % period
    digits: Tensor = (number >> (period - 1 - place) & 1).to(data.dtype)
    weights = torch.tensor([0.5**k for k in range(1, period + 1)], dtype=data.dtype, device=data.device)
    return digits.mul_(weights[place]) if weighted else digits


# -- burst: a number is how many spikes come, and how close together ---------------------------------------------------


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
        spk [T, *S].

    Raises:
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

"""Rate, delta, population, phase and burst codes."""

import torch
from torch import Tensor

from ..caller import warn_caller
from ._inputs import between, checked, computable, floating, given, over_time, single_spikes, whole, window

ROUNDING = 0.001
"""Data that exceed [0, 1] by more are outside, not only by rounding in half precision."""

# -- rate: a value is the probability of a spike per step --------------------------------------------------------------


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
    """Draw spikes with the data as probability per step: a Bernoulli process, which approximates a Poisson process.

    spk[t] = 1 with probability clamp(gain * data + offset, 0, 1), independently for each t, else 0.

    Args:
        data: values from 0 to 1, clamped to [0, 1] after gain and offset; [*S], or [T, *S] with `time_var_input`.
        num_steps: T. Must be omitted with `time_var_input`.
        gain: factor of the data. Ignored with `time_var_input`, as in snnTorch. Default: 1.
        offset: added after the gain. Ignored with `time_var_input`, as in snnTorch. Default: 0.
        first_spike_time: number of silent steps at the beginning: the first of num_steps or, with `time_var_input`,
            steps that are added before the data. Default: 0.
        time_var_input: if True, the data are a sequence, and each step is drawn from its own values.
        generator: source of random numbers. Default: PyTorch's global generator.

    Returns:
        spk [T, *S].

    Raises:
        ValueError: if num_steps is missing, or given with time_var_input; if first_spike_time is negative or after the
            last step; if the data contain NaN.

    Warns:
        UserWarning: if data above 1 give probabilities above 1, as images of 0 to 255 do, or data below 0 give
            probabilities below 0, as images normalized to a mean of 0 do.

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
        _warn_outside(data, data)
        spk = _drawn(data, generator)
        return torch.cat([spk.new_zeros(first, *spk.shape[1:]), spk]) if first else spk
    if steps is None:
        raise ValueError("rate needs num_steps; or set time_var_input=True if dimension 0 of the data is time")
    chance = gain * data + offset
    _warn_outside(data, chance)
    spk = _drawn(chance, generator, window(steps, first))
    spk[:first] = 0
    return spk


def _warn_outside(data: Tensor, chance: Tensor) -> None:
    """Warn if data outside of [0, 1], rather than gain and offset, make such probabilities. Not under torch.compile."""
    if torch.compiler.is_compiling() or not data.numel():
        return
    above, below = ((t > 1 + ROUNDING).any() for t in (data, chance)), ((t < -ROUNDING).any() for t in (data, chance))
    if all(map(bool, above)):
        warn_caller(
            f"rate got data up to {data.max().item():g}; a probability above 1 fires at every step. Scale the data to "
            "[0, 1], as by x / x.max(), or pass gain"
        )
    if all(map(bool, below)):
        warn_caller(
            f"rate got data down to {data.min().item():g}; a probability below 0 never fires. Shift and scale the data "
            "to [0, 1], as by (x - x.min()) / (x.max() - x.min()), or pass gain and offset"
        )


def rate_conv(data: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw one step of spikes: 1 with probability clamp(data, 0, 1), else 0; [*S] to [*S].

    Args:
        data: values [*S], clamped to [0, 1]. NaN raises a ValueError.
        generator: source of random numbers. Default: PyTorch's global generator.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.rate_conv(torch.tensor([-1.0, 0.0, 1.0, 2.0]))
        tensor([0., 0., 1., 1.])
    """
    return _drawn(floating(data, "rate_conv"), generator)


def _drawn(chance: Tensor, generator: torch.Generator | None, num_steps: int | None = None) -> Tensor:
    """Draw from clamped probabilities, once or num_steps times, [T, *S], without expanding them in memory."""
    if bool(chance.isnan().any()):
        raise ValueError("there is NaN in the data, which is not a probability")
    chance = chance.clamp(0, 1)
    if num_steps is not None:
        chance = chance.expand(num_steps, *chance.shape)
    return torch.bernoulli(chance, generator=generator)


# -- delta modulation: spikes at changes of the data -------------------------------------------------------------------

UNSIGNED = (torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
LARGE = (torch.int32, torch.int64, torch.uint32, torch.uint64)
"""Integer dtypes whose values float32 cannot represent exactly."""


def delta(data: Tensor, threshold: float | Tensor = 0.1, padding: bool = False, off_spike: bool = False) -> Tensor:
    """Fire where the data rise by the threshold or more from one step to the next.

    With change[t] = data[t] - data[t-1], and data[-1] = 0:

    spk[t] = H(change[t] - threshold) - off_spike * H(-change[t] - threshold), where H(0) = 1.

    Args:
        data: a sequence, [T, *S]. A scalar raises a ValueError.
        threshold: the smallest change that fires; a number, or a tensor that broadcasts to [T, *S]. Default: 0.1.
        padding: if True, data[-1] is data[0]: no spike at the first step, unless the threshold is 0 or less.
        off_spike: if True, a spike of -1 marks where the data fall by the threshold or more.

    Returns:
        spk [T, *S], in the dtype of the data, including integers. Unsigned integers and bools, which cannot hold -1,
        become the default dtype.

    Source: Lichtsteiner, Posch and Delbruck, "A 128x128 120 dB 15 us latency asynchronous temporal contrast vision
    sensor", 2008, there on the logarithm of the light intensity.

        >>> import torch
        >>> from spikeloom import spikegen
        >>> spikegen.delta(torch.tensor([1.0, 1.0, 1.5, 3.0, 2.0]), threshold=0.5, off_spike=True)
        tensor([ 1.,  0.,  1.,  1., -1.])
        >>> spikegen.delta(torch.tensor([1.0, 1.0, 1.5, 3.0, 2.0]), threshold=0.5, padding=True)
        tensor([0., 0., 1., 1., 0.])
    """
    if not checked(data, "delta").dim():
        raise ValueError("delta expects a sequence, with time in dimension 0, got a single number")
    dtype = torch.get_default_dtype() if data.dtype in UNSIGNED else data.dtype
    data = data.detach()
    if not data.is_floating_point():  # differences may overflow their dtype
        data = data.to(torch.float64 if data.dtype in LARGE else torch.float32)
    change = torch.empty_like(data)
    torch.sub(data[1:], data[:-1], out=change[1:])
    change[:1] = 0 if padding else data[:1]
    falls = -change >= threshold if off_spike else None  # -change, because an unsigned threshold has no negative
    spk = change.copy_(change >= threshold)  # in place, because a video may be large
    return (spk if falls is None else spk.add_(falls, alpha=-1)).to(dtype)


# -- population: a value is encoded by several neurons with different preferred values ---------------------------------


def receptive_fields(
    data: Tensor,
    num_neurons: int,
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    beta: float = 1.5,
) -> Tensor:
    """Responses of neurons with overlapping Gaussian receptive fields that cover the range of the data.

    For the neurons i = 1, ..., m:

    | what     |                                                              |
    | -------- | ------------------------------------------------------------ |
    | center   | c_i = low + (2 i - 3) / 2 * (high - low) / (m - 2)           |
    | width    | sigma = (high - low) / (beta * (m - 2))                      |
    | response | r_i = exp(-(data - c_i)^2 / (2 sigma^2)), 1 at the center    |

    The first and the last center are outside of the range, so that its ends are covered as well as the rest.

    Args:
        data: values [*S].
        num_neurons: m, at least 3.
        low: lower end of the range; a number, or a tensor that broadcasts to [*S]. Default: 0.
        high: upper end of the range; a number, or a tensor that broadcasts to [*S]. Default: 1.
        beta: inverse width of the fields. Default: 1.5.

    Returns:
        responses [*S, m], in [0, 1].

    Raises:
        ValueError: if num_neurons < 3, high <= low, or beta <= 0.

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
        raise ValueError(f"the range is low={low} to high={high}; pass a high above the low")
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
    """Encode each value by the spikes of several neurons with Gaussian receptive fields.

    With the responses r of `receptive_fields`:

    | code      | spikes                                                                               |
    | --------- | ------------------------------------------------------------------------------------ |
    | "latency" | one at t = round(T * (1 - r)); none if that is T                                     |
    | "rate"    | at each step with probability r                                                      |

    Args:
        data, num_neurons, low, high, beta: see `receptive_fields`.
        num_steps: T, at least 1.
        code: "latency" or "rate".
        generator: source of random numbers for the rate code. Default: PyTorch's global generator.

    Returns:
        spk [T, *S, m]. For data [B, N], `spk.flatten(2)` is the input of a Linear with N * m input features.

    Raises:
        ValueError: as `receptive_fields`; for another code, num_steps < 1, or NaN in the data.

    Source: see `receptive_fields`; there T is 10, and the latest neurons do not fire.

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
        raise ValueError("there is NaN in the data, which has no spike time")
    times = (steps * (1 - responses)).round()
    return single_spikes(times, steps, times == steps, data.dtype)


# -- phase: a value is sent as its binary digits, in sequence ----------------------------------------------------------

MOST_DIGITS = 24
"""Binary digits of the mantissa of float32."""


def phase(data: Tensor, num_steps: int, period: int = 8, weighted: bool = True) -> Tensor:
    """Send the binary digits of the data, most significant first, and repeat them with the given period.

    With the digits d_1 ... d_K of min(floor(2^K * data), 2^K - 1), K = period, and k = 1 + t mod K:

    spk[t] = d_k * 2^-k, or d_k if not weighted.

    The weighted spikes of one period add up to the data, rounded down to K digits. With K = 8, the value b / 255 has
    the digits of the byte b.

    Args:
        data: values in [0, 1], [*S].
        num_steps: T.
        period: K, 1 to 24. Default: 8.
        weighted: if False, all spikes are 1, and the next layer has to weight them. Default: True.

    Returns:
        spk [T, *S].

    Raises:
        ValueError: for data outside [0, 1] or NaN, or a period outside 1 to 24.

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
        raise ValueError(f"period is {period}; pass at most {MOST_DIGITS}, the binary digits of float32")
    number = (computable(data) * 2**period).long().clamp(max=2**period - 1)
    place = over_time(number, steps) % period
    digits: Tensor = (number >> (period - 1 - place) & 1).to(data.dtype)
    weights = torch.tensor([0.5**k for k in range(1, period + 1)], dtype=data.dtype, device=data.device)
    return digits.mul_(weights[place]) if weighted else digits


# -- burst: a value sets the number of spikes and their interval -------------------------------------------------------


def burst(
    data: Tensor,
    num_steps: int,
    max_spikes: int = 5,
    min_interval: int = 2,
    max_interval: int | None = None,
    first_spike_time: int = 0,
) -> Tensor:
    """Fire one burst per element. Larger values give more spikes at shorter intervals.

    | what     |                                                                             |
    | -------- | --------------------------------------------------------------------------- |
    | spikes   | n = ceil(max_spikes * data)                                                 |
    | interval | i = ceil(max_interval - (max_interval - min_interval) * data)               |

    spk[t] = 1 at t = first_spike_time + j * i for j = 0, ..., n - 1, else 0.

    Args:
        data: values in [0, 1], [*S].
        num_steps: T.
        max_spikes: number of spikes for the value 1. Default: 5.
        min_interval: interval in steps for the value 1, at least 1. Default: 2.
        max_interval: interval for values near 0. Default: the largest for which every burst ends within num_steps.
        first_spike_time: step of the first spike. Default: 0.

    Returns:
        spk [T, *S].

    Raises:
        ValueError: for data outside [0, 1] or NaN; if min_interval > max_interval; if a burst could exceed num_steps.

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
    gaps, free = spikes - 1, steps - 1 - first
    most = whole(max_interval, "max_interval") if max_interval is not None else free // gaps if gaps else least
    if most < least or gaps * most > free:
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

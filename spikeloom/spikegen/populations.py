"""Population coding: a number is the activity of several neurons, each tuned to a value of its own."""

import torch
from torch import Tensor

from ._inputs import computable, floating, whole
from ._trains import single_spikes
from .rates import rate


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
    | centre   | c_i = low + (2 i - 3) / 2 * (high - low) / (m - 2)           |
    | width    | sigma = (high - low) / (beta * (m - 2))                      |
    | response | r_i = exp(-(data - c_i)^2 / (2 sigma^2)), 1 at the centre    |

    The first and the last centre lie outside of the range, so that its ends are covered like the rest.

    Args:
        data: numbers [*S].
        num_neurons: m, at least 3.
        low: the low end of the range; a number, or a tensor that broadcasts over [*S].
        high: the high end; likewise.
        beta: how narrow the fields are.

    Returns:
        responses [*S, m], 0 to 1, in the dtype of the data (integers: the default dtype) and on their device.

    Raises:
        TypeError: for data that are no tensor, or num_neurons that is not whole.
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
    centres = (torch.arange(neurons, dtype=scaled.dtype, device=data.device) - 0.5) / (neurons - 2)
    return torch.exp(-0.5 * ((scaled - centres) * (beta * (neurons - 2))) ** 2).to(data.dtype)


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
        data: numbers [*S].
        num_steps: T.
        num_neurons: m, at least 3.
        low: the low end of the range; a number, or a tensor that broadcasts over [*S].
        high: the high end; likewise.
        beta: how narrow the fields are.
        code: "latency" or "rate".
        generator: where the random numbers of the rate code come from; None is torch's own.

    Returns:
        spk [T, *S, m], in the dtype of the data (integers: the default dtype) and on their device; `spk.flatten(2)` of
        data [B, N] is what a Linear of N * m inputs takes.

    Raises:
        TypeError: for data that are no tensor, or a number of steps or neurons that is not whole.
        ValueError: as `receptive_fields` does; for another code, for num_steps below 1, or NaN in the data.

    Source: Bohte, Kok and La Poutré, "Error-backpropagation in temporally encoded networks of spiking neurons", 2002;
    there T is 10, and the latest do not fire.

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

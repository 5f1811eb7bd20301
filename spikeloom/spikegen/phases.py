"""Phase coding: a number is its binary digits, told one after another and again and again."""

import torch
from torch import Tensor

from ._inputs import between, computable, floating, whole
from ._trains import over_time

MOST = 24
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
        spk [T, *S], in the dtype of the data (integers: the default dtype) and on their device.

    Raises:
        TypeError: for data that are no tensor, or a number of steps that is not whole.
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
    if whole(period, "period", least=1) > MOST:
        raise ValueError(f"period is {period}; pass at most {MOST}, the digits that float32 holds")
    number = (computable(data) * 2**period).long().clamp(max=2**period - 1)
    place = over_time(number, steps) % period
    digits: Tensor = (number >> (period - 1 - place) & 1).to(data.dtype)
    weights = torch.tensor([0.5**k for k in range(1, period + 1)], dtype=data.dtype, device=data.device)
    return digits.mul_(weights[place]) if weighted else digits

"""Delta modulation: a spike where the data change."""

import torch
from torch import Tensor

from ._inputs import checked

UNSIGNED = (torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
LARGE = (torch.int32, torch.int64, torch.uint32, torch.uint64)
"""Integers that float32 does not hold."""


def delta(data: Tensor, threshold: float | Tensor = 0.1, padding: bool = False, off_spike: bool = False) -> Tensor:
    """A spike where the data rise by the threshold or more from one step to the next.

    With change[t] = data[t] - data[t-1], and data[-1] = 0:

    spk[t] = H(change[t] - threshold) - off_spike * H(-change[t] - threshold), where H(0) = 1.

    Args:
        data: a sequence, [T, *S].
        threshold: the change that makes a spike; a number, or a tensor that broadcasts over [T, *S].
        padding: if True, data[-1] is data[0]: no spike at the first step, unless the threshold is 0 or less.
        off_spike: if True, there is a spike of -1 where the data fall by the threshold or more.

    Returns:
        spk [T, *S], in the dtype of the data and on their device. Unsigned integers and bools, which hold no -1, become
        the default dtype.

    Raises:
        TypeError: for data that are no tensor.
        ValueError: for a single number, which has no time.

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

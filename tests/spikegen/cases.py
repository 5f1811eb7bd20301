"""Every code as a row: its function, its module, the same options for both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spikeloom import spikegen


@dataclass(frozen=True)
class Code:
    """One way to make spikes of numbers.

    Args:
        name: of the function.
        options: its arguments after the data.
        sequence: whether dimension 0 of the data is time already.
        added: dimensions that the code puts behind those of the data.
        random: whether it draws.
        timed: whether time is put in front.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sequence: bool = False
    added: tuple[int, ...] = ()
    random: bool = False
    timed: bool = True

    def __call__(self, data: Tensor, **options: Any) -> Tensor:
        return getattr(spikegen, self.name)(data, **{**self.options, **options})

    def module(self, **options: Any) -> spikegen.Encoder:
        kind = "".join(part.capitalize() for part in self.name.split("_"))
        return getattr(spikegen, kind)(**{**self.options, **options})

    def shape(self, data: Tensor) -> tuple[int, ...]:
        """What its spikes of data [*S] have."""
        lead = (T,) if self.timed and not self.sequence else ()
        return (*lead, *data.shape, *self.added)


T = 10
CODES: dict[str, Code] = {
    "rate": Code("rate", {"num_steps": T, "gain": 0.8, "offset": 0.1}, random=True),
    "rate, late": Code("rate", {"num_steps": T, "first_spike_time": 3}, random=True),
    "rate_conv": Code("rate_conv", random=True, timed=False),
    "latency": Code("latency", {"num_steps": T, "normalize": True}),
    "latency, linear": Code("latency", {"num_steps": T, "normalize": True, "linear": True, "clip": True}),
    "latency, ramps": Code("latency", {"num_steps": T, "normalize": True, "linear": True, "interpolate": True}),
    "latency, stretched": Code("latency", {"num_steps": T, "normalize": True, "stretch": True, "first_spike_time": 2}),
    "delta": Code("delta", {"threshold": 0.2, "off_spike": True}, sequence=True),
    "population": Code("population", {"num_steps": T, "num_neurons": 5}, added=(5,)),
    "population, drawn": Code(
        "population", {"num_steps": T, "num_neurons": 4, "code": "rate"}, added=(4,), random=True
    ),
    "phase": Code("phase", {"num_steps": T, "period": 4}),
    "burst": Code("burst", {"num_steps": T, "max_spikes": 4}),
}


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers from 0 to 1, the same at every call."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(2)).to(dtype)

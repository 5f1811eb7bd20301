"""Layers that are driven by spikes: products that skip zeros, and when to take them, norms in them, and pooling."""

import sys
from types import ModuleType
from typing import Any

from . import spike_linear
from .accelerating import PLAIN as PLAIN
from .accelerating import accelerate as accelerate
from .convolution import SpikeConv2d as SpikeConv2d
from .folding import SpikeSequential as SpikeSequential
from .pooling import SpikeAvgPool2d as SpikeAvgPool2d
from .pooling import SpikeMaxPool2d as SpikeMaxPool2d
from .spike_linear import DENSE_ABOVE as DENSE_ABOVE
from .spike_linear import LISTING as LISTING
from .spike_linear import NARROW_FROM as NARROW_FROM
from .spike_linear import SpikeLinear as SpikeLinear


class _Package(ModuleType):
    """This package: the limits of products can be set here, and are then set where they are read."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("DENSE_ABOVE", "LISTING", "NARROW_FROM"):
            setattr(spike_linear, name, value)


sys.modules[__name__].__class__ = _Package

"""Layers that are driven by spikes: products that skip zeros, and when to take them, norms in them, and pooling."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import spike_linear
from .accelerating import PLAIN as PLAIN
from .accelerating import accelerate as accelerate
from .convolution import SpikeConv2d as SpikeConv2d
from .folding import SpikeSequential as SpikeSequential
from .pooling import SpikeAvgPool2d as SpikeAvgPool2d
from .pooling import SpikeMaxPool2d as SpikeMaxPool2d
from .spike_linear import SpikeLinear as SpikeLinear

if TYPE_CHECKING:
    from .spike_linear import DENSE_ABOVE as DENSE_ABOVE
    from .spike_linear import LISTING as LISTING
    from .spike_linear import NARROW_FROM as NARROW_FROM

LIMITS = ("DENSE_ABOVE", "LISTING", "NARROW_FROM")
"""What a user may set in this package: the limits of products, which `spike_linear` reads."""


class _Package(ModuleType):
    """This package. A limit that is set here is set where it is read, not in a copy."""

    def __getattr__(self, name: str) -> Any:
        if name in LIMITS:
            return getattr(spike_linear, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in LIMITS:
            setattr(spike_linear, name, value)
        else:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

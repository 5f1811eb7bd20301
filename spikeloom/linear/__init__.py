"""Linear layers that are driven by spikes: products that skip zeros, and when to take them."""

from .accelerating import DENSE_ABOVE as DENSE_ABOVE
from .accelerating import SpikeLinear as SpikeLinear
from .accelerating import accelerate as accelerate

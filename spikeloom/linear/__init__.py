"""Linear layers that are driven by spikes: products that skip zeros, and when to take them."""

from .accelerating import accelerate as accelerate
from .spike_linear import DENSE_ABOVE as DENSE_ABOVE
from .spike_linear import LISTING as LISTING
from .spike_linear import SpikeLinear as SpikeLinear

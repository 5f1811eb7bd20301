"""Layers that are driven by spikes: products that skip zeros, and when to take them, norms in them, and pooling."""

from .accelerating import PLAIN as PLAIN
from .accelerating import accelerate as accelerate
from .convolution import SpikeConv2d as SpikeConv2d
from .folding import SpikeSequential as SpikeSequential
from .plan import Plan as Plan
from .plan import reported as reported
from .pooling import SpikeAvgPool2d as SpikeAvgPool2d
from .pooling import SpikeMaxPool2d as SpikeMaxPool2d
from .spike_linear import SpikeLinear as SpikeLinear

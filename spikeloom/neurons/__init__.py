"""The layers: snnTorch's neurons as nn.Modules, each a short shell around a cell."""

from ._lif import LIF as LIF
from ._neuron import SpikingNeuron as SpikingNeuron
from .alpha import Alpha as Alpha
from .delta_leaky import DeltaLeaky as DeltaLeaky
from .lapicque import Lapicque as Lapicque
from .leaky import Leaky as Leaky
from .rleaky import RLeaky as RLeaky
from .rsynaptic import RSynaptic as RSynaptic
from .synaptic import Synaptic as Synaptic

"""The layers: snnTorch's neurons as nn.Modules, each a short shell around a cell."""

from ._lif import LIF as LIF
from ._neuron import SpikingNeuron as SpikingNeuron
from .leaky import Leaky as Leaky

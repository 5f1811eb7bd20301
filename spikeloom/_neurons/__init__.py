"""snnTorch's module paths of the neurons, such as `spikeloom._neurons.leaky`: other names of the files of `neurons`."""

import sys
from importlib import import_module

from ..neurons import LIF as LIF
from ..neurons import SLSTM as SLSTM
from ..neurons import Alpha as Alpha
from ..neurons import AssociativeLeaky as AssociativeLeaky
from ..neurons import DeltaLeaky as DeltaLeaky
from ..neurons import Lapicque as Lapicque
from ..neurons import Leaky as Leaky
from ..neurons import LeakyParallel as LeakyParallel
from ..neurons import LinearLeaky as LinearLeaky
from ..neurons import RLeaky as RLeaky
from ..neurons import RSynaptic as RSynaptic
from ..neurons import SConv2dLSTM as SConv2dLSTM
from ..neurons import SpikingNeuron as SpikingNeuron
from ..neurons import StateLeaky as StateLeaky
from ..neurons import Synaptic as Synaptic

_FILES = {
    "neurons": "neurons",
    **{name: f"neurons.{name}" for name in ("alpha", "lapicque", "leaky", "synaptic")},
    **dict.fromkeys(("rleaky", "rsynaptic"), "neurons.recurrent"),
    **dict.fromkeys(("slstm", "sconv2dlstm"), "neurons.lstm"),
    **dict.fromkeys(("stateleaky", "linearleaky"), "neurons.state_leaky"),
    "associative": "neurons.associative_leaky",
    "deltaleaky": "neurons.delta_leaky",
    **dict.fromkeys(("leakyparallel", "leakykernel", "leakyunroll"), "neurons.leaky_parallel"),
}
MODULES = {name: import_module(f"..{file}", __name__) for name, file in _FILES.items()}
globals().update(MODULES)
# so that `import spikeloom._neurons.leaky` finds them
sys.modules.update({f"{__name__}.{name}": module for name, module in MODULES.items()})

"""The layers: snnTorch's neurons as nn.Modules, each a short shell around a cell."""

from ._equation import EquationNeuron as EquationNeuron
from ._equation import cell as cell
from ._equation import charge as charge
from ._lif import LIF as LIF
from ._neuron import SpikingNeuron as SpikingNeuron
from .alpha import Alpha as Alpha
from .delta_leaky import DeltaLeaky as DeltaLeaky
from .further import ALIF as ALIF
from .further import EIF as EIF
from .further import IF as IF
from .further import LI as LI
from .further import QIF as QIF
from .further import AdLIF as AdLIF
from .further import CuBaLIF as CuBaLIF
from .further import Izhikevich as Izhikevich
from .further import ParametricLIF as ParametricLIF
from .further import ResonateFire as ResonateFire
from .lapicque import Lapicque as Lapicque
from .leaky import Leaky as Leaky
from .noisy_leaky import NoisyLeaky as NoisyLeaky
from .rleaky import RLeaky as RLeaky
from .rsynaptic import RSynaptic as RSynaptic
from .synaptic import Synaptic as Synaptic

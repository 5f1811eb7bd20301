"""Spiking neurons as PyTorch layers, each written once as an equation and run step by step or over all time at once."""

import importlib
from typing import Any

from . import layers as layers
from . import surrogate as surrogate
from .accelerated import accelerate as accelerate
from .alias import as_snntorch as as_snntorch
from .engine.run import backend as backend
from .engine.tuning import tuning as tuning
from .inspect import Diagnosis as Diagnosis
from .inspect import Explanation as Explanation
from .inspect import diagnose as diagnose
from .inspect import explain as explain
from .inspect import tap as tap
from .layers import BatchNormTT1d as BatchNormTT1d
from .layers import BatchNormTT2d as BatchNormTT2d
from .layers import DelayedLinear as DelayedLinear
from .layers import GradedSpikes as GradedSpikes
from .layers import SynapticDelay as SynapticDelay
from .network import stream as stream
from .network import unroll as unroll
from .neurons import ALIF as ALIF
from .neurons import EIF as EIF
from .neurons import IF as IF
from .neurons import LI as LI
from .neurons import LIF as LIF
from .neurons import QIF as QIF
from .neurons import SLSTM as SLSTM
from .neurons import AdLIF as AdLIF
from .neurons import Alpha as Alpha
from .neurons import AssociativeLeaky as AssociativeLeaky
from .neurons import CuBaLIF as CuBaLIF
from .neurons import DeltaLeaky as DeltaLeaky
from .neurons import EquationNeuron as EquationNeuron
from .neurons import Izhikevich as Izhikevich
from .neurons import Lapicque as Lapicque
from .neurons import Leaky as Leaky
from .neurons import LeakyParallel as LeakyParallel
from .neurons import LinearLeaky as LinearLeaky
from .neurons import NoisyLeaky as NoisyLeaky
from .neurons import ParametricLIF as ParametricLIF
from .neurons import ResonateFire as ResonateFire
from .neurons import RLeaky as RLeaky
from .neurons import RSynaptic as RSynaptic
from .neurons import SConv2dLSTM as SConv2dLSTM
from .neurons import SpikingNeuron as SpikingNeuron
from .neurons import StateLeaky as StateLeaky
from .neurons import Synaptic as Synaptic
from .neurons import cell as cell
from .neurons import charge as charge

__version__ = "0.1.0"

for _public in list(globals().values()):  # pickles hold the path of a class, which stays when its file moves
    if isinstance(_public, type) and _public.__module__.startswith(f"{__name__}."):
        _public.__module__ = __name__

_LAZY_MODULES = {"_layers", "_neurons", "backprop", "distributed", "functional", "spikegen", "spikeplot", "utils"}


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f".{name}", __name__)
    for package in ("_neurons", "_layers"):  # snnTorch has their modules at its top, too
        modules = importlib.import_module(f".{package}", __name__).MODULES
        if name in modules:
            return modules[name]
    raise AttributeError(f"module 'spikeloom' has no attribute {name!r}")

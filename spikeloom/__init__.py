"""Spiking neurons as PyTorch layers, each written once as an equation and run step by step or over all time at once."""

from functools import partial as _partial
from types import ModuleType as _Module
from typing import TYPE_CHECKING, Any

from . import (
    _layers,
    _neurons,
    backprop,
    data,
    distributed,
    export,
    export_nir,
    functional,
    import_nir,
    layers,
    metrics,
    ops,
    spikegen,
    spikeplot,
    surrogate,
    utils,
)
from .accelerated import accelerate
from .alias import NO_DATASETS as _NO_DATASETS
from .alias import as_snntorch
from .engine.run import backend
from .engine.tuning import tuning
from .export import OnnxExport, export_c, export_onnx, export_to_nir, import_from_nir
from .inspect import Diagnosis, Explanation, Finding, Recording, Summary, Tap, diagnose, explain, summary, tap
from .layers import BatchNormTT1d, BatchNormTT2d, DelayedLinear, GradedSpikes, SynapticDelay
from .network import FusedExplanation, fuse, stream, unroll
from .neurons import (
    ALIF,
    EIF,
    IF,
    LI,
    LIF,
    QIF,
    RALIF,
    SLSTM,
    AdLIF,
    Alpha,
    AssociativeLeaky,
    CuBaLIF,
    DeltaLeaky,
    EquationNeuron,
    Izhikevich,
    Lapicque,
    Leaky,
    LeakyParallel,
    LinearLeaky,
    NoisyLeaky,
    ParametricLIF,
    ResonateFire,
    RLeaky,
    RSynaptic,
    SConv2dLSTM,
    SpikingNeuron,
    StateLeaky,
    Synaptic,
    cell,
    charge,
)
from .utils import detach, reset

__version__ = "0.1.0"

__all__ = [
    "ALIF",
    "EIF",
    "IF",
    "LI",
    "LIF",
    "QIF",
    "RALIF",
    "SLSTM",
    "AdLIF",
    "Alpha",
    "AssociativeLeaky",
    "BatchNormTT1d",
    "BatchNormTT2d",
    "CuBaLIF",
    "DelayedLinear",
    "DeltaLeaky",
    "Diagnosis",
    "EquationNeuron",
    "Explanation",
    "Finding",
    "FusedExplanation",
    "GradedSpikes",
    "Izhikevich",
    "Lapicque",
    "Leaky",
    "LeakyParallel",
    "LinearLeaky",
    "NoisyLeaky",
    "OnnxExport",
    "ParametricLIF",
    "RLeaky",
    "RSynaptic",
    "Recording",
    "ResonateFire",
    "SConv2dLSTM",
    "SpikingNeuron",
    "StateLeaky",
    "Summary",
    "Synaptic",
    "SynapticDelay",
    "Tap",
    "accelerate",
    "as_snntorch",
    "backend",
    "backprop",
    "cell",
    "charge",
    "data",
    "detach",
    "diagnose",
    "distributed",
    "explain",
    "export",
    "export_c",
    "export_nir",
    "export_onnx",
    "export_to_nir",
    "functional",
    "fuse",
    "import_from_nir",
    "import_nir",
    "layers",
    "metrics",
    "ops",
    "reset",
    "spikegen",
    "spikeplot",
    "stream",
    "summary",
    "surrogate",
    "tap",
    "tuning",
    "unroll",
    "utils",
]

for _public in list(globals().values()):  # pickles hold the path of a class, which stays when its file moves
    if isinstance(_public, type) and _public.__module__.startswith(f"{__name__}."):
        _public.__module__ = __name__


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


for _module in [globals()[name] for name in __all__] + [vars(functional)[name] for name in functional.__all__]:
    if isinstance(_module, _Module):
        vars(_module)["__dir__"] = _partial(sorted, _module.__all__)  # completion shows what is public


if not TYPE_CHECKING:  # so that a type checker reports a name that does not exist

    def __getattr__(name: str) -> Any:
        if name == "spikevision":
            raise AttributeError(_NO_DATASETS)
        modules = _neurons.MODULES | _layers.MODULES  # snnTorch has these modules at its top level, too
        if name in modules:
            return modules[name]
        raise AttributeError(f"module 'spikeloom' has no attribute {name!r}")

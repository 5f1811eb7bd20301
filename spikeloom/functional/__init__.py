"""Losses, accuracies, penalties, quantization, monitors and local learning rules for spiking networks."""

from . import acc as acc
from . import loss as loss
from . import probe as probe
from . import quant as quant
from . import reg as reg
from . import stdp_learner as stdp_learner
from .acc import accuracy_rate as accuracy_rate
from .acc import accuracy_temporal as accuracy_temporal
from .loss import LossFunctions as LossFunctions
from .loss import SpikeTime as SpikeTime
from .loss import ce_count_loss as ce_count_loss
from .loss import ce_max_membrane_loss as ce_max_membrane_loss
from .loss import ce_rate_loss as ce_rate_loss
from .loss import ce_temporal_loss as ce_temporal_loss
from .loss import mse_count_loss as mse_count_loss
from .loss import mse_membrane_loss as mse_membrane_loss
from .loss import mse_temporal_loss as mse_temporal_loss
from .probe import AttributeMonitor as AttributeMonitor
from .probe import BaseMonitor as BaseMonitor
from .probe import GradInputMonitor as GradInputMonitor
from .probe import GradOutputMonitor as GradOutputMonitor
from .probe import InputMonitor as InputMonitor
from .probe import OutputMonitor as OutputMonitor
from .probe import unpack_len1_tuple as unpack_len1_tuple
from .reg import l1_rate_sparsity as l1_rate_sparsity
from .reg import rate_lower_bound as rate_lower_bound
from .reg import rate_upper_bound as rate_upper_bound

__all__ = [
    "AttributeMonitor", "BaseMonitor", "GradInputMonitor", "GradOutputMonitor", "InputMonitor", "LossFunctions",
    "OutputMonitor", "SpikeTime", "acc", "accuracy_rate", "accuracy_temporal", "ce_count_loss",
    "ce_max_membrane_loss", "ce_rate_loss", "ce_temporal_loss", "l1_rate_sparsity", "loss", "mse_count_loss",
    "mse_membrane_loss", "mse_temporal_loss", "probe", "quant", "rate_lower_bound", "rate_upper_bound", "reg",
    "stdp_learner", "unpack_len1_tuple",
]  # fmt: skip

for _public in list(globals().values()):  # pickles store the module of a class; this one is stable
    if isinstance(_public, type) and _public.__module__.startswith(f"{__name__}."):
        _public.__module__ = __name__

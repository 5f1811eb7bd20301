"""Losses on spikes and membranes: nn.Modules called with a sequence [T, B, C] and class labels [B]."""

from .._spike_times import SpikeTime as SpikeTime
from ._base import LossFunctions as LossFunctions
from ._cross_entropy import ce_count_loss as ce_count_loss
from ._cross_entropy import ce_max_membrane_loss as ce_max_membrane_loss
from ._cross_entropy import ce_rate_loss as ce_rate_loss
from ._cross_entropy import ce_temporal_loss as ce_temporal_loss
from ._squared import mse_count_loss as mse_count_loss
from ._squared import mse_membrane_loss as mse_membrane_loss
from ._squared import mse_temporal_loss as mse_temporal_loss

__all__ = [
    "LossFunctions", "SpikeTime", "ce_count_loss", "ce_max_membrane_loss", "ce_rate_loss", "ce_temporal_loss",
    "mse_count_loss", "mse_membrane_loss", "mse_temporal_loss",
]  # fmt: skip

"""Layers that see time and are no neurons: a norm per step, delays, graded spikes."""

from ._over_time import SEES_TIME as SEES_TIME
from ._over_time import OverTime as OverTime
from .batch_norm import BatchNormTT1d as BatchNormTT1d
from .batch_norm import BatchNormTT2d as BatchNormTT2d
from .delays import DelayedLinear as DelayedLinear
from .delays import SynapticDelay as SynapticDelay
from .graded_spikes import GradedSpikes as GradedSpikes

__all__ = ["BatchNormTT1d", "BatchNormTT2d", "DelayedLinear", "GradedSpikes", "OverTime", "SynapticDelay"]

"""Plots of spikes, membranes and training: rasters, traces, spike counts, learning curves, animations."""

from ._animations import Camera as Camera
from ._animations import animator as animator
from ._animations import spike_count as spike_count
from ._figures import confusion_matrix as confusion_matrix
from ._figures import learning_curve as learning_curve
from ._figures import raster as raster
from ._figures import traces as traces

__all__ = ["Camera", "animator", "confusion_matrix", "learning_curve", "raster", "spike_count", "traces"]

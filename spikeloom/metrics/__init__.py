"""Measure a network: NeuroBench's metrics, operations and energy, from one unrolled run."""

from ._connections import connection_sparsity as connection_sparsity
from ._connections import footprint as footprint
from ._connections import parameter_count as parameter_count
from ._energy import COEFFICIENTS as COEFFICIENTS
from ._energy import Coefficients as Coefficients
from ._energy import Energy as Energy
from ._measure import measure as measure
from ._operations import neuron_operations as neuron_operations
from ._report import LayerMeasurement as LayerMeasurement
from ._report import Measurement as Measurement

__all__ = [
    "COEFFICIENTS", "Coefficients", "Energy", "LayerMeasurement", "Measurement", "connection_sparsity", "footprint",
    "measure", "neuron_operations", "parameter_count",
]  # fmt: skip

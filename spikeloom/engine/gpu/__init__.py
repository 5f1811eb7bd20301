"""Run scans over time as Triton kernels. They are tested in Triton's interpreter, not yet on a GPU."""

from . import cuda_graphs as cuda_graphs
from . import launch as launch
from . import recurrent as recurrent
from .cuda_graphs import CapturedScan as CapturedScan

"""The scan over time as Triton kernels. No device has run them yet."""

from . import cuda_graphs as cuda_graphs
from . import launch as launch
from . import recurrent as recurrent
from .cuda_graphs import CapturedScan as CapturedScan

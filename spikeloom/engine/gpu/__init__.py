"""The scan over time as Triton kernels. No device has run them yet."""

from . import captured_scan as captured_scan
from . import cuda_graphs as cuda_graphs
from . import launch as launch
from . import recurrent as recurrent

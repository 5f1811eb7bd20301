"""The scan over time as Numba kernels."""

from . import launch as launch
from . import recurrent as recurrent
from . import single_step as single_step
from .launch import Outputs as Outputs
from .launch import all_traces as all_traces
from .launch import elements_recomputed as elements_recomputed
from .source import TEMPLATES as TEMPLATES
from .source import Names as Names

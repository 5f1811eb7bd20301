"""The benchmark: this registry of cases, and one runner that times no contestant which disagrees with its reference.

A new case is a `Case` in a file of its own, and its name here.
"""

from collections.abc import Mapping

from .leaky import LEAKY, THREADS
from .losses import LOSSES
from .lstm import LSTMS
from .networks import NETWORKS
from .neurons import NEURONS
from .parallel import PARALLEL
from .quant import QUANT
from .recurrent import RECURRENT
from .runner import Case
from .start import START

EVERY = (LEAKY, *NEURONS, *LSTMS, *PARALLEL, RECURRENT, *NETWORKS, THREADS, START, *LOSSES, QUANT)
CASES: Mapping[str, Case] = {case.name: case for case in EVERY}

"""The registry of benchmark cases. The runner does not time a contestant that disagrees with its reference.

To add a case, define a `Case` in a new file and add its name here.
"""

from collections.abc import Mapping

from .feedforward import CONVOLUTION, FEEDFORWARD, INFERENCE, LINEAR
from .fused import FUSE
from .half import HALF
from .latency import LATENCY
from .leaky import LEAKY, LONG, SPIKES, STEP
from .losses import LOSSES
from .lstm import LSTMS
from .neurons import NEURONS
from .parallel import PARALLEL
from .quant import QUANT
from .recurrent import RECURRENT, RECURRENT_WIDE
from .runner import Case
from .start import START
from .threads import THREADS
from .tutorial import TUTORIAL

SUITE = (LEAKY, STEP, LONG, *FEEDFORWARD, TUTORIAL, RECURRENT, LATENCY)
EVERY = (*SUITE, FUSE, RECURRENT_WIDE, SPIKES, HALF, *NEURONS, *LSTMS, *PARALLEL, *LOSSES, QUANT, THREADS, START)
CASES: Mapping[str, Case] = {case.name: case for case in EVERY}
ON_GPU = (LEAKY, STEP, SPIKES, HALF, LINEAR, INFERENCE, CONVOLUTION, RECURRENT, RECURRENT_WIDE, START)
"""Those that can run on a GPU."""

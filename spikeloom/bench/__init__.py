"""The benchmark: this registry of cases, and one runner that times no contestant which disagrees with its reference.

A new case is a `Case` in a file of its own, and its name here.
"""

from collections.abc import Mapping

from .leaky import LEAKY, THREADS
from .neurons import NEURONS
from .recurrent import RECURRENT
from .runner import Case
from .start import START

CASES: Mapping[str, Case] = {case.name: case for case in (LEAKY, *NEURONS, RECURRENT, THREADS, START)}

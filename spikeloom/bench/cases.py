"""The registry: every case by name. A new one is a file with its `Case`, and a line here."""

from collections.abc import Mapping

from .case import Case
from .leaky import LEAKY
from .start import START

CASES: Mapping[str, Case] = {case.name: case for case in (LEAKY, START)}

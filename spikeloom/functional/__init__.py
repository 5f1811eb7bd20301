"""Losses, accuracies, quantisation, probes and local learning rules for spiking networks."""

from .probe import AttributeMonitor as AttributeMonitor
from .probe import BaseMonitor as BaseMonitor
from .probe import GradInputMonitor as GradInputMonitor
from .probe import GradOutputMonitor as GradOutputMonitor
from .probe import InputMonitor as InputMonitor
from .probe import OutputMonitor as OutputMonitor
from .probe import unpack_len1_tuple as unpack_len1_tuple

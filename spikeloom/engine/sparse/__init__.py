"""Spikes times weights: products, convolutions and pooling that skip zeros."""

from . import conv as conv
from . import counting as counting
from . import csr as csr
from . import delays as delays
from . import pooling as pooling
from .kernel import importing as importing
from .kernel import row_kernel as row_kernel
from .pooling import Pair as Pair
from .pooling import Windows as Windows

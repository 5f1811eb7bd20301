"""Spikes times weights: products, convolutions and pooling that skip zeros."""

from . import bitpack as bitpack
from . import conv as conv
from . import csr as csr
from . import narrow as narrow
from . import pooling as pooling
from .conv import Patch as Patch
from .csr import importing as importing
from .pooling import Pair as Pair
from .pooling import Windows as Windows
from .pooling import lies_channels_last as lies_channels_last
from .pooling import pooled_gradient as pooled_gradient

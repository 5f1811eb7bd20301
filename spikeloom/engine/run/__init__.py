"""One call of a neuron: the reference loop, the choice of a backend, and autograd."""

from .backends import Refused as Refused
from .backends import backend as backend
from .backends import choose as choose
from .backends import families as families
from .backends import forced as forced
from .backends import kernel_at_hand as kernel_at_hand
from .backends import numba_missing as numba_missing
from .backends import seen_through as seen_through
from .call import Call as Call
from .exported import recorded_scan as recorded_scan
from .matrix import MATRICES as MATRICES
from .matrix import MatrixCall as MatrixCall
from .matrix import by_steps as by_steps
from .reference import Trajectory as Trajectory

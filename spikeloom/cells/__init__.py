"""The equations: one model, one short file."""

from .alpha import ALPHA as ALPHA
from .delta_leaky import DELTA_LEAKY as DELTA_LEAKY
from .firing import AnyModel
from .lapicque import LAPICQUE as LAPICQUE
from .leaky import LEAKY as LEAKY
from .leaky import RLEAKY as RLEAKY
from .synaptic import RSYNAPTIC as RSYNAPTIC
from .synaptic import SYNAPTIC as SYNAPTIC

MODELS: dict[str, AnyModel] = {
    "leaky": LEAKY,
    "rleaky": RLEAKY,
    "synaptic": SYNAPTIC,
    "rsynaptic": RSYNAPTIC,
    "lapicque": LAPICQUE,
    "alpha": ALPHA,
    "delta_leaky": DELTA_LEAKY,
}
"""Every model of the library by name; the test matrix is driven by it."""

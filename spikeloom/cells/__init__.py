"""The equations of the neurons, one short file per model."""

from .adaptive import ADAPTIVE_CURRENT, ADAPTIVE_THRESHOLD, RECURRENT_ADAPTIVE_THRESHOLD
from .alpha import ALPHA as ALPHA
from .associative import ASSOCIATIVE as ASSOCIATIVE
from .delta_leaky import DELTA_LEAKY as DELTA_LEAKY
from .firing import AnyModel
from .integrate import INTEGRATE_AND_FIRE, LEAKY_INTEGRATOR
from .lapicque import LAPICQUE as LAPICQUE
from .leaky import LEAKY as LEAKY
from .leaky import RLEAKY as RLEAKY
from .leaky_parallel import LEAKY_PARALLEL as LEAKY_PARALLEL
from .nonlinear import EXPONENTIAL, IZHIKEVICH, QUADRATIC
from .parametric import PARAMETRIC
from .refractory import REFRACTORY
from .resonate import RESONATE_AND_FIRE
from .state_leaky import STATE_LEAKY as STATE_LEAKY
from .state_leaky import STATE_LEAKY_EXACT as STATE_LEAKY_EXACT
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
    "integrate_and_fire": INTEGRATE_AND_FIRE,
    "leaky_integrator": LEAKY_INTEGRATOR,
    "parametric": PARAMETRIC,
    "adaptive_threshold": ADAPTIVE_THRESHOLD,
    "recurrent_adaptive_threshold": RECURRENT_ADAPTIVE_THRESHOLD,
    "adaptive_current": ADAPTIVE_CURRENT,
    "quadratic": QUADRATIC,
    "exponential_if": EXPONENTIAL,
    "izhikevich": IZHIKEVICH,
    "resonate_and_fire": RESONATE_AND_FIRE,
    "refractory": REFRACTORY,
    "state_leaky": STATE_LEAKY,
    "state_leaky_exact": STATE_LEAKY_EXACT,
    "leaky_parallel": LEAKY_PARALLEL,
    "associative": ASSOCIATIVE,
}
"""All models of the library by name. The tests iterate over it."""

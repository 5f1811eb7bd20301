"""Neurons beyond snnTorch's. Each follows from its equation, which stands in `cells/` with its paper."""

from ..cells.adaptive import ADAPTIVE_CURRENT, ADAPTIVE_THRESHOLD
from ..cells.integrate import INTEGRATE_AND_FIRE, LEAKY_INTEGRATOR
from ..cells.nonlinear import EXPONENTIAL, IZHIKEVICH, QUADRATIC
from ..cells.parametric import PARAMETRIC
from ..cells.refractory import REFRACTORY
from ..cells.resonate import RESONATE_AND_FIRE
from ._equation import made

ALIF = made("ALIF", __name__, ADAPTIVE_THRESHOLD)
AdLIF = made("AdLIF", __name__, ADAPTIVE_CURRENT)
CuBaLIF = made("CuBaLIF", __name__, REFRACTORY)
EIF = made("EIF", __name__, EXPONENTIAL)
IF = made("IF", __name__, INTEGRATE_AND_FIRE)
Izhikevich = made("Izhikevich", __name__, IZHIKEVICH)
LI = made("LI", __name__, LEAKY_INTEGRATOR)
ParametricLIF = made(
    "ParametricLIF", __name__, PARAMETRIC, ("beta",), decay="sigmoid", reset_mechanism="zero", reset_delay=False
)
QIF = made("QIF", __name__, QUADRATIC)
ResonateFire = made("ResonateFire", __name__, RESONATE_AND_FIRE)

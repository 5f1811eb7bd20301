"""A neuron alone in half precision, at the shapes for which SpikingJelly publishes times of its GPU kernel."""

from torch import Tensor

from .leaky import ALONE, FLOOR, LEAKY, STEPPED, TX, current, floor, spikes_alone, stepped
from .result import Shape
from .runner import Case

ROUNDED = 5e-3
"""The tolerance, and the share of numbers that may exceed it: the other library rounds its membranes to half precision
at every step, spikeloom's are float32."""


def half(shape: Shape) -> Tensor:
    """That of `leaky`, in half precision."""
    return current(shape).detach().half().requires_grad_()


HALF = Case(
    name="half",
    title="Leaky over [T, B, N], forward and backward, float16",
    axes=TX,
    shapes=tuple((steps, 64, 65536) for steps in (4, 8, 16, 32)),
    small=(12, 2, 3),
    inputs=half,
    contestants={ALONE: spikes_alone, STEPPED: stepped, FLOOR: floor},
    reference=STEPPED,
    ours=ALONE,
    floor=FLOOR,
    unchecked=(FLOOR,),
    peers={"SpikingJelly": LEAKY.peers["SpikingJelly"]},
    close=ROUNDED,
    flipped=ROUNDED,
)

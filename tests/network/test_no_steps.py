"""Zero steps change no state and have the shapes of steps, compiled and not."""

from collections.abc import Callable

import pytest
import torch

import spikeloom as snn

from ..layers.running import LAYERS
from ..neurons.zoo import ZOO

ALL = {
    **{name: (lambda kind=kind: kind.make(**kind.numbers), kind.shape) for name, kind in ZOO.items()},
    **{name: (kind.make, kind.shape) for name, kind in LAYERS.items()},
}


FEW = (
    "Leaky",
    "RSynaptic through Linear",
    "SLSTM",
    "DeltaLeaky",
    "ALIF",
    "BatchNormTT1d",
    "SynapticDelay",
    "DelayedLinear",
)
"""Those that torch.compile sees differently here."""


def kept(layer: torch.nn.Module) -> dict[str, torch.Tensor]:
    names = {"past", "step", *getattr(layer, "_state_names", tuple)()}
    return {name: torch.as_tensor(getattr(layer, name)).clone() for name in names if hasattr(layer, name)}


def shapes(outs: object) -> list[torch.Size]:
    return [out.shape for out in (outs if isinstance(outs, tuple) else (outs,)) if isinstance(out, torch.Tensor)]


def without_steps(name: str) -> tuple[Callable[[torch.Tensor], object], Callable[[], dict], list[torch.Tensor]]:
    """Unroll of a layer that has states, its states, and sequences of no steps: one as wide as before, one wider."""
    make, shape = ALL[name]
    layer = make()
    x = torch.rand(3, *shape)
    snn.unroll(layer, x)
    wider = torch.cat((x, x), 1) if len(shape) > 1 and "dimension 0" not in name else x
    return lambda x: snn.unroll(layer, x), lambda: kept(layer), [x[:0], wider[:0]]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore")
def test_no_steps_leave_the_states(name):
    unroll, states, sequences = without_steps(name)
    before = states()
    for nothing in sequences:
        assert all(shape[0] == 0 for shape in shapes(unroll(nothing)))
        after = states()
        assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.compile
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in ALL])
@pytest.mark.filterwarnings("ignore")
def test_no_steps_leave_the_states_under_torch_compile_too(name):
    """Every other layer with a sequence as wide as before, the others with a wider one."""
    torch._dynamo.reset()
    unroll, states, sequences = without_steps(name)
    before, nothing = states(), sequences[[*ALL].index(name) % 2]
    assert shapes(torch.compile(unroll, backend="eager")(nothing)) == shapes(unroll(nothing))
    after = states()
    assert all(torch.equal(before[key], after[key]) for key in before)

"""Zero steps change no state and have the shapes of steps, compiled and not."""

import warnings

import pytest
import torch

import spikeloom as snn

from ..layers.running import LAYERS
from ..neurons.zoo import ZOO

ALL = {
    **{name: (lambda kind=kind: kind.make(**kind.numbers), kind.shape) for name, kind in ZOO.items()},
    **{name: (kind.make, kind.shape) for name, kind in LAYERS.items()},
}


def kept(layer: torch.nn.Module) -> dict[str, torch.Tensor]:
    names = {"past", "step", *getattr(layer, "_state_names", tuple)()}
    return {name: torch.as_tensor(getattr(layer, name)).clone() for name in names if hasattr(layer, name)}


def shapes(outs: object) -> list[torch.Size]:
    return [out.shape for out in (outs if isinstance(outs, tuple) else (outs,)) if isinstance(out, torch.Tensor)]


@pytest.mark.parametrize("name", ALL)
def test_no_steps_leave_the_states_under_torch_compile_too(name):
    make, shape = ALL[name]
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = make()
        x = torch.rand(3, *shape)
        snn.unroll(layer, x)
        before = kept(layer)
        wider = torch.cat((x, x), 1) if len(shape) > 1 and "dimension 0" not in name else x
        for nothing in (x[:0], wider[:0]):
            compiled = torch.compile(lambda x: snn.unroll(layer, x), backend="eager")
            found = [shapes(run(nothing)) for run in (compiled, lambda x: snn.unroll(layer, x))]
            assert found[0] == found[1]
            after = kept(layer)
            assert all(torch.equal(before[key], after[key]) for key in before)

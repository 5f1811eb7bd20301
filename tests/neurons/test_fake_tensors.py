"""Tensors whose numbers are nowhere in memory: no kernel may read them."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import torch, spikeloom as snn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from tests.neurons.zoo import ZOO

MODE = FakeTensorMode(allow_non_fake_inputs=True)


def said(lif, x, unrolled, mode):
    with mode:
        outs = snn.unroll(lif, x) if unrolled else lif(x[0])
    spk = outs[0] if isinstance(outs, tuple) else outs
    return isinstance(spk, FakeTensor), spk.shape


for name in ("Leaky", "RLeaky through Linear", "SLSTM", "DeltaLeaky"):
    kind = ZOO[name]
    with MODE:
        fake = torch.ones(2, *kind.shape)
    real = torch.ones(2, *kind.shape)
    learned = {**kind.learn, "init_hidden": True}
    for options in ({}, learned) if name == "Leaky" else (learned,):
        with MODE:
            made = kind.make(**{**kind.numbers, **options})
        lif, twin = (kind.make(**{**kind.numbers, **options}) for _ in range(2))
        for unrolled in (False, True):
            shape = said(twin, real, unrolled, torch.no_grad())[1]
            both = (lif, fake, MODE), (lif, real, MODE), (made, fake, MODE), (made, real, MODE)
            for neuron, x, mode in (*both, (lif, fake, torch.no_grad())):
                got = said(neuron, x, unrolled, mode)
                assert got == (True, shape), (name, options, unrolled, got)
            snn.utils.reset(lif)
            assert said(lif, real, unrolled, torch.enable_grad()) == (False, shape), (name, options, unrolled)

lif, x = snn.Leaky(beta=0.7), torch.rand(2, 3)
spk, mem = lif(x)
with MODE:
    fakes = lif(x)[1]
assert torch.equal(lif(x, mem)[1], snn.Leaky(beta=0.7)(x, mem)[1])  # no constant of a kernel is fake
assert isinstance(lif(x, fakes)[1], FakeTensor)
print("right")
"""


def test_fake_tensors_do_not_reach_a_kernel():
    """In a process of its own, which crashed."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (run.returncode, run.stdout) == (0, "right\n"), run.stderr

"""Tensors whose numbers are nowhere in memory: no kernel may read them."""

import subprocess
import sys

SCRIPT = """
import torch, spikeloom as snn
from torch._subclasses.fake_tensor import FakeTensorMode

with FakeTensorMode(allow_non_fake_inputs=True):
    x = torch.ones(4, 2, 3)
for lif in (snn.Leaky(beta=0.9), snn.Synaptic(alpha=0.8, beta=0.9)):
    print(tuple(lif(x[0])[0].shape), tuple(snn.unroll(lif, x)[0].shape))
"""


def test_fake_tensors_do_not_reach_a_kernel():
    """In a process of its own, which crashed."""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True)
    assert (run.returncode, run.stdout.splitlines()) == (0, ["(2, 3) (4, 2, 3)"] * 2), run.stderr

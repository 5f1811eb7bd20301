"""The demo's network as C: its accuracy in integers, its counts in floating point, its test on an emulated board."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import spikeloom as snn
from spikeloom import demo
from tests.export.c.program import compiled, executed, needs_compiler

pytestmark = pytest.mark.slow

TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")
RUN = Path(__file__).parents[3] / "examples" / "cortex_m4" / "run.py"


@needs_compiler
@pytest.mark.parametrize("seed", [0, 1])
def test_integers_cost_at_most_half_a_point_and_floats_have_the_counts_of_the_library(seed, tmp_path):
    digits = demo.load()
    torch.manual_seed(seed)
    net = demo.network()
    demo.train(net, digits, epochs=5)
    net.eval()
    calibration = digits.train[: demo.BATCH]
    with torch.no_grad():
        spk = demo.unrolled(net, digits.test)
    whole = snn.export.simulate_int8(net, digits.test, steps=demo.STEPS, calibration=calibration)
    scores = [demo.correct(out, digits.test_labels) / len(digits.test) for out in (spk, whole)]
    assert scores[0] > 0.9
    assert scores[1] >= scores[0] - 0.005
    text = "\n".join(" ".join(map(repr, row)) for row in digits.test.tolist())
    for number, out in (("float", spk), ("int8", whole)):
        made = snn.export_c(net, calibration, tmp_path / f"{number}.c", number, steps=demo.STEPS)
        status, shown = executed(compiled(made.path, "-DNET_MAIN"), text)
        counts = torch.tensor([[float(n) for n in line.split()] for line in shown.splitlines()])
        assert status == 0
        differing = int((counts != out.sum(0)).sum())
        assert differing <= (0 if number == "int8" else 2), number  # single spikes flip where sums are rounded


@pytest.mark.skipif(any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs {' and '.join(TOOLS)}")
def test_the_generated_test_passes_on_an_emulated_cortex_m4():
    done = subprocess.run([sys.executable, str(RUN)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("0 of ") == 2

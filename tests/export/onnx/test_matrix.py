"""Streams and static inputs of every neuron and layer, in onnxruntime: call by call what `unroll` gives in one run."""

from typing import Any

import numpy as np
import pytest
import torch

import spikeloom as snn

from .branches import FEATURES, NAMES, Branches
from .test_export import assert_like, in_runtime, unrolled

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

ANEW = ("StateLeaky", "LinearLeaky", "LeakyParallel", "AssociativeLeaky", "NoisyLeaky")
"""Layers over whole sequences, which start anew at each call, and the one that draws noise."""
STREAMED = [name for name in NAMES if not name.startswith(ANEW)]
SOME = [
    "RSynaptic through Linear",
    "SLSTM",
    "a neuron of the user's",
    "SynapticDelay",
    "BatchNormTT1d",
    "DelayedLinear",
]
SOME += ["RLeaky through a network with states", "an overridden method", "Conv2d, BatchNorm2d, AvgPool2d"]

REST = [pytest.param(STREAMED[i::4], marks=pytest.mark.slow) for i in range(4)]
groups = pytest.mark.parametrize("names", [SOME, *REST], ids=lambda names: names[0])
STATIC = ["BatchNormTT1d", "an overridden method", "SynapticDelay"]
static_groups = pytest.mark.parametrize("names", [STATIC, *REST], ids=lambda names: names[0])


def streamed(path: Any, x: torch.Tensor, states: dict[str, Any], after: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outputs of a call, and the states for the next."""
    got = in_runtime(path, {"x": x, **states})
    return got, {name: got[key] for name, key in after.items()}


@groups
def test_a_stream_of_sequences_gives_the_spikes_of_one_run(names, tmp_path):
    """In calls of 3, 1 and 5 steps, for one row and for several."""
    net, path = Branches(names).eval(), tmp_path / "net.onnx"
    told = snn.export_onnx(net, torch.rand(4, 3, FEATURES), path, states="external", test=False)
    for rows in (1, 5):
        x, states, outs = torch.rand(9, rows, FEATURES), told.initial_states(rows), []
        for part in x.split((3, 1, 5)):
            got, states = streamed(path, part, states, told.states)
            outs.append(got)
        whole = {name: torch.cat([out[name] for out in outs]) for name in told.outputs if not name.endswith(".next")}
        assert_like(net, whole, unrolled(net, x))


@static_groups
def test_a_stream_of_a_static_input_gives_the_spikes_of_one_run(names, tmp_path):
    net, path = Branches(names).eval(), tmp_path / "net.onnx"
    told = snn.export_onnx(net, torch.rand(3, FEATURES), path, steps=4, states="external", test=False)
    for rows in (1, 5):
        x, states, outs = torch.rand(rows, FEATURES), told.initial_states(rows), []
        for steps in (4, 1, 3):
            got, states = streamed(path, x, {**states, "steps": np.array(steps)}, told.states)
            outs.append(got)
        whole = {name: torch.cat([out[name] for out in outs]) for name in told.outputs if not name.endswith(".next")}
        assert_like(net, whole, unrolled(net, x, 8))

"""The names of layers in C."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom.export.c import floats, identifiers, integers, writer
from tests.export.c.program import Program, needs_compiler
from tests.export.c.test_export import UNIT, grid, spikes

pytestmark = needs_compiler


@pytest.mark.parametrize("prefix", ["spike", "clamp", "times", "saturate", "sum_up"])
def test_a_prefix_is_no_function_of_the_file(prefix, tmp_path):
    net, x = nn.Sequential(nn.Linear(4, 4), snn.Leaky(0.5, **UNIT)), torch.rand(3, 1, 4)
    if prefix == "sum_up":
        assert snn.export_c(net, x, tmp_path / "net.c", prefix=prefix).prefix == prefix
        return
    with pytest.raises(ValueError, match=f"prefix='{prefix}', the name of a function in the file"):
        snn.export_c(net, x, tmp_path / "net.c", prefix=prefix)


def test_names_of_layers_meet_no_names_that_are_derived_or_reserved(tmp_path):
    x = (torch.rand(6, 1, 4) * 8).round() / 8
    for k, names in enumerate((
        ("fc1", "lif1", "lif1_mem", "lif2"),
        ("fc", "lif", "fc_add", "out"),
        ("NET_INPUTS", "isnan", "INT32_MAX", "int8_t"),
        ("x_narrow", "double_t", "expf", "NET_TEST"),
    )):  # fmt: skip
        torch.manual_seed(0)
        layers = [grid(nn.Linear(4, 4)), snn.Leaky(0.5, **UNIT), grid(nn.Linear(4, 4)), snn.Leaky(0.5, **UNIT)]
        net = nn.Sequential(OrderedDict(zip(names, layers, strict=True)))
        program = Program(snn.export_c(net, x, tmp_path / f"net{k}.c"), 4)
        assert torch.equal(program.run(x), spikes(net, x).flatten(1)), names
        same = nn.Sequential(*layers)
        assert torch.equal(
            snn.export.simulate_int8(net, 9 * x, calibration=x), snn.export.simulate_int8(same, 9 * x, calibration=x)
        )


def test_all_functions_and_macros_of_a_file_are_reserved(tmp_path):
    """An equation, a layer and a prefix cannot have the name of one."""
    text = snn.export_c(
        snn.SLSTM(4, 3, threshold=0.1, **UNIT), torch.rand(3, 1, 4), tmp_path / "net.c", "int8"
    ).path.read_text()
    defined = {*floats.HELPERS, *integers.HELPERS}
    defined |= {line.split()[1] for line in text.splitlines() if line.startswith(("#undef", "#define FRACTION"))}
    assert {"spike", "fixed_tanh", "FRACTION"} <= defined
    assert defined <= identifiers.HELPERS
    assert writer.calls("clamp", "y = clamp(x);")
    assert not writer.calls("clamp", "net_clamp(x, y);"), "a helper that is not called is not written"

"""Quantization, monitors and STDP."""

import importlib
import math
import pickle
from types import ModuleType
from typing import Any

import torch
from torch import nn

from .fix import Fix, error_of


def part(snn: ModuleType, name: str) -> Any:
    """A submodule of functional."""
    return importlib.import_module(f"{snn.__name__}.functional.{name}")


def numbers(x: torch.Tensor) -> list[Any]:
    """Its values, rounded; NaN by name, since it equals nothing."""
    return ["nan" if math.isnan(value) else round(value, 4) for value in x.tolist()]


# -- quantization ------------------------------------------------------------------------------------------------------


def dtype_of_quantised(snn: ModuleType) -> list[torch.dtype]:
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return [part(snn, "quant").state_quant()(torch.ones(1, dtype=dtype)).dtype for dtype in dtypes]


def beyond_the_levels(snn: ModuleType) -> list[Any]:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])
    return numbers(part(snn, "quant").state_quant(num_bits=2)(x))


def tensor_as_threshold(snn: ModuleType) -> float:
    threshold = torch.tensor(0.5)
    part(snn, "quant").state_quant(num_bits=2, uniform=False, threshold=threshold)
    return round(threshold.item(), 4)


def pickled_quantiser(snn: ModuleType) -> str:
    return error_of(lambda: pickle.dumps(part(snn, "quant").state_quant()))


# -- monitors ----------------------------------------------------------------------------------------------------------


def before_the_forward(snn: ModuleType) -> Any:
    lif = snn.Leaky(beta=0.5, init_hidden=True)
    monitor = part(snn, "probe").AttributeMonitor("mem", True, lif, snn.Leaky)
    try:
        for _ in range(2):
            lif(torch.full((1,), 0.5))
    except TypeError:
        return "TypeError"
    return [numbers(record) for record in monitor.records]


def without_a_class(snn: ModuleType) -> str:
    probe, net = part(snn, "probe"), nn.Linear(2, 2)
    kinds = (probe.GradInputMonitor, probe.GradOutputMonitor)
    return ", ".join(error_of(lambda kind=kind: kind(net)) for kind in kinds)


def dropped_monitor(snn: ModuleType) -> int:
    net = nn.Linear(2, 2)
    part(snn, "probe").OutputMonitor(net)
    return len(net._forward_hooks)


def in_a_with_block(snn: ModuleType) -> str:
    def monitor() -> None:
        with part(snn, "probe").OutputMonitor(nn.Linear(2, 2)):
            pass

    return error_of(monitor)


# -- STDP --------------------------------------------------------------------------------------------------------------


def learner(snn: ModuleType, **options: Any) -> tuple[Any, nn.Linear, Any]:
    fc = nn.Linear(2, 2, bias=False)
    nn.init.ones_(fc.weight)
    lif = snn.Leaky(beta=0.5, init_hidden=True, **options)
    return part(snn, "stdp_learner").STDPLearner(fc, lif, 2.0, 2.0), fc, lif


def learner_reset(snn: ModuleType) -> str:
    return error_of(learner(snn)[0].reset)


def learner_without_spikes(snn: ModuleType) -> str:
    return error_of(learner(snn)[0].step)


def learner_of_a_tuple(snn: ModuleType) -> str:
    stdp, fc, lif = learner(snn, output=True)
    lif(fc(torch.ones(1, 2)))
    return error_of(stdp.step)


def graph_of_a_change(snn: ModuleType) -> bool:
    """Whether the trace, and with it the graph of all steps since the start, is kept alive."""
    stdp, fc, lif = learner(snn)
    lif(fc(torch.ones(1, 2)))
    stdp.step(on_grad=False)
    return stdp.trace_post.requires_grad


def same_padding(snn: ModuleType) -> str:
    conv, x = nn.Conv1d(1, 1, 3, padding="same"), torch.ones(1, 1, 5)
    step = part(snn, "stdp_learner").stdp_conv1d_single_step
    return error_of(lambda: step(conv, x, x, None, None, 2.0, 2.0))


def dilation_and_groups(snn: ModuleType) -> str:
    x, step = torch.ones(1, 2, 9, 9), part(snn, "stdp_learner").stdp_conv2d_single_step
    convs = nn.Conv2d(2, 2, 3, dilation=2), nn.Conv2d(2, 2, 3, groups=2)
    return ", ".join(error_of(lambda c=c: step(c, x, c(x).detach(), None, None, 2.0, 2.0)) for c in convs)


def shapes_of_spikes(snn: ModuleType) -> str:
    """No batch, two of them, and a batch for MSTDPET."""
    stdp, fc = part(snn, "stdp_learner"), nn.Linear(2, 2)
    x, tau = torch.ones(3, 4, 2), (2.0, 2.0)
    calls = (
        lambda: stdp.stdp_linear_single_step(fc, x[0, 0], x[0, 0], None, None, *tau),
        lambda: stdp.mstdp_linear_single_step(fc, x[0, 0], x[0, 0], None, None, *tau),
        lambda: stdp.mstdpet_linear_single_step(fc, x[0], x[0], torch.zeros(4, 2), torch.zeros(4, 2), *tau, 2.0),
    )
    return ", ".join(map(error_of, calls))


def no_time_constant(snn: ModuleType) -> str:
    fc, x = nn.Linear(2, 2), torch.ones(1, 2)
    step = part(snn, "stdp_learner").stdp_linear_single_step
    return error_of(lambda: step(fc, x, x, None, None, -2.0, 2.0))


FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

FIXES: dict[str, Fix] = {
    "dtype of quantised values": Fix(
        "dtype of what `state_quant` returns", dtype_of_quantised, [torch.float32] * 4, FLOATS
    ),
    "quantised beyond the levels": Fix(
        "`state_quant` of NaN, inf, -inf and 1e30", beyond_the_levels, [-1.0, -1.0, -1.0, -1.0], ["nan", 1.2, -1.0, 1.2]
    ),
    "quantiser's threshold": Fix(
        "a tensor as the threshold of a non-uniform `state_quant`", tensor_as_threshold, 0.6, 0.5
    ),
    "pickled quantiser": Fix("pickling a `state_quant`", pickled_quantiser, "AttributeError", "nothing"),
    "monitor before the forward": Fix(
        "`AttributeMonitor(..., pre_forward=True)`", before_the_forward, "TypeError", [[], [0.5]]
    ),
    "monitor without a class": Fix(
        "`GradInputMonitor` and `GradOutputMonitor` without `instance`",
        without_a_class,
        "TypeError, TypeError",
        "nothing, nothing",
    ),
    "dropped monitor": Fix("a monitor without references", dropped_monitor, 1, 0),
    "monitor in a with block": Fix("`with OutputMonitor(net):`", in_a_with_block, "TypeError", "nothing"),
    "STDP reset": Fix("`STDPLearner.reset()`", learner_reset, "AttributeError", "nothing"),
    "STDP without spikes": Fix("`STDPLearner.step()` before any spike", learner_without_spikes, "TypeError", "nothing"),
    "STDP of a tuple": Fix("`STDPLearner` for a neuron with `output=True`", learner_of_a_tuple, "TypeError", "nothing"),
    "STDP graph": Fix("traces and changes of STDP", graph_of_a_change, True, False),
    "STDP same padding": Fix('STDP of a convolution with `padding="same"`', same_padding, "TypeError", "nothing"),
    "STDP dilation and groups": Fix(
        "STDP of a convolution with dilation or groups",
        dilation_and_groups,
        "NotImplementedError, NotImplementedError",
        "nothing, nothing",
    ),
    "STDP shapes": Fix(
        "STDP without a batch dimension, MSTDPET with one",
        shapes_of_spikes,
        "IndexError, IndexError, RuntimeError",
        "nothing, nothing, nothing",
    ),
    "STDP time constants": Fix("STDP with a negative time constant", no_time_constant, "nothing", "ValueError"),
}

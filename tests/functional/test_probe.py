"""Monitors: what they record in a step loop and unrolled, and how they let go."""

import copy
import gc
import pickle

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
import spikeloom.functional as SF  # noqa: N812

from ..network.networks import exact, leaky, quarters, stepped
from ..oracle import assert_close

STEPS, BATCH = 5, 3


def network() -> nn.Module:
    return exact(nn.Sequential(nn.Linear(6, 4), leaky(), nn.Sequential(nn.Linear(4, 2), leaky(output=True))))


def x_seq(**options) -> Tensor:
    return quarters(STEPS, BATCH, 6, **options)


FORWARD = {
    "outputs": lambda net: SF.OutputMonitor(net, snn.Leaky),
    "outputs of linear layers": lambda net: SF.OutputMonitor(net, nn.Linear),
    "outputs of both": lambda net: SF.OutputMonitor(net, (nn.Linear, snn.Leaky)),
    "inputs": lambda net: SF.InputMonitor(net, snn.Leaky),
    "inputs of linear layers": lambda net: SF.InputMonitor(net, nn.Linear),
    "membranes after": lambda net: SF.AttributeMonitor("mem", False, net, snn.Leaky),
    "membranes before": lambda net: SF.AttributeMonitor("mem", True, net, snn.Leaky),
}
BACKWARD = {
    "gradients of outputs": lambda net: SF.GradOutputMonitor(net, snn.Leaky),
    "gradients of outputs of linear layers": lambda net: SF.GradOutputMonitor(net, nn.Linear),
    "gradients of inputs": lambda net: SF.GradInputMonitor(net, snn.Leaky),
    "gradients of inputs of linear layers": lambda net: SF.GradInputMonitor(net, nn.Linear),
}


def first(record):
    return record[0] if isinstance(record, tuple) and record[0] is not None else record


@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
@pytest.mark.parametrize("name", FORWARD)
def test_unrolled_there_is_one_record_with_all_that_a_loop_records(name, static):
    net, x = network(), x_seq()
    x, steps = (x[0], STEPS) if static else (x, None)
    with FORWARD[name](net) as monitor:
        stepped(net, x, steps)
        by_steps = {layer: [first(record) for record in monitor[layer]] for layer in monitor.monitored_layers}
        monitor.clear_recorded_data()
        snn.utils.reset(net)
        snn.unroll(net, x, steps=steps)
        at_once = {layer: [first(record) for record in monitor[layer]] for layer in monitor.monitored_layers}
    assert by_steps
    for layer in by_steps:
        (sequence,) = at_once[layer]
        looped = by_steps[layer]
        if looped[0].numel() == 0:  # a state before the first step of all
            looped[0] = torch.zeros_like(looped[1])
        assert_close(sequence.detach(), torch.stack(looped).detach(), f"{name} of {layer!r}", exact=True)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", BACKWARD)
def test_so_it_is_backward_where_a_loop_goes_back_in_time(name):
    net, x = network(), x_seq().requires_grad_()

    def loss(out):
        return (out[0] * torch.linspace(-1, 1, STEPS).view(-1, 1, 1)).sum()

    with BACKWARD[name](net) as monitor:
        loss(stepped(net, x)).backward()
        by_steps = {layer: [first(record) for record in monitor[layer]] for layer in monitor.monitored_layers}
        monitor.clear_recorded_data()
        snn.utils.reset(net)
        loss(snn.unroll(net, x)).backward()
        at_once = {layer: [first(record) for record in monitor[layer]] for layer in monitor.monitored_layers}
    for layer, looped in by_steps.items():
        (sequence,) = at_once[layer]
        assert_close(sequence, torch.stack(looped[::-1]), f"{name} of {layer!r}")
        assert sequence.any()


def test_a_static_input_has_the_gradient_summed_over_time():
    net, x = network(), x_seq()[0].requires_grad_()
    with SF.GradInputMonitor(net, nn.Linear) as monitor:
        snn.unroll(net, x, steps=STEPS)[0].sum().backward()
    assert_close(monitor["0"][0], x.grad, "gradient")


def test_records_keep_their_graph():
    net = network()
    with SF.OutputMonitor(net, snn.Leaky) as monitor:
        snn.unroll(net, x_seq())
    monitor["1"][0].sum().backward()
    assert net[0].weight.grad.any()


def test_a_function_shapes_what_is_recorded():
    net = network()
    for x, wanted in ((x_seq()[0], (BATCH, 4)), (None, (STEPS, BATCH, 4))):
        with SF.OutputMonitor(net, snn.Leaky, lambda out: tuple(first(out).shape)) as monitor:
            net(x) if x is not None else snn.unroll(net, x_seq())
        assert monitor["1"] == [wanted]


def test_without_a_class_the_modules_are_those_of_the_networks_own():
    net = network()
    for monitor in (SF.OutputMonitor(net), SF.InputMonitor(net), SF.GradInputMonitor(net), SF.GradOutputMonitor(net)):
        assert monitor.monitored_layers == ["", "2"]
    assert SF.AttributeMonitor("mem", False, leaky()).monitored_layers == [""]


def test_an_attribute_that_is_no_state_is_recorded_as_it_is():
    net = network()
    with SF.AttributeMonitor("beta", True, net, snn.Leaky) as monitor:
        snn.unroll(net, x_seq())
    assert monitor.records == [net[1].beta, net[2][1].beta]


# -- bookkeeping -------------------------------------------------------------------------------------------------------


def test_records_are_found_by_number_and_by_layer():
    net = network()
    monitor = SF.OutputMonitor(net, snn.Leaky)
    stepped(net, x_seq()[:2])
    assert monitor.name_records_index == {"1": [0, 2], "2.1": [1, 3]}
    assert len(monitor) == 4
    assert monitor["1"][1] is monitor[2]
    assert monitor.records[3] is monitor[-1]
    with pytest.raises(KeyError, match="not a layer of this monitor"):
        monitor["0"]


def test_enable_disable_clear_and_remove():
    net = network()
    monitor = SF.AttributeMonitor("mem", False, net, snn.Leaky)
    monitor.disable()
    snn.unroll(net, x_seq())
    assert (monitor.is_enable(), len(monitor)) == (False, 0)
    monitor.enable()
    net(x_seq()[0])
    assert (monitor.is_enable(), len(monitor)) == (True, 2)
    monitor.remove_hooks()
    net(x_seq()[0])
    assert len(monitor) == 2
    monitor.clear_recorded_data()
    assert monitor.records == []
    assert monitor.monitored_layers == ["1", "2.1"]


def test_a_monitor_that_is_dropped_lets_go():
    net = network()
    monitor = SF.OutputMonitor(net, snn.Leaky)
    assert net[1]._forward_hooks
    del monitor
    gc.collect()
    assert not net[1]._forward_hooks


def test_copies_of_a_network_are_not_monitored():
    net = network()
    with SF.OutputMonitor(net, snn.Leaky) as monitor, SF.GradInputMonitor(net, snn.Leaky):
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            snn.unroll(other, x_seq().requires_grad_())[0].sum().backward()
        assert len(monitor) == 0


def test_a_failed_run_and_one_without_steps_leave_no_record():
    net = nn.Sequential(leaky(), nn.Linear(6, 2), nn.Linear(3, 2))
    with SF.OutputMonitor(net, snn.Leaky) as monitor:
        with pytest.raises(RuntimeError):
            snn.unroll(net, x_seq())
        snn.unroll(net[:2], x_seq()[:0])
        assert len(monitor) == 0
        snn.unroll(net[:2], x_seq())
        assert len(monitor) == 1


def test_diagnose_is_not_recorded():
    net = network()
    with SF.OutputMonitor(net, nn.Linear) as monitor, SF.GradOutputMonitor(net, nn.Linear) as backward:
        snn.diagnose(net, x_seq())
        snn.diagnose(net, x_seq(), forward=stepped)
        assert len(monitor) == len(backward) == 0


def test_what_is_no_network_is_refused():
    with pytest.raises(TypeError, match="got a network of type list"):
        SF.OutputMonitor([leaky()])

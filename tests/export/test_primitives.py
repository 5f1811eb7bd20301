"""Each primitive of NIR, read with any values, against an interpreter in NumPy; and the graphs that others write."""

import nir
import numpy as np
import pytest
import torch
from torch import nn

import spikeloom as snn

from .graphs import DT, around, cycle, euler, leaky, outputs, through_file

RNG = np.random.default_rng(0)
N = (6,)


def spread(low, high):
    return RNG.uniform(low, high, N)


def neurons():
    """Every neuron, with values that no neuron of the library has as they are."""
    tau, r, leak = spread(3e-4, 2e-3), spread(2.0, 9.0), spread(-0.5, 0.5)
    fires = {"v_threshold": spread(0.4, 1.0), "v_reset": spread(-0.3, 0.0)}
    cuba = {"tau_syn": tau, "tau_mem": spread(3e-4, 2e-3), "r": r, "v_leak": leak, "w_in": spread(0.5, 2.0)}
    return (
        *(nir.I(spread(5e3, 2e4)), nir.IF(spread(5e3, 2e4), **fires)),
        *(nir.LI(tau, r, leak), nir.LIF(tau, r, leak, **fires)),
        *(nir.CubaLI(**cuba), nir.CubaLIF(**cuba, **fires)),
    )


def test_neurons_follow_the_equations_of_nir():
    x = torch.rand(60, 4, *N, dtype=torch.float64) * 2 - 0.4
    for node in neurons():
        net = snn.import_from_nir(around(node, N)).double()
        net = _exact(net, node)
        wanted = euler(node, x.numpy())
        got = outputs(net, x).numpy()
        assert np.allclose(got, wanted, atol=1e-6), type(node).__name__
        assert wanted.std() > 0.1


def _exact(net, node):
    """The same network with the values of the node in double precision, which the import rounds to single."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return snn.import_from_nir(around(node, N))
    finally:
        torch.set_default_dtype(default)


def test_neurons_with_any_values_go_out_again():
    for node in neurons():
        (again,) = [
            twin
            for twin in snn.export_to_nir(_exact(None, node), torch.rand(1, *N)).nodes.values()
            if not isinstance(twin, (nir.Input, nir.Output))
        ]
        assert type(again) is type(node)
        x = np.random.default_rng(1).uniform(-0.4, 1.6, (30, 2, *N))
        assert np.allclose(euler(again, x), euler(node, x), atol=1e-4) or hasattr(node, "v_threshold")


def test_neurons_with_any_values_come_back_bit_for_bit(tmp_path):
    x = torch.rand(30, 2, *N)
    for node in neurons():
        net = snn.import_from_nir(around(node, N))
        again = snn.import_from_nir(through_file(snn.export_to_nir(net, x[0]), tmp_path))
        assert torch.equal(outputs(again, x), outputs(net, x)), type(node).__name__
        held = dict(again.state_dict())
        assert all(torch.equal(held[key], value) for key, value in net.state_dict().items()), type(node).__name__


def test_values_of_zero_go_out_again():
    one = np.ones(N)
    blind = nir.CubaLIF(5e-4 * one, 1e-3 * one, 3 * one, 0 * one, one, w_in=0 * one)
    instant = nir.CubaLIF(DT * one, DT * one, 3 * one, 0.2 * one, one, w_in=np.array([0.0, 1.0] * 3))
    x = torch.rand(30, 2, *N)
    for node in (blind, instant):
        net = snn.import_from_nir(around(node, N))
        again = snn.import_from_nir(snn.export_to_nir(net, x[0]), reset="zero")
        assert torch.equal(outputs(again, x), outputs(net, x))
    conv = nir.Conv2d(None, np.ones((2, 2, 3, 3)), 1, 0, 1, 1, None)
    ends = {"input": nir.Input(np.array([2, 5, 5])), "output": nir.Output(np.array([2, 3, 3]))}
    graph = nir.NIRGraph({**ends, "conv": conv}, [("input", "conv"), ("conv", "output")], type_check=False)
    assert snn.import_from_nir(graph)(torch.ones(1, 2, 5, 5))[0].unique().tolist() == [18.0]


def test_an_integrator_with_an_unlikely_r_is_said():
    for node in (nir.IF(2.5 * np.ones(N), np.ones(N)), nir.I(2.5 * np.ones(N))):
        with pytest.warns(UserWarning, match=r"r=2.5 and dt=0.0001.*r \* dt per step.*0.00025"):
            net = snn.import_from_nir(around(node, N))
        assert net.node.gain.item() == pytest.approx(2.5e-4)


def test_plain_values_become_neurons_of_the_library():
    one = np.ones(N)
    fires = {"v_threshold": one, "v_reset": 0 * one}
    cases = {
        snn.Leaky: nir.LIF(10 * DT * one, 10 * one, 0 * one, **fires),
        snn.Synaptic: nir.CubaLIF(5 * DT * one, 10 * DT * one, 10 * one, 0 * one, w_in=5 * one, **fires),
        snn.LI: nir.LI(10 * DT * one, 10 * one, 0 * one),
    }
    for kind, node in cases.items():
        net = snn.import_from_nir(around(node, N))
        assert type(net.node) is kind
        assert net.node.beta.item() == pytest.approx(0.9)
    for r in (1.0, 1 / DT):  # both stand for an integrator in the files of the field
        net = snn.import_from_nir(around(nir.IF(r * one, one), N))
        assert type(net.node) is snn.Leaky
        assert net.node.beta.item() == 1.0
        assert (net.node.reset_mechanism, net.node.reset_delay) == ("zero", False)


def test_reset_by_subtraction_for_graphs_that_mean_it():
    one = np.ones(N)
    graph = around(nir.LIF(10 * DT * one, 10 * one, 0 * one, one), N)
    net = snn.import_from_nir(graph, reset="subtract")
    assert (net.node.reset_mechanism, net.node.reset_delay) == ("subtract", False)
    x = torch.full((3, 1, *N), 1.5)
    spk = outputs(net, x)
    assert spk[:, 0, 0].tolist() == [1.0, 1.0, 1.0]
    assert net.node.mem[0, 0].item() == pytest.approx((0.5 * 0.9 + 1.5 - 1) * 0.9 + 1.5 - 1)


def test_layers_compute_what_torch_computes():
    """Bias, groups, padding of a sum pool, and both directions of the dimensions of a Conv1d among them."""
    image, series = torch.rand(2, 4, 6, 7), torch.rand(2, 4, 9)
    w2, w1, bias = torch.rand(4, 2, 3, 3), torch.rand(6, 2, 3), torch.rand(6)
    matrix = torch.rand(3, 5)
    pool = {"kernel_size": np.array([2, 3]), "stride": np.array([2, 2]), "padding": np.array([1, 1])}
    cases = [
        (nir.Affine(matrix.numpy(), bias[:3].numpy()), torch.rand(2, 5), lambda x: x @ matrix.T + bias[:3]),
        (nir.Linear(matrix.numpy()), torch.rand(2, 5), lambda x: x @ matrix.T),
        (nir.Scale(bias[:5].numpy()), torch.rand(2, 5), lambda x: x * bias[:5]),
        (nir.Threshold(bias[:5].numpy()), torch.rand(2, 5), lambda x: (x > bias[:5]).float()),
        (
            nir.Conv2d((6, 7), w2.numpy(), (2, 1), (1, 0), (1, 2), 2, bias[:4].numpy()),
            image,
            lambda x: nn.functional.conv2d(x, w2, bias[:4], (2, 1), (1, 0), (1, 2), 2),
        ),
        (
            nir.Conv2d((6, 7), w2.numpy(), 1, "same", 1, 2, bias[:4].numpy()),
            image,
            lambda x: nn.functional.conv2d(x, w2, bias[:4], padding="same", groups=2),
        ),
        (
            nir.Conv1d(9, w1.numpy(), 2, 1, 1, 2, bias.numpy()),
            series,
            lambda x: nn.functional.conv1d(x, w1, bias, 2, 1, 1, 2),
        ),
        (nir.AvgPool2d(**pool), image, lambda x: nn.functional.avg_pool2d(x, (2, 3), 2, 1)),
        (nir.SumPool2d(**pool), image, lambda x: 6 * nn.functional.avg_pool2d(x, (2, 3), 2, 1)),
        (nir.Flatten({"input": np.array([4, 6, 7])}, 0, -1), image, lambda x: x.flatten(1)),
        (nir.Flatten({"input": np.array([4, 6, 7])}, 1, 2), image, lambda x: x.flatten(2)),
        (nir.Flatten({"input": np.array([4, 6, 7])}, -3, -2), image, lambda x: x.flatten(1, 2)),
    ]
    for node, x, wanted in cases:
        shape = np.array(x.shape[1:])
        nodes = {"input": nir.Input(shape), "node": node, "output": nir.Output(np.array(wanted(x).shape[1:]))}
        net = snn.import_from_nir(nir.NIRGraph(nodes, [("input", "node"), ("node", "output")], type_check=False))
        out, _ = net(x)
        assert torch.allclose(out, wanted(x), atol=1e-6), node
        again, _ = snn.import_from_nir(snn.export_to_nir(net, x))(x)
        assert torch.allclose(again, wanted(x), atol=1e-6), node


def test_delays_are_times():
    net = snn.import_from_nir(around(nir.Delay(np.array([0.0, 2e-4, 4.9e-4])), (3,)))
    x = torch.zeros(8, 1, 3)
    x[0] = 1.0
    assert outputs(net, x)[:, 0].argmax(0).tolist() == [0, 2, 5]


def test_subgraphs_are_inlined():
    inner = cycle()
    outer = nir.NIRGraph(
        {
            "input": nir.Input(np.array([3])),
            "block": inner,
            "fc": nir.Linear(np.eye(3)),
            "output": nir.Output(np.array([3])),
        },
        [("input", "block"), ("block", "fc"), ("fc", "output")],
    )
    net, x = snn.import_from_nir(outer), torch.rand(40, 2, 3)
    assert torch.equal(outputs(net, x), outputs(snn.import_from_nir(cycle()), x))
    assert isinstance(net.block, snn.RLeaky)


def test_states_go_in_and_out():
    net = snn.import_from_nir(snn.export_to_nir(nn.Sequential(nn.Linear(3, 4), leaky()), torch.rand(1, 3)))
    x = torch.rand(5, 2, 3) * 2
    state = None
    for x_t in x[:3]:
        _, state = net(x_t, state)
    assert set(state) == {"1"}
    assert state["1"]["mem"].shape == (2, 4)
    wanted, _ = net(x[3])
    net(x[4])
    got, _ = net(x[3], state)  # from the same state again
    assert torch.equal(got, wanted)
    with pytest.raises(ValueError, match="the states name 'other'"):
        net(x[0], {"other": {}})


def test_states_of_delays_and_cycles_go_in_and_out():
    late = snn.import_from_nir(around(nir.Delay(2 * DT * np.ones(3)), (3,)))
    graph = snn.export_to_nir(
        snn.RLeaky(0.5, linear_features=3, reset_mechanism="none", init_hidden=True), torch.rand(1, 3)
    )
    for net in (late, snn.import_from_nir(graph)):
        x = torch.rand(6, 2, 3) * 4
        with torch.no_grad():
            for x_t in x[:3]:
                _, state = net(x_t)
            wanted = torch.stack([net(x_t)[0] for x_t in x[3:]])
            first, _ = net(x[3], state)
            got = torch.stack([first, *(net(x_t)[0] for x_t in x[4:])])
        assert torch.equal(got, wanted)
        assert wanted.any()


def test_inputs_without_a_batch_and_of_wrong_shapes():
    net = snn.import_from_nir(snn.export_to_nir(nn.Sequential(nn.Linear(3, 4), leaky()), torch.rand(3)))
    assert net(torch.rand(3))[0].shape == (4,)
    with pytest.raises(ValueError, match=r"'input' has shape \(2, 5\); pass \('B', 3\)"):
        net(torch.rand(2, 5))
    with pytest.raises(TypeError, match="got 3 inputs; it has 1"):
        net(1, 2, 3)
    with pytest.raises(TypeError, match="is list"):
        net([1.0])


def test_imported_networks_learn():
    net = snn.import_from_nir(snn.export_to_nir(nn.Sequential(nn.Linear(3, 4), leaky()), torch.rand(1, 3)))
    spk, _ = snn.unroll(net, torch.rand(10, 2, 3) * 3)
    spk.sum().backward()
    assert net.get_submodule("0").weight.grad.abs().sum() > 0

"""Every layer that sees time gives the same step by step and unrolled, and is reached by reset, detach and explain."""

import copy
import pickle

import pytest
import torch
from torch import nn

import spikeloom as snn

from ..oracle import assert_close, assert_same
from .running import LAYERS, WAYS, by_steps, inputs, made, outcome, unrolled

every_layer = pytest.mark.parametrize("name", LAYERS)
every_counting_layer = pytest.mark.parametrize("name", [name for name, kind in LAYERS.items() if kind.kept])


@every_layer
@pytest.mark.parametrize("way", WAYS)
def test_outputs_states_statistics_and_gradients_are_those_of_the_steps(name, way):
    assert_same(outcome(name, WAYS[way]), outcome(name, by_steps))


@every_layer
def test_an_input_that_is_the_same_at_every_step_is_repeated(name):
    x = inputs(name, steps=1)
    static = outcome(name, lambda layer, x: snn.unroll(layer, x[0], steps=9), x)
    assert_same(static, outcome(name, lambda layer, x: by_steps(layer, x.expand(9, *x.shape[1:])), x))


@every_layer
def test_such_an_input_is_seen_once_by_what_stands_before(name):
    """That it need not be repeated for the layers before; nor is the run given up because the layer would fail."""
    explanation = snn.explain(nn.Sequential(nn.Tanh(), made(name), nn.Tanh()), inputs(name)[0].detach(), steps=9)
    assert not explanation.repeated
    assert [row.static for row in explanation.rows][:2] == [True, True]
    assert explanation.rows[2].static == (name in ("GradedSpikes", "GradedSpikes of images"))


class Around(nn.Module):
    """A layer between others, also before the first neuron, where a static input is still one step."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.before, self.layer = nn.Tanh(), layer
        self.lif = snn.Leaky(beta=0.5, threshold=0.3, init_hidden=True, output=True)
        self.twin = copy.deepcopy(layer)
        self.last = snn.Leaky(beta=0.5, threshold=0.3, init_hidden=True, output=True)
        if isinstance(layer, snn.DelayedLinear):  # which returns fewer features than it takes
            self.twin = nn.Identity()

    def forward(self, x):
        spk, _ = self.lif(self.layer(self.before(x)))
        return self.last(self.twin(spk))


@every_layer
@pytest.mark.parametrize("static", [False, True], ids=["sequence", "static"])
def test_in_a_network_the_check_passes_and_the_steps_agree(name, static):
    net = Around(made(name)).double()
    twin = copy.deepcopy(net)
    x = inputs(name).detach()
    spk, mem = snn.unroll(net, x[0], steps=9, check=True) if static else snn.unroll(net, x, check=True)
    steps = [twin(x[0] if static else x_t) for x_t in x]
    assert_close(spk, torch.stack([spk for spk, _ in steps]), "spk", exact=True)
    assert_close(mem, torch.stack([mem for _, mem in steps]), "mem")


@every_layer
def test_explain_has_one_row_for_it_and_changes_nothing(name):
    layer = made(name)
    net, x = nn.Sequential(nn.Tanh(), layer), inputs(name).detach()
    snn.unroll(net, x[:2])
    before = {key: getattr(layer, key) for key in LAYERS[name].kept}, copy.deepcopy(net.state_dict())
    rows = snn.explain(net, x).rows
    assert [(row.path, row.kind, row.backend) for row in rows[1:]] == [("1", type(layer).__name__, "torch")]
    assert all(getattr(layer, key) is value for key, value in before[0].items())
    assert all(torch.equal(value, before[1][key]) for key, value in net.state_dict().items())
    assert snn.utils.summary(net, x).neurons == 0


@every_counting_layer
def test_reset_reaches_it_wherever_it_stands(name):
    net, x = nn.Sequential(nn.ModuleDict({"inner": made(name)})), inputs(name)
    layer = net[0]["inner"].eval()
    first = unrolled(layer, x)
    for whole in (net, layer):
        snn.utils.reset(whole)
        assert torch.equal(unrolled(layer, x), first)


@every_counting_layer
def test_a_run_that_fails_leaves_what_is_kept(name):
    class Failing(nn.Module):
        def forward(self, x):
            raise ZeroDivisionError

    layer = made(name)
    layer(inputs(name)[0])
    before = [getattr(layer, key) for key in LAYERS[name].kept]
    with pytest.raises(ZeroDivisionError):
        snn.unroll(nn.Sequential(layer, Failing()), inputs(name))
    assert all(getattr(layer, key) is value for key, value in zip(LAYERS[name].kept, before, strict=True))


@every_counting_layer
def test_to_call_it_twice_in_one_forward_is_refused(name):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = made(name)

        def forward(self, x):
            return self.layer(x), self.layer(x)

    with pytest.raises(RuntimeError, match=r"'layer' .* is called twice"):
        snn.unroll(Twice(), inputs(name))


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda layer: pickle.loads(pickle.dumps(layer))}


@every_layer
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_goes_on_where_the_original_stands_and_shares_nothing(name, way):
    layer, x = made(name), inputs(name)
    by_steps(layer, x[:2])
    twin = COPIES[way](layer)
    assert twin.extra_repr() == layer.extra_repr()
    wanted = unrolled(layer, x[2:])
    assert torch.equal(unrolled(twin, x[2:]), wanted)


@every_layer
def test_what_is_kept_is_not_in_the_state_dict(name):
    layer = made(name)
    before = list(layer.state_dict())
    unrolled(layer, inputs(name))
    assert list(layer.state_dict()) == before
    assert not {*LAYERS[name].kept} & {key.rpartition(".")[2] for key in before}


@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_dtype_follows_the_input(name, dtype):
    kinds = {torch.float32: torch.float32}
    layer = made(name).to(kinds.get(dtype, dtype if "Linear" in name or "Norm" in name else torch.float32))
    x = inputs(name).detach().to(dtype).requires_grad_()
    out = unrolled(layer, x)
    assert out.dtype == dtype
    out.float().sum().backward()
    assert x.grad.dtype == dtype
    assert all(p.grad is None or p.grad.dtype == p.dtype for p in layer.parameters())


@pytest.mark.parametrize("name", ["SynapticDelay learned", "GradedSpikes", "GradedSpikes along dimension 0"])
def test_spikes_may_be_integers_or_booleans(name):
    layer, x = made(name).float(), inputs(name) > 0
    wanted = unrolled(layer, x.float())
    for kind in (torch.bool, torch.int64):
        snn.utils.reset(layer)
        assert torch.equal(unrolled(layer, x.to(kind)), wanted)


def test_a_layer_that_does_not_say_what_it_does_over_time():
    with pytest.raises(NotImplementedError, match="over_time"):
        snn.layers.OverTime()(torch.ones(2, 3))

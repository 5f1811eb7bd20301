"""The short way of a common step gives what the long way gives, and sees every change."""

import pytest
import torch

import spikeloom as snn
from spikeloom.engine.run import backends
from spikeloom.engine.run.call import Call
from spikeloom.neurons import _forward

from ..oracle import assert_close

X = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)) * 1.5

FLAT = snn.surrogate.Spike("flat", lambda u: 0 * u)

NEURONS = {
    "Leaky": lambda: snn.Leaky(0.9),
    "reset to zero, within the step": lambda: snn.Leaky(0.9, reset_mechanism="zero", reset_delay=False),
    "learned": lambda: snn.Leaky(0.9, learn_beta=True, learn_threshold=True),
    "learned, with no gradient": lambda: snn.Leaky(0.9, learn_threshold=True, reset_mechanism="none", spike_grad=FLAT),
    "per neuron": lambda: snn.Leaky(torch.linspace(0.5, 0.9, 5), threshold=torch.full((3, 1), 0.5)),
    "numbers of other dtypes": lambda: snn.Leaky(torch.tensor(0.9, dtype=torch.float64), threshold=torch.tensor(1)),
    "NaN": lambda: snn.Leaky(float("nan")),
    "two states": lambda: snn.Synaptic(alpha=0.8, beta=0.7),
    "recurrent": lambda: snn.RLeaky(0.9, V=-0.2, all_to_all=False),
    "an equation with exp": lambda: snn.Leaky(0.9, learn_beta=True, decay="tau"),
    "inhibition by hand": lambda: snn.Leaky(0.9, state_quant=lambda mem: mem.round(decimals=1)),
}

INPUTS = {
    "as it comes": X,
    "float64": X.double(),
    "float16": X.half(),
    "transposed": X.mT.contiguous().mT,
    "one number at a time": X.flatten()[:4],
}


def run(neuron, xs, learn):
    """Four steps, and the gradients of a weighted sum of all that came out."""
    xs = xs.clone(memory_format=torch.preserve_format).requires_grad_(learn)
    states, outs = (), []
    for x in xs.unbind(0):
        spk, *states = neuron(x, *states)
        outs += [spk, *states]
    loss = sum((k + 1) * out.double().sum() for k, out in enumerate(outs))
    leaves = [t for t in (xs, *neuron.parameters()) if t.requires_grad]
    return [*outs, neuron.reset], torch.autograd.grad(loss, leaves) if leaves else ()


IN_EVERY_DTYPE = ("Leaky", "learned", "numbers of other dtypes", "two states")


@pytest.mark.parametrize("name", NEURONS)
def test_the_short_way_gives_what_the_long_way_gives(name, monkeypatch):
    for xs in INPUTS.values():
        if name == "per neuron" and xs.dim() < 3:
            continue
        if xs.dtype != torch.float32 and name not in IN_EVERY_DTYPE:
            continue
        for learn in (False, True):
            short = run(NEURONS[name](), xs, learn)
            with monkeypatch.context() as patch:
                patch.setattr(_forward, "kernel_at_hand", lambda *args: False)
                long = run(NEURONS[name](), xs, learn)
            with snn.backend("loop"):
                reference = run(NEURONS[name](), xs, learn)
            ways = ([*outs, *grads] for outs, grads in (short, long, reference))
            for i, (got, wanted, right) in enumerate(zip(*ways, strict=True)):
                assert got.dtype == wanted.dtype == right.dtype
                torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)
                assert_close(got, right, f"{i}")


def test_a_common_step_goes_the_short_way(monkeypatch):
    taken = []
    scan = snn.Leaky._scan
    monkeypatch.setattr(snn.Leaky, "_scan", lambda *args: taken.append("long") or scan(*args))
    for neuron in (snn.Leaky(0.9, init_hidden=True), snn.Leaky(0.9, learn_beta=True, init_hidden=True)):
        taken.clear()
        for x in X:
            neuron(x)
        assert taken == ["long"]  # the first, which has no state yet


CHANGES = {
    "behind autograd's back": lambda lif: lif.beta.data.fill_(0.25),
    "in place": lambda lif: lif.beta.fill_(0.25),
    "assigned": lambda lif: setattr(lif, "beta", torch.tensor(0.25)),
    "the reset": lambda lif: setattr(lif, "reset_mechanism", "zero"),
    "a method": lambda lif: setattr(lif, "fire", lambda mem: torch.ones_like(mem)),
    "a quantiser": lambda lif: setattr(lif, "state_quant", torch.nn.Hardtanh(0, 0.5)),
    "the dtype": lambda lif: lif.double(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_between_two_steps_is_seen_by_the_next(change, monkeypatch):
    def outs():
        lif = snn.Leaky(0.5)
        _, mem = lif(X[0])
        _, mem = lif(X[1], mem)
        change(lif)
        return lif(X[2], mem)

    short = outs()
    monkeypatch.setattr(_forward, "kernel_at_hand", lambda *args: False)
    assert all(torch.equal(*pair) for pair in zip(short, outs(), strict=True))
    with snn.backend("loop"):
        assert all(torch.equal(*pair) for pair in zip(short, outs(), strict=True))


@pytest.mark.parametrize("name", ["Leaky", "two states", "learned"])
def test_a_step_from_states_made_in_inference_mode_takes_the_short_way_there(name, monkeypatch):
    neuron = NEURONS[name]()
    with torch.inference_mode():
        _, *states = neuron(X[0])
        monkeypatch.setattr(type(neuron), "_scan", None)
        neuron(X[1], *states)


def test_steps_in_inference_mode_leave_nothing_that_training_cannot_use():
    lif = snn.Leaky(0.625, init_hidden=True)
    with torch.inference_mode():
        lif(X[0]), lif(X[0])
    x = X[0].clone().requires_grad_()
    lif(x)
    lif(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("learn", [False, True])
def test_a_state_kept_from_a_transform_serves_the_next_step(learn):
    lif = snn.Leaky(0.5, init_hidden=True)

    def transformed(x):
        with torch.no_grad():  # else the state has a graph, and the next step goes the long way
            lif(x)
        return x.sum()

    torch.func.grad(transformed)(X[0])
    x = X[1].clone().requires_grad_(learn)
    wanted, _ = snn.Leaky(0.5)(X[1], snn.Leaky(0.5)(X[0])[1])
    spk = lif(x)
    assert torch.equal(spk, wanted)
    assert spk.requires_grad is learn


def test_a_failed_step_changes_nothing():
    lif = snn.Leaky(0.5, init_hidden=True)
    lif(X[0])
    before = lif.mem
    lif.beta = torch.rand(7)
    with pytest.raises(ValueError, match="beta of shape"):
        lif(X[1])
    assert lif.mem is before


@pytest.mark.parametrize("backend", [None, "loop", "numba"])
@pytest.mark.parametrize("x", [X[0], X[0].double(), X[0].half(), X[0].to("meta")], ids=["32", "64", "16", "meta"])
@pytest.mark.parametrize("spike_grad", [None, lambda u: (u > 0).to(u.dtype)], ids=["known", "a function"])
def test_a_kernel_is_at_hand_where_the_ladder_ends_at_one(backend, x, spike_grad):
    program = snn.Leaky(0.5, spike_grad=spike_grad)._program
    call = Call(program, x, None, (x,), {})
    with snn.backend(backend) if backend else torch.enable_grad():
        try:
            wanted = backends.choose(call)[0].name == "numba"
        except RuntimeError:
            wanted = False
        # an input of half precision is not common: it goes the long way to its kernel
        assert backends.kernel_at_hand(program, x) is (wanted and x.dtype is not torch.half)


class Leaking(snn.Leaky):
    """Never resets."""

    def mem_reset(self, mem):
        return torch.zeros_like(mem)


@pytest.mark.filterwarnings("ignore:inhibition")
def test_who_fires_by_methods_says_why():
    assigned = snn.Leaky(0.9)
    assigned.fire_inhibition = assigned.fire_inhibition
    options = ({}, {"inhibition": True}, {"state_quant": torch.round})
    neurons = [snn.Leaky(0.9, **chosen) for chosen in options] + [
        Leaking(0.9),
        assigned,
        snn.SLSTM(2, 2, threshold=0.1),
    ]
    assert [[*neuron._why_by_methods()] for neuron in neurons] == [
        [],
        ["inhibition compares neurons with each other"],
        ["state_quant is a user function"],
        ["Leaking overrides mem_reset"],
        ["fire_inhibition was assigned to this Leaky"],
        [],
    ]


THROUGH_LAYERS = {
    "SLSTM": (lambda: snn.SLSTM(5, 4, threshold=0.05), (3, 5)),
    "SConv2dLSTM": (lambda: snn.SConv2dLSTM(3, 2, 3, threshold=0.05), (2, 3, 6, 6)),
    "RLeaky": (lambda: snn.RLeaky(0.9, linear_features=5), (3, 5)),
    "RLeaky of images": (lambda: snn.RLeaky(0.9, conv2d_channels=2, kernel_size=3), (3, 2, 6, 6)),
    "RSynaptic": (lambda: snn.RSynaptic(0.8, 0.9, linear_features=5, learn_beta=True), (3, 5)),
}


@pytest.mark.parametrize("name", THROUGH_LAYERS)
def test_neurons_with_a_layer_inside_too_go_the_short_way(name, monkeypatch):
    """From the second step on; outputs and gradients are those of the loop."""
    torch.manual_seed(0)
    make, shape = THROUGH_LAYERS[name]
    lif, xs = make(), torch.rand(4, *shape)

    def outcome():
        snn.utils.reset(lif)
        states, outs = (), []
        for x in xs.unbind(0):
            spk, *states = lif(x, *states)
            outs += [spk, *states]
            monkeypatch.setattr(lif, "_scan", way)
        return outs, torch.autograd.grad(sum(out.sum() for out in outs), list(lif.parameters()))

    way = lif._scan
    with snn.backend("loop"):
        wanted = outcome()
    monkeypatch.undo()
    way = lambda *args, **kwargs: pytest.fail("went the long way")  # noqa: E731
    torch.testing.assert_close(outcome(), wanted)


def test_a_value_that_is_not_learned_but_wants_a_gradient_gets_it() -> None:
    lif, x = snn.Leaky(beta=0.9), torch.rand(3, 4)
    lif.beta = lif.beta.detach().clone().requires_grad_()
    found = []
    for backend in ("numba", "loop"):
        with snn.backend(backend):
            _, mem = lif(x, torch.ones(3, 4))
        found.append(torch.autograd.grad(mem.sum(), lif.beta)[0])
    assert torch.equal(*found)
    assert found[0].item() == 12

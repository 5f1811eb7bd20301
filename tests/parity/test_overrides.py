"""A subclass that overrides what snnTorch calls does the same on either library, or is refused in a sentence."""

import inspect
from collections.abc import Callable, Mapping
from types import MethodType, ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.neurons._methods import UNCALLED

from ..each import for_each
from ..neurons.running import at_once
from ..oracle import Outcome, assert_same

snntorch = pytest.importorskip("snntorch")
pytestmark = pytest.mark.filterwarnings("ignore:.*(inhibition|cannot fire|output=False)")

STEPS = 5
NEURONS: Mapping[str, Mapping[str, Any]] = {
    "Leaky": {"beta": 0.9},
    "RLeaky": {"beta": 0.9, "linear_features": 3},
    "Synaptic": {"alpha": 0.8, "beta": 0.9},
    "RSynaptic": {"alpha": 0.8, "beta": 0.9, "linear_features": 3},
    "Lapicque": {"beta": 0.9},
    "Alpha": {"alpha": 0.9, "beta": 0.8, "threshold": 0.4},
    "SLSTM": {"input_size": 3, "hidden_size": 3, "threshold": 0.05},
    "SConv2dLSTM": {"in_channels": 1, "out_channels": 1, "kernel_size": 3, "threshold": 0.02},
    "DeltaLeaky": {"beta": 0.9, "delta_threshold": 0.2, "init_hidden": True},
    "StateLeaky": {"beta": 0.9, "channels": 3},
    "LinearLeaky": {"beta": 0.9, "in_features": 3, "out_features": 3},
    "AssociativeLeaky": {"in_dim": 3, "d_value": 2, "d_key": 2, "num_spiking_neurons": 4, "use_q_projection": False},
    "LeakyParallel": {"input_size": 3, "hidden_size": 3, "beta": 0.9},
}
WHOLE = ("StateLeaky", "LinearLeaky", "AssociativeLeaky", "LeakyParallel")
SHAPES = {"SConv2dLSTM": (2, 1, 4, 4)}
DELAYS = ("Leaky", "RLeaky", "Synaptic")  # RSynaptic's is broken in snnTorch
MODES = {
    "subtract": {"reset_mechanism": "subtract"},
    "zero": {"reset_mechanism": "zero"},
    "none": {"reset_mechanism": "none"},
    "subtract at once": {"reset_mechanism": "subtract", "reset_delay": False},
    "zero at once": {"reset_mechanism": "zero", "reset_delay": False},
}
HOOKS = ("fire", "mem_reset", "fire_inhibition", "_base_state_function", "_base_sub", "_base_zero", "_base_int")
FURTHER = ("_base_state_reset_zero", "_base_state_reset_sub_function")
STEPPED = [name for name in NEURONS if name not in (*WHOLE, "DeltaLeaky")]
Body = Mapping[str, Callable[..., Any]]


def modes_of(kind: str) -> list[str]:
    return [name for name, mode in MODES.items() if kind in DELAYS or "reset_delay" not in mode]


def weights(index: int, like: Tensor) -> Tensor:
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(index))


def flat(out: Any) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else [tensor for part in out for tensor in flat(part)]


def outcome(neuron: Any, kind: str, run: Callable[[Any, Tensor], Any] | None = None) -> Outcome:
    """Everything that a loop over time returns, and the gradients of a weighted sum of it."""
    drawn = torch.rand(STEPS, *SHAPES.get(kind, (2, 3)), generator=torch.Generator().manual_seed(1))
    xs = (2 * drawn).requires_grad_()
    if run is not None:
        outs = flat(run(neuron, xs))
    elif kind in WHOLE:
        outs = flat(neuron(xs))
    else:
        outs = [torch.stack(each) for each in zip(*[flat(neuron(x)) for x in xs.unbind(0)], strict=True)]
    loss = sum((weights(i, out) * out).sum() for i, out in enumerate(outs))
    learned = {"x": xs, **{name: p for name, p in neuron.named_parameters() if p.requires_grad}}
    grads = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
    values = {f"out {i}": out.detach() for i, out in enumerate(outs)}
    states = {name: value for name, value in values.items() if name != "out 0"}
    return Outcome({"out 0": values["out 0"]}, states, dict(zip(learned, grads, strict=True)))


def made(library: ModuleType, kind: str, body: Body, **options: Any) -> Any:
    """A neuron of a subclass with that body; the same weights in either library."""
    torch.manual_seed(0)
    base = getattr(library, kind)
    return type(kind, (base,), {"__module__": __name__, **body})(**{**NEURONS[kind], **options})


def both(kind: str, body: Body, **options: Any) -> tuple[Any, Any]:
    ours, theirs = made(snn, kind, body, **options), made(snntorch, kind, body, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


# -- the walk over all that snnTorch calls ----------------------------------------------------------------------------


def methods_of(kind: str) -> list[str]:
    """Every method that snnTorch gives a neuron beside those of nn.Module."""
    own = [k for k in getattr(snntorch, kind).__mro__ if k not in nn.Module.__mro__]
    names = {name for k in own for name, member in vars(k).items() if inspect.isfunction(member)}
    return sorted(names - {"__init__"})


def recorder(name: str, calls: list[str]) -> Callable[..., Any]:
    """An override that notes that it was called, and does what the method of the base does."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        inherited = getattr(super(type(self), self), name)
        return inherited(*args, **kwargs)

    return method


@for_each(("kind", "name"), [(kind, name) for kind in NEURONS for name in methods_of(kind)])
def test_what_snntorch_calls_is_called_or_refused(kind, name):
    """Black box: each method of snnTorch's class is overridden in turn, and who calls it is seen."""
    within = kind in STEPPED and name in (*HOOKS, *FURTHER)
    for mode in modes_of(kind) if within else [""]:
        calls: dict[str, list[str]] = {"ours": [], "theirs": []}
        theirs = made(snntorch, kind, {name: recorder(name, calls["theirs"])}, **MODES.get(mode, {}))
        wanted = outcome(theirs, kind)
        if any(name in UNCALLED.get(base.__name__, ()) for base in getattr(snn, kind).__mro__):
            with pytest.raises(TypeError, match=f"defines {name}, which nothing calls"):
                made(snn, kind, {name: recorder(name, calls["ours"])})
            return
        if name in HOOKS and name not in getattr(snn, kind)._calls:
            with pytest.raises(TypeError, match=f"defines {name}, which nothing calls; override forward"):
                made(snn, kind, {name: recorder(name, calls["ours"])})
            return
        ours = made(snn, kind, {name: recorder(name, calls["ours"])}, **MODES.get(mode, {}))
        ours.load_state_dict(theirs.state_dict())
        got = outcome(ours, kind)
        assert bool(calls["ours"]) >= bool(calls["theirs"]), f"{name} is called there and not here"
        if kind not in ("DeltaLeaky", "LeakyParallel"):  # compared elsewhere
            assert_same(got, wanted)


# -- each method, changed ---------------------------------------------------------------------------------------------


def scaled(update: Any, factor: float) -> Any:
    """The membrane of new states scaled."""
    return (*update[:-1], factor * update[-1]) if isinstance(update, tuple) else factor * update


def changed(name: str, kind: str) -> Callable[..., Any]:
    """An override that makes a difference."""

    def fire(self: Any, mem: Tensor) -> Tensor:
        return self.spike_grad(1.3 * mem - self.threshold) * self.graded_spikes_factor

    def mem_reset(self: Any, mem: Tensor) -> Tensor:
        return 0.5 * self.spike_grad(mem - 0.5 * self.threshold).detach()

    def inhibited(self: Any, batch_size: int, mem: Tensor) -> Tensor:
        return self.spike_grad(mem - self.threshold) * (mem > mem.mean())

    def dynamics(self: Any, input_: Tensor) -> Any:
        return scaled(getattr(super(type(self), self), name)(input_), 0.8)

    return {"fire": fire, "mem_reset": mem_reset, "fire_inhibition": inhibited}.get(name, dynamics)


CHANGES = [
    (kind, name, mode)
    for kind in STEPPED
    for name in (*HOOKS, *FURTHER)
    for mode in modes_of(kind)
    if name in methods_of(kind) and not (name == "fire_inhibition" and kind in ("SLSTM", "SConv2dLSTM"))
]


@for_each(("kind", "name", "mode"), CHANGES)
def test_a_changed_method_gives_the_numbers_of_snntorch(kind, name, mode):
    options = MODES[mode] | ({"inhibition": True} if name == "fire_inhibition" else {})
    ours, theirs = both(kind, {name: changed(name, kind)}, **options)
    wanted = outcome(theirs, kind)
    assert_same(outcome(ours, kind), wanted)
    ours.reset_mem()
    assert_same(outcome(ours, kind, at_once), wanted)


@for_each(("kind", "name", "mode"), [case for case in CHANGES if case[0] in ("Leaky", "Synaptic")])
def test_a_method_assigned_to_one_neuron_does_the_same(kind, name, mode):
    options = MODES[mode] | ({"inhibition": True} if name == "fire_inhibition" else {})
    ours, plain = both(kind, {}, **options)[0], made(snn, kind, {}, **options)
    other = made(snn, kind, {name: changed(name, kind)}, **options)
    setattr(ours, name, MethodType(getattr(type(other), name), Around(ours, other)))
    assert_same(outcome(ours, kind), outcome(other, kind))
    ours.reset_mem()
    other.reset_mem()
    assert_same(outcome(ours, kind, at_once), outcome(other, kind))
    assert type(plain)._overridden == ()


class Around:
    """A neuron as `self` of a method that calls its base through `super(type(self), self)`."""

    def __new__(cls, neuron: Any, other: Any) -> Any:
        """The neuron itself, of a class between."""
        neuron.__class__ = type(type(neuron).__name__, (type(neuron),), {"__module__": __name__})
        return neuron


@pytest.mark.parametrize("kind", ["StateLeaky", "LinearLeaky"])
@pytest.mark.parametrize("name", ["fire", "_base_state_function"])
def test_layers_over_whole_sequences_call_theirs(kind, name):
    ours, theirs = both(kind, {name: changed(name, kind)})
    wanted = outcome(theirs, kind)
    assert_same(outcome(ours, kind), wanted)
    assert_same(outcome(ours, kind, at_once), wanted)


def test_an_associative_memory_fires_by_the_method_of_a_subclass():
    ours, theirs = both("AssociativeLeaky", {"fire": changed("fire", "AssociativeLeaky")})
    got, wanted = outcome(ours, "AssociativeLeaky"), outcome(theirs, "AssociativeLeaky")
    assert_same(got, wanted)
    plain = both("AssociativeLeaky", {})[0]
    assert not torch.equal(outcome(plain, "AssociativeLeaky").spikes["out 0"], got.spikes["out 0"])


@pytest.mark.parametrize("mode", MODES)
def test_a_state_function_may_be_assigned(mode):
    def follow(self: Any) -> Callable[[Tensor], Tensor]:
        return lambda input_: 0.7 * self.mem + input_ - 0.6 * self.reset

    neurons = both("Leaky", {}, **MODES[mode])
    for neuron in neurons:
        neuron.state_function = follow(neuron)
    wanted = outcome(neurons[1], "Leaky")
    assert_same(outcome(neurons[0], "Leaky"), wanted)
    neurons[0].reset_mem()
    assert_same(outcome(neurons[0], "Leaky", at_once), wanted)


# -- the methods of the equation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in STEPPED if kind != "SConv2dLSTM"])
def test_the_helpers_return_what_they_return_in_snntorch(kind):
    ours, theirs = both(kind, {})
    generator = torch.Generator().manual_seed(3)
    x, fired = torch.rand(2, 3, generator=generator), torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    states = {name: torch.rand(2, 3, generator=generator) for name in ours._state_names()}
    for name in ("state_function", *HOOKS[3:], *FURTHER):
        if not hasattr(theirs, name):
            continue
        for neuron in (ours, theirs):
            for state, value in states.items():
                setattr(neuron, state, value.clone())
            neuron.reset = fired
        got, wanted = getattr(ours, name)(x), getattr(theirs, name)(x)
        assert isinstance(got, tuple) == isinstance(wanted, tuple)
        for mine, other in zip(flat_of(got), flat_of(wanted), strict=True):
            torch.testing.assert_close(torch.as_tensor(mine), torch.as_tensor(other))


def flat_of(update: Any) -> tuple[Any, ...]:
    return update if isinstance(update, tuple) else (update,)

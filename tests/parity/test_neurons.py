"""Every step-wise neuron against that of snnTorch 1.0.0 over the product of its options: numbers, gradients, names."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import spikeloom as snn

from ..oracle import Outcome, assert_same
from .running import cotangent, snntorch, spread

RESETS = ("subtract", "zero", "none")


@dataclass(frozen=True)
class Kind:
    """A neuron of both libraries.

    Args:
        values: its arguments, in several choices by name.
        learning: what it can learn there without an error.
        delays: whether it has an immediate reset that works there.
        shape: of one step.
        scale: inputs are drawn between -0.4 and 1 times this.
    """

    values: Mapping[str, Mapping[str, Any]]
    learning: Mapping[str, Any] = field(default_factory=dict)
    delays: bool = False
    shape: tuple[int, ...] = (3, 4)
    scale: float = 1.2


LEARN = {"learn_beta": True, "learn_threshold": True}
RECURRENT: Mapping[str, Mapping[str, Any]] = {
    "one to one": {"all_to_all": False, "V": -0.4},
    "one to one, per neuron": {"all_to_all": False, "V": spread(-0.6, 0.5, 4)},
    "frozen": {"all_to_all": False, "V": 0.3, "learn_recurrent": False},
    "through Linear": {"linear_features": 4},
    "through a frozen Linear": {"linear_features": 4, "learn_recurrent": False},
}
THROUGH_CONV = {"through Conv2d": {"conv2d_channels": 2, "kernel_size": (3, 5)}}
PER_NEURON = {"alpha": spread(0.3, 0.9, 4), "beta": spread(0.2, 0.8, 4), "threshold": spread(0.4, 1.2, 4)}

KINDS: dict[str, dict[str, Kind]] = {
    "Synaptic": {
        "": Kind(
            {"numbers": {"alpha": 0.7, "beta": 0.8}, "per neuron": PER_NEURON, "beyond": {"alpha": 1.2, "beta": -0.3}},
            LEARN | {"learn_alpha": True},
            delays=True,
        )
    },
    "Lapicque": {
        "": Kind(
            {
                "beta": {"beta": 0.8},
                "R and C": {"R": 4.0, "C": 1.0},
                "beta and R": {"beta": 0.8, "R": 3.0},
                "beta and C": {"beta": 0.8, "C": 2.0},
                "time step": {"R": 8.0, "C": 1.0, "time_step": 2.0},
            },
            {"learn_threshold": True},
            scale=5.0,
        )
    },
    "Alpha": {
        "": Kind(
            {
                "numbers": {"alpha": 0.9, "beta": 0.8, "threshold": 0.3},
                "far apart": {"alpha": 0.9, "beta": 0.1, "threshold": 0.3},
                "per neuron": {"alpha": spread(0.8, 0.95, 4), "beta": spread(0.2, 0.7, 4), "threshold": 0.3},
            },
            LEARN,
        )
    },
    "RLeaky": {
        "": Kind({k: {"beta": 0.8, **v} for k, v in RECURRENT.items()}, LEARN, delays=True),
        "images": Kind({k: {"beta": 0.8, **v} for k, v in THROUGH_CONV.items()}, LEARN, True, (2, 2, 4, 5)),
    },
    "RSynaptic": {
        "": Kind({k: {"alpha": 0.6, "beta": 0.7, **v} for k, v in RECURRENT.items()}, LEARN | {"learn_alpha": True}),
        "images": Kind(
            {k: {"alpha": 0.6, "beta": 0.7, **v} for k, v in THROUGH_CONV.items()}, LEARN, shape=(2, 2, 4, 5)
        ),
    },
}

CASES = [
    pytest.param(name, kind, options, id="-".join(filter(None, (name, which, value, reset, late, learning))))
    for name, kinds in KINDS.items()
    for which, kind in kinds.items()
    for value, given in kind.values.items()
    for reset, late, learning in product(RESETS, ("", "immediate") if kind.delays else ("",), ("", "learning"))
    for options in [
        {
            **given,
            "reset_mechanism": reset,
            **({"reset_delay": False} if late else {}),
            **(kind.learning if learning else {}),
        }
    ]
]


def made(library: ModuleType, name: str, options: Mapping[str, Any]) -> Any:
    torch.manual_seed(1)  # for the recurrent weights
    return getattr(library, name)(**{k: v.clone() if isinstance(v, Tensor) else v for k, v in options.items()})


def inputs(kind: Kind, steps: int = 7) -> Tensor:
    drawn = torch.rand(steps, *kind.shape, generator=torch.Generator().manual_seed(7))
    return ((1.4 * drawn - 0.4) * kind.scale).requires_grad_()


def by_steps(neuron: Any, xs: Tensor) -> tuple[Tensor, ...]:
    """The loop that the tutorials write, with the states passed by hand."""
    states, seen = neuron.reset_mem(), []
    states = states if isinstance(states, tuple) else (states,)
    for x in xs.unbind(0):
        outs = neuron(x, *states)
        seen.append(outs)
        states = outs if len(outs) == len(states) else outs[1:]
    return tuple(torch.stack(each) for each in zip(*seen, strict=True))


def hidden(neuron: Any, xs: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.stack(each) for each in zip(*[neuron(x) for x in xs.unbind(0)], strict=True))


def outcome(neuron: Any, kind: Kind, run: Any) -> Outcome:
    xs = inputs(kind)
    outs = run(neuron, xs)
    learned = {"x": xs, **{n: p for n, p in neuron.named_parameters() if p.requires_grad}}
    total = sum((out * cotangent(out, seed)).sum() for seed, out in enumerate(outs))
    grads = torch.autograd.grad(total, list(learned.values()))
    states = {f"state {i}": out.detach() for i, out in enumerate(outs[1:])}
    return Outcome({"spk": outs[0].detach()}, states, dict(zip(learned, grads, strict=True)))


@pytest.mark.parametrize(("name", "kind", "options"), CASES)
def test_the_product_of_the_options(name, kind, options):
    """Step by step on the plain loop, which compiles nothing; that kernels agree with it is tested apart."""
    theirs, ours = (made(library, name, options) for library in (snntorch, snn))
    wanted = outcome(theirs, kind, by_steps)
    with snn.backend("loop"):
        assert_same(outcome(ours, kind, by_steps), wanted)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert list(dict(ours.named_parameters())) == list(dict(theirs.named_parameters()))


@pytest.mark.parametrize("name", KINDS)
def test_at_once_on_the_fastest_backend(name):
    for kind in KINDS[name].values():
        for given in kind.values.values():
            options = {**given, **kind.learning, "output": True, "init_hidden": True}
            wanted = outcome(made(snntorch, name, options), kind, hidden)
            assert_same(outcome(made(snn, name, options), kind, snn.unroll), wanted)


@pytest.mark.parametrize("name", KINDS)
def test_the_inputs_make_some_neurons_fire_and_not_all(name):
    """Guards the tests above."""
    for kind in KINDS[name].values():
        options = [{**given, "init_hidden": True, "output": True} for given in kind.values.values()]
        with torch.no_grad():
            rates = [float(hidden(made(snn, name, given), inputs(kind))[0].mean()) for given in options]
        assert 0.02 < max(rates) < 0.95, rates


@pytest.mark.parametrize("name", [*KINDS, "DeltaLeaky"])
def test_the_arguments_have_the_same_names_order_and_defaults(name):
    ours, theirs = (inspect.signature(getattr(library, name)).parameters for library in (snn, snntorch))
    taken = [(p.name, p.default) for p in ours.values()]
    assert taken[: len(theirs)] == [(p.name, p.default) for p in theirs.values()]
    assert [n for n, _ in taken[len(theirs) :]] == ([] if name in ("Lapicque", "DeltaLeaky") else ["decay"])
    ours, theirs = (inspect.signature(getattr(library, name).forward).parameters for library in (snn, snntorch))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


@pytest.mark.parametrize("way", [("theirs", "ours"), ("ours", "theirs")], ids=" to ".join)
@pytest.mark.parametrize("name", KINDS)
def test_checkpoints_load_strictly_in_both_directions(name, way):
    libraries = {"ours": snn, "theirs": snntorch}
    for kind in KINDS[name].values():
        for given in kind.values.values():
            source, target = (made(libraries[which], name, {**given, **kind.learning}) for which in way)
            target.load_state_dict(source.state_dict(), strict=True)


KEEPING = {
    "states by hand": {},
    "states by hand, output": {"output": True},
    "init_hidden": {"init_hidden": True},
    "init_hidden, output": {"init_hidden": True, "output": True},
}


@pytest.mark.parametrize("keeping", KEEPING)
@pytest.mark.parametrize("name", KINDS)
def test_what_a_call_returns(name, keeping):
    kind = KINDS[name][""]
    given = next(iter(kind.values.values()))
    theirs, ours = (made(library, name, {**given, **KEEPING[keeping]}) for library in (snntorch, snn))
    for x in inputs(kind).detach():
        got, wanted = ours(x), theirs(x)
        assert isinstance(got, tuple) == isinstance(wanted, tuple)
        for a, b in zip(tree_leaves(got), tree_leaves(wanted), strict=True):
            torch.testing.assert_close(a, b)
    reset = ours.reset_mem()
    assert isinstance(reset, tuple) == isinstance(theirs.reset_mem(), tuple)
    alias = f"init_{name.lower()}"
    assert len(tree_leaves(getattr(ours, alias)())) == len(tree_leaves(getattr(theirs, alias)()))


@pytest.mark.parametrize("name", KINDS)
def test_state_quant_sees_the_same_states(name):
    def quantised(state: Tensor) -> Tensor:
        return state + (torch.round(8 * state) / 8 - state).detach()

    kind = KINDS[name][""]
    options = {**next(iter(kind.values.values())), "state_quant": quantised}
    assert_same(
        outcome(made(snn, name, options), kind, by_steps), outcome(made(snntorch, name, options), kind, by_steps)
    )


@pytest.mark.filterwarnings("ignore:.*[Ii]nhibition")
@pytest.mark.parametrize("name", KINDS)
def test_inhibition_lets_the_same_neuron_fire(name):
    kind = KINDS[name][""]
    options = {**next(iter(kind.values.values())), "inhibition": True}
    assert_same(
        outcome(made(snn, name, options), kind, by_steps), outcome(made(snntorch, name, options), kind, by_steps)
    )


@pytest.mark.parametrize("arguments", [
    {},
    {"linear_features": 3, "conv2d_channels": 2, "kernel_size": 3},
    {"conv2d_channels": 2},
    {"all_to_all": False, "linear_features": 3},
    {"all_to_all": False, "conv2d_channels": 2, "kernel_size": 3},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", ["RLeaky", "RSynaptic"])
def test_the_same_kinds_of_recurrence_are_refused(name, arguments):
    decays = {"beta": 0.8} | ({"alpha": 0.7} if name == "RSynaptic" else {})
    for library in (snn, snntorch):
        with pytest.raises(TypeError):
            getattr(library, name)(**decays, **arguments)


@pytest.mark.parametrize("hidden", [False, True], ids=["states by hand", "init_hidden"])
def test_delta_leaky(hidden):
    kind = Kind({})
    theirs, ours = (library.DeltaLeaky(0.2, beta=0.8, init_hidden=hidden) for library in (snntorch, snn))
    pair_ours = pair_theirs = None if hidden else (None, None)
    for x in inputs(kind).detach():
        spk_ours, states_ours = ours(x, pair_ours)
        spk_theirs, states_theirs = theirs(x, pair_theirs)
        assert torch.equal(spk_ours, spk_theirs)
        for a, b in zip(states_ours, states_theirs, strict=True):
            torch.testing.assert_close(a, b)
        if not hidden:
            pair_ours, pair_theirs = states_ours, states_theirs
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.delta_threshold == theirs.delta_threshold

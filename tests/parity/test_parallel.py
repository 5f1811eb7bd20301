"""Our neurons over whole sequences against those of snnTorch 1.0.0: the same keys, numbers and gradients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeloom as snn

from ..oracle import Outcome, assert_same
from .running import cotangent, snntorch, spread

T, B, N, OUT = 21, 3, 4, 5


@dataclass(frozen=True)
class Case:
    """One layer and how it is run.

    Args:
        kind: its class.
        sizes: its first arguments by name.
        options: its other arguments; `spike_grad` is a name in `surrogate` with its arguments.
        shape: of the input.
        seed: of weights and inputs.
    """

    kind: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (T, B, N)
    seed: int = 1


def layer(library: ModuleType, case: Case) -> Any:
    """The layer of either library, with the same weights: both draw them in the same order."""
    torch.manual_seed(case.seed)
    given = {**case.sizes, **case.options}
    options = {key: value.clone() if isinstance(value, Tensor) else value for key, value in given.items()}
    if "spike_grad" in options:
        name, *constants = options["spike_grad"]
        options["spike_grad"] = getattr(library.surrogate, name)(*constants)
    return getattr(library, case.kind)(**options)


def inputs(case: Case) -> Tensor:
    """The sequence; the same at every call."""
    drawn = torch.rand(case.shape, generator=torch.Generator().manual_seed(case.seed))
    return (3.0 * drawn - 1.0).requires_grad_()


def outcome(library: ModuleType, case: Case, prepare: Callable[[Any], None] = lambda layer: None) -> Outcome:
    """Spikes, membranes, and the gradients of a weighted sum of both; not those of what has none in ours."""
    net, xs = layer(library, case), inputs(case)
    prepare(net)
    outs = net(xs)
    outs = outs if isinstance(outs, tuple) else (outs,)
    names = ("spk", "mem")[-len(outs) :] if case.kind in ("StateLeaky", "LinearLeaky") else ("spk",)
    dead = "beta" if case.kind in ("StateLeaky", "LinearLeaky") else ""
    learned = {name: p for name, p in net.named_parameters() if p.requires_grad and name != dead}
    total = sum((out * cotangent(out, i)).sum() for i, out in enumerate(outs))
    grads = torch.autograd.grad(total, [xs, *learned.values()])
    found = dict(zip(names, (out.detach() for out in outs), strict=True))
    spikes = {name: out for name, out in found.items() if name == "spk"}
    return Outcome(
        spikes, {k: v for k, v in found.items() if k == "mem"}, dict(zip(("x", *learned), grads, strict=True))
    )


def assert_alike(case: Case) -> None:
    ours, theirs = outcome(snn, case), outcome(snntorch, case)
    assert not theirs.spikes or theirs.spikes["spk"].any(), "without spikes this would compare little"
    assert_same(ours, theirs)


BETAS = {"a number": 0.8, "one in a vector": torch.tensor([0.6]), "per channel": spread(0.2, 1.0, N)}
LEARNING = {
    "nothing": {},
    "beta": {"learn_beta": True},
    "everything": {"learn_beta": True, "learn_threshold": True, "learn_graded_spikes_factor": True},
}


@pytest.mark.parametrize("K", [None, 1, 4, T, 2 * T])
@pytest.mark.parametrize("graded", [1.0, 1.7])
@pytest.mark.parametrize("learning", LEARNING)
@pytest.mark.parametrize("beta", BETAS)
def test_the_product_of_the_options_of_state_leaky(beta, learning, graded, K):
    options = {"graded_spikes_factor": graded, "kernel_truncation_steps": K, **LEARNING[learning]}
    assert_alike(Case("StateLeaky", {"beta": BETAS[beta], "channels": N}, options))


STATE, LINEAR = {"beta": 0.7, "channels": N}, {"beta": 0.7, "in_features": N, "out_features": OUT}


def quantised(mem: Tensor) -> Tensor:
    """To eighths, with the gradient of the identity."""
    return mem + (torch.round(8 * mem) / 8 - mem).detach()


CASES = {
    "membranes alone": Case("StateLeaky", STATE, {"output": False, "learn_beta": True}),
    "beta of an integer": Case("StateLeaky", {"beta": 1, "channels": N}),
    "beta of zero": Case("StateLeaky", {"beta": 0.0, "channels": N}),
    "beta beyond one": Case("StateLeaky", {"beta": 1.1, "channels": N}),
    "a threshold per channel": Case("StateLeaky", STATE, {"threshold": spread(0.3, 2.0, N), "learn_threshold": True}),
    "no gradient through spikes": Case("StateLeaky", STATE, {"surrogate_disable": True}),
    "another surrogate": Case("StateLeaky", STATE, {"spike_grad": ("fast_sigmoid", 5)}),
    "a surrogate of the user's": Case(
        "StateLeaky", STATE, {"spike_grad": ("custom_surrogate", lambda x, grad, spikes: grad * torch.exp(-x.abs()))}
    ),
    "quantised": Case("StateLeaky", STATE, {"state_quant": quantised, "graded_spikes_factor": 1.5}),
    "quantised, truncated": Case("StateLeaky", STATE, {"state_quant": quantised, "kernel_truncation_steps": 3}),
    "channels that do not count": Case("StateLeaky", STATE, shape=(T, B, N + 1)),
    "one step": Case("StateLeaky", STATE, shape=(1, B, N)),
    "long": Case("StateLeaky", {"beta": 0.95, "channels": N}, {"learn_beta": True}, shape=(300, B, N)),
    "linear": Case("LinearLeaky", LINEAR),
    "linear, learned": Case("LinearLeaky", LINEAR, {**LEARNING["everything"], "graded_spikes_factor": 1.2}),
    "linear, no bias": Case("LinearLeaky", LINEAR, {"bias": False}),
    "linear, membranes alone": Case("LinearLeaky", LINEAR, {"output": False}),
    "linear, truncated": Case("LinearLeaky", LINEAR, {"kernel_truncation_steps": 5}),
    "linear, per output": Case("LinearLeaky", {**LINEAR, "beta": spread(0.2, 0.9, OUT)}, {"learn_beta": True}),
}


@pytest.mark.filterwarnings("ignore:.*output=False")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_option_after_the_other(case):
    assert_alike(case)


@pytest.mark.parametrize("learn", [False, True], ids=["frozen", "learned"])
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("beta", [None, 0.3, 1.4], ids=["drawn", "a number", "beyond one"])
def test_the_product_of_the_options_of_leaky_parallel(beta, bias, full, learn):
    sizes = {"input_size": N, "hidden_size": OUT}
    options = {"beta": beta, "bias": bias, "weight_hh_enable": full, "learn_beta": learn, "threshold": 0.6}
    if full and beta:
        options["beta"] = beta / 10  # all membranes add up
    assert_alike(Case("LeakyParallel", sizes, options))


PARALLEL = {
    "unbatched": Case("LeakyParallel", {"input_size": N, "hidden_size": OUT}, {"threshold": 0.5}, shape=(T, N)),
    "everything learned": Case(
        "LeakyParallel",
        {"input_size": N, "hidden_size": OUT},
        {"threshold": 0.5, "graded_spikes_factor": 1.3, "beta": 0.9, **LEARNING["everything"]},
    ),
    "another surrogate": Case(
        "LeakyParallel", {"input_size": N, "hidden_size": OUT}, {"spike_grad": ("sigmoid", 4), "beta": 0.9}
    ),
}


@pytest.mark.parametrize("case", PARALLEL.values(), ids=PARALLEL)
def test_leaky_parallel_otherwise(case):
    assert_alike(case)


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_a_membrane_that_is_held_at_zero_passes_no_gradient_as_there(full):
    for library in (snn, snntorch):
        net = library.LeakyParallel(N, OUT, bias=False, weight_hh_enable=full)
        x = torch.zeros(T, B, N, requires_grad=True)
        (grad,) = torch.autograd.grad(net(x).sum(), x)
        assert not grad.any()


@pytest.mark.parametrize("K", [None, 4])
def test_what_is_no_number_flows_as_there(K):
    x = inputs(Case("StateLeaky", STATE)).detach()
    x[3, 0, 0], x[4, 1, 1], x[5, 2, 2] = torch.nan, torch.inf, -torch.inf
    ours, theirs = (library.StateLeaky(0.9, N, kernel_truncation_steps=K)(x) for library in (snn, snntorch))
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], equal_nan=True)


def remembering(net: Any) -> None:
    """Gates near one, where snnTorch's division by their product is still exact enough."""
    with torch.no_grad():
        net.to_alpha.bias.add_(4.0)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("query", [False, True], ids=["spikes", "query"])
@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (1, 9), (9, 1)])
def test_the_associative_memory_where_snntorch_is_exact(rows, columns, query, seed):
    sizes = {"in_dim": N, "d_value": rows, "d_key": columns, "num_spiking_neurons": rows * columns}
    case = Case("AssociativeLeaky", sizes, {"use_q_projection": query}, seed=seed)
    ours, theirs = outcome(snn, case, remembering), outcome(snntorch, case, remembering)
    assert theirs.spikes["spk"].any()
    if query:  # a sum of numbers, in another order
        ours, theirs = (Outcome({}, o.spikes, o.gradients) for o in (ours, theirs))
    assert_same(ours, theirs)


LAYERS = {
    **{f"StateLeaky, {name}": Case("StateLeaky", STATE, options) for name, options in LEARNING.items()},
    **{f"LinearLeaky, {name}": Case("LinearLeaky", LINEAR, options) for name, options in LEARNING.items()},
    **{
        f"LeakyParallel, beta {beta}, {name}": Case(
            "LeakyParallel", {"input_size": N, "hidden_size": OUT}, {"beta": beta, "bias": bool(beta), **options}
        )
        for beta, (name, options) in product((None, 0.5), LEARNING.items())
    },
    **{
        f"AssociativeLeaky, query {query}": Case(
            "AssociativeLeaky",
            {"in_dim": N, "d_value": 2, "d_key": 3, "num_spiking_neurons": 6},
            {"use_q_projection": query},
        )
        for query in (True, False)
    },
}


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS)
def test_keys_parameters_and_first_weights_are_theirs_and_checkpoints_load_both_ways(case):
    ours, theirs = layer(snn, case), layer(snntorch, case)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
        assert ours.state_dict()[name].dtype == value.dtype
    other = Case(case.kind, case.sizes, case.options, seed=7)
    for library, twin in ((snn, theirs), (snntorch, ours)):
        loading = layer(library, other)
        loading.load_state_dict(twin.state_dict(), strict=True)
        assert all(
            torch.equal(a, b) for a, b in zip(loading.state_dict().values(), twin.state_dict().values(), strict=True)
        )


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9, 1.0, 1])
def test_beta_reads_as_it_does_there(beta):
    ours, theirs = (library.StateLeaky(beta, 2) for library in (snn, snntorch))
    assert torch.equal(ours.beta, theirs.beta)
    assert torch.equal(ours.tau, theirs.tau)


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 2.0},
        {"spike_grad": torch.sigmoid},
        {"surrogate_disable": True},
        {"learn_threshold": True},
        {"graded_spikes_factor": 2.0},
        {"learn_graded_spikes_factor": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_given_for_spikes_is_warned_of_where_there_are_none(options, recwarn):
    counts = []
    for library in (snn, snntorch):
        library.StateLeaky(0.9, 2, output=False, **options)
        counts.append(len(recwarn.list))
        recwarn.clear()
    assert counts[0] == counts[1]
    snn.StateLeaky(0.9, 2, **options)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["fire_inhibition", "mem_reset"])
def test_what_a_neuron_with_resets_has_is_refused_as_there(name):
    args = (1, torch.zeros(1, 2)) if name == "fire_inhibition" else (torch.zeros(1, 2),)
    for library in (snn, snntorch):
        with pytest.raises(NotImplementedError):
            getattr(library.StateLeaky(0.9, 2), name)(*args)


def test_linear_leaky_keeps_what_it_returned_as_there():
    case = Case("LinearLeaky", LINEAR)
    for library in (snn, snntorch):
        net = layer(library, case)
        spk, mem = net(inputs(case))
        assert net.mem is mem
        assert net.spk is spk
        assert torch.equal(net(inputs(case))[1], mem), "the next call does not go on from it"


@pytest.mark.parametrize("number", [16, 15, 1])
def test_a_square_memory_of_so_many_neurons_as_there(number):
    for library in (snn, snntorch):
        make = library.AssociativeLeaky.from_num_spiking_neurons
        if number == 15:
            with pytest.raises(ValueError, match="square"):
                make(3, number)
        else:
            net = make(3, number, use_q_projection=False)
            assert net.d_value == net.d_key == round(number**0.5)
            assert net(torch.rand(2, 1, 3)).shape == (2, 1, number)

"""The scan of a matrix: the kernel against the reference, the reference against its equation."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import spikeloom as snn
from spikeloom import surrogate
from spikeloom.cells import ASSOCIATIVE
from spikeloom.cells.firing import Frame
from spikeloom.engine.graph.program import program_for
from spikeloom.engine.run import matrix
from spikeloom.engine.run.backends import choose
from spikeloom.engine.run.matrix import MATRICES, MatrixCall
from spikeloom.engine.tuning import shapes

from ...cases import SPIKES
from ...oracle import Outcome, assert_same
from ..running import weights

SIZES = {
    "one of each": (1, 1, 1, 1),
    "small": (5, 2, 3, 4),
    "a span": (shapes.matrix_span, 1, 2, 8),
    "a span and one": (shapes.matrix_span + 1, 2, 2, 9),
    "many spans": (5 * shapes.matrix_span - 3, 3, 4, 17),
    "wide": (6, 2, 1, 130),
    "tall": (6, 2, 130, 1),
}
"""T, B, D, N."""
PARAMS = {"threshold": 0.4, "graded_spikes_factor": 1.5}


def call_of(size: tuple[int, ...], dtype: torch.dtype, spike=SPIKES["atan"], learn: bool = True) -> MatrixCall:
    T, B, D, N = size
    draw = torch.Generator().manual_seed(T + N)
    v, k = (torch.randn(T, B, n, generator=draw, dtype=torch.float64).to(dtype) for n in (D, N))
    gate = torch.rand(T, B, N, generator=draw, dtype=torch.float64).to(dtype)
    v, k, gate = (t.requires_grad_(learn) for t in (v, k, gate))
    params = {name: torch.tensor(value, dtype=dtype) for name, value in PARAMS.items()}
    return MatrixCall(program_for(ASSOCIATIVE.cell(Frame()), spike), v, k, gate, params, "the test")


def run(backend: str, call: MatrixCall) -> Tensor:
    with snn.backend(backend):
        machine, _ = choose(call, MATRICES)
        return machine.run(call)


def outcome(backend: str, call: MatrixCall) -> Outcome:
    spk = run(backend, call)
    grads = torch.autograd.grad((spk * weights(spk, 0)).sum(), (call.v, call.k, call.gate), allow_unused=True)
    return Outcome({"spk": spk.detach()}, {}, dict(zip(("v", "k", "gate"), grads, strict=True)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_kernel_gives_what_the_reference_gives(size, dtype):
    call = call_of(size, dtype)
    assert_same(outcome("numba", call), outcome("loop", call))


@pytest.mark.parametrize("spike", ["sigmoid", "straight_through", "boxcar"])
def test_surrogates_are_fused(spike):
    """Of an elementary function, of nothing, of a comparison."""
    call = call_of(SIZES["many spans"], torch.float64, SPIKES[spike])
    assert_same(outcome("numba", call), outcome("loop", call))


def test_without_a_surrogate_no_gradient_flows():
    got = outcome("numba", call_of(SIZES["small"], torch.float32, SPIKES["none"]))
    assert all(not grad.any() for grad in got.gradients.values())


@pytest.mark.parametrize("backend", ["loop", "numba"])
def test_the_spikes_are_those_of_the_equation(backend):
    call = call_of(SIZES["many spans"], torch.float64, learn=False)
    T, B, D, N = SIZES["many spans"]
    spk = run(backend, call)
    for b, i, j in product(range(B), range(D), range(N)):
        S = 0.0
        for t in range(T):
            S = S * float(call.gate[t, b, j]) + float(call.v[t, b, i]) * float(call.k[t, b, j])
            assert float(spk[t, b, i, j]) == 1.5 * (S > 0.4)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch, tuned):
    call = call_of((40, 5, 3, 20), torch.float32)
    alone = outcome("numba", call)
    tuned(serial_below=0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = outcome("numba", call)
    assert torch.equal(alone.spikes["spk"], together.spikes["spk"])
    assert all(torch.equal(alone.gradients[name], together.gradients[name]) for name in alone.gradients)


def test_of_the_matrices_one_in_a_span_is_kept():
    call = call_of(SIZES["many spans"], torch.float32)
    T, B, D, N = SIZES["many spans"]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        run("numba", call)
    values = len(call.program.structure.derivation.hoisted) - 1  # numbers, beside the gate
    assert sum(kept) == 5 * B * D * N + T * B * (D + N + N) + values


def arguments(call: MatrixCall) -> tuple[Any, ...]:
    return call.program.key, "the test", call.v, call.k, call.gate, matrix._numbers(call)


def test_nothing_is_kept_where_nobody_asks_for_gradients():
    spk, kept = matrix._operator(*arguments(call_of(SIZES["many spans"], torch.float32, learn=False)), False)
    assert kept.numel() == 0
    assert spk.any()


@pytest.mark.parametrize("learn", [False, True], ids=["inference", "training"])
def test_torch_finds_the_operator_sound(learn):
    """Its schema, its fake tensors, its autograd registration, under tracing with dynamic shapes."""
    torch.library.opcheck(matrix._operator, (*arguments(call_of(SIZES["small"], torch.float32, learn=learn)), learn))


@pytest.mark.parametrize("backend", ["loop", "numba"])
def test_no_steps_and_no_rows_give_nothing(backend):
    for size in ((0, 2, 3, 4), (3, 0, 3, 4)):
        spk = run(backend, call_of(size, torch.float32))
        assert spk.shape == size
        if spk.requires_grad:
            spk.sum().backward()


def test_nan_and_inf_flow_as_in_torch():
    results = []
    for backend in ("loop", "numba"):
        call = call_of(SIZES["a span and one"], torch.float32, learn=False)
        call.v[3, 0, 0], call.k[5, 1, 2], call.gate[7, 0, 1] = torch.nan, torch.inf, torch.nan
        results.append(run(backend, call))
    assert torch.equal(*results)


REFUSED = {
    "a threshold that learns": ({"threshold": torch.tensor(0.4, requires_grad=True)}, "no gradient from its kernel"),
    "a threshold per column": ({"threshold": torch.linspace(0.1, 0.5, 4)}, "one number each"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_its_kernel_does_not_do_runs_on_the_loop_and_says_so(name):
    params, why = REFUSED[name]
    call = call_of(SIZES["small"], torch.float32)
    call = MatrixCall(call.program, call.v, call.k, call.gate, {**call.params, **params}, "the test")
    machine, refusals = choose(call, MATRICES)
    assert machine.name == "loop"
    assert why in refusals[0]
    machine.run(call).sum().backward()
    with snn.backend("numba"), pytest.raises(RuntimeError, match=why):
        choose(call, MATRICES)


def test_a_second_derivative_is_refused_in_a_sentence():
    call = call_of(SIZES["small"], torch.float64)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(run("numba", call).sum(), call.v, create_graph=True)


def test_a_call_from_within_a_transform_runs_on_the_loop():
    call = call_of(SIZES["small"], torch.float64, surrogate.fast_sigmoid(5))

    def total(v: Tensor) -> Tensor:
        inner = MatrixCall(call.program, v, call.k.detach(), call.gate.detach(), call.params, "the test")
        return choose(inner, MATRICES)[0].run(inner).sum()

    (wanted,) = torch.autograd.grad(run("loop", call).sum(), call.v)
    torch.testing.assert_close(torch.func.grad(total)(call.v.detach()), wanted)

"""Equations that are other operations on tensors than on symbols are refused when they are decorated."""

from functools import partial

import pytest
import torch

import spikeloom as snn
from spikeloom import ops, surrogate


def catching(x, mem, *, beta=0.9):
    try:
        mem = mem.clamp(0)
    except Exception:
        mem = beta * mem + x
    return ops.spike(mem - 1), mem


def of_a_type(x, mem, *, beta=0.9):
    mem = beta * mem + x
    if type(mem) is torch.Tensor:
        mem = 2 * mem
    return ops.spike(mem - 1), mem


def of_an_attribute(x, mem, *, beta=0.9):
    mem = beta * mem + x
    if hasattr(mem, "record"):
        mem = 2 * mem
    return ops.spike(mem - 1), mem


def of_the_text(x, mem, *, beta=0.9):
    mem = beta * mem + x
    if "tensor" in repr(mem):
        mem = 2 * mem
    return ops.spike(mem - 1), mem


def without_a_bool(x, mem, *, beta=0.9):
    mem = beta * mem + x
    return ops.spike(mem - True), mem


def beyond_int64(x, mem, *, beta=0.9):
    mem = beta * mem + x
    return ops.spike(mem - 1), ops.where(mem > 2**70, 0.0, mem)


def beyond_float32(x, mem, *, beta=0.9):
    return ops.spike(mem - 1), ops.minimum(beta * mem + x, 1e39)


@pytest.mark.parametrize("equation", [catching, of_a_type, of_an_attribute, of_the_text])
def test_another_equation_on_tensors_is_refused(equation):
    with pytest.raises(TypeError, match="computes something else on tensors"):
        snn.cell(equation)


@pytest.mark.parametrize("equation", [without_a_bool, beyond_int64, beyond_float32])
def test_what_tensors_refuse_is_refused_with_its_line(equation):
    with pytest.raises(TypeError, match=r"does not run on tensors: .*test_equation_on_tensors\.py"):
        snn.cell(equation)


def test_a_plain_loop_may_look_at_types():
    lif = snn.cell(loop=True)(of_a_type)()
    assert snn.unroll(lif, torch.ones(1, 1, 1))[1].item() == 2


def slope_of_a_type(u, height):
    return height * u if type(u) is torch.Tensor else height


def slope_catching(u, height):
    try:
        return height * u.clamp(0, 1)
    except Exception:
        return height


def slope_of_the_text(u, height):
    return 0.0 if "tensor" in repr(u) else height


def slope_on_symbols_alone(u, height):
    return height * u.record("abs", u)


def call(formula, u):
    return surrogate.Spike("mine", formula, {"height": 2.0})(u)


@pytest.mark.parametrize("formula", [slope_of_a_type, slope_catching, slope_of_the_text])
def test_another_formula_on_tensors_runs_through_the_loop(formula):
    grads, x = [], torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0))
    for spike_grad in (surrogate.Spike("mine", formula, {"height": 2.0}), partial(call, formula)):
        lif = snn.Leaky(beta=0.9, spike_grad=spike_grad)
        leaf = (2 * x).requires_grad_()
        snn.unroll(lif, leaf)[0].sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)
    message = str(snn.explain(snn.Leaky(beta=0.9, spike_grad=surrogate.Spike("mine", formula, {"height": 1.0})), x))
    assert "it computes something else on tensors" in message


def test_a_formula_that_does_not_run_on_tensors_says_so():
    lif = snn.Leaky(beta=0.9, spike_grad=surrogate.Spike("mine", slope_on_symbols_alone, {"height": 2.0}))
    assert "does not run on tensors: 'Tensor' object has no attribute 'record'" in str(
        snn.explain(lif, torch.rand(2, 1, 3))
    )


def test_decoration_draws_no_random_numbers():
    before = torch.get_rng_state()

    @snn.cell
    def Plain(x, mem, *, beta=0.9):
        return ops.spike(mem - 1), beta * mem + x

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["numba", "loop"])
def test_numbers_beyond_float32(backend, dtype):
    @snn.cell
    def Huge(x, mem, *, beta=0.9):
        mem = ops.where(x < 1e300, mem + x, 0.0)
        return ops.spike(mem - 1), mem

    with snn.backend(backend):
        assert snn.unroll(Huge(), torch.ones(3, 1, 1, dtype=dtype))[1].flatten().tolist() == [1, 2, 3]

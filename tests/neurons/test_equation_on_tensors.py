"""Equations that are other operations on tensors than on symbols are refused when they are decorated."""

import pytest
import torch

import spikeloom as snn
from spikeloom import ops


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

"""The operations on tensors are those of torch; errors are sentences."""

import inspect

import pytest
import torch

from spikeloom import ops, surrogate
from spikeloom.cells.cell import cell_from
from spikeloom.engine.graph.trace import Graph, trace

U = torch.tensor([-torch.inf, -2.5, -1.0, -0.0, 0.0, 0.3, 1.0, 7.0, torch.inf, torch.nan], dtype=torch.float64)
V = U.flip(0)
ONE_ARGUMENT = ("exp", "log", "sqrt", "abs", "tanh", "sigmoid", "sin", "cos", "detach")


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def public() -> dict[str, object]:
    words = {name: f for name, f in vars(ops).items() if inspect.isfunction(f) and f.__module__ == ops.__name__}
    return {name: f for name, f in words.items() if not name.startswith("_")}


def test_every_operation_is_tested_here():
    tested = {*ONE_ARGUMENT, "minimum", "maximum", "where", "clamp", "full_like", "spike", "heaviside", "spiking_with"}
    assert set(public()) == tested
    assert set(ops.TENSOR_FUNCTIONS) <= tested


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_one_argument_is_torchs(name, dtype):
    u = U.to(dtype)
    same(getattr(ops, name)(u), getattr(torch, name)(u))


@pytest.mark.parametrize("name", ["minimum", "maximum"])
def test_two_arguments_are_torchs(name):
    same(getattr(ops, name)(U, V), getattr(torch, name)(U, V))
    same(getattr(ops, name)(U[:, None], V), getattr(torch, name)(U[:, None], V))


def test_where_clamp_full_like_are_torchs():
    same(ops.where(U > 0, U, V), torch.where(U > 0, U, V))
    same(ops.where(U > 0, U, 0.5), torch.where(U > 0, U, 0.5))
    same(ops.where(U > 0, 0.5, U.float()), torch.where(U > 0, 0.5, U.float()))
    same(ops.clamp(U, -1, 1), torch.clamp(U, -1, 1))
    same(ops.full_like(U.half(), 0.1), torch.full_like(U.half(), 0.1))


def test_gradients_are_torchs():
    u = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0], requires_grad=True)
    clamped, absolute = (torch.autograd.grad(f.sum(), u)[0].tolist() for f in (ops.clamp(u, -1, 1), ops.abs(u)))
    assert clamped == [0, 1, 1, 1, 1]
    assert absolute == [-1, -1, 0, 1, 1]
    assert not ops.detach(u).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_spike_is_the_strict_step_in_the_dtype_of_its_input(dtype):
    spk = ops.spike(U.to(dtype))
    assert spk.dtype == dtype
    assert spk.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 0]
    same(spk, ops.heaviside(U.to(dtype)))


def test_spike_takes_the_surrogate_of_its_context_and_gives_it_back():
    u = torch.tensor([0.0], requires_grad=True)
    with ops.spiking_with(surrogate.atan(alpha=2)):
        with pytest.raises(KeyError), ops.spiking_with(surrogate.fast_sigmoid()):
            raise KeyError
        assert torch.autograd.grad(ops.spike(u), u)[0].item() == 1.0
    assert not ops.spike(u).requires_grad


@pytest.mark.parametrize("name", sorted(ops.TENSOR_FUNCTIONS))
def test_numbers_alone_are_refused(name):
    word = getattr(ops, name)
    numbers = [0.5] * len(inspect.signature(word).parameters)
    if name == "where":
        with pytest.raises(
            TypeError, match=r"ops.where got two numbers, 0.5 and 0.5, without dtype; replace one .*full_like"
        ):
            word(U > 0, 0.5, 0.5)
    else:
        with pytest.raises(TypeError, match=rf"ops.{name} got .*0.5.*; pass at least one tensor, or use Python's math"):
            word(*numbers)


@pytest.mark.parametrize("name", [*ONE_ARGUMENT, "spike"])
def test_on_symbols_an_operation_records_itself(name):
    graph = Graph()
    x = graph.leaf("x")
    node = getattr(ops, name)(x)
    assert (node.op, node.args) == (name, (x,))


def test_on_symbols_operations_of_several_arguments_record_themselves():
    graph = Graph()
    x, mem = graph.leaf("x"), graph.leaf("state", "mem")
    assert ops.minimum(x, mem).op == "minimum"
    assert ops.maximum(1.0, mem).op == "maximum"
    assert ops.clamp(x, 0, 1).op == "clamp"
    assert ops.where(x > 0, x, 0.0).op == "where"
    full = ops.full_like(x, 2)
    assert (full.op, full.args[0].value, full.varying) == ("full", 2.0, True)


def test_a_cell_with_every_operation_traces():
    def everything(x, mem, *, beta):
        u = ops.exp(x) + ops.log(mem) - ops.sqrt(beta) * ops.abs(x) / ops.tanh(mem)
        u = ops.minimum(ops.sin(u), ops.cos(u)) + ops.maximum(ops.sigmoid(u), -u) + u**2 + u**3
        u = ops.where(u >= x, ops.full_like(u, 1), ops.clamp(u, -1, 1))
        return ops.spike(ops.detach(u)), u

    step = trace(cell_from(everything))
    assert {*ops.TENSOR_FUNCTIONS, "spike"} <= {node.op for node in step.graph.nodes}

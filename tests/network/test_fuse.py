"""`fuse` runs loops as they are written: the same outputs, gradients, states and random draws."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn
from tests.oracle import TOLERANCE

from .loops import IN, LOOPS, B, Loop, Parts, T


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors in outputs."""
    if isinstance(tree, Tensor):
        return [tree]
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    return [t for part in parts for t in tensors_of(part)]


def result_of(run: Any, parts: Parts, x: Tensor, backward: bool = True) -> dict[str, Any]:
    """All that a call gives and leaves."""
    out = run(parts, x)
    outs = tensors_of(out)
    found: dict[str, Any] = {f"out{i}": t for i, t in enumerate(outs)}
    found["other"] = out if not outs else [part for part in out if not isinstance(part, (Tensor, list, tuple))]
    found["needs"] = [t.requires_grad for t in outs]
    differentiable = [t for t in outs if t.requires_grad]
    if backward and differentiable:
        sum((t * torch.linspace(-1, 1, t.numel()).view_as(t)).sum() for t in differentiable).backward()
    found |= {f"grad of {name}": p.grad for name, p in parts.named_parameters()} | {"grad of x": x.grad}
    found |= {f"buffer {name}": b for name, b in parts.named_buffers()}
    for name, neuron in parts.named_modules():
        if isinstance(neuron, snn.SpikingNeuron):
            for state in neuron._state_names():
                found[f"{name}.{state}"] = getattr(neuron, state)
                found[f"{name}.{state} needs"] = getattr(neuron, state).requires_grad
    found |= {f"stored{i}": t for i, t in enumerate(parts.stored)}
    found["drawn"] = torch.get_rng_state()
    return found


def assert_equal_results(got: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    """Every entry close, of the same type and dtype."""
    assert got.keys() == wanted.keys(), where
    for name, value in wanted.items():
        if isinstance(value, Tensor):
            assert type(got[name]) is type(value), f"{where}: {name} is a {type(got[name])}"
            dtype = torch.bfloat16 if where.startswith("lower_precision") and "grad" in name else value.dtype
            tolerance = TOLERANCE.get(dtype, {"rtol": 0.0, "atol": 0.0})
            told = f"{where}: {name}\n"
            torch.testing.assert_close(
                got[name], value, equal_nan=True, msg=lambda why, told=told: told + why, **tolerance
            )
        else:
            assert got[name] == value, f"{where}: {name}: {got[name]} != {value}"


def compared(loop: Loop, training: bool = True, grad: bool = True, x_learns: bool = True, calls: int = 3) -> Any:
    """Run a loop plainly and fused, some calls each, and compare them; returns the fused one."""
    torch.manual_seed(1)
    plain_parts = Parts().train(training)
    fused_parts = copy.deepcopy(plain_parts)
    fast = snn.fuse(loop)
    fast._fused_engine.always = True
    for call in range(calls):
        x = 2 * torch.randn(T, B, IN, generator=torch.Generator().manual_seed(call))
        inputs = [x.clone().requires_grad_(x_learns and grad) for _ in range(2)]
        results = []
        for run, parts, given in ((loop, plain_parts, inputs[0]), (fast, fused_parts, inputs[1])):
            torch.manual_seed(call)
            parts.zero_grad()
            with torch.set_grad_enabled(grad):
                results.append(result_of(run, parts, given))
        where = f"{loop.__name__}, call {call}, training {training}, gradients {grad}"
        assert_equal_results(results[1], results[0], where)
        for parts in (plain_parts, fused_parts):
            snn.utils.detach(parts)
    return fast


def test_every_loop_has_the_values_gradients_states_and_draws_of_the_plain_one() -> None:
    for loop in LOOPS:
        compared(loop)
        compared(loop, training=False, grad=False, calls=2)

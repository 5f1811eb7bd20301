"""`fuse` runs loops as they are written: the same outputs, gradients, states and random draws."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.network import _saved_bits
from tests.fuzz import loops as fuzz
from tests.oracle import TOLERANCE

from .loops import COMMON_LOOPS, IN, B, Loop, Parts, T
from .odd_loops import ODD_LOOPS

LOOPS = [*COMMON_LOOPS, *ODD_LOOPS]


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
        compared(loop, calls=2)
        compared(loop, training=False, grad=False, calls=1)


def test_every_loop_has_the_bits_of_the_plain_one_with_exact_products() -> None:
    for loop in LOOPS:
        torch.manual_seed(1)
        parts, x = Parts(), 2 * torch.randn(T, B, IN)
        twin, fast = copy.deepcopy(parts), snn.fuse(loop, exact_products=True)
        torch.manual_seed(2)
        wanted = tensors_of(loop(parts, x))
        torch.manual_seed(2)
        got = tensors_of(fast(twin, x))
        assert len(got) == len(wanted), loop.__name__
        assert all(map(torch.equal, got, wanted)), loop.__name__


def test_loops_without_feedback_run_over_all_steps() -> None:
    stepwise = {
        *("refractory", "inhibition_by_hand", "feedback", "recurrence_by_hand", "neuron_by_hand", "values_in_the_loop"),
        *("ends_early", "masks", "own_function", "tensor_hooks", "in_place", "changed_parameters", "no_steps"),
        *("over_the_batch", "hidden_states"),
    }
    for loop in LOOPS:
        if loop.__name__ not in stepwise:
            engine: Any = compared(loop, calls=1)
            engine = engine._fused_engine
            assert engine.fused >= engine.noted / 3, f"{loop.__name__}: {engine.fused} of {engine.noted}"


def test_explain_shows_each_operation_and_why_it_runs_step_by_step() -> None:
    named = {loop.__name__: loop for loop in LOOPS}
    parts, x = Parts(), torch.randn(T, B, IN)
    drawn = torch.get_rng_state()
    rows = {row.operation: row for row in snn.explain(snn.fuse(named["norm_and_dropout"]), parts, x).rows}
    assert torch.equal(drawn, torch.get_rng_state())
    assert not parts.lif1.mem.numel()
    assert (rows["batch_norm"].path, rows["batch_norm"].runs, rows["batch_norm"].calls) == ("norm", "step by step", T)
    assert rows["linear"].runs == "over all steps"
    assert rows["Leaky"].runs == "scan"
    assert rows["Leaky"].backend == "numba"
    told = str(snn.explain(snn.fuse(named["feedback"]), parts, x))
    assert "it takes part in a feedback between steps" in told
    told = str(snn.explain(snn.fuse(named["values_in_the_loop"]), parts, x))
    assert "item reads values" in told
    assert "parts" in told


class Net(nn.Module):
    """A module with its own loop."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(IN, 8), snn.Leaky(beta=0.9, threshold=0.5)

    def forward(self, x: Tensor) -> Tensor:
        mem, out = self.lif.init_leaky(), []
        for x_t in x:
            spk, mem = self.lif(self.fc(x_t), mem)
            out.append(spk)
        return torch.stack(out)


def test_a_fused_module_is_the_module_with_another_call() -> None:
    net, x = Net(), 2 * torch.randn(T, B, IN)
    fast = snn.fuse(net)
    assert isinstance(fast, Net)
    assert fast.fc is net.fc
    assert fast.state_dict().keys() == net.state_dict().keys()
    assert torch.equal(fast(x), net(x))
    assert snn.fuse(fast) is fast
    fast.eval()
    assert not net.training
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(twin).__name__ == "Net"
        assert twin.fc.weight is not net.fc.weight
        assert torch.equal(twin(x), net(x))
    seen: list[Any] = []
    handle = fast.register_forward_hook(lambda module, args, out: seen.append(out))
    assert torch.equal(fast(x), net(x))
    assert len(seen) == 2
    assert all(type(out) is Tensor for out in seen)
    handle.remove()
    wrapped = nn.Sequential(fast, nn.Linear(8, 2))
    assert {"0.fc.weight", "1.weight"} <= set(dict(wrapped.named_parameters()))
    assert wrapped(x).shape == (T, B, 2)


def test_a_decorated_forward_and_accelerated_layers_and_taps() -> None:
    class Decorated(Net):
        @snn.fuse(exact_products=True)
        def forward(self, x: Tensor) -> Tensor:
            return Net.forward(self, x)

    net, x = Decorated(), 2 * torch.randn(T, B, IN)
    plain = Net()
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net(x), plain(x))
    fast = snn.fuse(snn.accelerate(plain))
    with snn.tap(plain) as record:
        spk = fast(x)
    assert torch.equal(record["lif"].spk, spk)
    assert record["lif"].mem.shape == (T, B, 8)


def test_errors_come_at_the_users_line_and_leave_the_states_before_them() -> None:
    net, x = Net(), torch.randn(T, B, IN)

    @snn.fuse
    def broken(x: Tensor, step_of_error: int) -> Tensor:
        mem = net.lif.init_leaky()
        for step, x_t in enumerate(x):
            if step == step_of_error:
                x_t = x_t[:, :-1]
            spk, mem = net.lif(net.fc(x_t), mem)
        return spk

    def states() -> Tensor:
        mem = net.lif.init_leaky()
        for x_t in x[:3]:
            mem = net.lif(net.fc(x_t), mem)[1]
        return mem

    for _ in range(2):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            broken(x, 3)
        assert type(net.lif.mem) is Tensor
        torch.testing.assert_close(net.lif.mem, states())
    for wrong in (3, "text", torch.zeros(2)):
        with pytest.raises(TypeError, match="requires a module or a function"):
            snn.fuse(wrong)


def test_transforms_see_the_loop_as_it_is() -> None:
    net, x = Net(), 2 * torch.randn(T, B, IN)
    fast = snn.fuse(net)
    wanted = net(x)
    snn.utils.reset(net)
    assert torch.equal(torch.func.vmap(lambda z: fast(z), in_dims=0)(x[None])[0], wanted)
    snn.utils.reset(net)
    with torch.inference_mode():
        assert torch.equal(fast(x), wanted)
    snn.utils.reset(net)
    outer = snn.fuse(lambda z: fast(z) * 2)
    assert torch.equal(outer(x), wanted * 2)


def test_what_does_not_pay_runs_as_it_is() -> None:
    calls: list[type] = []

    @snn.fuse
    def feedback(x: Tensor) -> Tensor:
        calls.append(type(x[0] * 1))
        mem = torch.zeros(4)
        for x_t in x:
            mem = torch.relu(mem * 0.9 + x_t.sum().item())
        return mem

    for _ in range(4):
        feedback(torch.ones(T, 4))
    assert calls[0].__name__ == "Recorded"
    assert calls[-1] is Tensor


def test_random_programs_equal_the_plain_loop() -> None:
    told = fuzz.run(200, seed=0)
    assert not told, "\n".join(told)


def test_products_save_spikes_as_bits(monkeypatch: pytest.MonkeyPatch, tuned: Any) -> None:
    packed: list[Any] = []
    pack = _saved_bits.pack_bits
    monkeypatch.setattr(_saved_bits, "pack_bits", lambda x: packed.append(pack(x)) or packed[-1])
    torch.manual_seed(0)
    plain = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 8)])
    fused, x = copy.deepcopy(plain), 2 * torch.randn(50, 200, 64)
    lif = snn.Leaky(beta=0.9)

    def loop(layers: Any) -> Tensor:
        mem, out = lif.init_leaky(), []
        for x_t in x:
            spk, mem = lif(layers[0](x_t), mem)
            out.append(layers[1](spk))
        return torch.stack(out)

    tuned(pack_after=0, pool_from=0)
    for run, layers in ((loop, plain), (snn.fuse(loop), fused)):
        snn.utils.reset(lif)
        run(layers).square().sum().backward()
    assert [bits for bits in packed if bits is not None]
    torch.testing.assert_close(fused[0].weight.grad, plain[0].weight.grad, rtol=1e-3, atol=1e-4)

"""Loops that attack `fuse`: errors, operations in place, unusual arguments, hidden operations."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import spikeloom as snn

STEPS, BATCH, WIDTH = 6, 4, 8
Run = Callable[[nn.Module, Tensor], Any]


class Parts(nn.Module):
    """What the loops use."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(WIDTH, WIDTH), snn.Leaky(0.9)
        self.hidden, self.norm = snn.Leaky(0.9, init_hidden=True), nn.BatchNorm1d(WIDTH)
        self.words = nn.Embedding(10, WIDTH)


def flat(out: Any) -> list[Any]:
    """The parts of an output."""
    return [leaf for part in out for leaf in flat(part)] if isinstance(out, (list, tuple)) else [out]


def same(got: Any, wanted: Any, where: str) -> None:
    """Outputs of the same values, dtypes and requires_grad."""
    assert len(flat(got)) == len(flat(wanted)), where
    for one, other in zip(flat(got), flat(wanted), strict=True):
        assert type(one) is type(other), where
        if isinstance(one, Tensor):
            assert one.requires_grad is other.requires_grad, where
            torch.testing.assert_close(one, other, msg=lambda why: f"{where}: {why}")
        else:
            assert one == other, where


def compare(loop: Run) -> None:
    """A loop gives the same plainly and fused, with gradients and without."""
    for grad in (True, False):
        torch.manual_seed(0)
        parts, x, results = Parts(), torch.randn(STEPS, BATCH, WIDTH), []
        for run, own in ((loop, parts), (snn.fuse(loop), copy.deepcopy(parts))):
            torch.manual_seed(1)
            with torch.set_grad_enabled(grad):
                out = run(own, x.clone())
                losses = [t.sum() for t in flat(out) if isinstance(t, Tensor) and t.requires_grad]
                if losses:
                    torch.stack(losses).sum().backward()
            grads = [p.grad for p in own.parameters()]
            buffers = [b.clone() for b in own.buffers()]
            results.append([out, grads, buffers, torch.rand(1)])
        same(results[1], results[0], f"{loop.__name__}, gradients {grad}")


def over_time(current: Callable[[Parts, Tensor], Tensor], after: Callable[..., Any] = lambda p, spk: None) -> Run:
    """A loop with a current, and something done after each step."""

    def loop(p: Any, x: Tensor) -> Any:
        mem, out = p.lif.init_leaky(), []
        for x_t in x:
            spk, mem = p.lif(current(p, x_t), mem)
            after(p, spk)
            out.append(mem)
        return out

    return loop


def test_an_error_leaves_the_states_tensors_and_statistics_of_the_plain_loop() -> None:
    def loop(p: Any, tokens: Tensor) -> Tensor:
        snn.utils.reset(p)
        out: Any = 0
        for step in tokens:
            out = out + p.hidden(p.norm(p.words(step)))
        return out

    tokens = torch.randint(0, 10, (STEPS, BATCH))
    broken = tokens.clone()
    broken[3] = 99
    torch.manual_seed(0)
    plain = Parts()
    fused = copy.deepcopy(plain)
    results = []
    for run, parts in ((loop, plain), (snn.fuse(loop), fused)):
        run(parts, tokens)
        with pytest.raises(IndexError):
            run(parts, broken)
        results.append([parts.hidden.mem.clone(), parts.norm.running_mean.clone(), run(parts, tokens)])
    same(results[1], results[0], "after an error")
    same(loop(fused, tokens), loop(plain, tokens), "plainly after an error")


def test_what_only_one_operation_over_all_steps_cannot_do_runs_step_by_step() -> None:
    images = torch.rand(STEPS, 3, 2, 4, 4)

    def loop(images: Tensor) -> Tensor:
        return torch.stack([(image * 2).contiguous(memory_format=torch.channels_last) + 1 for image in images])

    same(snn.fuse(loop)(images), loop(images), "channels_last")


def test_a_value_read_from_a_written_tensor() -> None:
    def loop(p: Any, x: Tensor) -> Any:
        out, found = torch.zeros(STEPS, BATCH), []
        for step in range(STEPS):
            out[step] = x[step, :, 0] * 2
            found.append(out[step, 0].item() > 0)
        return out, found

    compare(loop)


def test_activations_in_place_work_in_place() -> None:
    for function, more in (
        (functional.relu, ()),
        (functional.hardtanh, (-0.5, 0.5)),
        (functional.leaky_relu, (0.2,)),
        (functional.threshold, (0.1, 0.3)),
        (functional.elu, (0.7,)),
    ):

        def current(p: Any, x_t: Tensor, function: Any = function, more: Any = more) -> Tensor:
            if not torch.is_grad_enabled():
                function(x_t, *more, inplace=True)
            cur = p.fc(x_t) * 3
            function(cur, *more, True)
            other = cur + 0.5
            function(other, *more, inplace=True)
            return cur + other

        compare(over_time(current))
    parts, x = Parts(), torch.randn(STEPS, BATCH, WIDTH)
    fast: Any = snn.fuse(over_time(lambda p, x_t: functional.relu(p.fc(x_t), inplace=True)))
    fast(parts, x)
    assert fast._fused_engine.fused >= 2 * (STEPS - 1)
    compare(over_time(lambda p, x_t: functional.alpha_dropout(p.fc(x_t) * 2, 0.5, True, True)))


def test_a_parameter_changed_within_the_loop_counts_from_the_next_step_on() -> None:
    with torch.no_grad():
        compare(over_time(lambda p, x_t: x_t * 2, lambda p, spk: p.lif.threshold.add_(0.1)))


def rate(spk: Tensor) -> Tensor:
    return spk.mean()


def test_an_operation_that_modes_do_not_see_loses_no_gradient() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        hidden: Any = torch.jit.script(rate)
    compare(over_time(lambda p, x_t: p.fc(x_t), lambda p, spk: hidden(spk.detach())))

    def at_the_end(p: Any, x: Tensor) -> Any:
        mem, out = p.lif.init_leaky(), []
        for x_t in x:
            spk, mem = p.lif(p.fc(x_t), mem)
            out.append(mem)
        hidden(spk.detach())
        return sum(mem.pow(2).sum() for mem in out), out[0]

    compare(at_the_end)


@pytest.mark.filterwarnings("ignore")  # of TorchScript
def test_torchscript_and_functionalize_within_the_loop() -> None:
    torch.manual_seed(0)
    traced = torch.jit.trace(nn.Linear(WIDTH, WIDTH), torch.zeros(BATCH, WIDTH))
    scripted: Any = torch.jit.script(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()))
    plainly = torch.func.functionalize(lambda cur: cur * 2)
    for first in (traced, scripted, plainly):
        for last in (traced, scripted, plainly):
            compare(over_time(lambda p, x_t, first=first, last=last: last(p.fc(first(x_t)))))


def test_tensors_without_dimensions_do_not_promote() -> None:
    wide = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    compare(lambda p, x: [x[t] * wide[t] for t in range(STEPS)])
    compare(lambda p, x: [x[t].bfloat16() * wide.float()[t] for t in range(STEPS)])
    compare(lambda p, x: [x[t] * wide[2] for t in range(STEPS)])


def test_axis_is_another_name_of_dim() -> None:
    for axis in (0, 1, -1):
        compare(lambda p, x, axis=axis: torch.stack([p.fc(x_t) * 2 for x_t in x], axis=axis))
        compare(lambda p, x, axis=axis: torch.cat([p.fc(x_t) * 2 for x_t in x], axis=axis))
        compare(lambda p, x, axis=axis: [c * 2 for c in x.unbind(axis=axis)])


def test_a_draw_into_a_tensor_waits_for_its_readers() -> None:
    def loop(p: Any, x: Tensor) -> Any:
        drawn, total = torch.empty(BATCH, WIDTH), torch.zeros(BATCH, WIDTH)
        for x_t in x:
            torch.rand(BATCH, WIDTH, out=drawn)
            total = total + drawn * x_t
        return total

    compare(loop)


def test_hidden_effects_of_arguments() -> None:
    first = torch.zeros(BATCH, dtype=torch.long)

    def attention(p: Any, x: Tensor) -> Any:
        return [functional.scaled_dot_product_attention(*[x[:1]] * 3, dropout_p=0.5) for _ in x]

    def statistics(p: Any, x: Tensor) -> Any:
        norm = nn.InstanceNorm1d(BATCH, track_running_stats=True)
        return [norm(x[:1]) for _ in x], norm.running_mean

    def frequencies(p: Any, x: Tensor) -> Any:
        return [functional.embedding(first, p.words.weight, scale_grad_by_freq=True) for _ in x]

    def largest_norm(p: Any, x: Tensor) -> Any:
        table = torch.ones(3, WIDTH)
        return [functional.embedding(first, table, max_norm=1.0) for _ in x], table

    def other_dtype(p: Any, x: Tensor) -> Any:
        return [x_t.view(torch.int32) + 0 for x_t in x.detach()]

    def one_operand(p: Any, x: Tensor) -> Any:
        if torch.is_grad_enabled():
            return x
        for x_t in x * 2:
            torch.einsum("ij->ji", x_t).add_(1)
        return x

    for loop in (attention, statistics, frequencies, largest_norm, other_dtype, one_operand):
        compare(loop)


def test_attributes_of_tensors_stay() -> None:
    def loop(p: Any, x: Tensor) -> Any:
        out = [x_t * 2 for x_t in x]
        for step, made in enumerate(out):
            made.step = step  # type: ignore[attr-defined]
        return out

    x = torch.ones(STEPS, BATCH, WIDTH)
    assert [made.step for made in snn.fuse(loop)(Parts(), x)] == list(range(STEPS))


def test_zeros_in_place_need_gradients() -> None:
    compare(over_time(lambda p, x_t: p.fc(x_t).zero_() + p.fc(x_t)))


def test_checkpoint_around_a_fused_call_and_replicas() -> None:
    from torch.utils.checkpoint import checkpoint

    loop, x = over_time(lambda p, x_t: p.fc(x_t)), torch.randn(STEPS, BATCH, WIDTH)
    plain = Parts()
    fused = copy.deepcopy(plain)
    for run, parts in ((loop, plain), (snn.fuse(loop), fused)):
        torch.stack(checkpoint(run, parts, x, use_reentrant=False)).sum().backward()
    same(fused.fc.weight.grad, plain.fc.weight.grad, "checkpoint")

    class Net(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.called = True
            return super().forward(x)

    fast = snn.fuse(Net(WIDTH, WIDTH))
    replica = fast._replicate_for_data_parallel()
    replica.weight, replica.bias = fast.weight, fast.bias
    replica(x)
    assert replica.called
    assert not hasattr(fast, "called")


def test_exact_products_of_recurrent_layers() -> None:
    torch.manual_seed(0)
    neuron, x = snn.RLeaky(0.9, linear_features=64), torch.rand(20, 8, 64)

    def loop(x: Tensor) -> Tensor:
        spk, mem = neuron.init_rleaky()
        out = []
        for x_t in x:
            spk, mem = neuron(x_t, spk, mem)
            out.append(mem)
        return torch.stack(out)

    assert torch.equal(snn.fuse(loop, exact_products=True)(x), loop(x))


def test_a_distributed_module_is_fused_before() -> None:
    kind = nn.parallel.DistributedDataParallel
    with pytest.raises(TypeError, match="fuse the network first"):
        snn.fuse(kind.__new__(kind))


def test_transforms_of_torch_func_within_the_loop() -> None:
    def loop(p: Any, x: Tensor) -> Any:
        mem, out = p.lif.init_leaky(), []
        for x_t in x:
            spk, mem = p.lif(torch.func.vmap(lambda row: row * 2 + row.sum())(p.fc(x_t)), mem)
            out.append(torch.vmap(lambda row, mem=mem: row + mem.sum() + torch.ones(WIDTH))(spk))
            out.append(torch.func.grad(lambda now: (now**2).sum())(mem.detach()) + mem)
        return out

    compare(loop)


def test_writes_with_and_without_gradients() -> None:
    def loop(p: Any, x: Tensor) -> Any:
        out = torch.zeros(STEPS, BATCH, WIDTH)
        for step in range(2):
            with torch.no_grad():
                out[step] = p.fc(x[step])
        for step in range(1, 3):
            out[step] = p.fc(x[step])
        return out

    compare(loop)


class Doubling(TorchDispatchMode):
    """Doubles what a multiplication gives."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return out * 2 if func is torch.ops.aten.mul.Tensor else out


def test_a_dispatch_mode_within_the_loop() -> None:
    def loop(p: Any, x: Tensor) -> Any:
        mem, out = p.lif.init_leaky(), []
        for x_t in x:
            current = p.fc(x_t) * 1.5
            with Doubling():
                current = current * 2
                spk, mem = p.lif(current, mem)
            out.append(spk + mem * 2)
        return out

    compare(loop)


@pytest.mark.filterwarnings("ignore")  # of torch itself
def test_functions_that_enter_dispatch_modes_within_the_loop() -> None:
    def loop(p: Any, x: Tensor) -> Any:
        mem, out = p.lif.init_leaky(), []
        for x_t in x:
            spk, mem = p.lif(p.fc(x_t), mem)
            value, slope = torch.func.linearize(torch.sin, mem.detach())
            out.append(value + slope(mem.detach()) + make_fx(torch.cos)(mem.detach())(mem) + spk)
        with FakeTensorMode():
            out.append(torch.ones(3).sum().shape)
        return out

    compare(loop)

"""Sequences of every length, batch and memory layout: one kernel, nothing expanded, nothing copied wrongly."""

import pytest
import torch

from spikeloom.engine.jit import buffer_pool, kernel_cache
from spikeloom.engine.jit.layout import rows

from ...cases import CELLS
from ...oracle import assert_close
from ..running import Job, call_of, gradients, leaves, run, weights

LAYOUTS = {
    "contiguous": lambda x: x,
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every second step": lambda x: x.repeat_interleave(2, 0)[::2],
    "every second neuron": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "channels last": lambda x: x.transpose(1, -1).contiguous().transpose(1, -1),
    "offset": lambda x: torch.cat([x[:1], x])[1:],
    "the same row": lambda x: x[:1].expand(x.shape),
    "the same number": lambda x: x.flatten()[0].expand(x.shape),
}


@pytest.mark.parametrize("cell", ["leaky subtract delayed", "polyglot"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_of_any_layout(layout, cell):
    job = Job(CELLS[cell], 9, (4, 6), torch.float64)
    results = []
    for backend, arrange in (("numba", LAYOUTS[layout]), ("loop", lambda x: LAYOUTS[layout](x).contiguous())):
        tensors = leaves(job)
        given = arrange(tensors["x"])
        assert backend == "loop" or given.is_contiguous() == (layout in ("contiguous", "offset"))
        out = run(backend, call_of(job, tensors | {"x": given}))
        results.append((out.spk, gradients([out.spk, *out.traces], tensors, backend)))
    (ours, our_grads), (theirs, their_grads) = results
    assert torch.equal(ours, theirs)
    for name, wanted in their_grads.items():
        assert_close(our_grads[name], wanted, name)


@pytest.mark.parametrize("cell", ["leaky subtract delayed", "polyglot"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_upstream_gradient_of_any_layout(layout, cell):
    job = Job(CELLS[cell], 9, (4, 6), torch.float64)
    results = []
    for backend in ("numba", "loop"):
        tensors = leaves(job)
        out = run(backend, call_of(job, tensors))
        upstream = [
            LAYOUTS[layout](torch.rand_like(o.detach(), memory_format=torch.contiguous_format))
            for o in (out.spk, *out.traces)
        ]
        if results:
            upstream = results[0][1]
        grads = torch.autograd.grad([out.spk, *out.traces], list(tensors.values()), upstream)
        results.append((grads, upstream))
    for name, ours, theirs in zip(tensors, results[0][0], results[1][0], strict=True):
        assert_close(ours, theirs, name)


ORDERS = {"channels last": (0, 1, 3, 4, 2), "columns before rows": (0, 1, 2, 4, 3), "all turned": (0, 1, 4, 3, 2)}
PARAMETERS = {
    "a number": (),
    "per column": (5,),
    "per channel": (3, 1, 1),
    "per neuron": (3, 4, 5),
    "per row": (2, 1, 1, 1),
}


def laid(x: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """The same values with their dimensions in that order in memory."""
    return x.permute(order).contiguous().permute([order.index(dim) for dim in range(len(order))])


@pytest.mark.parametrize("parameter", PARAMETERS)
@pytest.mark.parametrize("order", ORDERS)
def test_rows_of_any_order_are_taken_and_given_as_they_lie(order, parameter):
    """And give the bits that rows in their own order give, whatever the upstream gradients' own order."""
    job, results = Job(CELLS["two states"], 6, (2, 3, 4, 5)), []
    own = torch.rand(PARAMETERS[parameter], generator=torch.Generator().manual_seed(1))
    for arrange in (lambda x: x, lambda x: laid(x, ORDERS[order])):
        tensors = leaves(job) | {"alpha": (0.5 + 0.4 * own).requires_grad_()}
        x = arrange(tensors["x"])
        out = run("numba", call_of(job, tensors | {"x": x}))
        assert [o.stride() for o in (out.spk, *out.traces)] == [x.stride()] * 3
        assert [o.stride() for o in out.final_states] == [x[0].stride()] * 2
        outs = [out.spk, *out.traces, *out.final_states]
        cotangents = [*map(weights, outs, range(5))]
        cotangents[1] = laid(cotangents[1], ORDERS["columns before rows"])
        results.append((outs, torch.autograd.grad(outs, list(tensors.values()), cotangents)))
    (wanted, wanted_grads), (got, got_grads) = results
    assert 0 < wanted[0].mean() < 1
    assert all(map(torch.equal, got, wanted))
    for name, ours, theirs in zip(tensors, got_grads, wanted_grads, strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.shape == tensors[name].shape


@pytest.mark.parametrize("steps", [1, 6])
def test_the_gradient_of_an_input_lies_as_the_input_does(steps):
    job, seen = Job(CELLS["two states"], steps, (2, 3, 4, 5), traced=False), []
    x = laid(torch.rand(steps, 2, 3, 4, 5), ORDERS["channels last"]).requires_grad_()
    x.register_hook(lambda grad: seen.append(grad.stride()[1:]))
    run("numba", call_of(job, leaves(job) | {"x": x})).spk.sum().backward()
    assert seen == [x.stride()[1:]]


APART = {
    "every second channel": lambda x: laid(x.repeat_interleave(2, 2), ORDERS["channels last"])[:, :, ::2],
    "every second step": lambda x: laid(x.repeat_interleave(2, 0), ORDERS["channels last"])[::2],
    "the same row": lambda x: laid(x, ORDERS["channels last"])[:1].expand(x.shape),
    "the same in each channel": lambda x: x[:, :, :1].expand(x.shape),
    "batch inside": lambda x: laid(x, (0, 2, 3, 4, 1)),
    "batch before time": lambda x: laid(x, (1, 0, 3, 4, 2)),
}


@pytest.mark.parametrize("layout", APART)
def test_rows_with_gaps_or_of_another_order_give_the_same(layout):
    job, results = Job(CELLS["two states"], 6, (2, 3, 4, 5)), []
    for arrange in (lambda x: APART[layout](x).contiguous(), APART[layout]):
        tensors = leaves(job)
        out = run("numba", call_of(job, tensors | {"x": arrange(tensors["x"])}))
        results.append((out.spk, gradients([out.spk, *out.traces, *out.final_states], tensors)))
    (theirs, their_grads), (ours, our_grads) = results
    assert torch.equal(ours, theirs)
    for name, wanted in their_grads.items():  # torch sums up what was expanded in the order of its memory
        assert_close(our_grads[name], wanted, name)


def test_the_gradient_of_a_sum_is_read_in_place():
    gradient = torch.ones(()).expand(500, 4, 8)
    row, stride = rows(gradient)
    assert stride == 0
    assert row.numel() == 4 * 8


def test_no_length_and_no_batch_compiles_again():
    def work(steps: int, batch: int) -> None:
        for case in ("leaky subtract delayed", "two states"):
            job = Job(CELLS[case], steps, (batch, 6))
            tensors = leaves(job)
            gradients([run("numba", call_of(job, tensors)).spk], tensors)

    work(5, 3)
    before = kernel_cache.compilations()
    for steps, batch in ((1, 3), (5, 4), (64, 1), (0, 3), (2, 0), (300, 40)):
        work(steps, batch)
    assert kernel_cache.compilations() == before


def test_another_kind_of_parameter_does_compile(monkeypatch, tmp_path):
    """So that the test above can fail, where no kernel lies on disk."""
    monkeypatch.setenv(kernel_cache.ENVIRONMENT, str(tmp_path))
    before = kernel_cache.compilations()
    job = Job(CELLS["to rest"], 4, (2, 3), learn=("rest",), outputs=("final_states",))
    tensors = {name: t.detach().double().requires_grad_(t.requires_grad) for name, t in leaves(job).items()}
    tensors["rest"] = torch.full((3,), -0.25, dtype=torch.float64, requires_grad=True)
    gradients([run("numba", call_of(job, tensors)).spk], tensors)
    assert kernel_cache.compilations() > before


def test_a_static_input_is_never_expanded():
    """Memory that forward and backward ask for, in sequences of T steps: spikes and states, nothing of the input."""
    steps, shape = 400, (8, 256)
    job = Job(CELLS["leaky subtract delayed"], steps, shape, static=True)
    tensors = leaves(job)
    sequence = steps * 8 * 256 * 4
    forward, out = allocated(lambda: run("numba", call_of(job, tensors)))
    assert forward < 2.2 * sequence
    backward, grads = allocated(lambda: gradients([out.spk.sum()], tensors))
    assert backward < 0.2 * sequence
    assert grads["x"].shape == (1, *shape)


def allocated(work):
    """The bytes that `work` asks torch for, and its result."""
    buffer_pool._unused.clear()
    how = {"activities": [torch.profiler.ProfilerActivity.CPU], "profile_memory": True}
    with torch.profiler.profile(**how, acc_events=True) as seen:  # without it some releases warn
        result = work()
    return sum(max(0, event.self_cpu_memory_usage) for event in seen.key_averages()), result


@pytest.mark.parametrize("cell", ["leaky zero immediate", "two states"])
@pytest.mark.parametrize(("steps", "shape"), [(0, (3, 4)), (5, (0, 4)), (0, (0,))])
def test_nothing_in_nothing_out(steps, shape, cell):
    job = Job(CELLS[cell], steps, shape)
    for backend in ("numba", "loop"):
        tensors = leaves(job)
        out = run(backend, call_of(job, tensors))
        assert out.spk.shape == (steps, *shape)
        assert [t.shape for t in out.traces] == [(steps, *shape)] * len(job.case.cell.states)
        for final, name in zip(out.final_states, job.case.cell.states, strict=True):
            assert torch.equal(final, tensors[name])
        grads = gradients([out.spk, *out.traces, *out.final_states], tensors, backend)
        assert grads["x"].shape == (steps, *shape)
        assert not torch.isnan(grads[job.case.cell.states[-1]]).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("cell", ["leaky subtract delayed", "leaky zero immediate", "two states"])
def test_nan_and_infinity_flow_as_in_the_loop(cell, value):
    job = Job(CELLS[cell], 6, (2, 5))
    results = []
    for backend in ("numba", "loop"):
        tensors = leaves(job)
        x = tensors["x"].detach().clone()
        x[2, 1, 3] = value
        out = run(backend, call_of(job, tensors | {"x": x}))
        results.append([out.spk, *out.traces, *out.final_states])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours.nan_to_num(9.5), theirs.nan_to_num(9.5))


def test_denormal_numbers_are_treated_as_torch_treats_them():
    tiny = 1e-40
    job = Job(CELLS["leaky none delayed"], 4, (2, 8), learn=())
    tensors = leaves(job) | {"x": torch.full((4, 2, 8), tiny), "mem": torch.zeros(2, 8), "beta": torch.tensor(0.5)}
    ours, theirs = (run(backend, call_of(job, tensors)).final_states[0] for backend in ("numba", "loop"))
    assert torch.equal(ours, theirs)
    assert float(ours.max()) > 0

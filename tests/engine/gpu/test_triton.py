"""Triton's kernels against the plain loop on the same device: interpreted on the CPU, compiled where there is a GPU."""

import sys
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.utils._pytree import tree_leaves

import spikeloom as snn
from spikeloom import ops
from spikeloom.cells.cell import cell_from
from spikeloom.engine.gpu import launch as gpu_launch
from spikeloom.engine.gpu.source import SPAN
from spikeloom.engine.gpu.step_source import integers
from spikeloom.engine.graph.program import program_for
from spikeloom.engine.jit import kernel_cache, triton_jit
from spikeloom.engine.run import autograd, backends
from spikeloom.engine.run.call import Call, variant_of
from spikeloom.engine.tuning import triton_shapes

from ...cases import CELLS, DTYPES, SPIKES
from ...each import for_each
from ...neurons.zoo import ZOO, made, sequence
from ...oracle import Outcome, assert_close, assert_same
from ..running import ATAN, Job, away_from_thresholds, call_of, leaves, outcome, run, weights

pytest.importorskip("triton")
pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("quiet", "no_numba")]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DRIVEN = ("SLSTM", "SConv2dLSTM")
OPTIONS = {
    "numbers": {},
    "vectors": {"vectors": True},
    "learning": {"learn": True},
}
BLOCK = triton_shapes.block_bytes // 4  # elements of a program of the grid
UNREQUESTED = {"traced": False, "outputs": ("spk", "final_states")}
"""Of a job: nobody asks for the states of every step, so that the backward rebuilds them."""


def assert_equals_reference(job):
    job = away_from_thresholds(replace(job, device=DEVICE))
    assert_same(outcome("triton", job), outcome("loop", job), exact_states=job.case.exact)


# -- cells -------------------------------------------------------------------------------------------------------------


KINDS = [*product(DTYPES.values(), (False, True))]
"""Dtype, and whether the input is static."""


@for_each("cell", CELLS)
def test_every_cell(cell):
    """One of the four, the next for the next cell; a cell without the common frame has two that differ in both."""
    number = [*CELLS].index(cell)
    alone = not cell.endswith(("delayed", "immediate"))
    for dtype, static in (KINDS[number % 4], KINDS[3 - number % 4])[: 1 + alone]:
        assert_equals_reference(Job(CELLS[cell], 5, (7,), dtype, static=static))


@pytest.mark.parametrize("cell", ["leaky subtract delayed", "two states"])
def test_a_single_step_without_a_time_dimension(cell):
    assert_equals_reference(Job(CELLS[cell], None, (2, 3), traced=False, outputs=("spk", "final_states")))


@pytest.mark.parametrize("spike", SPIKES)
def test_every_spike_function(spike):
    assert_equals_reference(Job(CELLS["two states"], 5, (7,), spike=SPIKES[spike]))


@pytest.mark.parametrize("outputs", [("spk",), ("traces",), ("final_states",)], ids="+".join)
def test_gradients_come_from_each_output_alone(outputs):
    assert_equals_reference(Job(CELLS["two states"], 5, (2, 5), outputs=outputs))


@pytest.mark.parametrize("shape", [(3, BLOCK), (3, BLOCK - 100), (1,), (0, 4)], ids=str)
def test_blocks_that_are_full_cut_short_and_absent(shape):
    assert_equals_reference(Job(CELLS["two states"], 4, shape))
    assert_equals_reference(Job(CELLS["two states"], 4, shape, **UNREQUESTED))


@pytest.mark.parametrize("traced", [True, False])
def test_no_steps_leave_the_states_and_their_gradients_as_they_are(traced):
    job = Job(CELLS["two states"], 5, (2, 3), traced=traced, device=DEVICE)
    tensors = leaves(job)
    call = replace(call_of(job, tensors), x=tensors["x"][:0], steps=0)
    out = run("triton", call)
    assert out.spk.shape == (0, 2, 3)
    for final, state in zip(out.final_states, call.states, strict=True):
        assert torch.equal(final, state)
    (grad,) = torch.autograd.grad(out.final_states[1].sum(), tensors["mem"])
    assert torch.equal(grad, torch.ones_like(grad))


@pytest.mark.parametrize("cell", ["exponential", "polyglot"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-30, 80.0])
def test_what_is_not_finite_very_small_or_large_flows_as_in_torch(value, cell):
    job = Job(CELLS[cell], 3, (4,), torch.float64, learn=(), device=DEVICE)
    call = call_of(job, leaves(job))
    call.x[1, 2] = value
    got, wanted = run("triton", call), run("loop", call)
    for ours, theirs in zip((got.spk, *got.traces), (wanted.spk, *wanted.traces), strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def corners(x, low, high, turned, kept, *, one):
    """Where NaN is compared and zero has a sign; and a state that is the same number after every step."""
    held = ops.maximum(high, ops.clamp(x, -1.0, 1.0))
    return ops.spike(x - one), ops.minimum(x, low), held, 1.0 / -x, ops.full_like(kept, 0.25)


CORNERS = cell_from(corners)


def test_zeros_keep_their_sign_and_comparisons_their_nan():
    values = [0.0, -0.0, float("nan"), float("inf"), 1.0]
    x = torch.tensor([[a] * len(values) for a in values], device=DEVICE)
    states = tuple(torch.tensor(values, device=DEVICE) for _ in CORNERS.states)
    call = Call(program_for(CORNERS, ATAN), x, len(values), states, {"one": torch.ones((), device=DEVICE)})
    got, wanted = run("triton", call), run("loop", call)
    for ours, theirs in zip((got.spk, *got.traces), (wanted.spk, *wanted.traces), strict=True):
        assert torch.equal(ours.nan_to_num(nan=7.0), theirs.nan_to_num(nan=7.0))


def test_parts_of_other_tensors_are_read_where_they_lie():
    """Rows with a stride of their own, states and gradients that are transposed or expanded."""
    job = Job(CELLS["two states"], 5, (4, 6), device=DEVICE, learn=())

    def turned(backend):
        call = call_of(job, leaves(job))
        wide = torch.stack([call.x, call.x + 1], dim=1).requires_grad_()
        states = tuple(s.t().contiguous().t() for s in call.states)
        out = run(backend, replace(call, x=wide[:, 0], states=states))
        (grad,) = torch.autograd.grad(out.spk.sum() + (out.traces[0].transpose(1, 2) * 2).sum(), wide)
        return Outcome({"spk": out.spk.detach()}, {}, {"x": grad})

    assert_same(turned("triton"), turned("loop"))


def test_the_gradient_of_a_last_state_is_read_with_the_sign_that_torch_keeps_aside():
    job = Job(CELLS["leaky subtract delayed"], 3, (4,), device=DEVICE)
    tensors = leaves(job)
    (last,), cotangent = run("triton", call_of(job, tensors)).final_states, weights(tensors["mem"], 0)
    wanted, got = (
        torch.autograd.grad(last, tensors["mem"], p, retain_graph=True)
        for p in (cotangent, torch._neg_view(-cotangent))
    )
    assert torch.equal(*wanted, *got)


# -- layers ------------------------------------------------------------------------------------------------------------


def layer_outcome(backend, name, dtype, option):
    """Every result and gradient of a neuron of the zoo, unrolled."""
    layer = made(name, **OPTIONS[option]).to(DEVICE)
    x = sequence(name, 5, dtype).to(DEVICE).requires_grad_()
    torch.manual_seed(7)  # of a noisy neuron
    with snn.backend(backend):
        spk, *states = tree_leaves(snn.unroll(layer, x))
    total = spk.float().sum() + sum((s.float() * 0.7).sum() for s in states)
    learned = {"x": x, **{n: p for n, p in layer.named_parameters() if p.requires_grad}}
    grads = torch.autograd.grad(total, list(learned.values()), allow_unused=True)
    named = {f"state {k}": s.detach() for k, s in enumerate(states)}
    return Outcome({"spk": spk.detach()}, named, dict(zip(learned, grads, strict=True)))


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", [name for name in ZOO if name not in DRIVEN])
def test_every_neuron(name, option):
    wanted = layer_outcome("loop", name, torch.float32, option)
    assert_same(layer_outcome("triton", name, torch.float32, option), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["Leaky", "Synaptic", "RLeaky"])
def test_half_precision_keeps_states_in_float32_and_double_in_double(name, dtype):
    got, wanted = (layer_outcome(backend, name, dtype, "learning") for backend in ("triton", "loop"))
    assert_same(got, wanted)
    assert got.states["state 0"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def half_outcome(job, dtype, converted):
    """Results and gradients for an input in half precision, read as it is, or converted by torch as the spikes are."""
    tensors = leaves(job)
    x = tensors["x"].detach().to(dtype).requires_grad_()
    call = call_of(job, tensors)
    run_of = run("triton", replace(call, x=x.float() if converted else x))
    outs = (run_of.spk.to(dtype), *run_of.traces, *run_of.final_states)
    total = sum((out * weights(out, i)).float().sum() for i, out in enumerate(outs))
    wanted = {**{name: t for name, t in tensors.items() if t.requires_grad}, "x": x}
    return *outs, *torch.autograd.grad(total, list(wanted.values()), allow_unused=True)


READ = [
    (cell, static, traced, (torch.float16, torch.bfloat16)[(i + static + traced) % 2])
    for (i, cell), static, traced in product(
        enumerate(["leaky subtract immediate", "rleaky zero delayed", "to rest", "izhikevich"]),
        (True, False),
        (True, False),
    )
]
"""Any two of them meet."""


@pytest.mark.parametrize(("cell", "static", "traced", "dtype"), READ)
def test_reading_halves_gives_the_bits_that_converting_them_gives(cell, static, traced, dtype):
    """Graded spikes among them, which a half rounds, and which are a state of the recurrent neuron."""
    job = Job(CELLS[cell], 5 if traced else SPAN + 3, (7,), static=static, traced=traced, device=DEVICE)
    exact = dtype == torch.float16 or DEVICE == "cuda"  # the interpreter cuts digits off where bfloat16 rounds
    for got, wanted in zip(*(half_outcome(job, dtype, converted) for converted in (False, True)), strict=True):
        assert_close(got, wanted, "a result", exact or (wanted is not None and wanted.dtype == torch.float32))


@HALVES
def test_halves_go_into_the_kernel_as_they_are(dtype, monkeypatch):
    """And come out so: what passes between torch and the kernel is never wider than asked."""
    seen = []
    forward, backward = gpu_launch.forward, gpu_launch.backward
    monkeypatch.setattr(gpu_launch, "forward", lambda *given: seen.append(forward(*given)) or seen[-1])
    monkeypatch.setattr(gpu_launch, "backward", lambda *given: seen.append(backward(*given)) or seen[-1])
    layer, x = snn.Leaky(beta=0.8).to(DEVICE), sequence("Leaky", 5).to(DEVICE, dtype).requires_grad_()
    with snn.backend("triton"):
        spk, mem = snn.unroll(layer, x)
        (spk.float().sum() + mem.sum()).backward()
    (ours, final_states, traces), gradients = seen
    assert ours.dtype == spk.dtype == gradients.x.dtype == x.grad.dtype == dtype
    assert {t.dtype for t in (*final_states, *traces, *gradients.states)} == {torch.float32}


def test_spikes_that_come_back_through_a_convolution_are_fused_step_by_step():
    with snn.backend("triton"):
        message = str(
            snn.explain(made("RLeaky through Conv2d").to(DEVICE), sequence("RLeaky through Conv2d").to(DEVICE))
        )
    assert "triton, step by step" in message
    assert "the recurrent layer is Conv2d, not nn.Linear: the steps are fused one by one" in message


@pytest.mark.parametrize("length", [None, 3], ids=["all steps", "the last three"])
def test_neurons_over_whole_sequences(length):
    layer = snn.StateLeaky(beta=0.8, channels=4, kernel_truncation_steps=length).to(DEVICE)
    x = sequence("Leaky", 5).to(DEVICE)
    with snn.backend("triton"):
        if length is None:
            assert torch.equal(layer(x)[0], looped_spikes(layer, x))
        else:
            with pytest.raises(RuntimeError, match="a sum over the last steps alone has no kernel"):
                layer(x)


def looped_spikes(layer, x):
    """The spikes that the loop gives."""
    with snn.backend("loop"):
        return layer(x)[0]


# -- under torch.compile -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("dtype", "hidden"), [(torch.float32, False), (torch.float16, True)], ids=str)
def test_compiled_whole_it_gives_the_same(dtype, hidden):
    """Where nobody asks for the states, eager mode rebuilds them; a compiled network keeps them."""
    torch._dynamo.reset()
    layer = snn.Leaky(beta=0.8, init_hidden=hidden).to(DEVICE)
    x = sequence("Leaky", SPAN + 3).to(DEVICE, dtype).requires_grad_()
    results = []

    def whole(x):
        with snn.backend("triton"):
            return snn.unroll(layer, x)

    def one(x):
        with snn.backend("triton"):
            return layer(x[0])

    for run_it in (whole, one):
        for way in (torch.compile(run_it, fullgraph=True, backend="aot_eager"), run_it):
            layer.reset_mem()
            outs = tree_leaves(way(x))
            results.append((*outs, *torch.autograd.grad(sum((out * weights(out, 0)).float().sum() for out in outs), x)))
    for got, wanted in (results[:2], results[2:]):
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_torch_finds_the_operator_sound(dtype):
    job = Job(CELLS["two states"], 3, (2, 3), device=DEVICE)
    call = call_of(job, leaves(job))
    call = replace(call, x=call.x.detach().to(dtype).requires_grad_())
    params = call.hoisted()
    given = call.program.key, "the test", 3, call.x, list(call.states), [p.detach() for p in params]
    encoded = autograd._encoded(variant_of(call, params, triton_jit.target_on(call.x)))
    torch.library.opcheck(autograd._operator, (*given, *encoded))


def test_the_backward_takes_the_backend_of_its_forward():
    job = Job(CELLS["two states"], 3, (2, 3), device=DEVICE)
    out = run("triton", call_of(job, leaves(job)))
    with snn.backend("loop"):
        out.spk.sum().backward()
    assert "_Scan" in type(out.spk.grad_fn).__name__


def test_no_length_and_no_batch_asks_triton_to_compile_again_but_for_whether_16_divides_it(monkeypatch):
    """It compiles for another kernel, for a tensor of another dtype, or that begins elsewhere, and for numbers that are
    not hidden from it, see `test_triton_source`: for whether 16 divides them, and for one."""
    kinds, ready, run_it = set(), set(), triton_jit.TritonKernel.run

    def seen(value):
        if torch.is_tensor(value):
            return value.dtype, value.data_ptr() % 16 == 0
        return isinstance(value, int) and (value % 16 == 0, value == 1)

    def watched(self, size, given):
        shown = {*self.function.arg_names} - {*integers(self.function.arg_names), *self.constants}
        kinds.add((id(self), *((name, seen(given[name])) for name in sorted(shown))))
        run_it(self, size, given)

    monkeypatch.setattr(triton_jit.TritonKernel, "run", watched)
    layer = snn.Leaky(beta=0.8, init_hidden=True, learn_beta=True).to(DEVICE)
    for batches, wanted in ((range(3, 14), 2), ((16, 32, 48), 4)):
        ready.clear()
        for batch in batches:
            layer.reset_mem()
            with snn.backend("triton"):
                x = torch.rand(SPAN + batch, batch, 7, device=DEVICE, requires_grad=True)
                snn.unroll(layer, x).sum().backward()
            assert len(kinds) == wanted
            ready.add(kernel_cache.made_ready())
        assert len(ready) == 1


# -- who is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "forced", "interpreting", "words"),
    [
        ("cuda:0", False, False, None),
        ("cpu", True, True, None),
        ("cpu", False, True, "it needs a tensor on a GPU, got one on cpu"),
        ("cpu", True, False, "set TRITON_INTERPRET=1 before Python starts"),
        ("mps:0", False, False, "run on CUDA and ROCm devices, got a tensor on mps:0"),
        ("xpu:0", True, False, "run on CUDA and ROCm devices, got a tensor on xpu:0"),
    ],
)
def test_a_device_is_taken_or_refused_in_a_sentence(device, forced, interpreting, words, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1" if interpreting else "0")
    message = [*triton_jit.refusals(torch.device(device), forced)]
    assert message == [] if words is None else words in message[0]


def test_triton_that_is_missing_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(triton_jit, "_missing", [])
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "triton cannot be imported" in next(triton_jit.refusals(torch.device("cuda"), False))


def test_off_the_cpu_the_loop_says_why_and_on_it_nothing_is_said_of_triton():
    job = Job(CELLS["two states"], 3, (2, 3))
    call = call_of(job, leaves(job))
    assert backends.choose(call)[1] == []
    machine, message = backends.choose(replace(call, x=call.x.to("meta")))
    assert machine.name == "loop"
    assert "triton: its kernels run on CUDA and ROCm devices, got a tensor on meta" in message

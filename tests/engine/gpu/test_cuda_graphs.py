"""Recorded steps of a wide recurrent layer agree with the loop: as CUDA graphs on a GPU, else as plain replays."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom.engine.gpu import cuda_graphs
from spikeloom.engine.tuning import triton_shapes

from ...network.networks import quarters, twins
from ...oracle import assert_close, assert_same
from ..cpu.test_recurrent import KINDS, RESETS, Case, layer_of, outcome

pytest.importorskip("triton")
pytestmark = pytest.mark.triton

GRAPHS = triton_shapes.graphs
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def recording(monkeypatch, quiet, tuned):
    """Every width is too wide, and seven steps are runs of four, two and one."""
    tuned(gpu_recurrent_most=0)
    tuned(graph_steps=4)
    monkeypatch.setattr(cuda_graphs, "_failed", [])
    cuda_graphs.release()
    yield
    cuda_graphs.release()


CASES = [
    *(replace(case, steps=7) for case in RESETS),
    *(Case(kind, static=True, learn=learn, steps=6) for kind in KINDS for learn in (None, ("x",))),
    *(Case(shape=shape, steps=3) for shape in ((1, 1), (2, 3, 5))),
    *(Case("RSynaptic", learn=learn, traced=traced, steps=7) for traced in (True, False) for learn in (
        (), ("x",), ("spk",), ("mem",), ("beta",), ("recurrent.weight",), ("recurrent.bias",))),
    Case(bias=False, steps=7),
    *(Case(steps=steps) for steps in (1, 13)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_recorded_steps_give_the_bits_of_the_loop(case):
    assert_same(outcome("triton", case, DEVICE), outcome("loop", case, DEVICE), exact_states=True)


def backend_of(layer, x):
    with snn.backend("triton"):
        return snn.explain(layer, x).rows[0]


def wide() -> nn.Module:
    """Two layers of one kind, which share a recording."""
    options = {"linear_features": 6, "init_hidden": True, "learn_beta": True, "learn_threshold": True}
    layers = [snn.RLeaky(beta=0.5, **options) for _ in range(2)]
    with torch.no_grad():
        for layer in layers:
            for p in layer.recurrent.parameters():
                p.copy_(quarters(*p.shape, seed=p.dim()) - 0.5)
    return nn.Sequential(*layers).to(DEVICE)


def test_layers_calls_lengths_and_batches_share_what_is_recorded():
    """Two calls before one backward, then one with new weights and another length, then another batch."""
    (net, twin), results = twins(wide), ([], [])
    for number, (steps, batch, calls) in enumerate(((7, 3, 2), (5, 3, 1), (7, 2, 1))):
        xs = [quarters(steps, batch, 6, seed=2 * number + k).to(DEVICE) for k in range(calls)]
        for each, backend, seen in zip((net, twin), ("triton", "loop"), results, strict=True):
            snn.utils.reset(each)
            with snn.backend(backend):
                outs = [snn.unroll(each, x) for x in xs]
            seen += [*outs, *torch.autograd.grad(sum((out**2).sum() for out in outs), list(each.parameters()))]
        for each in (net, twin):
            with torch.no_grad():
                for p in each.parameters():
                    p.mul_(0.75)
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, "a result", exact=ours.dim() == 3)
    assert cuda_graphs._graph.cache_info().misses == 12  # of 4, 2 and 1 steps, forward and backward, for two batches


def test_the_next_backward_leaves_the_gradients_of_the_last_as_they_are():
    """Also those that are summed over nothing: of a threshold for each neuron, where there is no batch."""
    layer, results = layer_of(Case(shape=(7,), vector=True)).to(DEVICE), []
    for scale in (1, 2):
        snn.utils.reset(layer)
        with snn.backend("triton"):
            spk, _ = snn.unroll(layer, quarters(4, 7).to(DEVICE))
        results += torch.autograd.grad(scale * spk.sum(), layer.threshold)
    assert results[0].any()
    assert torch.equal(2 * results[0], results[1])


def test_a_run_is_recorded_once_and_memory_is_bounded(monkeypatch):
    made, replayable = [], cuda_graphs.replayable

    def noting(work, like):
        made.append(work.args[0].steps)
        return replayable(work, like)

    monkeypatch.setattr(cuda_graphs, "replayable", noting)
    layer = layer_of(Case()).to(DEVICE)
    with torch.no_grad(), snn.backend("triton"):
        for steps in (7, 4, 11, 2):
            snn.unroll(layer, torch.rand(steps, 5, 7, device=DEVICE))
        assert made == [4, 2, 1]
        for batch in range(1, 2 * GRAPHS):
            snn.utils.reset(layer)
            snn.unroll(layer, torch.rand(1, batch, 7, device=DEVICE))
    assert cuda_graphs._graph.cache_info().currsize == GRAPHS
    snn.utils.free_memory()
    assert cuda_graphs._graph.cache_info().currsize == 0


def test_memory_made_without_gradients_serves_a_training():
    layer, results = layer_of(Case()).to(DEVICE), []
    x = quarters(4, 5, 7).to(DEVICE)
    with torch.inference_mode(), snn.backend("triton"):
        results.append(snn.unroll(layer, x)[0])
    for backend in ("triton", "loop"):
        snn.utils.reset(layer)
        with snn.backend(backend):
            results.append(snn.unroll(layer, x)[0])
            assert results[-1].requires_grad
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[1], results[2])


def test_half_precision_is_read_as_it_is():
    results = []
    for backend in ("triton", "loop"):
        layer, x = layer_of(Case()).to(DEVICE), quarters(7, 5, 7).to(DEVICE).half().requires_grad_()
        with snn.backend(backend):
            spk, mem = snn.unroll(layer, x)
        assert (spk.dtype, mem.dtype) == (torch.float16, torch.float32)
        results.append((mem, spk, *torch.autograd.grad(spk.float().sum() + mem.sum(), [x, *layer.parameters()])))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, "a result", exact=ours is results[0][0])


def test_it_is_reported_and_a_graph_that_others_record_has_the_steps_themselves(monkeypatch):
    layer, x = layer_of(Case()).to(DEVICE), torch.zeros(2, 5, 7, device=DEVICE)
    assert backend_of(layer, x).backend == "triton, recorded"
    monkeypatch.setattr(cuda_graphs, "captured", lambda x: True)
    row = backend_of(layer, x)
    assert row.backend == "triton, step by step"
    assert "a CUDA graph is being captured around it" in row.refusals[-1]


def test_the_precision_of_products_is_that_of_the_call():
    layer, x = layer_of(Case()).to(DEVICE), torch.zeros(2, 5, 7, device=DEVICE)
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("high", "highest"):
            torch.set_float32_matmul_precision(precision)
            with torch.no_grad(), snn.backend("triton"):
                snn.unroll(layer, x)
    finally:
        torch.set_float32_matmul_precision(before)
    assert cuda_graphs._graph.cache_info().misses == 2


def test_what_torch_cannot_record_is_run_as_it_is_and_reported_once(monkeypatch):
    def record(work, device):
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    monkeypatch.setattr(cuda_graphs, "capturable", lambda like: not cuda_graphs._failed)
    monkeypatch.setattr(cuda_graphs, "capture", record)
    case = Case(steps=7)
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=UserWarning)
        got = outcome("triton", case, DEVICE)
    (warning,) = caught
    assert "CUDA graph (operation not permitted when stream is capturing)" in str(warning.message)
    row = backend_of(layer_of(case).to(DEVICE), torch.zeros(2, 5, 7, device=DEVICE))
    assert row.backend == "triton, step by step"
    assert "could not record steps as a CUDA graph: operation not permitted" in row.refusals[-1]
    assert_same(got, outcome("loop", case, DEVICE), exact_states=True)


def test_what_cannot_be_recorded_for_one_shape_is_recorded_for_others(monkeypatch):
    """As where the memory of a large one runs out."""
    recorded = []

    def record(work, device):
        shape = work.args[4][0].shape
        if shape == (5, 7):
            raise torch.OutOfMemoryError("CUDA out of memory")
        recorded.append(shape)
        return work

    monkeypatch.setattr(cuda_graphs, "capturable", lambda like: not [*cuda_graphs.refusals(like)])
    monkeypatch.setattr(cuda_graphs, "capture", record)
    layer = layer_of(Case()).to(DEVICE)
    with torch.no_grad(), snn.backend("triton"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for rows in (5, 3, 5):
            snn.utils.reset(layer)
            snn.unroll(layer, torch.rand(4, rows, 7, device=DEVICE))
    assert [str(warning.message).count("out of memory") for warning in caught] == [1]
    assert recorded == [(3, 7)]
    refused = [backend_of(layer, torch.zeros(2, rows, 7, device=DEVICE)).backend for rows in (5, 3)]
    assert refused == ["triton, step by step", "triton, recorded"]
    snn.utils.free_memory()
    monkeypatch.setattr(cuda_graphs, "capture", lambda work, device: work)
    assert backend_of(layer, torch.zeros(2, 5, 7, device=DEVICE)).backend == "triton, recorded"


class Graph:
    """In place of torch's: notes what is done, and fails to end a recording if it is to."""

    def __init__(self, done, fails):
        self.done, self.fails = done, fails

    def capture_begin(self, pool, capture_error_mode, **more):
        self.done += ["begin", pool, capture_error_mode]

    def capture_end(self):
        self.done.append("end")
        if self.fails:
            raise RuntimeError("it failed")

    def replay(self):
        self.done.append("replay")


class Stream:
    """In place of the context in which a stream is the current one, which is the last of `order`."""

    order = ("current",)

    def __init__(self, stream):
        self.stream, self.before = stream, Stream.order

    def __enter__(self):
        self.before, Stream.order = Stream.order, (*Stream.order, self.stream)

    def __exit__(self, *error):
        Stream.order = self.before


@pytest.mark.skipif(DEVICE == "cuda", reason="there it is recorded")
@pytest.mark.parametrize("fails", [False, True])
def test_work_is_done_once_then_recorded_beside_the_stream_of_the_call(fails, monkeypatch):
    """By torch's own context manager around a graph, on a device that is not there."""
    done, current = [], SimpleNamespace(cuda_stream=7)
    fakes = {"CUDAGraph": lambda: Graph(done, fails), "Stream": lambda device=None: "side", "stream": Stream}
    fakes |= {"current_stream": lambda device: current, "graph_pool_handle": lambda: "pool"}
    for name, fake in (fakes | dict.fromkeys(("synchronize", "empty_cache"), lambda: None)).items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    monkeypatch.setattr(cuda_graphs, "capturable", lambda like: True)

    def work():
        done.append(Stream.order[-1])

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = cuda_graphs.replayable(work, torch.zeros(1))
    again()
    assert Stream.order == ("current",)
    assert done == ["current", "begin", "pool", "thread_local", "side", "end", "current" if fails else "replay"]
    assert len(caught) == fails
    cuda_graphs.release()

"""Which backend runs, and with which message the others refuse."""

import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from importlib.abc import MetaPathFinder

import pytest
import torch
from torch.autograd import forward_ad

import spikeloom as snn
from spikeloom.engine.run import backends

from ...cases import CELLS
from ..running import Job, call_of, leaves, run


@pytest.fixture
def call():
    job = Job(CELLS["leaky subtract delayed"], 4, (2, 3))
    return call_of(job, leaves(job))


def test_the_fastest_backend_that_accepts_runs(call):
    machine, reasons = backends.choose(call)
    assert (machine.name, reasons) == ("numba", [])


def test_the_loop_takes_what_no_other_backend_takes(call):
    machine, reasons = backends.choose(replace(call, x=call.x.to(torch.float8_e5m2)))
    assert machine.name == "loop"
    assert reasons == ["numba: it computes in float32 and float64, got torch.float8_e5m2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda call: replace(call, x=call.x.to("meta")), "it needs a tensor on the CPU, got one on meta"),
        (lambda call: replace(call, x=call.x.to(torch.float8_e5m2)), "float32 and float64, got torch.float8_e5m2"),
    ],
)
def test_a_forced_backend_raises_with_its_reasons(change, message, call):
    with snn.backend("numba"), pytest.raises(RuntimeError, match=f"'numba' was selected, but cannot run.*{message}"):
        backends.choose(change(call))


def test_numba_refuses_where_it_cannot_compile(call, monkeypatch):
    monkeypatch.setattr(backends, "_no_numba", [])
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    machine, reasons = backends.choose(call)
    assert machine.name == "loop"
    assert reasons == ["numba: NUMBA_DISABLE_JIT is set"]


@pytest.mark.parametrize(
    ("broken", "message"), [(None, "cannot be imported"), (ImportError("needs NumPy 2.4 or less"), "NumPy 2.4")]
)
def test_numba_that_is_missing_or_broken_is_refused_in_a_sentence(call, monkeypatch, broken, message):
    class Broken(MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name == "numba" and broken is not None:
                raise broken

    monkeypatch.setattr(backends, "_no_numba", [])
    if broken is None:
        monkeypatch.setitem(sys.modules, "numba", None)
    else:
        monkeypatch.delitem(sys.modules, "numba", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.warns(UserWarning, match=message):
        machine, reasons = backends.choose(call)
    assert machine.name == "loop"
    assert message in reasons[0]
    backends.choose(call)  # without a second warning


def test_functional_transforms_run_on_the_loop(call):
    seen = []

    def total(x):
        machine, reasons = backends.choose(replace(call, x=x))
        seen.append((machine.name, reasons))
        return machine.run(replace(call, x=x)).spk.sum()

    torch.func.grad(total)(call.x.detach())
    assert seen[0][0] == "loop"
    assert "torch.func" in seen[0][1][0]


def test_an_unknown_backend_is_reported_with_those_that_exist():
    with (
        pytest.raises(ValueError, match="there is no backend 'cuda'; choose one of auto, numba, triton, loop"),
        snn.backend("cuda"),
    ):
        pass


def test_the_choice_ends_with_its_block_also_after_an_error(call):
    with pytest.raises(ZeroDivisionError), snn.backend("loop"):
        raise ZeroDivisionError
    assert backends.choose(call)[0].name == "numba"


def test_the_backward_takes_the_backend_of_its_forward():
    job = Job(CELLS["leaky subtract delayed"], 4, (2, 3))
    tensors = leaves(job)
    out = run("numba", call_of(job, tensors))
    with snn.backend("loop"):
        out.spk.sum().backward()
    assert "_Scan" in type(out.spk.grad_fn).__name__
    assert tensors["x"].grad is not None


STEPS = {
    "one step": lambda x: snn.Leaky(0.9)(x[0], x[1])[1],
    "a sequence": lambda x: snn.unroll(snn.Leaky(0.9), x)[1],
    "recurrent": lambda x: snn.unroll(snn.RLeaky(0.9, all_to_all=False, V=0.5), x)[1],
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torch_jit_trace_records_the_equation_and_no_kernel(name):
    with torch.no_grad():
        traced = torch.jit.trace(STEPS[name], torch.rand(3, 2, 4))
        x = torch.rand(3, 2, 4) + 0.5
        assert torch.equal(traced(x), STEPS[name](x))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, on the first tangent
def test_a_tangent_is_never_lost_silently(name):
    """A kernel would give zero for it: so the equation runs, and the spikes pass it on by their surrogate."""
    x, tangents = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0)), []
    for context in (nullcontext(), snn.backend("loop")):
        with context, forward_ad.dual_level():
            out = STEPS[name](forward_ad.make_dual(x, torch.ones(3, 2, 4)))
            tangents.append(forward_ad.unpack_dual(out).tangent)
    assert tangents[0].abs().min() > 0
    assert torch.equal(*tangents)


def test_a_kernel_runs_on_the_cpu_whatever_the_default_device_is():
    """What it needs beside its input must not lie on a GPU, where its addresses mean nothing."""
    lif, recurrent, gates = snn.Leaky(0.8765), snn.RLeaky(0.9, linear_features=4), snn.SLSTM(4, 4, threshold=0.05)
    x, mem = torch.rand(3, 2, 4), torch.zeros(2, 4)
    with torch.device("meta"):
        outs = [lif(x[0], mem)[1], snn.unroll(recurrent, x)[1], snn.unroll(gates, x)[2]]
        outs[1].sum().backward()
    assert all(out.isfinite().all() for out in outs)


def test_without_a_name_the_selected_backend_is_returned():
    assert snn.backend() == "auto"
    with snn.backend("loop"):
        assert snn.backend() == "loop"
        with snn.backend("auto"):
            assert snn.backend() == "auto"
        assert snn.backend() == "loop"
    assert snn.backend() == "auto"


def test_the_environment_sets_the_backend_of_the_process():
    script = """
import torch, spikeloom as snn
print(snn.backend(), snn.explain(snn.Leaky(0.9), torch.ones(3, 2, 4)).rows[0].backend)
with snn.backend("auto"):
    print(snn.backend(), snn.explain(snn.Leaky(0.9), torch.ones(3, 2, 4)).rows[0].backend)
"""
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, env=os.environ | {"SPIKELOOM_BACKEND": "loop"}, capture_output=True, text=True)
    assert done.stdout.split() == ["loop", "loop", "auto", "numba"], done.stderr
    done = subprocess.run(run, env=os.environ | {"SPIKELOOM_BACKEND": "cuda"}, capture_output=True, text=True)
    assert "SPIKELOOM_BACKEND is 'cuda'; choose one of auto, numba, triton, loop" in done.stderr

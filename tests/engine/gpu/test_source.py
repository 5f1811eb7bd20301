"""The source of Triton's kernels: what its compiler makes of it, the bytes that it moves, and where it lies."""

import inspect
import linecache
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spikeloom.cells import MODELS
from spikeloom.engine.gpu.parallel_source import emit_triton_parallel
from spikeloom.engine.gpu.source import SPAN, emit_triton
from spikeloom.engine.graph import State, Target
from spikeloom.engine.jit import kernel_cache
from spikeloom.engine.run.call import variant_of

from ...cases import CELLS
from ..running import Job, call_of, leaves

pytest.importorskip("triton")
pytestmark = pytest.mark.triton

WHOLE_SEQUENCES = ("state_leaky", "state_leaky_exact", "leaky_parallel", "associative")

COMPILED = textwrap.dedent("""
    import re, torch, triton
    import spikeloom as snn
    from dataclasses import replace
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from spikeloom.engine.jit import kernel_cache as cache
    from spikeloom.engine.graph import Variant
    from spikeloom.engine.gpu.source import emit_triton
    from spikeloom.engine.gpu.parallel_source import emit_triton_parallel
    from spikeloom.engine.gpu.recurrent import emit_triton_recurrent
    from tests.engine.cpu.test_recurrent import Case, layer_of
    from spikeloom.engine.gpu.launch import block_of
    from spikeloom.engine.jit.triton_jit import OPTIONS
    from spikeloom.engine.tuning import triton_shapes as shapes
    from tests.cases import CELLS, CellCase
    from tests.engine.gpu.test_triton import CORNERS
    from tests.engine.running import Job, call_of, leaves
    from spikeloom.engine.graph import InputGrad, Param, State, Target, Variant
    from spikeloom.engine.run.call import variant_of

    NVIDIA, AMD = GPUTarget("cuda", 80, 32), GPUTarget("hip", "gfx942", 64)
    FUSED = re.compile(r"fma\\S*|sqrt.approx\\S*|v_(?:pk_)?(?:fmac?|mad)_f\\S*")

    def compiled(source, constants, words=(), target=NVIDIA, stage="ptx"):
        # its arguments are numbers and pointers to float32, or, as listed in words, to bfloat16
        kernel = cache.load_source(source).kernel
        numbers = [p.name for p in kernel.params if p.name in ("steps", "size", "rows") or p.name.endswith("_stride")]
        assert {p.name for p in kernel.params if p.do_not_specialize} <= {"steps", "rows"}
        assert kernel.params[0].do_not_specialize, "T is compiled in"
        assert [p.name for p in kernel.params if p.is_constexpr] == [*constants]
        assert not kernel.device_caches  # which cache.made_ready counts
        kinds = {p.name: "i32" if p.name in (*numbers, "width") else "*fp32" for p in kernel.params}
        kinds |= {name: "constexpr" for name in constants} | {name: "*bf16" for name in words if name in kinds}
        wholes = [k for k, p in enumerate(kernel.params) if not (p.do_not_specialize or p.is_constexpr)]
        attributes = {(k,): [["tt.divisibility", 16]] for k in wholes}  # as of most shapes and all fresh memory
        source = ASTSource(kernel, kinds, constants, attributes)
        return triton.compile(source, target=target, options=OPTIONS).asm[stage]

    # not polyglot: a logarithm has fused steps of its own
    cases = [(CELLS["leaky zero immediate"], "float32"), (CELLS["exponential"], "float32"),
             (CELLS["state_leaky"], "float32"), (CELLS["associative"], "float32"),
             (CellCase(CORNERS, {"one": 1.0}), "float32"),
             (CELLS["leaky zero immediate"], "bfloat16")]
    ON_BOTH = [case for case, _ in cases[:2]]
    for case, dtype in cases:
        job = Job(case, 5, (7,), traced=dtype == "float32")
        call = call_of(job, leaves(job))
        call.x = call.x.detach().to(getattr(torch, dtype)).requires_grad_()
        variant = variant_of(call, call.hoisted(), Target.TRITON)
        if case is CELLS["associative"]:  # whose gate differs from step to step
            variant = replace(variant, params=tuple(
                Param.LEARNED_STEP if kind == Param.LEARNED_ELEMENT else kind for kind in variant.params))
        halves = ("x", "spk", "grad0", "dx") if dtype == "bfloat16" else ()
        for each in (variant.forward, variant):
            source = emit_triton(call.program.derivation, each, "a test")
            block = {"BLOCK": block_of(each)}
            ptx = compiled(source, block, halves)
            if case in ON_BOTH:
                amd = compiled(source, block, halves, AMD, "amdgcn")
                assert "global_store" in amd
                print(*set(FUSED.findall("" if "v_div_" in amd else amd)))
            if case.cell.any_order:
                source = emit_triton_parallel(call.program.derivation, each, "a test")
                ptx += compiled(source, {"TIME": shapes.joined_steps, "BLOCK": shapes.joined_elements})
            assert "ld.global.v" in ptx, "elements are read one by one"
            assert "st.global" in ptx and ("div.full" not in ptx or each.grad)
            print(*set(FUSED.findall(ptx)))

    derivation = snn.SLSTM(4, 4)._program.derivation  # a step of four inputs; tanh is made of a logarithm
    numbers = (Param.LEARNED_NUMBER,) * len(derivation.hoisted)
    variant = Variant("float32", numbers, (State.DROPPED,) * 2, InputGrad.EACH, Target.TRITON)
    for each in (variant.forward, variant):
        assert compiled(emit_triton(derivation, each, "a test"), {"BLOCK": block_of(each)}).count("ld.global") >= 4

    derivation = layer_of(Case("RSynaptic"))._program.derivation
    numbers = (Param.LEARNED_NUMBER,) * len(derivation.hoisted)
    variant = Variant("float32", numbers, (State.SAVED,) * 3, InputGrad.FED_BACK, Target.TRITON)
    for each in (variant.forward, variant):
        source = emit_triton_recurrent(derivation, each, "a test")
        block = {"BLOCK": shapes.recurrent_rows}
        ptx, amd = compiled(source, block), compiled(source, block, (), AMD, "amdgcn")
        assert "bar.sync" in ptx and "tf32" not in ptx and "s_barrier" in amd and "xf32" not in amd
""")


def test_compiled_for_a_gpu_nothing_is_fused_or_approximate_and_no_size_is_compiled_in(tmp_path, monkeypatch):
    """By Triton's compiler, which needs no GPU; in a process of its own, for here Triton interprets.

    For a device of NVIDIA's and one of AMD's, which writes out a division in fused steps: there what has none is read.
    """
    for name, value in {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def traffic_rows():
    """The rows of docs/gpu.md: a cell and, if it is none of float32, a dtype, what learns, and four columns."""
    page = (Path(__file__).parents[3] / "docs" / "gpu.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    return [row for row in rows if row[0].partition(", ")[0] in CELLS and len(row) == 6]


def moved(source, width):
    """Bytes that a kernel moves per element and step, where an input takes `width` of them and a state takes 4; the
    gradients of states, which nobody gives, aside."""
    ((time, loop),) = re.findall(r"    for (\w+) in .*:\n((?: {8}.*\n)+)", source)
    total, read = 0.0, []
    for line in loop.splitlines():
        for name in re.findall(r"tl\.(?:load|store)\((?!grad[1-9])([a-z]+\d?)", line):
            read.append(name)
            if time == "first" and read.count(name) > 1:  # of many steps at once, whose rows are at hand
                continue
            seldom = time == "span" or line.startswith(" " * 12)  # once in SPAN steps
            total += (width if name in ("x", "spk", "grad0", "dx") else 4) / (SPAN if seldom else 1)
    return total


@pytest.mark.parametrize("row", traffic_rows(), ids=lambda row: f"{row[0]}, {row[1]}")
def test_the_page_gives_the_traffic_of_the_kernels(row):
    (name, _, dtype), (learns, *message) = row[0].partition(", "), row[1:]
    job = Job(CELLS[name], 5, (7,), learn=("x",) if learns == "x" else None, traced=False, outputs=("spk",))
    call = call_of(job, leaves(job))
    call = replace(call, x=call.x.detach().to(getattr(torch, dtype or "float32")).requires_grad_())
    variant, derivation = variant_of(call, call.hoisted(), Target.TRITON), call.program.derivation
    assert derivation is not None
    for emit in (emit_triton, emit_triton_parallel) if call.program.cell.any_order else (emit_triton,):
        sources = [emit(derivation, v, "a test") for v in (variant.forward, variant)]
        reads = "read" if "tl.load(x" in sources[1] else ""
        saved = 4 * variant.states.count(State.SAVED) + 4 / SPAN * variant.states.count(State.SPANS)
        counted = [*(moved(source, call.x.element_size()) for source in sources), saved]
        assert message == [*(f"{count:g}" for count in counted), reads]


def test_the_page_has_a_row_for_every_kind_of_neuron():
    message = {row[0].split()[0] for row in traffic_rows()}
    assert {name.split()[0] for name in MODELS} - message <= {*WHOLE_SEQUENCES, "refractory"}


def test_a_division_rounds_correctly_wherever_a_state_comes_of_it():
    job = Job(CELLS["exponential"], 5, (7,), traced=False, outputs=("spk",))
    call = call_of(job, leaves(job))
    variant = variant_of(call, call.hoisted(), Target.TRITON)
    assert call.program.derivation is not None
    forward, backward = (emit_triton(call.program.derivation, v, "a test") for v in (variant.forward, variant))
    exact, rounded = [re.findall(r" = tl\.div_rn\(| / v", source) for source in (forward, backward)]
    assert exact == [" = tl.div_rn("]
    assert rounded.count(exact[0]) >= SPAN
    assert rounded.count(" / v") >= SPAN


def test_a_number_that_divides_is_a_reciprocal_on_a_gpu_alone():
    """Where torch itself multiplies by it, and rounds otherwise."""
    job = Job(CELLS["polyglot"], 3, (2,))
    call = call_of(job, leaves(job))
    variant = variant_of(call, call.hoisted(), Target.TRITON).forward
    assert call.program.derivation is not None
    on_gpu = emit_triton(call.program.derivation, variant, "a test")
    interpreted = emit_triton(call.program.derivation, replace(variant, target=Target.INTERPRETER), "a test")
    assert "* tl.div_rn(tl.full((), 1.0, tl.float32), tl.full((), 8.0" in on_gpu
    assert ", tl.full((), 8.0, tl.float32))" in interpreted
    assert "* tl.div_rn(" not in interpreted


def test_a_source_is_found_by_inspect_and_no_file_is_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(kernel_cache.ENVIRONMENT, str(tmp_path / "file" / "below"))
    source = "VALUE = 'a source of this test'\n\n\ndef kernel():\n    return VALUE\n"
    module = kernel_cache.load_source(source)
    linecache.checkcache()
    assert module.kernel() == "a source of this test"
    assert inspect.getsource(module.kernel) == "def kernel():\n    return VALUE\n"

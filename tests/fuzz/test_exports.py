"""Random networks have the outputs of the library in every target, or are refused; `make fuzz` exports more of them."""

import importlib.util

import pytest

from ..export.c.program import needs_compiler
from . import exports

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs onnx, onnxscript and onnxruntime",
)
TARGETS = [
    pytest.param("C, float", range(5), marks=needs_compiler, id="C, float"),
    pytest.param("C, int8", range(5), marks=needs_compiler, id="C, int8"),
    pytest.param("ONNX", range(4), marks=[pytest.mark.slow, needs_onnx], id="ONNX"),
    pytest.param("torch.export", range(4), marks=pytest.mark.slow, id="torch.export"),
]


@pytest.mark.parametrize(("target", "seeds"), TARGETS)
def test_random_networks_have_the_outputs_of_the_library(target, seeds):
    found = [wrong for seed in seeds if (wrong := exports.outcome(target, seed))]
    assert not found, "\n".join(found)


@needs_compiler
def test_a_wrong_program_is_found(monkeypatch):
    """Here one in which a neuron fires at its threshold."""
    compiled = exports.compiled

    def wrong(source, *flags, **options):
        source.write_text(source.read_text().replace("u > 0 ? 1 : 0", "u > -0.5f ? 1 : 0"))
        return compiled(source, *flags, **options)

    monkeypatch.setattr(exports, "compiled", wrong)
    assert any("outputs differ" in exports.outcome("C, float", seed) for seed in range(3))

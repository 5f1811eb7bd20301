"""The timing diagram of the resets shows what the layer does today."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "reset_timing.py"


def test_the_timing_diagram_is_that_of_the_layer():
    spec = importlib.util.spec_from_file_location("reset_timing", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PICTURE.read_text() == script.drawing(), f"run python docs/{SCRIPT.name}"

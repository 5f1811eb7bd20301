"""The timing diagram of the resets shows what the layer does today."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "reset_timing.py"


def test_the_timing_diagram_is_that_of_the_layer():
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    script = runpy.run_path(str(SCRIPT))
    with image.open(script["PICTURE"]) as picture:
        assert picture.text["Description"] == repr([script["rows"](True), script["rows"](False)]), f"run {SCRIPT.name}"

"""The page of all targets: its tables are those of the stored run, in which no value differs."""

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_stored_run():
    """`python examples/export_matrix.py --out docs/export.json` stores it."""
    example = runpy.run_path(str(ROOT / "examples" / "export_matrix.py"))
    cells = json.loads((ROOT / "docs" / "export.json").read_text())["cells"]
    assert example["tables"](cells) in (ROOT / "docs" / "export.md").read_text()
    assert {cell["row"] for cell in cells} == {*example["NEURONS"], *example["OTHERS"]}
    assert not [cell for cell in cells if cell["differing"]]
    assert not [cell for cell in cells if not cell["values"] and not cell["refusal"]]
    assert not [cell for cell in cells if cell["target"] == "ONNX" and not cell["nonzero"]], "a silent network"
    refused = {cell["row"] for cell in cells if cell["refusal"]}
    assert refused <= {
        *("NoisyLeaky", "Leaky, state_quant", "Leaky, inhibition"),
        *("GroupNorm, Leaky", "StateLeaky, truncated kernel"),
    }

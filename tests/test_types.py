"""A user's script under `mypy --strict`: every public name is typed, and wrong names and arguments are errors."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spikeloom as snn

from . import typed_script

ROOT = Path(__file__).parent.parent
SCRIPT = Path(typed_script.__file__)
RUN = ("neurons", "layers", "custom", "surrogates", "inspection", "spikes", "losses", "monitors", "local_learning")
RUN += ("training", "measurements", "fused")


def test_the_script_has_every_public_name():
    tree = ast.walk(ast.parse(SCRIPT.read_text()))
    used = {node.attr if isinstance(node, ast.Attribute) else node.id for node in tree
            if isinstance(node, (ast.Attribute, ast.Name))}  # fmt: skip
    used |= {node.module for node in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(node, ast.ImportFrom)}
    public = set(re.findall(r"^\| \[`[\w.]*?(\w+)`\]", (ROOT / "docs" / "api.md").read_text(), re.M))
    assert len(public) > 150
    assert public - used == set()


@pytest.mark.parametrize("part", RUN)
@pytest.mark.filterwarnings("ignore")
def test_the_script_runs(part):
    """So that what mypy accepts is what works; on the loop, which compiles nothing."""
    with snn.backend("loop"):
        result = getattr(typed_script, part)()
    if part == "spikes":
        assert len(list(result)) > 20


@pytest.mark.slow
def test_mypy_accepts_the_script_and_reports_its_mistakes(tmp_path):
    """As a user's, outside of the project's configuration; `make check` has it in its own."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.read_text())
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    errors = [line for line in done.stdout.splitlines() if line.startswith(str(script))]
    assert errors == [], done.stdout
    mistakes = script.read_text().count("# type: ignore[")
    script.write_text(re.sub(r"  # type: ignore\[.*\]", "", script.read_text()))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert len({line.split(":")[1] for line in done.stdout.splitlines() if line.startswith(str(script))}) == mistakes

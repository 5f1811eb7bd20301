"""Packages find the same in networks of spikeloom, under the alias, as in those of snnTorch; as far as installed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from .third_parties import PACKAGES

INSTALLED = [name for name in PACKAGES if importlib.util.find_spec(name) is not None]


def found(library: str) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.third_parties", library, *INSTALLED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not INSTALLED, reason=f"none of {', '.join(PACKAGES)} is installed")
@pytest.mark.skipif(importlib.util.find_spec("snntorch") is None, reason="snntorch is not installed")
def test_packages_find_the_same_as_with_snntorch():
    theirs, ours = found("snntorch"), found("spikeloom")
    assert list(ours) == INSTALLED
    for name in INSTALLED:
        assert ours[name] == theirs[name], name

"""What the documentation tells to set exists, and takes effect where it is set."""

import importlib
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import spikeloom as snn
import spikeloom.linear
from spikeloom.engine.jit import buffer_pool
from spikeloom.linear import spike_linear

ROOT = Path(__file__).parent.parent
PAGES = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
TEXT = "\n".join(page.read_text() for page in PAGES)

DOTTED = sorted(set(re.findall(r"spikeloom(?:\.[a-z_]+)*\.[A-Z][A-Z_]+\b", TEXT)))
"""Constants that the pages name with their modules."""


def resolved(dotted: str) -> object:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_pages_name_constants():
    assert "spikeloom.linear.DENSE_ABOVE" in DOTTED
    assert "spikeloom.linear.NARROW_FROM" in DOTTED


@pytest.mark.parametrize("dotted", DOTTED)
def test_a_constant_of_the_pages_exists(dotted):
    assert isinstance(resolved(dotted), (int, float))


@pytest.mark.parametrize("name", ["DENSE_ABOVE", "DENSE_WEIGHT_ABOVE", "DENSE_INPUT_ABOVE"])
def test_so_do_those_of_convolutions(name):
    assert f"`{name}`" in TEXT
    assert resolved(f"spikeloom.linear.convolution.{name}") > 0


def path_of(layer: nn.Module, x: torch.Tensor) -> str:
    accelerated = snn.accelerate(nn.Sequential(layer))
    with torch.no_grad():
        accelerated(x)
    path: str = accelerated[0].path
    return path


def test_products_are_dense_from_the_density_that_is_set(monkeypatch):
    x = (torch.rand(1000, 300) > 0.95).float()
    layer = nn.Linear(300, 256)
    assert path_of(layer, x) == "sparse"
    monkeypatch.setattr(spikeloom.linear, "DENSE_ABOVE", 0)
    assert path_of(layer, x) == "dense"
    assert spike_linear.DENSE_ABOVE == spikeloom.linear.DENSE_ABOVE == 0
    monkeypatch.undo()
    assert spikeloom.linear.DENSE_ABOVE == spike_linear.DENSE_ABOVE > 0
    monkeypatch.setattr(spikeloom.linear, "LISTING", 1000)
    assert path_of(layer, x) == "dense"


def test_few_outputs_are_multiplied_from_the_size_that_is_set(monkeypatch):
    x, layer = torch.rand(2000, 600), nn.Linear(600, 4)
    assert path_of(layer, x) == "narrow"
    monkeypatch.setattr(spikeloom.linear, "NARROW_FROM", x.nbytes + 1)
    assert path_of(layer, x) == "dense"


def test_convolutions_are_dense_from_the_density_that_is_set(monkeypatch):
    x, layer = (torch.rand(64, 32, 12, 12) > 0.97).float(), nn.Conv2d(32, 64, 5)
    assert path_of(layer, x) == "sparse"
    monkeypatch.setattr("spikeloom.linear.convolution.DENSE_ABOVE", 0)
    assert path_of(layer, x) == "dense"


def test_other_names_of_the_package_are_set_as_ever(monkeypatch):
    monkeypatch.setattr(spikeloom.linear, "of_this_test", 1, raising=False)
    assert spikeloom.linear.of_this_test == 1


def test_unused_blocks_are_kept_up_to_what_is_set(monkeypatch):
    buffer_pool.release()
    monkeypatch.setattr("spikeloom.engine.jit.buffer_pool.KEPT", 0)
    del_me = buffer_pool.empty((1 << 19,), torch.zeros(1))
    del del_me
    assert not buffer_pool._unused

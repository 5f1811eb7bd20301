"""What the documentation tells to set exists, and takes effect where it is set."""

import importlib
import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

import spikeloom as snn
from spikeloom.accelerated import reported
from spikeloom.engine import tuning
from spikeloom.engine.jit import buffer_pool

ROOT = Path(__file__).parent.parent
PAGES = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
TEXT = "\n".join(page.read_text() for page in PAGES)

DOTTED = sorted(set(re.findall(r"spikeloom(?:\.[a-z_]+)*\.[A-Z][A-Z_]+\b", TEXT)))
"""Constants that the pages name with their modules."""


def resolved(dotted: str) -> object:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_constants_of_the_pages_exist():
    assert [dotted for dotted in DOTTED if not isinstance(resolved(dotted), (int, float))] == []


def test_limits_of_the_pages_exist():
    named = set(re.findall(r"tuning\(([a-z_]+)=", TEXT))
    assert {"linear_dense_above"} <= named <= set(vars(tuning.limits))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"serial_over": 1}, TypeError, "serial_over=1, which is not a limit; the limits are serial_below"),
        ({"serial_below": "many"}, TypeError, "serial_below='many'; give a number"),
        ({"serial_below": True}, TypeError, "give a number"),
        ({"serial_below": -1}, ValueError, "serial_below=-1; give a number >= 0"),
        ({"serial_below": float("nan")}, ValueError, "give a number >= 0"),
    ],
)
def test_what_is_no_limit_is_refused_and_changes_nothing(changes, error, words):
    before = tuning.limits
    with pytest.raises(error, match=re.escape(words)), snn.tuning(pool_from=1, **changes):
        pass
    assert tuning.limits is before


def test_limits_hold_for_a_block_also_if_it_fails():
    before = tuning.limits
    with suppress(KeyError), snn.tuning(serial_below=7), snn.tuning(pool_from=8):
        assert (tuning.limits.serial_below, tuning.limits.pool_from) == (7, 8)
        raise KeyError
    assert tuning.limits is before


def test_limits_come_from_the_environment():
    found = tuning._from_environment(" serial_below=0, linear_dense_above=0.5 ,")
    assert (found.serial_below, found.linear_dense_above) == (0, 0.5)
    assert tuning._from_environment("") == tuning.Tuning()
    for text, words in (("serial_below", "write limits as in"), ("nothing=1", "which is not a limit")):
        with pytest.raises((TypeError, ValueError), match=words):
            tuning._from_environment(text)


def path_of(layer: nn.Module, x: torch.Tensor) -> str:
    accelerated = snn.accelerate(nn.Sequential(layer))
    with torch.no_grad(), reported() as plans:
        accelerated(x)
    return plans[accelerated[0]].route


def test_products_are_dense_from_the_density_that_is_set():
    x = (torch.rand(1000, 300) > 0.95).float()
    layer = nn.Linear(300, 256)
    assert path_of(layer, x) == "sparse"
    for change in ({"linear_dense_above": 0}, {"linear_listing": 1000}):
        with snn.tuning(**change):
            assert path_of(layer, x) == "dense"


def test_few_outputs_are_multiplied_from_the_size_that_is_set(tuned):
    x, layer = torch.rand(2000, 600), nn.Linear(600, 4)
    assert path_of(layer, x) == "narrow"
    tuned(narrow_from=x.nbytes + 1)
    assert path_of(layer, x) == "dense"


def test_convolutions_are_dense_from_the_density_that_is_set(tuned):
    x, layer = (torch.rand(64, 32, 12, 12) > 0.97).float(), nn.Conv2d(32, 64, 5)
    assert path_of(layer, x) == "sparse"
    tuned(conv_dense_above=0)
    assert path_of(layer, x) == "dense"


def test_unused_blocks_are_kept_up_to_what_is_set(tuned):
    buffer_pool.release()
    tuned(pool_most=0)
    del_me = buffer_pool.empty((1 << 19,), torch.zeros(1))
    del del_me
    assert not buffer_pool._unused

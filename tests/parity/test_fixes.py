"""Every difference from snnTorch 1.0.0 is what the table says, on both sides, and the migration page has its row."""

import re
from pathlib import Path

import pytest

import spikeloom as snn

from .fixes import FIXES
from .running import snntorch

PAGE = Path(__file__).parents[2] / "docs" / "from-snntorch.md"
NO_FIX = {"float32"}
"""Rows of the page on which both agree."""

pytestmark = pytest.mark.filterwarnings("ignore:.*[Ii]nhibition")


@pytest.fixture(autouse=True)
def clean_snntorch():
    """Its list of instances is one for the process, and some of these scripts break it."""
    yield
    for kind in (snntorch.LIF, snntorch.Leaky):
        if "instances" in vars(kind):
            del kind.instances
    snntorch.SpikingNeuron.instances = []


@pytest.mark.parametrize("name", FIXES)
def test_snntorch_gives_the_old_result(name):
    assert FIXES[name].script(snntorch) == FIXES[name].old


@pytest.mark.parametrize("name", FIXES)
def test_spikeloom_gives_the_new_result(name):
    assert FIXES[name].script(snn) == FIXES[name].new


@pytest.mark.parametrize("name", [name for name, fix in FIXES.items() if fix.back])
def test_the_way_back_gives_the_old_result(name):
    assert FIXES[name].back(snn) == FIXES[name].old


def rows(page: str) -> set[str]:
    """The first cells of all tables under "What differs"."""
    part = page.partition("## What differs")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (.*?) \| ", part, re.M)
    return set(cells) - {"what", "input", "---"}


def test_the_migration_page_has_a_row_for_each_and_no_other():
    assert rows(PAGE.read_text()) - NO_FIX == {fix.row for fix in FIXES.values()}

"""What can be known of spyx's part where JAX is missing: when it takes part, what is said of it, and its equation."""

import sys
from dataclasses import replace
from functools import partial

import pytest
import torch

from benchmarks import on_jax
from benchmarks.leaky import BETA, LEAKY, STEPPED, over_time
from benchmarks.on_jax import NOTE, SPYX
from benchmarks.page import others
from benchmarks.result import Result
from benchmarks.runner import admit
from spikeloom.machine import PEERS


def prepared(monkeypatch, *missing):
    """Its contestant in the bare case, as if all packages but these were installed."""
    monkeypatch.setattr(on_jax, "version_of", lambda name: None if name in missing else "1.0.0")
    return on_jax.where_installed(partial(on_jax.bare, beta=BETA), partial(over_time, on_jax.twin))


@pytest.mark.parametrize("missing", ["jax", SPYX])
def test_it_takes_part_where_both_packages_are_installed(missing, monkeypatch):
    assert prepared(monkeypatch, missing) == {}
    assert [(name, peer.note) for name, peer in prepared(monkeypatch).items()] == [(SPYX, NOTE)]


def test_one_that_does_not_load_is_reported_missing_and_the_others_are_timed(monkeypatch):
    peers = prepared(monkeypatch)
    monkeypatch.setitem(sys.modules, SPYX, None)
    case = replace(LEAKY, contestants={STEPPED: LEAKY.contestants[STEPPED]}, peers=peers)
    found = admit(case, case.inputs(case.small), [SPYX])
    assert list(found.runs) == [STEPPED]
    assert found.missing[SPYX].startswith("not installed (")
    assert found.missing[SPYX].endswith(f"; pip install spyx=={PEERS[SPYX]}")


def test_it_has_a_column_where_it_was_measured():
    result = Result("leaky", "", {}, STEPPED, None, {STEPPED: [1.0]})
    assert SPYX not in others([result])
    assert others([result, replace(result, seconds={SPYX: [1.0]})])[-1] == SPYX


def test_its_equation_fires_a_step_later_and_then_loses_the_threshold():
    x = torch.tensor([0.75, 0.75, 0.75, 0.0, 0.0]).reshape(5, 1, 1)
    traced = on_jax.twin(0.5).traced(x)
    assert [out.flatten().tolist() for out in traced] == [[0, 0, 1, 0, 0], [0.75, 1.125, 0.3125, 0.15625, 0.078125]]

"""Runs that are stopped, shortened, or trained on other data do not mix, and are named."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from recipes import __main__ as command
from recipes import loop, table
from recipes.loop import train
from recipes.models import RECIPES
from recipes.store import Where, stored
from recipes.task import Missing, cached
from recipes.tasks import TASKS
from tests.recipes.test_recipes import QUICK, TINY, where


def test_runs_are_tested_on_the_data_they_were_trained_on(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", TINY)
    monkeypatch.setattr(Where, "source", "one")
    train(TINY, QUICK, where(tmp_path), epochs=1)
    monkeypatch.setattr(Where, "source", "other")
    assert table.complete(tmp_path) == (
        [],
        ["tiny-lif-0: it was trained with the source one, and the data here have other"],
    )
    monkeypatch.setattr(Where, "source", "one")
    weights = torch.load(where(tmp_path).weights)
    torch.save({name: value.flatten()[:1] for name, value in weights.items()}, where(tmp_path).weights)
    runs, (problem,) = table.complete(tmp_path)
    assert runs == []
    assert "are those of another run" in problem
    torch.save(weights, where(tmp_path).weights)
    with monkeypatch.context() as patch:
        patch.setitem(RECIPES, "lif", RECIPES["temporal_conv"])
        _, (problem,) = table.complete(tmp_path)
    assert "do not fit to the recipe" in problem
    monkeypatch.setitem(TASKS, "tiny", replace(TINY, outputs=4))
    _, (problem,) = table.complete(tmp_path)
    assert "trained with the sizes [6, 3, 3], and the data here have [6, 3, 4]" in problem
    assert "test" not in stored(tmp_path)[0]


def test_the_table_does_not_mix_sources_and_marks_mixed_epochs(monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", TINY)
    run = {"task": "tiny", "recipe": "lif", "validation": 90.0, "seconds": 1.0, "parameters": 3}
    run |= {"test": {"score": 80.0}, "epochs_at_most": 2}
    text = table.page([{**run, "source": "one"}, {**run, "source": "other"}])
    assert text.count("| LIF, one |") == text.count("| LIF, other |") == 1
    assert "| 2 (of 2, 5 epochs) |" in table.page([run, {**run, "epochs_at_most": 5}])


def test_a_stopped_run_goes_on_with_its_own_epochs_only(tmp_path, monkeypatch):
    save = loop.save

    def killed(*given):
        save(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(TINY, QUICK, where(tmp_path), epochs=3)
    monkeypatch.setattr(loop, "save", save)
    with pytest.raises(Missing, match="was started with --epochs 3; pass it again, or --again"):
        train(TINY, QUICK, where(tmp_path), epochs=2)
    monkeypatch.setattr(Where, "source", "other")
    with pytest.raises(Missing, match="has the source None, now other; pass --again"):
        train(TINY, QUICK, where(tmp_path), epochs=3)
    run = train(TINY, QUICK, where(tmp_path), epochs=2, again=True)
    assert (run["epochs"], run["source"], len(run["curve"])) == (2, "other", 2)


def test_a_finished_run_of_other_epochs_is_not_finished(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", TINY)
    monkeypatch.setitem(RECIPES, "lif", QUICK)
    given = ["run", "tiny", "lif", "--quiet", "--folder", str(tmp_path), "--epochs"]
    for epochs in ("1", "2"):
        assert command.main([*given, epochs]) == 0
        assert json.loads(where(tmp_path).json.read_text())["epochs_at_most"] == int(epochs)


def test_a_score_that_is_no_number_is_never_the_best(tmp_path, monkeypatch):
    scores = iter([float("nan"), 50.0])
    monkeypatch.setattr(loop, "evaluate", lambda *given: next(scores))
    run = train(TINY, QUICK, where(tmp_path), epochs=2)
    assert (run["best_epoch"], run["validation"]) == (2, 50.0)
    monkeypatch.setattr(loop, "evaluate", lambda *given: float("nan"))
    with pytest.raises(Missing, match="no epoch had a validation score"):
        train(TINY, QUICK, where(tmp_path), epochs=2)


def test_arrays_are_made_anew_if_the_file_or_a_parameter_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKELOOM_CACHE_DIR", str(tmp_path))
    file, calls = tmp_path / "data", []

    def make():
        calls.append(1)
        return {"x": np.array(len(calls))}

    file.write_text("a")
    assert [int(cached("a", make, file, step=1)["x"]) for _ in range(2)] == [1, 1]
    file.write_text("other")
    assert int(cached("a", make, file, step=1)["x"]) == 2
    assert int(cached("a", make, file, step=2)["x"]) == 3

"""The grid: its order, what is missing, who makes a run, and what a kill at the worst moment leaves."""

from dataclasses import replace

import pytest
import torch

from recipes import __main__ as command
from recipes import grid, loop, many, store, table
from recipes.loop import epochs_of, train
from recipes.models import RECIPES
from recipes.store import Where, stored, write
from recipes.tasks import TASKS
from tests.recipes.test_recipes import QUICK, TINY, read, where


@pytest.fixture
def small(monkeypatch):
    """A grid of one task and four recipes."""
    monkeypatch.setattr(grid, "TASKS", {"tiny": TINY})
    monkeypatch.setattr(many, "TASKS", {"tiny": TINY})
    monkeypatch.setitem(TASKS, "tiny", TINY)
    monkeypatch.setattr(grid, "FIRST_TASKS", ("tiny",))
    monkeypatch.setattr(grid, "FIRST_RECIPES", ("mlp", "lif"))
    chosen = {name: replace(RECIPES[name], batch=16, epochs=2) for name in ("mlp", "lif", "rate_loss", "conv")}
    monkeypatch.setattr(grid, "RECIPES", chosen)
    monkeypatch.setattr(many, "RECIPES", chosen)


def put(folder, recipe: str, seed: int, validation: float) -> None:
    run = {"task": "tiny", "recipe": recipe, "seed": seed, "validation": validation, "seconds": 2.0 if seed else 4.0}
    write(Where("tiny", recipe, seed, folder).json, run | {"epochs_at_most": 2})


def test_the_grid_is_what_the_issue_asks_for():
    assert len(grid.FIRST_TASKS) >= 8
    assert sum(RECIPES[name].spiking for name in grid.FIRST_RECIPES) >= 12
    runs = list(dict.fromkeys(grid.grid()))
    first = len(grid.FIRST_TASKS) * len(grid.FIRST_RECIPES)
    assert {(run.task, run.seed) for run in runs[:first]} == {(task, 0) for task in grid.FIRST_TASKS}
    assert {run.task for run in runs} == set(TASKS) - set(grid.LARGE)
    assert ("digits", "conv", 2) in {(run.task, run.recipe, run.seed) for run in runs}
    assert not any(run.recipe == "conv" and not TASKS[run.task].images for run in runs)
    assert {run.recipe for run in runs if run.task == "mackey_glass"} > {"forecast", "gru", "lif"}


def test_the_order_ends_with_more_seeds_of_the_best(tmp_path, small):
    names = [(w.recipe, w.seed) for w in dict.fromkeys(grid.grid(tmp_path))]
    first = [(recipe, seed) for seed in range(3) for recipe in ("mlp", "lif")]
    assert names == [*first, ("rate_loss", 0), ("rate_loss", 1), ("rate_loss", 2)]
    for seed in range(3):
        put(tmp_path, "mlp", seed, 99.0)
        put(tmp_path, "lif", seed, 80.0)
        put(tmp_path, "rate_loss", seed, 90.0)
    assert [(w.recipe, w.seed) for w in grid.missing(tmp_path)] == [("rate_loss", 3), ("rate_loss", 4)], (
        "mlp does not spike"
    )
    put(tmp_path, "rate_loss", 3, 90.0)
    assert grid.summary(grid.missing(tmp_path)) == "  tiny: 1 runs of rate_loss"
    assert epochs_of(TINY, grid.RECIPES["rate_loss"]) == 2


def test_costs_are_estimated_from_stored_runs(tmp_path, small):
    assert grid.Cost([])(where(tmp_path)) == pytest.approx(60)
    runs = [
        {"task": t, "recipe": r, "seconds": a * b} for t, a in (("x", 1), ("y", 10)) for r, b in (("p", 2), ("q", 6))
    ]
    cost = grid.Cost(runs[:3])
    assert 20 < cost(Where("y", "q", 0, tmp_path)) < 70, "not seen: 60"
    assert grid.duration(20) == "20 s"
    assert grid.duration(7200) == "2.0 h"


def test_the_grid_is_made_and_goes_on(tmp_path, small, capsys):
    run = many.Many(None, None, None, tmp_path)
    held = Where("tiny", "rate_loss", 1, tmp_path)
    with held.claimed() as mine, held.claimed() as again:
        assert (mine, again) == (True, False), "another process has it"
        assert run.run() == 0
    assert not held.json.exists()
    said = capsys.readouterr().out
    assert "tiny-mlp-0: validation" in said.splitlines()[0]
    assert " runs left, about " in said.splitlines()[0]
    assert many.Many(None, None, None, tmp_path).run() == 0
    assert grid.missing(tmp_path) == []
    assert len(stored(tmp_path)) == 3 * 3 + 2, "the best has five seeds"
    assert many.Many(None, None, None, tmp_path).run() == 0, "nothing is left"
    assert capsys.readouterr().out.count("tiny-rate_loss-1") == 1


def test_a_kill_while_a_run_is_written_loses_nothing(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    for name in ("write", "save"):
        own = where(tmp_path / name)
        with monkeypatch.context() as patch:
            patch.setattr(store, name, killed)
            with pytest.raises(KeyboardInterrupt):
                train(TINY, QUICK, own, epochs=2)
        assert own.checkpoint.exists()
        assert not own.json.exists()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "one_epoch", killed)
            run = train(TINY, QUICK, own, epochs=2)
        assert run == read(own)
        assert own.weights.exists()
        assert not own.checkpoint.exists()
        assert run["wall_seconds"] > 0


def test_weights_of_another_run_are_not_tested(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", TINY)
    for seed in (0, 1):
        train(TINY, QUICK, where(tmp_path, seed), epochs=1)
    where(tmp_path, 1).weights.replace(where(tmp_path, 0).weights)
    runs, problems = table.complete(tmp_path)
    assert runs == []
    assert problems[0] == "tiny-lif-0: the weights tiny-lif-0.pt are those of another run; run it again"


def test_the_table_says_what_is_missing(tmp_path, small, capsys):
    assert command.main(["table", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "9 runs of the grid are missing, about 9 min of CPU time:" in said
    assert "tiny: 9 runs of mlp, lif, rate_loss" in said


def test_jobs_are_processes_with_one_thread(monkeypatch):
    started = []

    class Process:
        def __init__(self, words, env):
            started.append((words[2:], env["OMP_NUM_THREADS"]))

        def wait(self) -> int:
            return len(started) - 1

    monkeypatch.setattr(many.subprocess, "Popen", Process)
    assert command.main(["run", "all", "--jobs", "2"]) == 1
    assert started == [(["recipes", "run", "all", "--jobs", "2", "--jobs", "1", "--quiet"], "1")] * 2
    assert torch.get_num_threads() >= 1

"""The machinery of the recipes: registries, splits, the loop that goes on after a kill, the table that tests once."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import spikeloom as snn
from recipes import __main__ as command
from recipes import loop, table
from recipes.loop import train
from recipes.models import RECIPES
from recipes.recipe import Recipe
from recipes.store import FOLDER, Where, stored
from recipes.task import SPLITS, Data, Missing, Sizes, Task
from recipes.tasks import TASKS
from spikeloom import data
from tests.data.files import REAL, needs_real

LOADED: list[str] = []


def tiny(split: str) -> Data:
    """Class k is a constant input of feature k, with noise; sequences of three lengths."""
    LOADED.append(split)
    drawn = torch.Generator().manual_seed(SPLITS.index(split))
    y = torch.arange(48) % 3
    x = torch.nn.functional.one_hot(y, 3).float()[:, None] + 0.5 * torch.rand(48, 6, 3, generator=drawn)
    return Data(x, y, 4 + y)


TINY = Task("tiny", tiny, "three seeds", 3)
QUICK = replace(RECIPES["lif"], batch=16)


@pytest.fixture(autouse=True)
def _nothing_loaded():
    LOADED.clear()


def where(folder, seed: int = 0) -> Where:
    return Where("tiny", "lif", seed, folder)


def read(run: Where) -> dict[str, object]:
    return json.loads(run.json.read_text())


def without_time(run: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in run.items() if key not in ("seconds", "wall_seconds")}


def test_registries_are_complete():
    assert set(TASKS) >= {
        *("mnist1d", "yin_yang", "mackey_glass", "digits", "digits_rows", "digits_permuted", "digits_camera", "watch"),
        *("spoken_digits", "japanese_vowels", "basic_motions", "pickup_gesture", "shd", "ssc", "nmnist"),
        *("store_recall", "cue_accumulation", "delayed_match"),
    }
    assert sum(recipe.spiking for recipe in RECIPES.values()) >= 12
    assert {"logistic", "mlp", "gru"} <= set(RECIPES)
    for name, task in TASKS.items():
        assert task.split, name
        assert task.mark, name
        assert (task.outputs > 1) != (task.score is not None), name
        assert "-" not in name, "a name of a file is TASK-RECIPE-SEED"
    assert len({recipe.title for recipe in RECIPES.values()}) == len(RECIPES)


def rows(x: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x.flatten(1)}


def test_splits_share_no_sample(monkeypatch):
    """Of all tasks that need no package; those of the others are checked where it is installed."""
    monkeypatch.delenv("SPIKELOOM_DATA", raising=False)
    checked, reasons = [], []
    for name, task in TASKS.items():
        try:
            parts = {split: task.load(split) for split in SPLITS} if name != "digits_camera" else {}
        except Missing as error:
            reasons.append(str(error))
            continue
        for split, part in parts.items():
            assert len(part.x) == len(part.y) > 0, (name, split)
            assert part.x.isfinite().all(), (name, split)
            if task.outputs:
                assert set(part.y.tolist()) == set(range(task.outputs)), (name, split)
        if parts:
            seen = [rows(part.x) for part in parts.values()]
            assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2], name
            spread = [part.x.float().std() for part in parts.values()]
            assert max(spread) < 1.5 * min(spread), (name, "one split is scaled in another way", spread)
            checked.append(name)
    assert {"yin_yang", "mackey_glass", "digits", "digits_rows", "digits_permuted", "store_recall"} <= set(checked)
    for reason in reasons:
        assert "set SPIKELOOM_DATA to" in reason or "pip install 'spikeloom[recipes]'" in reason


def test_generated_splits_are_the_same_at_every_call():
    for name in ("yin_yang", "store_recall", "cue_accumulation", "delayed_match"):
        first, second = (TASKS[name].load("validation") for _ in range(2))
        assert torch.equal(first.x, second.x), name
        assert torch.equal(first.y, second.y), name
        share = first.y.bincount().float() / len(first)
        assert share.min() > 0.75 / TASKS[name].outputs, name


def test_an_unknown_split_is_refused():
    for name in ("yin_yang", "digits", "mackey_glass", "watch", "spoken_digits"):
        with pytest.raises((ValueError, Missing, KeyError)):
            TASKS[name].load("tests")


def test_training_learns_and_reads_no_test_data(tmp_path):
    run = train(TINY, QUICK, where(tmp_path), epochs=8)
    assert LOADED == ["train", "validation"]
    assert run["validation"] > 90
    assert run["curve"][0][0] > run["curve"][-1][0], "the loss falls"
    assert json.loads(where(tmp_path).json.read_text()) == run
    assert set(run["versions"]) == {"python", "numpy", "torch", "spikeloom", "machine"}
    assert not where(tmp_path).checkpoint.exists()


def test_a_seed_gives_one_result(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(TINY, QUICK, where(tmp_path / folder, seed), epochs=2)
    one, same, other = (without_time(read(where(tmp_path / f, s))) for f, s in (("a", 0), ("b", 0), ("c", 1)))
    assert one == same
    assert one["curve"] != other["curve"]


def test_a_killed_run_goes_on_to_the_same_result(tmp_path, monkeypatch):
    straight = train(TINY, QUICK, where(tmp_path / "straight"), epochs=4)
    save, saved = loop.save, []

    def killed(*given):
        save(*given)
        saved.append(1)
        if len(saved) in (2, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save", killed)
    broken = where(tmp_path / "broken")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(TINY, QUICK, broken, epochs=4)
        assert broken.checkpoint.exists()
        assert not broken.json.exists()
    train(TINY, QUICK, broken, epochs=4)
    assert len(saved) == 4
    assert without_time(read(broken)) == without_time(straight)
    kept, resumed = (torch.load(w.weights) for w in (where(tmp_path / "straight"), broken))
    assert all(torch.equal(kept[name], resumed[name]) for name in kept)


def test_training_stops_early_and_keeps_the_best_weights(tmp_path, monkeypatch):
    scores = iter([50.0, 70.0, 60.0, float("nan"), 70.0, 80.0])
    monkeypatch.setattr(loop, "evaluate", lambda *given: next(scores))
    run = train(TINY, QUICK, where(tmp_path), epochs=7)  # patience 3
    assert (run["best_epoch"], run["epochs"], run["validation"]) == (2, 5, 70.0)


def test_the_table_tests_every_run_once(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", TINY)
    for seed in (0, 1):
        train(TINY, QUICK, where(tmp_path, seed), epochs=8)
    LOADED.clear()
    runs, problems = table.complete(tmp_path)
    assert (len(runs), problems, LOADED) == (2, [], ["test"])
    assert all(run["test"]["score"] > 90 and run["test"]["operations"] > 0 for run in runs)
    assert 0 < runs[0]["test"]["spikes"] <= 6
    again, _ = table.complete(tmp_path)
    assert again == runs == stored(tmp_path)
    assert LOADED == ["test"]
    text = table.page(runs)
    assert "### tiny" in text
    assert "| LIF |" in text
    assert "| 2 |" in text, "the number of seeds"
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n{table.BEGIN}\nold\n{table.END}\nAfter.\n")
    table.put(page, text)
    with pytest.raises(Missing, match="between which the table goes"):
        table.put(tmp_path / "other.md", text)
    assert page.read_text() == f"Before.\n{table.BEGIN}\n\n{text}\n\n{table.END}\nAfter.\n"


def test_updates_to_solve_are_those_of_the_first_good_epoch():
    run = {"curve": [[1.0, 60.0], [0.5, 95.5], [0.4, 90.0]], "updates_per_epoch": 7}
    assert table.updates_to_solve(run) == 14
    assert table.updates_to_solve({**run, "curve": [[1.0, 60.0]]}) is None


def test_a_run_without_weights_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", TINY)
    train(TINY, QUICK, where(tmp_path), epochs=1)
    where(tmp_path).weights.unlink()
    runs, problems = table.complete(tmp_path)
    assert runs == []
    assert problems == ["tiny-lif-0: the weights tiny-lif-0.pt are gone; run it again"]


def test_only_steps_that_count_are_scored():
    mask = replace(TINY, decide=2).mask(torch.tensor([3, 5]), 5, 2)
    assert mask.T.int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    out = torch.arange(10.0).view(5, 2, 1)
    assert RECIPES["lif"].scores(out, mask).flatten().tolist() == [(2 + 4) / 2, (7 + 9) / 2]


def test_a_perfect_forecast_has_no_error():
    """The forecast is judged by what a network that knows the series would say."""
    from recipes.tasks.generated import POINTS, forecast_error, series

    true = series(20 * POINTS + 1)

    def knows(x: Tensor) -> Tensor:
        """The value after the one it is given and the one before, which it looks up."""
        if len(x) > 1:
            before[:] = [x[-2]]
        far = (true[1:-1] - 1 - x[-1]).abs() + (true[:-2] - 1 - before[0]).abs()
        before[:] = [x[-1]]
        return (true[2:][far.argmin(1)] - 1)[None, :, None]

    before: list[Tensor] = []
    for split in ("validation", "test"):
        assert forecast_error(knows, split) < 1e-3, split
    assert 15 < forecast_error(lambda x: 0 * x, "test") < 60
    slope = (true[1:] - true[:-1]).abs().max()
    assert 0.3 < true.min() < true.max() < 1.5
    assert slope < 0.3


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TASKS, "tiny", TINY)
    monkeypatch.setitem(RECIPES, "lif", QUICK)
    monkeypatch.delenv("SPIKELOOM_DATA", raising=False)
    assert command.main(["list"]) == 0
    assert "mackey_glass" in capsys.readouterr().out
    run = ["run", "tiny", "lif,conv", "--epochs", "1", "--seeds", "2", "--quiet", "--folder", str(tmp_path)]
    assert command.main(run) == 0
    said = capsys.readouterr()
    assert "tiny-lif-1: validation" in said.out
    assert "tiny-conv: it needs images [C, H, W] at every step" in said.err
    LOADED.clear()
    assert command.main(run) == 1, "nothing is left to do but what cannot be done"
    assert "train" not in LOADED
    assert command.main(["table", "--folder", str(tmp_path)]) == 0
    assert "### tiny" in capsys.readouterr().out
    assert command.main(["curves", "tiny", str(tmp_path / "c.png"), "--folder", str(tmp_path)]) == 0
    assert (tmp_path / "c.png").stat().st_size > 1000
    assert command.main(["curves", "shd", str(tmp_path / "c.png"), "--folder", str(tmp_path)]) == 2
    assert "no run of 'shd' is finished" in capsys.readouterr().err
    for wrong in (["--seeds", "0"], ["--epochs", "0"], ["--seed", "-1"]):
        with pytest.raises(SystemExit):
            command.main(["run", "tiny", "lif", *wrong])
        assert "is below" in capsys.readouterr().err
    for wrong, message in ((["shd", "lif"], "set SPIKELOOM_DATA"), (["tinny", "lif"], "no task 'tinny'; choose")):
        assert command.main(["run", *wrong, "--folder", str(tmp_path)]) in (1, 2)
        assert message in capsys.readouterr().err


def test_files_of_shd_go_into_a_recipe(tmp_path, monkeypatch, capsys):
    """`python -m recipes run shd delays` on small files of the format."""
    random = np.random.default_rng(1)
    for name, speakers in (("shd_train.h5", [0, 0, 1, 1, 2, 3]), ("shd_test.h5", [4, 4])):
        recordings = [
            data.make_events(random.integers(0, 900_000, 300), random.integers(0, 700, 300)) for _ in speakers
        ]
        data.write_shd(tmp_path / name, recordings, [i % 20 for i in range(len(speakers))], speakers)
    monkeypatch.setenv("SPIKELOOM_DATA", str(tmp_path))
    runs = tmp_path / "runs"
    given = ["run", "shd", "delays", "--epochs", "1", "--quiet", "--folder", str(runs)]
    assert command.main(given) == 0, capsys.readouterr().err
    (run,) = stored(runs)
    assert run["sizes"] == [100, 700, 20]
    assert [len(TASKS["shd"].load(split)) for split in SPLITS] == [4, 2, 2]


def test_stored_runs_are_of_known_tasks_and_recipes():
    sizes: dict[tuple[str, str], int] = {}
    for run in stored(FOLDER):
        name = f"{run['task']}-{run['recipe']}-{run['seed']}"
        assert (FOLDER / f"{name}.json").exists(), name
        assert run["task"] in TASKS, name
        assert run["recipe"] in RECIPES, name
        assert run["validation"] == pytest.approx(run["curve"][run["best_epoch"] - 1][1], abs=1e-3), name
        pair = (run["task"], run["recipe"])
        if pair not in sizes:
            steps, *shape, outputs = run["sizes"]
            net = RECIPES[run["recipe"]].network(Sizes(steps, tuple(shape), outputs))
            sizes[pair] = sum(parameter.numel() for parameter in net.parameters())
        assert run["parameters"] == sizes[pair], (name, "the recipe has changed since; run it again")


@pytest.mark.slow
def test_every_recipe_learns_something(tmp_path):
    """One epoch or two on a small task; images for the one that needs them."""
    images = Task("images", lambda split: image_data(split), "three seeds", 3)
    for name, recipe in RECIPES.items():
        task = images if recipe.images else TINY
        if recipe.refuses(task, task.sizes(task.load("train"))):
            assert name == "forecast"
            continue
        run = train(task, replace(recipe, batch=16), Where("tiny", name, 0, tmp_path), epochs=6)
        assert run["curve"][0][0] > run["curve"][-1][0] or run["validation"] > 60, (name, run["curve"])


def image_data(split: str) -> Data:
    made = tiny(split)
    return Data(made.x.repeat_interleave(64, 2).view(48, 6, 3, 8, 8), made.y)


@needs_real
@pytest.mark.slow
def test_real_digits():
    for name in ("digits", "digits_rows", "digits_permuted"):
        sizes = [len(TASKS[name].load(split)) for split in SPLITS]
        assert sizes == [7000, 1000, 2000], (name, REAL)


def test_accelerated_weights_load_into_a_plain_network():
    """The loop trains an accelerated network; the table builds a plain one."""
    net = RECIPES["lif"].network(TINY.sizes(tiny("train")))
    names = set(net.state_dict())
    assert set(snn.accelerate(net).state_dict()) == names
    assert isinstance(RECIPES["lif"], Recipe)

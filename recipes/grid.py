"""The grid of the table: which runs it has, in which order they are made, and how long the rest will take."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from .loop import epochs_of
from .models import RECIPES
from .store import FOLDER, Run, Where, stored
from .tasks import TASKS

SEEDS, SEEDS_OF_THE_BEST = 3, 5
"""Seeds of every recipe, and of the spiking recipe with the best mean validation score of a task."""

FIRST_TASKS = (
    *("japanese_vowels", "basic_motions", "pickup_gesture", "delayed_match", "store_recall", "yin_yang", "mnist1d"),
    *("spoken_digits", "digits_rows"),
)
FIRST_RECIPES = (
    *("logistic", "mlp", "gru"),
    *("lif", "rlif", "learned_decays", "alif", "adlif", "ralif", "slstm", "resonate_fire", "state_leaky", "delays"),
    *("bntt", "population", "temporal_conv"),
)
"""Made first with all seeds, so that a stopped grid leaves a table."""

LARGE = ("shd", "ssc", "nmnist", "dvs_gesture")
"""Tasks on files of the user, hours each: not in the grid, run by name."""


def grid(folder: Path = FOLDER) -> Iterator[Where]:
    """The runs of the grid in their order; the best recipes are those of the runs stored when it is their turn."""
    tasks, recipes = [name for name in TASKS if name not in LARGE], [*FIRST_RECIPES, *RECIPES]
    for some_tasks, some_recipes in ((FIRST_TASKS, FIRST_RECIPES), (tasks, list(dict.fromkeys(recipes)))):
        yield from block(some_tasks, some_recipes, range(SEEDS), folder)
        best = best_of(stored(folder))
        for task in some_tasks:
            yield from block([task], best.get(task, []), range(SEEDS, SEEDS_OF_THE_BEST), folder)


def block(tasks: Iterable[str], recipes: Sequence[str], seeds: Iterable[int], folder: Path = FOLDER) -> Iterator[Where]:
    """Runs of every recipe on every task that it can be used for: the first seed of all, then the next."""
    tasks = list(tasks)
    for seed in seeds:
        for task in tasks:
            for recipe in recipes:
                if RECIPES[recipe].refuses(TASKS[task]) is None:
                    yield Where(task, recipe, seed, folder)


def best_of(runs: list[Run]) -> dict[str, list[str]]:
    """The spiking recipe of each task with the best mean validation score, of those with all seeds."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in runs:
        if run["recipe"] in RECIPES and RECIPES[run["recipe"]].spiking:
            found[run["task"], run["recipe"]].append(run["validation"])
    best: dict[str, list[str]] = {}
    for name, task in TASKS.items():
        scores = {recipe: mean(values) for (of, recipe), values in found.items() if of == name and len(values) >= SEEDS}
        if scores:
            best[name] = [max(scores, key=lambda recipe: scores[recipe] * (1 if task.higher_is_better else -1))]
    return best


def missing(folder: Path = FOLDER) -> list[Where]:
    """The runs of the grid that are not finished, each once."""
    return [where for where in dict.fromkeys(grid(folder)) if not finished(where)]


def finished(where: Where, epochs: int | None = None) -> bool:
    """Whether a run with this number of epochs at most, by default the recipe's, is stored."""
    wanted = epochs or epochs_of(TASKS[where.task], RECIPES[where.recipe])
    return where.json.exists() and json.loads(where.json.read_text())["epochs_at_most"] == wanted


class Cost:
    """CPU seconds of runs, estimated from those that are stored: a factor of the task times a factor of the recipe."""

    def __init__(self, runs: list[Run]):
        pairs = [(run["task"], run["recipe"]) for run in runs]
        names = sorted({("task", task) for task, _ in pairs} | {("recipe", recipe) for _, recipe in pairs})
        self.place = {name: i for i, name in enumerate(names)}
        rows = np.zeros((len(runs), len(names) + 1))
        rows[:, -1] = 1
        for row, (task, recipe) in zip(rows, pairs, strict=True):
            row[self.place["task", task]] = row[self.place["recipe", recipe]] = 1
        seconds = np.log([max(run["seconds"], 0.1) for run in runs] or [60.0])
        shrunk = rows.T @ rows + 0.1 * np.diag([*np.ones(len(names)), 0.0])
        self.mean = seconds.mean()
        self.factors = np.linalg.solve(shrunk, rows.T @ (seconds - self.mean)) if runs else np.zeros(1)

    def __call__(self, where: Where) -> float:
        """The estimate for a run; factors that are not known are 1."""
        known = [self.place.get(("task", where.task)), self.place.get(("recipe", where.recipe)), -1]
        return float(np.exp(self.mean + sum(self.factors[i] for i in known if i is not None)))


def summary(left: Sequence[Where], limit: int = 12) -> str:
    """The missing runs in one line per task: recipes, and the number of runs."""
    by_task: dict[str, list[Where]] = defaultdict(list)
    for where in left:
        by_task[where.task].append(where)
    lines = []
    for task, runs in by_task.items():
        names = list(dict.fromkeys(run.recipe for run in runs))
        more = f" and {len(names) - limit} more" if len(names) > limit else ""
        lines.append(f"  {task}: {len(runs)} runs of {', '.join(names[:limit])}{more}")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

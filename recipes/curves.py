"""Pictures of the learning curves of finished runs."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import spikeloom as snn

from .models import RECIPES
from .store import Run
from .task import Missing
from .tasks import TASKS

SHOWN = 5
"""Recipes of each task in the picture of all tasks: the best and the worst, evenly spaced between."""


def curves(runs: list[Run], task: str, path: Path) -> None:
    """Draw the validation scores of all runs of a task, one line per recipe and seed."""
    from matplotlib.figure import Figure

    own = [run for run in runs if run["task"] == task]
    if not own:
        raise Missing(f"no run of {task!r} is finished")
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.add_subplot()
    lines = {f"{run['recipe']}, seed {run['seed']}": [score for _, score in run["curve"]] for run in own}
    snn.spikeplot.learning_curve(lines, ax)
    ax.set(title=TASKS[task].title, xlabel="epoch", ylabel="validation score")
    figure.savefig(path)


def overview(runs: list[Run], path: Path, columns: int = 4) -> None:
    """Draw the mean validation score over seeds of some recipes of every task; networks without spikes are dashed."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    found: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run["task"] in TASKS and run["recipe"] in RECIPES:
            found[run["task"]][run["recipe"]].append(run)
    tasks = [task for task in TASKS if len(found[task]) > 1]
    if not tasks:
        raise Missing("no task has two recipes with finished runs; run more of them first")
    rows, colors = -(-len(tasks) // columns), [colormaps["tab20"](i) for i in range(20)]
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    for place, task in enumerate(tasks):
        ax = figure.add_subplot(rows, columns, place + 1)
        sign = -1 if TASKS[task].higher_is_better else 1
        order = sorted(found[task], key=lambda r: sign * float(np.mean([run["validation"] for run in found[task][r]])))
        shown = [order[int(i)] for i in np.linspace(0, len(order) - 1, min(SHOWN, len(order)))]
        for recipe in shown:
            middle = mean_curve(found[task][recipe])
            look: dict[str, Any] = {
                "color": colors[list(RECIPES).index(recipe) % 20],
                "linestyle": "-" if RECIPES[recipe].spiking else "--",
            }
            ax.plot(np.arange(1, len(middle) + 1), middle, label=RECIPES[recipe].title, **look)
        ax.set_title(TASKS[task].title, fontsize=9)
        ax.tick_params(labelsize=7)
        if not TASKS[task].higher_is_better:
            ax.set_yscale("log")
        ax.legend(fontsize=6, loc="best")
    figure.supxlabel("epoch", fontsize=9)
    errors = [TASKS[task].title for task in tasks if not TASKS[task].higher_is_better]
    figure.supylabel("; ".join(["validation: accuracy, %", *errors]), fontsize=9)
    figure.savefig(path, dpi=90)


def mean_curve(runs: list[Run]) -> Any:
    """The mean over seeds of the best score so far; a run that has stopped keeps its last value."""
    best = np.fmax if TASKS[runs[0]["task"]].higher_is_better else np.fmin
    lines = [best.accumulate([score for _, score in run["curve"]]) for run in runs]
    longest = max(map(len, lines))
    return np.mean([np.pad(line, (0, longest - len(line)), mode="edge") for line in lines], 0)

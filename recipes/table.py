"""The results: test scores of finished runs, each evaluated once, and a page of means and standard deviations."""

from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import spikeloom as snn

from .compare import counterpart, stored_pairs
from .models import RECIPES
from .recipe import Recipe, evaluate, time_first, unrolled
from .store import FOLDER, Run, Where, digest, listed, stored, write
from .task import Data, Missing, Task
from .tasks import TASKS

MEASURED = 64
"""Test samples on which operations and spikes are counted."""


SOLVED = 95.0
"""Accuracy in percent on the validation split at which a task of memory counts as solved."""


def complete(folder: Path = FOLDER) -> tuple[list[Run], list[str]]:
    """Evaluate finished runs on the test split, each once: the result is stored."""
    runs, problems, tests = stored(folder), [], {}
    for run in runs:
        if "test" in run:
            continue
        where = Where(run["task"], run["recipe"], run["seed"], folder)
        try:
            task, recipe = TASKS[where.task], RECIPES[where.recipe]
            recipe = counterpart(recipe) if run.get("library") == "snntorch" else recipe
            if not where.weights.exists():
                raise Missing(f"the weights {where.weights.name} are gone; run it again")
            if where.task not in tests:
                tests = {where.task: task.load("test")}
            run["test"] = tested(task, recipe, where, tests[where.task], run)
            write(where.json, run)
        except (Missing, KeyError) as error:
            problems.append(f"{where}: {error}")
    return [run for run in runs if "test" in run], problems


def tested(task: Task, recipe: Recipe, where: Where, data: Data, run: Run) -> dict[str, Any]:
    """Score, synaptic operations per sample, and spikes per neuron and sample of the best weights on the test data."""
    sizes = task.sizes(data)
    for name, now in (("source", where.source), ("sizes", listed(sizes))):
        if run.get(name) != now:
            raise Missing(f"it was trained with the {name} {run.get(name)}, and the data here have {now}")
    net, weights = recipe.network(sizes), torch.load(where.weights, weights_only=True)
    if run.get("weights", digest(weights)) != digest(weights):
        raise Missing(f"the weights {where.weights.name} are those of another run; run it again")
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise Missing(f"its weights do not fit to the recipe as it is now; run it again ({error})") from error
    result: dict[str, Any] = {"score": round(evaluate(recipe, task, net, "test", data), 4), "samples": len(data)}
    if not recipe.spiking:
        return result
    x, _, _ = time_first(data, torch.arange(min(MEASURED, len(data))), task)
    snn.utils.reset(net)
    own = None if recipe.run is unrolled else lambda net, x: recipe.run(net, x, task)
    measured = snn.metrics.measure(net, x, steps=task.static_steps if own is None else None, forward=own)
    operations = measured.synaptic_operations
    result["operations"] = round(operations["Effective_MACs"] + operations["Effective_ACs"])
    result["dense"] = round(operations["Dense"])
    firing = [layer for layer in measured.layers if layer.activation_sparsity is not None and layer.kind != "LI"]
    spikes = sum((1 - (layer.activation_sparsity or 0)) * layer.activations for layer in firing)
    outputs = sum(layer.activations for layer in firing)
    result["spikes"] = round(sizes.steps * recipe.substeps * spikes / outputs, 3) if outputs else None
    return result


Row = tuple[str, str | None]
"""Recipe and source of the data of a row."""


def page(runs: list[Run]) -> str:
    """The tables as Markdown: one per task, recipes by their validation score, which the test has not chosen."""
    found: dict[str, dict[Row, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        found[run["task"]][run["recipe"], run.get("source")].append(run)
    parts = [_task(TASKS[name], found[name]) for name in TASKS if name in found]
    return "\n\n".join(parts) or "No runs are stored."


def _task(task: Task, rows: dict[Row, list[Run]]) -> str:
    sign = -1 if task.higher_is_better else 1
    order = sorted(rows, key=lambda row: sign * mean(run["validation"] for run in rows[row]))
    solved = task.mark == "solved"
    unit = "accuracy, %" if task.higher_is_better else "sMAPE, %"
    sources = sorted({source for _, source in rows if source is not None})
    source = f" {'; '.join(sources)}." if sources else ""
    lines = [
        f"### {task.title}",
        "",
        f"Split: {task.split}.{source} Reference: {task.mark or 'none'}.",
        "",
        f"| recipe | test, {unit} | validation | seeds | parameters | operations | spikes | {LAST[solved]} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    several = len({source for _, source in rows}) > 1
    return "\n".join([*lines, *(_row(row, rows[row], solved, several) for row in order)])


LAST = ("seconds", f"updates to {SOLVED:.0f} %")
"""Headers of the last column: of most tasks, and of tasks that are either solved or not."""


def updates_to_solve(run: Run) -> float | None:
    """Number of updates after which the validation score was first at SOLVED, or None."""
    epochs = (epoch for epoch, (_, score) in enumerate(run["curve"], 1) if score >= SOLVED)
    first = next(epochs, None)
    return None if first is None else float(first * run["updates_per_epoch"])


def _row(row: Row, runs: list[Run], solved: bool, several: bool) -> str:
    name, source = row
    tests, epochs = [run["test"] for run in runs], sorted({run["epochs_at_most"] for run in runs})
    mixed = f" (of {', '.join(map(str, epochs))} epochs)" if len(epochs) > 1 else ""
    title = RECIPES[name].title if name in RECIPES else name
    cells = [
        f"{title}, {source or 'unknown source'}" if several else title,
        _spread([test["score"] for test in tests]),
        _spread([run["validation"] for run in runs]),
        f"{len(runs)}{mixed}",
        f"{runs[0]['parameters']:,}",
        _mean([test.get("operations") for test in tests], "{:,.0f}"),
        _mean([test.get("spikes") for test in tests], "{:.1f}"),
        _mean([updates_to_solve(run) if solved else run["seconds"] for run in runs], "{:.0f}"),
    ]
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _mean(values: list[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(mean(known)) if known else "-"


def side_by_side(folder: Path = FOLDER) -> str:
    """The comparisons with snnTorch as Markdown, one row per task, recipe and library."""
    rows: dict[tuple[str, str], list[tuple[Run, Run]]] = defaultdict(list)
    for ours, theirs in stored_pairs(folder):
        if "test" in ours and "test" in theirs:
            rows[ours["task"], ours["recipe"]].append((ours, theirs))
    if not rows:
        return ""
    lines = [
        "### Side by side with snnTorch",
        "",
        "| task | recipe | library | epochs | CPU seconds | validation | test | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (task, recipe), pairs in rows.items():
        for runs in zip(*pairs, strict=True):
            cells = [
                *(
                    TASKS[task].title,
                    RECIPES[recipe].title,
                    {"snntorch": "snnTorch"}.get(runs[0]["library"], "spikeloom"),
                ),
                f"{mean(run['epochs'] for run in runs):.0f} of {mean(run['epochs_at_most'] for run in runs):.0f}",
                f"{mean(run['seconds'] for run in runs):.1f}",
                _spread([run["validation"] for run in runs]),
                _spread([run["test"]["score"] for run in runs]),
                str(len(runs)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def put(path: Path, text: str) -> None:
    """Replace the text between the two marks of a page."""
    old = path.read_text() if path.is_file() else ""
    before, _, rest = old.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise Missing(f"{path} has no lines {BEGIN} and {END}, between which the table goes")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")

"""`python -m recipes`: list tasks and recipes, run them, and make the table of the finished runs."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .compare import LIBRARIES, compare, folder_of
from .curves import curves, overview
from .grid import Cost, duration, missing, summary
from .many import Many, share
from .models import RECIPES
from .store import FOLDER, Where, stored
from .table import complete, page, put, side_by_side
from .task import Missing
from .tasks import TASKS


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; print errors in the user's arguments as a sentence."""
    parser = argparse.ArgumentParser(prog="python -m recipes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="tasks and recipes")
    run = commands.add_parser("run", help="train; finished runs are left out, and stopped runs go on")
    run.add_argument("task", help="a task, several separated by commas, or all: all but those on large files")
    run.add_argument("recipe", nargs="?", default="all", help="a recipe, several separated by commas, or all (default)")
    run.add_argument("--seed", type=at_least(0), help="the first seed (default: 0)")
    run.add_argument("--seeds", type=at_least(1), help="number of seeds (default: 1, for all of all those of the grid)")
    run.add_argument("--jobs", type=at_least(1), default=1, help="number of processes, one thread each (default: 1)")
    run.add_argument("--epochs", type=at_least(1), help="instead of the recipe's")
    run.add_argument("--again", action="store_true", help="also what is finished; stopped runs start anew")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    table = commands.add_parser("table", help="test the finished runs, once, and print the table")
    table.add_argument("--write", type=Path, help="put the table into this page, and learning curves beside it")
    compared = commands.add_parser("compare", help="train a recipe with spikeloom and, for the same CPU time, snnTorch")
    compared.add_argument("task")
    compared.add_argument("recipe", help="lif, rlif or another of Leaky, RLeaky and LI neurons")
    compared.add_argument("--seed", type=at_least(0), default=0, help="of both runs (default: 0)")
    compared.add_argument("--epochs", type=at_least(1), help="of spikeloom's run, instead of the recipe's")
    curve = commands.add_parser("curves", help="draw the learning curves of a task's finished runs")
    curve.add_argument("task")
    curve.add_argument("picture", type=Path, help="the file, such as curves.png")
    for command in (run, table, compared, curve):
        command.add_argument("--folder", type=Path, default=FOLDER, help="of the runs (default: recipes/runs)")
    arguments = sys.argv[1:] if argv is None else argv
    given = parser.parse_args(arguments)
    if given.command == "list":
        return show()
    if given.command == "curves":
        return draw(given)
    if given.command == "compare":
        return two(given)
    return tabulate(given.folder, given.write) if given.command == "table" else run_all(given, arguments)


def at_least(least: int) -> Callable[[str], int]:
    """A type of arguments: integers from `least` on."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        return value

    return number


def show() -> int:
    """Print the registries."""
    print("tasks")
    for name, task in TASKS.items():
        print(f"  {name:17} {task.title}: {task.split}")
    print("recipes")
    for name, recipe in RECIPES.items():
        print(f"  {name:17} {recipe.title}")
    return 0


def chosen(names: str, known: dict[str, object], what: str) -> list[str] | None:
    """The names of a comma-separated list; None for all."""
    wanted = None if names == "all" else names.split(",")
    for name in wanted or []:
        if name not in known:
            raise Missing(f"there is no {what} {name!r}; choose among {', '.join(known)}")
    return wanted


def run_all(given: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Train every chosen recipe on every chosen task, for every seed."""
    try:
        tasks, recipes = chosen(given.task, {**TASKS}, "task"), chosen(given.recipe, {**RECIPES}, "recipe")
    except Missing as error:
        print(error, file=sys.stderr)
        return 2
    if given.jobs > 1:
        return share(arguments, given.jobs)
    seeds = (
        None if given.seed is given.seeds is None else range(given.seed or 0, (given.seed or 0) + (given.seeds or 1))
    )
    runs = Many(tasks, recipes, seeds, given.folder, given.epochs, given.again, not given.quiet)
    return runs.run()


def two(given: argparse.Namespace) -> int:
    """Train one recipe with two libraries, and print both scores."""
    try:
        chosen(given.task, {**TASKS}, "task"), chosen(given.recipe, {**RECIPES}, "recipe")
        where = Where(given.task, given.recipe, given.seed, given.folder)
        runs = compare(TASKS[given.task], RECIPES[given.recipe], where, given.epochs)
    except (Missing, KeyError) as error:
        print(error, file=sys.stderr)
        return 2
    for run in runs:
        print(f"{run['library']}: validation {run['validation']:.2f}, {run['epochs']} epochs, {run['seconds']:.1f} s")
    return 0


def tabulate(folder: Path, target: Path | None) -> int:
    """Evaluate finished runs on the test split, and print or write the table."""
    runs, problems = complete(folder)
    for library in LIBRARIES:
        problems += complete(folder_of(library, folder))[1]
    for problem in problems:
        print(problem, file=sys.stderr)
    left = missing(folder)
    if left:
        took = duration(sum(map(Cost(stored(folder)), left)))
        print(f"{len(left)} runs of the grid are missing, about {took} of CPU time:\n{summary(left)}", file=sys.stderr)
    text = "\n\n".join(filter(None, (page(runs), side_by_side(folder))))
    if target is None:
        print(text)
        return 0
    try:
        put(target, text)
        overview(runs, target.with_name(f"{target.stem}_curves.png"))
    except Missing as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def draw(given: argparse.Namespace) -> int:
    """Draw learning curves."""
    try:
        curves(stored(given.folder), given.task, given.picture)
    except Missing as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

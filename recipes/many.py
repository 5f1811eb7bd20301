"""Train many runs in one command: in the order of the grid, by several processes, over several evenings."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .grid import LARGE, Cost, block, duration, finished, grid
from .loop import train
from .models import RECIPES
from .store import Where, stored
from .task import Missing, Unavailable
from .tasks import TASKS


@dataclass
class Many:
    """The runs of a command.

    Args:
        tasks: names, or None for all but those on large files of the user.
        recipes: names, or None for all.
        seeds: numbers of the runs; None: 0, or those of the grid if all tasks and recipes are chosen.
        folder: of the runs.
        epochs: instead of the recipes'.
        again: also what is finished; stopped runs start anew.
        progress: show a progress bar per run.
    """

    tasks: Sequence[str] | None
    recipes: Sequence[str] | None
    seeds: Sequence[int] | None
    folder: Path
    epochs: int | None = None
    again: bool = False
    progress: bool = False
    impossible: dict[str, str] = field(default_factory=dict)
    made: set[Where] = field(default_factory=set)

    def order(self) -> Iterator[Where]:
        """All runs, finished ones too; runs of the grid are listed anew at each call, as its best recipes change."""
        if self.tasks is None and self.recipes is None and self.seeds is None:
            return grid(self.folder)
        tasks = self.tasks or [name for name in TASKS if name not in LARGE]
        return block(tasks, self.recipes or list(RECIPES), self.seeds or [0], self.folder)

    def to_do(self, where: Where) -> bool:
        """Whether a run is still to be made, and its task can be loaded."""
        if where.task in self.impossible or where in self.made:
            return False
        return self.again or not finished(where, self.epochs)

    def run(self) -> int:
        """Train what is to do. Report what cannot run, and continue. 1 if nothing was trained and something remains."""
        refused = self._refused()
        for where in self.order():
            if not self.to_do(where):
                continue
            with where.claimed() as mine:
                if mine and self.to_do(where):  # another process may just have finished it
                    self._one(where)
        left = refused or any(not finished(where, self.epochs) for where in self.order())
        return 1 if left and not self.made else 0

    def _refused(self) -> int:
        """Report the pairs that were named and do not fit, and count them."""
        pairs = [(task, recipe) for task in self.tasks or [] for recipe in self.recipes or []]
        reasons = [(pair, RECIPES[pair[1]].refuses(TASKS[pair[0]])) for pair in pairs]
        for (task, recipe), why in reasons:
            if why is not None:
                print(f"{task}-{recipe}: {why}", file=sys.stderr)
        return sum(why is not None for _, why in reasons)

    def _one(self, where: Where) -> None:
        task, recipe = TASKS[where.task], RECIPES[where.recipe]
        try:
            run = train(task, recipe, where, epochs=self.epochs, again=self.again, progress=self.progress)
        except Unavailable as error:
            self.impossible[where.task] = str(error)
            print(f"{where.task}: {error}", file=sys.stderr)
        except Missing as error:
            print(f"{where}: {error}", file=sys.stderr)
        else:
            self.made.add(where)
            cost, left = Cost(stored(self.folder)), [w for w in dict.fromkeys(self.order()) if self.to_do(w)]
            print(
                f"{where}: validation {run['validation']:.2f} at epoch {run['best_epoch']}, {run['seconds']:.0f} s; "
                f"{len(left)} runs left, about {duration(sum(map(cost, left)))} of CPU time",
                flush=True,
            )


def share(arguments: Sequence[str], jobs: int) -> int:
    """Run `python -m recipes` in several processes of one thread each, which claim one run after the other."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "recipes", *arguments, "--jobs", "1", "--quiet"]
    processes = [subprocess.Popen(command, env=alone) for _ in range(jobs)]
    return min(process.wait() for process in processes)

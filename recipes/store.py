"""The files of runs: a small JSON file each, which is committed, and weights and checkpoints, which are not."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

import spikeloom as snn

from .recipe import Recipe
from .task import Sizes
from .tasks.digits import source

FOLDER = Path(__file__).parent / "runs"

Run = dict[str, Any]
"""Content of a JSON file."""


@dataclass(frozen=True)
class Where:
    """Names and seed of a run, and the folder of its files."""

    task: str
    recipe: str
    seed: int
    folder: Path = FOLDER

    def __str__(self) -> str:
        return f"{self.task}-{self.recipe}-{self.seed}"

    def _file(self, ending: str) -> Path:
        folder = self.folder if ending == "json" else self.folder / "weights"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self}.{ending}"

    @property
    def source(self) -> str | None:
        """Which data the task has now, where there are several."""
        return source() if self.task.startswith("digits") else None

    @property
    def json(self) -> Path:
        """The result."""
        return self._file("json")

    @property
    def weights(self) -> Path:
        """The weights of the best epoch."""
        return self._file("pt")

    @property
    def checkpoint(self) -> Path:
        """The state of a run that has not finished."""
        return self._file("checkpoint")

    def finish(self, state: dict[str, Any], recipe: Recipe, net: nn.Module, updates: int) -> Run:
        """Write the best weights, then the result, then remove the checkpoint: a kill in between loses nothing."""
        run: Run = {
            "task": self.task,
            "recipe": self.recipe,
            "seed": self.seed,
            "validation": round(state["best"], 4),
            "best_epoch": state["best_epoch"] + 1,
            "epochs": state["epoch"],
            "epochs_at_most": state["epochs"],
            "updates_per_epoch": updates,
            "parameters": sum(parameter.numel() for parameter in net.parameters()),
            "sizes": state["sizes"],
            "settings": {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "batch": recipe.batch},
            "seconds": round(state["seconds"], 1),
            "wall_seconds": round(state["wall_seconds"], 3),
            "threads": torch.get_num_threads(),
            "curve": state["curve"],
            "versions": versions(),
            "weights": digest(state["weights"]),
        }
        if state["source"] is not None:
            run["source"] = state["source"]
        save(self.weights, state["weights"])
        write(self.json, run)
        self.checkpoint.unlink(missing_ok=True)
        return run

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Hold the run; False if another process holds it. The system ends the claim of a process that is killed."""
        try:
            import fcntl
        except ImportError:  # Windows: start one process
            yield True
            return
        with self._file("lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def save(path: Path, content: dict[str, Any]) -> None:
    """Save tensors and numbers atomically."""
    part = path.with_suffix(".part")
    torch.save(content, part)
    part.replace(path)


def digest(weights: dict[str, Tensor]) -> str:
    """A fingerprint of weights, by which the table knows that a file belongs to a run."""
    found = hashlib.sha256()
    for name, value in weights.items():
        found.update(name.encode())
        found.update(value.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def listed(sizes: Sizes) -> list[int]:
    """Sizes as a run stores them."""
    return [sizes.steps, *sizes.shape, sizes.outputs]


def versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    return {
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": torch.__version__,
        "spikeloom": snn.__version__,
        "machine": platform.machine(),
    }


def write(path: Path, run: Run) -> None:
    """Write a JSON file atomically, one line per entry."""
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in run.items())
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(f"{{\n{lines}\n}}\n")
    part.replace(path)


def stored(folder: Path = FOLDER) -> list[Run]:
    """All finished runs."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]

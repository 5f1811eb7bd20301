"""The training loop: AdamW, one cycle of the learning rate, early stopping on the validation split, resumable.

It reads only the splits "train" and "validation". The weights of the best epoch and the learning curve are stored.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn

from .recipe import Recipe, evaluate, loss_of, time_first
from .store import Run, Where, listed
from .store import save as save_file
from .task import Data, Missing, Task


def train(
    task: Task,
    recipe: Recipe,
    where: Where,
    *,
    epochs: int | None = None,
    again: bool = False,
    progress: bool = False,
) -> Run:
    """Train one recipe on one task with one seed; go on where an earlier call was stopped.

    Args:
        task: data and score.
        recipe: network and loss.
        where: names and seed of the run, and the folder of its files.
        epochs: instead of the recipe's.
        again: start anew, and discard what a stopped run has left.
        progress: show a progress bar.

    Raises:
        Missing: if the recipe cannot be used for the task, if the stopped run had other epochs or other data, or if no
            epoch had a score.
    """
    data, validation = task.load("train"), task.load("validation")
    sizes = task.sizes(data)
    if (why := recipe.refuses(task, sizes)) is not None:
        raise Missing(why)
    epochs = epochs or epochs_of(task, recipe)
    snn.utils.seed(where.seed)
    net = recipe.network(sizes)
    net = snn.accelerate(net) if recipe.spiking else net
    optimizer = torch.optim.AdamW(groups(net, recipe.weight_decay), recipe.lr)
    updates = -(-len(data) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=epochs * updates, pct_start=0.15)
    moving = {"net": net, "optimizer": optimizer, "schedule": schedule}
    fixed = {"epochs": epochs, "source": where.source, "sizes": listed(sizes)}
    state: dict[str, Any] = {"epoch": 0, "curve": [], "best_epoch": 0, "weights": None}
    state |= {"seconds": 0.0, "wall_seconds": 0.0, "best": task.worst, **fixed}
    if again:
        where.checkpoint.unlink(missing_ok=True)
    if where.checkpoint.exists():
        state = restored(where.checkpoint, moving, fixed)
    elif recipe.prepare is not None:
        recipe.prepare(net, data, task)

    fast = snn.fuse(net) if recipe.loops else net
    patience = max(3, epochs // 2)  # scores often rise only when the rate falls
    for epoch in bar(range(state["epoch"], epochs), str(where), progress):
        if epoch - state["best_epoch"] > patience:
            break
        since, since_wall = time.process_time(), time.perf_counter()
        if recipe.each_epoch is not None:
            recipe.each_epoch(net, epoch / epochs)
        loss = one_epoch(task, recipe, fast, optimizer, schedule, data)
        score = evaluate(recipe, task, fast, "validation", validation)
        state["curve"].append([round(loss, 5), round(score, 4)])
        if task.better(score, state["best"]):
            state |= {"best": score, "best_epoch": epoch, "weights": copied(net)}
        state |= {"epoch": epoch + 1, "seconds": state["seconds"] + time.process_time() - since}
        state["wall_seconds"] += time.perf_counter() - since_wall
        save(where.checkpoint, state, moving)
    if state["weights"] is None:
        raise Missing("no epoch had a validation score that is a number; change the recipe, and pass --again")
    return where.finish(state, recipe, net, updates)


def epochs_of(task: Task, recipe: Recipe) -> int:
    """Number of epochs at most, if none is given."""
    return max(2, round(recipe.epochs * task.epochs))


def one_epoch(task: Task, recipe: Recipe, net: nn.Module, optimizer: Any, schedule: Any, data: Data) -> float:
    """Every training sample once, in random order; the mean loss."""
    net.train()
    total = 0.0
    for index in torch.randperm(len(data)).split(recipe.batch):
        if len(index) == 1:  # no batch statistics
            schedule.step()
            continue
        x, y, mask = time_first(data, index, task)
        x = x if recipe.augment is None else recipe.augment(x)
        loss = loss_of(recipe, task, recipe.run(net, x, task), y, mask)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item() * len(index) / len(data)
    return total


def groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: weight decay for matrices; none for biases, decays of neurons, thresholds and delays."""
    learned = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    decays = [p for name, p in learned if p.ndim > 1 and not name.endswith("delay")]
    rest = [p for name, p in learned if p.ndim <= 1 or name.endswith("delay")]
    return [{"params": decays, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def copied(net: nn.Module) -> dict[str, Tensor]:
    """A copy of the current weights."""
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def save(path: Path, state: dict[str, Any], moving: dict[str, Any]) -> None:
    """Save everything that is needed to resume, atomically."""
    content = {**state, "random": torch.get_rng_state()}
    content |= {f"{name}_state": thing.state_dict() for name, thing in moving.items()}
    save_file(path, content)


def restored(path: Path, moving: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
    """The state of a stopped run, if its epochs, source and sizes are those of this one."""
    state: dict[str, Any] = torch.load(path, weights_only=True)
    if state.get("epochs") != fixed["epochs"]:
        had = state.get("epochs", "unknown")
        raise Missing(f"the stopped run was started with --epochs {had}; pass it again, or --again")
    for name, now in fixed.items():
        if state.get(name) != now:
            raise Missing(f"the stopped run has the {name} {state.get(name)}, now {now}; pass --again to start anew")
    for name, thing in moving.items():
        thing.load_state_dict(state.pop(f"{name}_state"))
    torch.set_rng_state(state.pop("random"))
    return state


def bar(epochs: range, name: str, progress: bool) -> Iterable[int]:
    """The epochs, with a progress bar if tqdm is installed."""
    if not progress:
        return epochs
    try:
        from tqdm import tqdm
    except ImportError:
        return epochs
    bars: Iterable[int] = tqdm(epochs, desc=name, unit="epoch")
    return bars

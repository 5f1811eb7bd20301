"""The same recipe with snnTorch, trained for the CPU time that spikeloom took, from the same initial weights."""

import json
import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn

from .loop import train
from .recipe import Recipe, loss_of, time_first
from .store import FOLDER, Run, Where, write
from .task import Missing, Task, needs

LIBRARIES = ("spikeloom", "snntorch")


def folder_of(library: str, folder: Path = FOLDER) -> Path:
    """Where the runs of one side of the comparison are stored."""
    return folder / "side_by_side" / library


def compare(task: Task, recipe: Recipe, where: Where, epochs: int | None = None) -> tuple[Run, Run]:
    """Train a recipe with spikeloom, then with snnTorch for as many epochs as fit in the CPU time of the first.

    Args:
        task: data and score.
        recipe: the recipe.
        where: names and seed of both runs, and the folder below which they are stored.
        epochs: of spikeloom's run, instead of the recipe's.

    Raises:
        Missing: if snnTorch is not installed, has no counterpart of a neuron, or computes other outputs or gradients.
    """
    if task.score is not None or not recipe.spiking or recipe.prepare is not None:
        raise Missing("a comparison takes a task with classes and a spiking recipe that is trained by gradients alone")
    if (why := recipe.refuses(task, task.sizes(task.load("train")))) is not None:
        raise Missing(why)
    there = counterpart(recipe)
    difference = disagreement(task, recipe, there, where.seed)
    if not difference < 1e-3:
        raise Missing(
            f"outputs or gradients of the two libraries differ by {difference:.3g}; they train other networks"
        )
    ours, theirs = (replace(where, folder=folder_of(library, where.folder)) for library in LIBRARIES)
    run = train(task, recipe, ours, epochs=epochs, again=True)
    with TemporaryDirectory() as trial:
        one = train(task, there, replace(where, folder=Path(trial)), epochs=2)
    fitting = max(1, round(run["seconds"] / max(one["seconds"] / 2, 1e-3)))
    other = train(task, there, theirs, epochs=fitting, again=True)
    for place, made, library in ((ours, run, "spikeloom"), (theirs, other, "snntorch")):
        made |= {"library": library, "difference": difference}
        write(place.json, made)
    return run, other


def counterpart(recipe: Recipe) -> Recipe:
    """The recipe with snnTorch's neurons, run by a loop over the steps."""
    needs("snntorch", "test")

    def network(*sizes: Any) -> nn.Module:
        return replaced(recipe.network(*sizes))

    if recipe.loops:
        return replace(recipe, network=network, loops=False, spiking=False)
    return replace(recipe, network=network, run=looped, spiking=False)


def replaced(module: nn.Module) -> nn.Module:
    """Replace the neurons in a network by snnTorch's with the same weights; other modules stay."""
    for name, child in list(module.named_children()):
        setattr(module, name, neuron(child) if type(child).__module__.startswith("spikeloom") else replaced(child))
    return module


def neuron(ours: Any) -> nn.Module:
    """The neuron of snnTorch with the same equation, options and weights."""
    import snntorch

    kind = type(ours).__name__
    other = kind not in ("Leaky", "RLeaky", "LI") or getattr(ours, "decay", "clamp") != "clamp"
    if other or (kind == "RLeaky" and type(ours.recurrent) is not nn.Linear):
        raise Missing(f"snnTorch has no counterpart of {kind} as this recipe uses it; compare lif, rlif or own_loop")
    if kind == "LI":
        return Membrane(snntorch.Leaky(number(ours.beta), reset_mechanism="none", init_hidden=True, output=True))
    shared = {"beta": number(ours.beta), "threshold": number(ours.threshold), "reset_mechanism": ours.reset_mechanism}
    shared["init_hidden"] = ours.init_hidden
    if kind == "Leaky":
        leaky: nn.Module = snntorch.Leaky(**shared)
        return leaky
    recurrent: nn.Module = snntorch.RLeaky(linear_features=ours.recurrent.in_features, **shared)
    recurrent.get_submodule("recurrent").load_state_dict(ours.recurrent.state_dict())
    return recurrent


def number(value: Tensor) -> Tensor:
    """A copy of a parameter of a neuron."""
    return value.detach().clone()


class Membrane(nn.Module):
    """A readout: the membrane of a neuron of snnTorch that returns (spikes, membrane)."""

    def __init__(self, leaky: nn.Module):
        super().__init__()
        self.leaky = leaky

    def forward(self, x: Tensor) -> Tensor:
        """The membrane."""
        mem: Tensor = self.leaky(x)[1]
        return mem


def looped(net: nn.Module, x: Tensor, task: Task) -> Any:
    """One step after the other, from the initial states."""
    for module in net.modules():  # snntorch.utils.reset misses recurrent neurons, whose spikes stay in the graph
        reset: Any = getattr(module, "reset_mem", None)
        if reset is not None:
            reset()
    steps = x.expand(task.static_steps, *x.shape) if task.static_steps else x
    outs = [net(step) for step in steps]
    return tuple(map(torch.stack, zip(*outs, strict=True))) if isinstance(outs[0], tuple) else torch.stack(outs)


def disagreement(task: Task, recipe: Recipe, there: Recipe, seed: int) -> float:
    """The largest difference of scores and gradients on the first training samples, from the weights of the seed.

    In training mode too: batch statistics may be of all steps in one library, and of each step in the other.
    """
    data = task.load("train")
    x, y, mask = time_first(data, torch.arange(min(16, len(data))), task)
    found = []
    for one in (recipe, there):
        snn.utils.seed(seed)
        net = one.network(task.sizes(data)).eval()
        with torch.no_grad():
            scores = [one.scores(one.run(net, x, task), mask)]
        out = one.run(net.train(), x, task)
        loss_of(one, task, out, y, mask).backward()
        gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        found.append([*scores, one.scores(out, mask).detach(), *gradients])
    ours, theirs = found
    if [value.shape for value in ours] != [value.shape for value in theirs]:
        return math.inf
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def stored_pairs(folder: Path = FOLDER) -> list[tuple[Run, Run]]:
    """All comparisons of which both runs are stored."""
    ours, theirs = (
        {path.name: json.loads(path.read_text()) for path in sorted(folder_of(library, folder).glob("*.json"))}
        for library in LIBRARIES
    )
    return [(run, theirs[name]) for name, run in ours.items() if name in theirs]

"""A recipe: a network, and how it is run, read out and trained."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import spikeloom as snn

from .task import Data, Sizes, Task

# Every function of a recipe takes what `run` returns and a mask [T, B], True at the steps that count.


def unrolled(net: nn.Module, x: Tensor, task: Task) -> Any:
    """Run over all steps at once, from the initial states; x is [T, B, *S], or [B, *S] of a static task."""
    snn.utils.reset(net)
    return snn.unroll(net, x, steps=task.static_steps)


def continued(net: nn.Module, x: Tensor) -> Tensor:
    """Run further steps from the current states."""
    out: Tensor = snn.unroll(net, x, check=False)
    return out


def whole(net: nn.Module, x: Tensor, task: Task) -> Tensor:
    """Run a network without steps; its outputs [T, B, K], or [B, K] for all steps."""
    repeated = x.expand(task.static_steps, *x.shape) if task.static_steps else x
    out: Tensor = net(repeated)
    return out


def mean(out: Tensor, mask: Tensor) -> Tensor:
    """Scores [B, K]: the mean over the steps that count; outputs without steps are the scores."""
    if out.ndim == 2:
        return out
    weight = mask.to(out.dtype)[..., None]
    return (out * weight).sum(0) / weight.sum(0)


def cross_entropy(recipe: "Recipe", out: Any, y: Tensor, mask: Tensor) -> Tensor:
    """The cross-entropy of the scores."""
    return functional.cross_entropy(recipe.scores(out, mask), y)


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained. The same settings serve all tasks; a task has a factor for the epochs.

    Args:
        title: one line for the table.
        network: from the sizes of a task to a module.
        run: from (net, x, task) to its outputs.
        scores: from (outputs, mask) to scores [B, K]; the largest is the prediction.
        loss: from (recipe, outputs, classes, mask) to a scalar.
        advance: from (net, x [T, 1, K]) to outputs, from the states of the call before; for forecasts.
        prepare: changes the network before it is trained, without labels, given (net, data, task).
        each_epoch: changes the network before an epoch, given (net, fraction of the epochs completed).
        augment: from the inputs of a batch in training, [T, B, *S], to changed ones; not for static tasks.
        loops: whether the network loops over the steps itself; training runs it with `snn.fuse`.
        substeps: steps of the network per step of the task.
        spiking: whether layers skip the zeros of spikes (`snn.accelerate`), and operations are counted.
        forecasts: whether it can run step by step and has outputs that are no classes.
        classifies: whether it can be trained on classes.
        images: whether it needs images [C, H, W] at every step.
        lr: the largest learning rate of the one-cycle schedule.
        weight_decay: of matrices; AdamW.
        batch: samples per update.
        epochs: at most; training stops early if the validation score does not improve for half of them.
    """

    title: str
    network: Callable[[Sizes], nn.Module]
    run: Callable[[nn.Module, Tensor, Task], Any] = unrolled
    scores: Callable[[Any, Tensor], Tensor] = mean
    loss: Callable[["Recipe", Any, Tensor, Tensor], Tensor] = cross_entropy
    advance: Callable[[nn.Module, Tensor], Tensor] = continued
    prepare: Callable[[nn.Module, Data, Task], None] | None = None
    each_epoch: Callable[[nn.Module, float], None] | None = None
    augment: Callable[[Tensor], Tensor] | None = None
    loops: bool = False
    substeps: int = 1
    spiking: bool = True
    forecasts: bool = True
    classifies: bool = True
    images: bool = False
    lr: float = 4e-3
    weight_decay: float = 1e-2
    batch: int = 64
    epochs: int = 30

    def refuses(self, task: Task, sizes: Sizes | None = None) -> str | None:
        """Why the recipe cannot be used for a task, or None; without sizes, by what the task says of itself."""
        if task.score is not None and not self.forecasts:
            return "it has classes as outputs, or runs over whole sequences only; the task is a forecast step by step"
        if task.score is None and not self.classifies:
            return "its outputs are values; the task has classes"
        if self.augment is not None and task.static_steps:
            return "it shifts sequences; the input of the task is the same at every step"
        if self.images and sizes is None:
            return None if task.images else "it needs images [C, H, W] at every step"
        if self.images and sizes is not None and len(sizes.shape) != 3:
            return f"it needs images [C, H, W]; the input of a step is {list(sizes.shape)}"
        return None


def time_first(data: Data, index: Tensor, task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """A batch: x [T, B, *S] (or [B, *S], static), targets, mask [T, B]."""
    x, y = data.x[index], data.y[index]
    steps = task.static_steps or x.shape[1]
    lengths = None if data.lengths is None else data.lengths[index]
    mask = task.mask(lengths, steps, len(index))
    return (x if task.static_steps else x.transpose(0, 1).contiguous()), y, mask


def loss_of(recipe: Recipe, task: Task, out: Any, y: Tensor, mask: Tensor) -> Tensor:
    """The loss of a batch: the recipe's for classes, the squared error for values [B, T, K]."""
    if task.score is not None:
        return functional.mse_loss(out, y.transpose(0, 1))
    return recipe.loss(recipe, out, y, mask)


@torch.no_grad()
def evaluate(recipe: Recipe, task: Task, net: nn.Module, split: str, data: Data) -> float:
    """The score of a network on a split: accuracy in percent, or the score of the task."""
    net.eval()
    if task.score is not None:
        snn.utils.reset(net)
        return task.score(partial(recipe.advance, net), split)
    right = 0
    for index in torch.arange(len(data)).split(256):
        x, y, mask = time_first(data, index, task)
        right += int((recipe.scores(recipe.run(net, x, task), mask).argmax(1) == y).sum())
    return 100 * right / len(data)

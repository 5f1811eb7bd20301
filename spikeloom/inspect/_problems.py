"""The problems that `diagnose` recognizes, each with its sign and its cure: the table in docs/debugging.md."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A problem that keeps networks from learning.

    Args:
        sign: what `diagnose` measures, as a condition.
        cure: what to change.
    """

    sign: str
    cure: str


PROBLEMS: Mapping[str, Problem] = {
    "silent input": Problem(
        "every value of the input is 0", "check the data and the encoding: a rate code of 0 has no spikes"
    ),
    "swapped axes": Problem(
        "the samples of the batch are equal at every step, but the steps differ", "pass time first: `x.transpose(0, 1)`"
    ),
    "unscaled input": Problem(
        "the input exceeds 10 and saturates the first layer, or stays below 0.05 and leaves it silent",
        "scale the input to about 0 to 1: `x / x.max()`, or a BatchNorm layer before the first weights",
    ),
    "not finite": Problem(
        "NaN or inf in the input, in a parameter, or in the membranes of a layer",
        "clean the data; load or initialize the parameter again; lower the learning rate and clip the gradient",
    ),
    "dead layer": Problem(
        "at least 75 % of the neurons of the first layer never fire on this batch, or of a later layer that cannot "
        "learn to fire, because no gradient passes or no current arrives",
        "a lower threshold; larger weights, or a bias; a larger beta; more steps; a finer `state_quant`",
    ),
    "dead output neuron": Problem(
        "an output neuron never fires although others do, and its currents are strongly negative, or constant, or its "
        "threshold is 3 times that of the others, or it has no gradient",
        "initialize its weights and its bias like those of the others; the same threshold for all",
    ),
    "dead channel": Problem(
        "the same, for all neurons of a channel", "initialize the weights and the bias of the channel again"
    ),
    "saturated layer": Problem(
        "at least 25 % of the neurons fire at more than 90 % of all steps",
        'a higher threshold; smaller weights and biases; `reset_mechanism="subtract"` instead of `"none"`; smaller '
        "recurrent weights",
    ),
    "exploding readout": Problem(
        "the membrane of a readout exceeds 1000", "smaller weights before it; a beta below 1; fewer steps"
    ),
    "steep surrogate": Problem(
        "the mean derivative of the surrogate is below 0.001",
        "a wider surrogate: `surrogate.atan(alpha=2)`, `fast_sigmoid(slope=25)`; membranes closer to the threshold",
    ),
    "surrogate off threshold": Problem(
        "the derivative of the surrogate is 0 within 0.5 of the threshold, and below 0.01 on average",
        "one with its peak at the threshold: `surrogate.atan()`; `SFS(B=-1)` instead of `SFS()`",
    ),
    "disabled surrogate": Problem("`surrogate_disable=True`", "leave the argument out"),
    "decay out of range": Problem(
        "a decay such as beta is below 0 or above 1, and is therefore clamped, without a gradient",
        'a decay between 0 and 1; `decay="sigmoid"` or `"tau"` for one that is learned',
    ),
    "unset statistics": Problem(
        "a BatchNorm layer in eval mode has not seen any batch",
        "`net.train()`, or run some batches in training mode first",
    ),
    "delay beyond the sequence": Problem(
        "at least half of the delays of a layer are not shorter than the sequence", "shorter delays, or more steps"
    ),
    "constant output": Problem(
        "the outputs are equal for all samples of the batch, although the inputs differ",
        "look for a layer that removes the differences: quantization, clamping, a constant in the forward",
    ),
    "no gradient": Problem(
        "no gradient reaches the input currents of a layer",
        "look for `.detach()`, `torch.no_grad()`, `argmax` or a comparison after it",
    ),
    "zero gradient": Problem(
        "the gradient at the input currents of a layer is 0",
        "enable the surrogate; use one without compact support; fix silent layers after it",
    ),
    "gradient not finite": Problem(
        "the gradient at the input currents of a layer is NaN or infinite",
        "smaller recurrent weights; a flatter surrogate; avoid `sqrt(0)`, `log(0)` and 0 / 0 in the loss",
    ),
    "vanishing gradient": Problem(
        "the gradient of a layer is at most a thousandth of that of the last layer",
        "larger weights where it is lost; a wider surrogate; BatchNorm before the neurons; skip connections",
    ),
    "exploding gradient": Problem(
        "the gradient of a layer is at least 1000 times that of the layer after it, or grows 1000 times from the end "
        "of the sequence to its start",
        "smaller recurrent weights, or smaller weights after the layer; gradient clipping; truncated backpropagation",
    ),
    "frozen parameters": Problem("no parameter requires a gradient", "`net.requires_grad_(True)`"),
    "unused parameters": Problem(
        "a parameter has no gradient, because the loss does not depend on it",
        "call its layer in the forward; remove `.detach()`; add its output to the loss",
    ),
    "unregistered layers": Problem(
        "a module holds layers in a plain list or dict", "`nn.ModuleList` or `nn.ModuleDict`"
    ),
    "not optimized": Problem(
        "a parameter with a gradient is not in the `optimizer` that was passed",
        "create the optimizer after the network is complete, from `net.parameters()`",
    ),
    "learning rate": Problem(
        "one step of the `optimizer` that was passed changes a weight by more than 3 times its norm, or all by less "
        "than a millionth",
        "a smaller or larger learning rate",
    ),
}
"""The problems by name."""


class Finding(str):
    """A problem that `diagnose` found, as a sentence; it is a str.

    Args:
        text: the sentence.
        problem: the name of the problem, as in the table of docs/debugging.md, such as "dead layer".
        layers: the paths of the layers, as in `named_modules`.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, threshold=50.0, init_hidden=True))
        >>> (finding,) = snn.diagnose(net, torch.rand(8, 3), steps=25).findings
        >>> finding.problem, finding.layers
        ('dead layer', ('1',))
    """

    __slots__ = ("layers", "problem")
    problem: str
    layers: tuple[str, ...]

    def __new__(cls, text: str, problem: str = "", layers: tuple[str, ...] = ()) -> "Finding":
        made = super().__new__(cls, text)
        made.problem, made.layers = problem, layers
        return made

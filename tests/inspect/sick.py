"""Networks that do not learn, each with the problem that `diagnose` must name and the cure that it advises."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import spikeloom as snn
from spikeloom import surrogate

from .small import (
    CLASSES,
    HIDDEN,
    PIXELS,
    SAMPLES,
    STEPS,
    Between,
    Images,
    InAList,
    Setup,
    Unused,
    both,
    counted,
    deep,
    fill,
    fresh,
    frozen,
    given,
    leaky,
    like_the_others,
    readout,
    recurrent,
    renewed,
    replaced,
    restore_channel,
    scored,
    sgd,
    spoil_channel,
    task,
    thawed,
    usual,
    weights,
)


@dataclass(frozen=True)
class Sick:
    """A network that does not learn.

    Args:
        problem: the name of the problem, as in `spikeloom.inspect.PROBLEMS`.
        layers: the layers to which the finding refers.
        words: what the sentence says of the cause and of the cure.
        infect: turns the usual setup into one that does not learn.
        cure: does what the finding advises.
        fails: whether the sick network learns less than the cured one in the same time.
    """

    problem: str
    layers: tuple[str, ...]
    message: tuple[str, ...]
    infect: Callable[[Setup], Any]
    cure: Callable[[Setup], Any]
    fails: bool = True


SICK: Mapping[str, Sick] = {
    # -- the input
    "silent input": Sick(
        "silent input", (), ("0 everywhere",), lambda s: vars(s).update(x=s.x * 0), renewed(x=lambda: task()[0])
    ),
    "input in bytes": Sick(
        *("unscaled input", ("1",), ("to 255", "scale it")),
        lambda s: vars(s).update(x=s.x * 255),
        lambda s: vars(s).update(x=s.x / 255),
        fails=False,
    ),
    "input scaled twice": Sick(
        *("unscaled input", ("1",), ("to 0.0039", "scale it")),
        both(lambda s: vars(s).update(x=s.x / 255), weights(0, fill(0.0))),
        lambda s: vars(s).update(x=s.x * 255),
    ),
    "batch before time": Sick(
        *("swapped axes", (), ("[64, 16, 16]", "x.transpose(0, 1)")),
        lambda s: vars(s).update(
            x=s.x.unsqueeze(1).repeat(1, STEPS, 1), steps=None, scores=lambda out: out.sum(0).repeat(4, 1)[:SAMPLES]
        ),
        lambda s: vars(s).update(x=s.x.transpose(0, 1), scores=counted),
    ),
    "NaN in the data": Sick(
        *("not finite", (), ("the input", "NaN and inf")),
        lambda s: s.x.__setitem__((3, 2), torch.nan),
        lambda s: vars(s).update(x=s.x.nan_to_num()),
    ),
    # -- silent layers
    "threshold far off": Sick(
        *("dead layer", ("1",), ("threshold 60", "lower its threshold to about")),
        replaced(1, lambda: leaky(threshold=60.0)),
        replaced(1, leaky),
    ),
    "weights all zero": Sick(
        *("dead layer", ("1",), ("its input current is always 0", "the weights before it are all 0")),
        both(*(weights(n, lambda fc: (fc.weight.zero_(), fc.bias.zero_())) for n in (0, 2))),
        both(fresh(0, PIXELS, HIDDEN), fresh(2, HIDDEN, CLASSES)),
    ),
    "weights too small": Sick(
        *("dead layer", ("1",), ("multiply the weights before it by",)),
        weights(0, lambda fc: (fc.weight.mul_(0.002), fc.bias.mul_(0.002))),
        weights(0, lambda fc: (fc.weight.mul_(500), fc.bias.mul_(500))),
        fails=False,
    ),
    "negative biases": Sick(
        *("dead layer", ("1",), ("currents are mostly negative", "a positive bias")),
        weights(0, fill(-30.0)),
        weights(0, fill(0.0)),
    ),
    "too few steps": Sick(
        *("dead layer", ("1",), ("still rise at the last step", "run more than")),
        both(
            replaced(1, lambda: leaky(beta=0.99, threshold=12.0)),
            weights(0, lambda fc: fc.weight.abs_()),
            weights(0, fill(0.0)),
            given(steps=4),
        ),
        given(steps=30),
    ),
    "membranes rounded away": Sick(
        *("dead layer", ("1",), ("state_quant rounds its membranes",)),
        replaced(1, lambda: leaky(state_quant=lambda mem: mem + (8 * (mem / 8).round() - mem).detach(), threshold=9.0)),
        replaced(1, lambda: leaky(state_quant=lambda mem: mem + ((8 * mem).round() / 8 - mem).detach())),
    ),
    "delays beyond the sequence": Sick(
        *("delay beyond the sequence", ("2",), ("100 % of its delays", "shorten the delays")),
        renewed(net=lambda: usual(None, None, snn.SynapticDelay(HIDDEN, 40, 30.0, learn_delay=False))),
        replaced(2, lambda: snn.SynapticDelay(HIDDEN, 40, 2.0, learn_delay=False)),
    ),
    "a dead class": Sick(
        *("dead output neuron", ("3",), ("output neuron 2 of 4 never fires", "its class")),
        weights(2, fill(-20.0, 2)),
        weights(2, like_the_others(2)),
    ),
    "a class with another threshold": Sick(
        *("dead output neuron", ("3",), ("output neuron 1 of 4", "threshold 80")),
        replaced(3, lambda: leaky(threshold=torch.tensor([1.0, 80.0, 1.0, 1.0]))),
        replaced(3, leaky),
    ),
    "a class without weights": Sick(
        *("dead output neuron", ("3",), ("output neuron 3 of 4",)),
        weights(2, lambda fc: (fc.weight[3].zero_(), fill(-1.0, 3)(fc))),
        weights(2, like_the_others(3)),
        fails=False,
    ),
    "a dead channel": Sick(
        *("dead channel", ("lif",), ("channel 2 of 4 never fires",)),
        both(renewed(net=Images), spoil_channel),
        restore_channel,
        fails=False,
    ),
    # -- saturated layers
    "biases too large": Sick(
        *("saturated layer", ("1",), ("raise its threshold", "multiply the weights and biases before it by")),
        weights(0, fill(20.0)),
        weights(0, lambda fc: fc.bias.mul_(0.02)),
    ),
    "threshold below zero": Sick(
        *("saturated layer", ("1",), ("make it positive",)),
        replaced(1, lambda: leaky(threshold=-5.0, learn_threshold=True)),
        replaced(1, leaky),
    ),
    "no reset": Sick(
        *("saturated layer", ("1",), ('reset_mechanism="none"', '"subtract"')),
        both(replaced(1, lambda: leaky(reset_mechanism="none", beta=1.0)), weights(0, fill(0.7))),
        replaced(1, lambda: leaky(beta=1.0)),
        fails=False,
    ),
    "recurrent weights above the threshold": Sick(
        *("saturated layer", ("1",), ("its recurrent weights alone, 20 per step",)),
        both(
            replaced(
                1, lambda: snn.RLeaky(beta=0.9, V=20.0, all_to_all=False, init_hidden=True, learn_recurrent=False)
            ),
            weights(0, fill(0.7)),
        ),
        replaced(1, lambda: snn.RLeaky(beta=0.9, V=0.1, all_to_all=False, init_hidden=True, learn_recurrent=False)),
    ),
    # -- neurons and other modules
    "decay above 1": Sick(
        *("decay out of range", ("1",), ("its beta is 1.5 and is used as 1", "without a gradient", "sigmoid")),
        replaced(1, lambda: leaky(beta=1.5, learn_beta=True)),
        replaced(1, lambda: snn.Leaky(beta=0.9, learn_beta=True, init_hidden=True, decay="sigmoid")),
        fails=False,
    ),
    "decay below 0": Sick(
        *("decay out of range", ("3",), ("its beta is -0.5 and is used as 0",)),
        replaced(3, lambda: leaky(beta=-0.5)),
        replaced(3, leaky),
        fails=False,
    ),
    "statistics unset": Sick(
        *("unset statistics", ("2",), ("eval mode", "net.train()")),
        both(
            renewed(net=lambda: usual(None, None, nn.BatchNorm1d(HIDDEN))),
            lambda s: s.net.eval(),
            replaced(1, lambda: leaky()),
        ),
        lambda s: s.net.train(),
        fails=False,
    ),
    "surrogate too steep": Sick(
        *("steep surrogate", ("1",), ("fast_sigmoid(slope=1000000.0) passes", "a wider surrogate")),
        replaced(1, lambda: leaky(spike_grad=surrogate.fast_sigmoid(slope=1e6))),
        replaced(1, lambda: leaky(spike_grad=surrogate.fast_sigmoid(slope=10))),
        fails=False,
    ),
    "sparse fast sigmoid": Sick(
        *("surrogate off threshold", ("1",), ("SFS(slope=25, B=1) passes no gradient near the threshold",)),
        replaced(1, lambda: leaky(spike_grad=surrogate.SFS())),
        replaced(1, lambda: leaky(spike_grad=surrogate.SFS(B=-1))),
        fails=False,
    ),
    "surrogate disabled": Sick(
        *("disabled surrogate", ("3",), ("surrogate_disable=True",)),
        replaced(3, lambda: leaky(surrogate_disable=True)),
        replaced(3, leaky),
    ),
    # -- gradients
    "detached": Sick(
        *("no gradient", ("net.1",), ("a later layer detaches its input",)),
        renewed(net=lambda: Between(lambda t: t.detach())),
        lambda s: setattr(s.net, "act", lambda t: t),
        fails=False,
    ),
    "loss of a choice": Sick(
        *("no gradient", ("1", "3"), ("missing",)),
        given(loss=lambda scores, y: (scores.argmax(1) != y).float().mean()),
        given(loss=F.cross_entropy),
    ),
    "zero times the output": Sick(
        *("zero gradient", ("1", "3"), ("the gradient is zero",)),
        given(scores=lambda out: out.sum(0) * 0),
        given(scores=counted),
    ),
    "loss of 0 / 0": Sick(
        *("gradient not finite", ("1", "3"), ("NaN", "check the loss")),
        given(scores=lambda out: out.sum(0) + ((out.sum(0) - out.sum(0).detach()).square()).sqrt()),
        given(scores=counted),
    ),
    "vanishing": Sick(
        *("vanishing gradient", ("1",), ("at the spikes of layer", "wider surrogate")),
        renewed(net=lambda: deep(2.0, 150.0)),
        renewed(net=lambda: deep(2.0, 5.0)),
    ),
    "exploding recurrence": Sick(
        *("exploding gradient", ("1",), ("explodes backward in time", "lower its recurrent weights")),
        both(renewed(net=lambda: readout(recurrent(12.0))), given(steps=40, scores=scored)),
        replaced(1, lambda: recurrent(0.2)),
    ),
    "exploding weights": Sick(
        *("exploding gradient", ("1",), ("explodes, to", "lower the weights between them")),
        both(renewed(net=readout), given(scores=scored, optimizer=sgd), weights(2, lambda fc: fc.weight.mul_(3e3))),
        weights(2, lambda fc: fc.weight.div_(3e3)),
    ),
    "exploding readout": Sick(
        *("exploding readout", ("3",), ("a readout: its membranes range", "lower the weights")),
        both(
            renewed(net=lambda: readout(beta=1.0)),
            given(scores=scored, optimizer=sgd),
            weights(2, lambda fc: fc.weight.mul_(300)),
        ),
        weights(2, lambda fc: fc.weight.div_(300)),
    ),
    # -- outputs and parameters
    "outputs without the inputs": Sick(
        *("constant output", (), ("equal for all samples",)),
        renewed(net=lambda: Between(lambda t: 0 * t + 1)),
        lambda s: setattr(s.net, "act", lambda t: t),
    ),
    "a weight of NaN": Sick(
        *("not finite", (), ("0.weight", "initialize")),
        weights(0, lambda fc: fc.weight.fill_(torch.nan)),
        fresh(0, PIXELS, HIDDEN),
    ),
    "everything frozen": Sick("frozen parameters", (), ("requires_grad_(True)",), frozen, thawed),
    "a layer that is not called": Sick(
        *("unused parameters", (), ("skipped.weight, skipped.bias",)),
        renewed(net=lambda: Unused(False)),
        lambda s: setattr(s.net, "called", True),
        fails=False,
    ),
    "layers in a list": Sick(
        *("unregistered layers", ("layers",), ("nn.ModuleList",)),
        renewed(net=lambda: InAList(list)),
        renewed(net=lambda: InAList(nn.ModuleList)),
        fails=False,
    ),
    "a layer that is not optimized": Sick(
        *("not optimized", (), ("2.weight, 2.bias", "net.parameters()")),
        given(optimizer_passed=True, optimized=lambda net: [*net[:2].parameters()]),
        given(optimized=lambda net: [*net.parameters()]),
        fails=False,
    ),
    "learning rate too high": Sick(
        *("learning rate", (), ("lower the learning rate",)),
        given(optimizer_passed=True, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3.0)),
        given(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3)),
    ),
    "learning rate too low": Sick(
        *("learning rate", (), ("raise the learning rate",)),
        given(optimizer_passed=True, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-9)),
        given(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=5e-3)),
    ),
}

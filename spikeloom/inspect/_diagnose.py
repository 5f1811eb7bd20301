"""Find out why a network does not learn, from statistics of each spiking layer on a batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import tree_leaves, tree_map_only
from ..layers import SEES_TIME
from ..network import RandomState, Request, Snapshot, as_it_is, is_fused, read, run_checked, undone, warn_of_sequence
from ..neurons import SpikingNeuron
from ._explain import aligned, share
from ._facts import Facts, bad_parameters, has_blank_weights, hidden_layers, of_modules, of_optimizer
from ._figure import drawn
from ._findings import found
from ._problems import Finding
from ._readout import meant_as_readout
from ._tap import Tap
from ._vitals import Layer, Vitals, floating, measured

HEADINGS = (
    *("layer", "kind", "neurons", "firing rate", "dead", "saturated"),
    *("membrane", "threshold", "passes gradient", "gradient norm"),
)


@dataclass(frozen=True)
class Diagnosis:
    """Result of `diagnose`; print it for a table and the findings.

    Args:
        rows: the spiking layers, in the order of `named_modules`.
        findings: the problems found, each a `Finding`; empty if there are none.
    """

    rows: tuple[Vitals, ...]
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        table = aligned([HEADINGS, *(_cells(row) for row in self.rows)], right=range(2, len(HEADINGS)))
        return "\n".join((*table, "", *(self.findings or ("No problems found.",))))

    __repr__ = __str__

    def plot(self, figsize: tuple[float, float] | None = None) -> Any:
        """Plot the table: firing rates, membranes, surrogate gradients and gradient norms of each layer.

        Args:
            figsize: width and height in inches. Default: the column of a paper, 3.3 inches, with two by two panels, as
                high as the layers need. From 6.5 inches on, the four panels are in one row.

        Returns:
            A matplotlib Figure.

        Raises:
            ImportError: if matplotlib is not installed.
            ValueError: if `figsize` is not a width and a height, or if there are no layers.
        """
        return drawn(self.rows, figsize)


def diagnose(
    net: nn.Module,
    x: Any,
    *inputs: Any,
    steps: int | None = None,
    num_steps: int | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    forward: Callable[..., Any] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    **kwargs: Any,
) -> Diagnosis:
    """Run a batch forward and backward, and report what may prevent the network from learning.

    The run starts from initial states. It leaves the network unchanged: states, running statistics and gradients, and
    the state of the random number generators.

    Args:
        net: the network.
        x: input, [T, B, ...], or [B, ...] with `steps`.
        inputs: further inputs of its forward.
        steps: T, if the input is the same at every step.
        num_steps: another name of `steps`, as for `spikeloom.unroll`.
        loss: function from the outputs of the network, over all steps, to the loss. None sums the first output that
            requires a gradient: usually the spikes of the last layer, or the membranes of a readout.
        forward: function that runs the network, ``forward(net, x, *inputs, **kwargs)``. Default: `spikeloom.unroll`.
            Pass it for networks that loop over time themselves (``lambda net, x: net(x)``), or that cannot be unrolled
            (``lambda net, x: torch.stack([net(x_t) for x_t in x])``). A network of `spikeloom.fuse` needs none.
        optimizer: None, or the optimizer of the network, of which a copy does one step, to judge its learning rate.
        kwargs: keyword inputs of its forward.

    Returns:
        A `Diagnosis` with a row per spiking layer, and the findings as sentences, causes first. Its `str` is a table
        followed by the findings; `plot()` returns a figure.

    Raises:
        ValueError: if the network has no spiking neurons, or there are no steps. Also the errors of `spikeloom.unroll`.

    | column          | meaning                                                                                      |
    | --------------- | -------------------------------------------------------------------------------------------- |
    | firing rate     | share of steps at which a neuron fires, over all neurons, rows and steps; a readout has none |
    | dead            | share of neurons that never fire                                                             |
    | saturated       | share of neurons that fire at more than 90 % of all steps                                    |
    | membrane        | smallest and largest membrane                                                                |
    | threshold       | value above which the membrane fires                                                         |
    | passes gradient | share of neurons and steps at which the derivative of the surrogate is at least 0.01         |
    | gradient norm   | norm of the gradient of the loss with respect to the input current of the layer, all steps   |

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, threshold=50.0, init_hidden=True))
        >>> diagnosis = snn.diagnose(net, torch.rand(8, 3), steps=25)
        >>> print(diagnosis.findings[0])
        layer '1' (Leaky): 100 % of its neurons never fire; lower its threshold or raise the gain of ...
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"diagnose got {type(net).__name__}; pass a network, an nn.Module")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"diagnose got optimizer={type(optimizer).__name__}; pass a torch.optim.Optimizer")
    if not any(isinstance(m, SpikingNeuron) for m in net.modules()) and (hidden := hidden_layers(net)):
        raise ValueError(f"diagnose found no spiking neurons among the modules of {type(net).__name__}: {hidden[0]}")
    request = read(net, (x, *inputs), kwargs, steps, num_steps) if forward is None and not is_fused(net) else None
    named = {"num_steps": num_steps, "steps": steps if forward is None else None}
    given = kwargs | {name: number for name, number in named.items() if number is not None}
    before, draws = Snapshot(net.modules()), RandomState()

    def work() -> tuple[list[Layer], Facts]:
        before.stand_in()
        before.mute()
        with (
            Tap(net, inputs=True, graph=True) as tap,
            as_it_is.set(True),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            for module in net.modules():
                if isinstance(module, SEES_TIME):
                    module.reset_mem()
            if request is not None:
                outputs = _unrolled(request)
            else:
                args, options = tree_map_only(Tensor, lambda t: _leaf(t).clone(), ((x, *inputs), given))
                outputs = net(*args, **options) if forward is None else forward(net, *args, **options)
            learned = {name: p for name, p in net.named_parameters() if p.requires_grad}
            layers, gradients = measured(net, tap, _total(outputs, loss, _readout_spikes(net, tap)), learned)
            modules = [*of_modules(net, max((recording.steps for recording in tap.values()), default=0))]
            if optimizer is not None:
                modules += of_optimizer(net, optimizer, gradients)
            facts = Facts(
                inputs=floating(((x, *inputs), kwargs)),
                time_first=request is not None and not request.static,
                outputs=floating(outputs),
                unused=[name for name in learned if gradients[name] is None],
                frozen=not learned and next(net.parameters(), None) is not None,
                bad=bad_parameters(net),
                blank=has_blank_weights(net),
                modules=modules,
            )
            return layers, facts

    layers, facts = undone(work, before, draws)
    if request is not None:
        warn_of_sequence(request)
    places = {path: number for number, (path, _) in enumerate(net.named_modules())}
    rows = sorted((layer.row for layer in layers), key=lambda row: places[row.path])
    return Diagnosis(tuple(rows), tuple(found(layers, facts)))


def _unrolled(request: Request) -> Any:
    """Unroll the network; a static input is repeated, so that every layer has a gradient at every step."""
    if not request.steps or not request.batch:
        raise ValueError(f"diagnose got {request.steps} steps of {request.batch} rows; pass at least one of each")
    args, kwargs = request.mapped(lambda t: _leaf(t.expand(request.steps, *t.shape) if request.static else t))
    request = replace(request, args=args, kwargs=kwargs, static=False)
    done = run_checked(request, None)
    done.unrolled.counted.append(request.steps)
    return done.outputs


def _leaf(t: Tensor) -> Tensor:
    """The input as a leaf that requires a gradient, for neurons without weights before them."""
    if not t.is_floating_point():
        return t
    t = t.clone() if t.is_inference() else t.detach()  # autograd rejects tensors created in inference mode
    return t.requires_grad_()


def _readout_spikes(net: nn.Module, tap: Tap) -> Tensor | None:
    """The spikes of the last layer if its arguments show that its membranes are the output."""
    ran = [path for path in tap.order if tap[path].steps]
    return tap[ran[-1]].spk if ran and meant_as_readout(net.get_submodule(ran[-1])) else None


def _total(outputs: Any, loss: Callable[[Any], Tensor] | None, unneeded: Tensor | None) -> Tensor | None:
    """The scalar to differentiate; None if no output requires a gradient. `unneeded` are the spikes of a readout."""
    if loss is not None:
        try:
            total = loss(outputs)
        except Exception as error:
            shapes = ", ".join(str([*t.shape]) for t in tree_leaves(outputs) if isinstance(t, Tensor))
            error.add_note(f"(raised by the loss of diagnose; the network returned {shapes}, time first)")
            raise
        if not isinstance(total, Tensor):
            raise TypeError(f"the loss of diagnose returned a {type(total).__name__}; return a tensor")
        return total.sum() if total.requires_grad else None
    with_gradient = [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.requires_grad]
    if unneeded is not None:
        needed = [t for t in with_gradient if t.shape != unneeded.shape or not torch.equal(t, unneeded)]
        with_gradient = needed or with_gradient
    return with_gradient[0].sum() if with_gradient else None


def _cells(row: Vitals) -> tuple[str, ...]:
    return (
        row.path or "(itself)",
        row.kind,
        f"{row.neurons:,}",
        *(("readout", "-", "-") if row.readout else map(share, (row.rate, row.dead, row.saturated))),
        row.membrane_text(),
        row.threshold_text(),
        share(row.passes),
        "-" if row.gradient_norm != row.gradient_norm else f"{row.gradient_norm:.2g}",
    )

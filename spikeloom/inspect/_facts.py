"""Facts for `diagnose` that do not concern one spiking layer: input, modules, parameters, optimizer."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._torch import BatchNorm
from ..layers import DelayedLinear, SynapticDelay
from ..neurons import SpikingNeuron
from ._problems import Finding
from ._vitals import named

TOO_LARGE = 3.0
"""The change of a weight by one step of the optimizer, relative to its norm, above which it is reported."""

TOO_SMALL = 1e-6
"""The largest such change of all weights below which it is reported: float32 has seven digits."""


@dataclass(frozen=True)
class Facts:
    """Properties of the network that the rules of `diagnose` use.

    Args:
        inputs: the inputs of its forward, as in `diagnose`.
        time_first: whether the inputs are sequences [T, B, ...].
        outputs: all its outputs, detached.
        unused: names of the parameters without a gradient.
        frozen: whether it has parameters and none of them requires a gradient.
        bad: names of the parameters with NaN or inf.
        blank: whether the weights of a layer are all 0.
        modules: findings about its modules and about the optimizer, for which no spikes are needed.
    """

    inputs: Sequence[Tensor] = ()
    time_first: bool = False
    outputs: Sequence[Tensor] = ()
    unused: Sequence[str] = ()
    frozen: bool = False
    bad: Sequence[str] = ()
    blank: bool = False
    modules: Sequence[Finding] = ()


def bad_parameters(net: nn.Module) -> list[str]:
    """The names of the parameters and buffers that contain NaN or inf."""
    parameters = [name for name, p in net.named_parameters() if not p.isfinite().all()]
    return parameters + [name for name, b in net.named_buffers() if b.isnan().any()]  # inf may be on purpose


def has_blank_weights(net: nn.Module) -> bool:
    """Whether the weights of a layer are all 0."""
    return any(p.dim() > 1 and p.numel() > 0 and not p.any() for p in net.parameters())


def hidden_layers(net: nn.Module) -> list[Finding]:
    """The layers that a module holds in a plain list or dict."""
    return [finding for path, module in net.named_modules() for finding in _of_lists(net, path, module)]


# -- modules -----------------------------------------------------------------------------------------------------------


def of_modules(net: nn.Module, steps: int) -> Iterator[Finding]:
    """Problems that the modules show without a run of them over `steps` steps."""
    yield from hidden_layers(net)
    for path, module in net.named_modules():
        if isinstance(module, SpikingNeuron):
            yield from _of_decays(path, module)
        elif isinstance(module, BatchNorm):
            yield from _of_statistics(path, module)
        elif isinstance(module, SynapticDelay | DelayedLinear) and steps:
            yield from _of_delays(path, module, steps)


def _of_lists(net: nn.Module, path: str, module: nn.Module) -> Iterator[Finding]:
    registered = set(net.modules())
    for name, held in vars(module).items():
        if name.startswith("_") or not isinstance(held, list | tuple | dict):
            continue
        layers = held.values() if isinstance(held, dict) else held
        hidden = [m for m in layers if isinstance(m, nn.Module) and m not in registered and _matters(m)]
        if hidden:
            kinds = ", ".join(dict.fromkeys(type(m).__name__ for m in hidden))
            where = f"{path}.{name}" if path else name
            cure = "nn.ModuleDict" if isinstance(held, dict) else "nn.ModuleList"
            yield Finding(
                f"{where} is a {type(held).__name__} that holds layers ({kinds}), so that parameters() and reset do "
                f"not find them; use an {cure}",
                "unregistered layers",
                (where,),
            )


def _matters(module: nn.Module) -> bool:
    return isinstance(module, SpikingNeuron) or next(module.parameters(), None) is not None


def _of_decays(path: str, neuron: Any) -> Iterator[Finding]:
    if neuron.decay != "clamp":
        return
    label = named(path, type(neuron).__name__)
    for name in neuron._model.decays if hasattr(neuron._model, "decays") else ():
        value = getattr(neuron, name, None)
        if not isinstance(value, Tensor) or not value.numel() or not value.isfinite().all():
            continue
        low, high = float(value.detach().min()), float(value.detach().max())
        if low < 0 or high > 1:
            worst = high if high > 1 else low
            learned = isinstance(value, nn.Parameter)
            yield Finding(
                f"{label}: its {name} is {worst:.3g} and is used as {float(worst > 1):g}, because a decay "
                f"is clamped to 0 to 1{', where it has no gradient' * learned}; choose a value between 0 and 1"
                + ', or decay="sigmoid", which cannot leave that range'
                * learned,
                "decay out of range",
                (path,),
            )


def _of_statistics(path: str, norm: Any) -> Iterator[Finding]:
    mean, var, seen = norm.running_mean, norm.running_var, norm.num_batches_tracked
    if norm.training or mean is None or var is None or seen is None or int(seen):
        return
    if not mean.any() and bool((var == 1).all()):
        label = named(path, type(norm).__name__)
        yield Finding(
            f"{label}: it is in eval mode, but has not seen any batch, so that it does not normalize; call "
            "net.train(), or run some batches in training mode first",
            "unset statistics",
            (path,),
        )


def _of_delays(path: str, module: SynapticDelay | DelayedLinear, steps: int) -> Iterator[Finding]:
    lags = module.lags.flatten()
    late = float((lags >= steps).double().mean()) if lags.numel() else 0.0
    if late >= 0.5:
        label, share = named(path, type(module).__name__), f"{late:.0%}".replace("%", " %")
        yield Finding(
            f"{label}: {share} of its delays, up to {int(lags.max())} steps, are not shorter than the "
            f"sequence of {steps} steps, so that nothing arrives; shorten the delays, or run more steps",
            "delay beyond the sequence",
            (path,),
        )


# -- the optimizer -----------------------------------------------------------------------------------------------------


def of_optimizer(
    net: nn.Module, optimizer: torch.optim.Optimizer, gradients: Mapping[str, Tensor | None]
) -> Iterator[Finding]:
    """Problems that one step of a copy of the optimizer shows."""
    names = {id(p): name for name, p in net.named_parameters()}
    own = [p for group in optimizer.param_groups for p in group["params"]]
    present = {id(p) for p in own}
    if absent := [name for name, p in net.named_parameters() if p.requires_grad and id(p) not in present]:
        yield Finding(
            f"{', '.join(absent)}: not in the optimizer, and therefore never updated; create the optimizer from "
            "net.parameters() after the network is complete and on its device",
            "not optimized",
        )
    trial = copy.deepcopy(optimizer)  # of the parameters too
    copies = [p for group in trial.param_groups for p in group["params"]]
    for p, copied in zip(own, copies, strict=True):
        grad = gradients.get(names.get(id(p), ""))
        copied.grad = None if grad is None else grad.detach().clone()
    try:
        with torch.enable_grad():
            trial.step()
    except TypeError:  # one that calls the network itself, such as LBFGS
        return
    changes = {}
    for p, copied in zip(own, copies, strict=True):
        norm = float(p.detach().norm())
        if copied.grad is not None and p.dim() > 1 and norm > 0:
            changes[names.get(id(p), "a parameter of another network")] = float((copied - p).detach().norm()) / norm
    if not changes:
        return
    name, most = max(changes.items(), key=lambda change: change[1])
    if most > TOO_LARGE:
        yield Finding(
            f"{name}: one step of the optimizer changes it by {most:.2g} times its norm; lower the learning rate about "
            f"{10 ** math.ceil(math.log10(most / 0.1)):g} times",
            "learning rate",
        )
    elif most < TOO_SMALL and any(copied.grad is not None and copied.grad.any() for copied in copies):
        yield Finding(
            f"one step of the optimizer changes no weight by more than {most:.1g} of its norm; raise the learning rate",
            "learning rate",
        )

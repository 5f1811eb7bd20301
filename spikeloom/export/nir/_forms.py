"""The NIR form of a neuron, derived from its equation: which primitive it is, with which values, or why it is none.

NIR describes a neuron by a differential equation. One Euler step of length dt of it is the charge of the equation:

    tau dv/dt = v_leak - v + r x      mem' = beta * mem + gain * x + offset
    tau = dt / (1 - beta),  r = gain / (1 - beta),  v_leak = offset / (1 - beta)

A spike (v > v_threshold) sets v to v_reset in the same step: reset_mechanism="zero" with reset_delay=False.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ... import surrogate
from ...cells.firing import Model
from ...cells.linear import Linear, broadcast, is_readout, linear_form
from ...neurons import SpikingNeuron
from ...neurons._parameters import is_ours
from ._package import nir_package

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """A neuron as NIR represents it, with values in steps, each of the neuron's shape.

    Args:
        linear: its charge.
        fires: whether its output is spikes; else it is the membrane.
        threshold: None for a readout.
        v_reset: the membrane after a spike.
        resets: whether a spike resets the membrane at all.
        missing: what the form omits, as sentences; empty if it is exact.
    """

    linear: Linear
    fires: bool
    threshold: Tensor | None
    v_reset: Tensor
    resets: bool = True
    missing: tuple[str, ...] = ()


class NoForm(ValueError):
    """A layer that NIR cannot express; the message says why, and what comes nearest."""


def form_of(neuron: Any, shape: Shape, resets: tuple[str, bool] = ("zero", False)) -> Form:
    """The form of a neuron for steps of this shape; raises `NoForm` if there is not even an approximate one.

    Args:
        neuron: the layer.
        shape: of a step, without the batch.
        resets: the reset that readers of the graph apply, and whether they do so one step after the spike.
    """
    if getattr(neuron, "_without_steps", False) or not hasattr(neuron, "model"):
        raise NoForm("it has no equation of one step; the nearest is Leaky with reset_mechanism='none'")
    model = neuron.model
    if model.nearest is not None and model.nearest.form is None:
        raise NoForm(_far(model))
    like = torch.zeros(shape, dtype=torch.float64)
    values = {name: value.detach().cpu().double() for name, value in neuron._values(copied=False).items()}
    for name, value in values.items():
        if value.isnan().any():
            raise NoForm(f"its {name} is NaN")
        try:
            value.expand(shape)
        except RuntimeError:
            raise NoForm(f"its {name} has shape {tuple(value.shape)}, which does not fit its input {shape}") from None
    return _within_nir(_form(neuron, values, like, resets))


def _form(neuron: Any, values: Mapping[str, Tensor], like: Tensor, resets: tuple[str, bool]) -> Form:
    model, linear = neuron.model, None
    if isinstance(model, Model) and model.inputs == 1:
        linear = linear_form(model.charging(neuron.decay, values), len(model.charged), like)
    if linear is not None:
        return _framed(neuron, broadcast(linear, like), values, like, resets)
    if not isinstance(model, Model) and not model.recurrent:
        states = len(model.states)

        def step(*args: Tensor) -> tuple[Tensor, ...]:
            outs: tuple[Tensor, ...] = neuron._program.cell(*args, **values)
            return outs

        if is_readout(step, states, like):
            linear = linear_form(lambda *args: step(*args)[1:], states, like)
        if linear is not None:
            return Form(broadcast(linear, like), False, None, like, missing=tuple(by_methods(neuron)))
    if model.nearest is None or model.nearest.form is None:
        raise NoForm(_far(model))
    return _nearest(neuron, values, like, resets)


def _within_nir(form: Form) -> Form:
    """The form with decays from 0 to 1 and a threshold from v_reset on; what that changes is missing."""
    for name, value in {**vars(form.linear), "threshold": form.threshold, "v_reset": form.v_reset}.items():
        if value is not None and not value.isfinite().all():
            raise NoForm(f"its {name} is not finite; the nearest to a threshold that is never reached is a large one")
    missing = list(form.missing)
    decays = {name: value for name in ("alpha", "beta") if (value := getattr(form.linear, name)) is not None}
    for value in decays.values():
        outside = value[(value < 0) | (value > 1)]
        if outside.numel():
            missing.append(
                f"a decay of {outside.flatten()[0]:.3g} per step; NIR's time constants give, and the nearest "
                "is, one from 0 to 1"
            )
    threshold = form.threshold
    if threshold is not None and form.resets:
        if (threshold < form.v_reset).any():
            missing.append("a threshold below the membrane after a reset; the nearest is that membrane")
        threshold = threshold.maximum(form.v_reset)
    linear = replace(form.linear, **{name: value.clamp(0, 1) for name, value in decays.items()})
    return replace(form, linear=linear, threshold=threshold, missing=tuple(missing))


def _far(model: Any) -> str:
    near = f"the nearest is {model.nearest.description}" if model.nearest is not None else "none comes near it"
    return f"its equation, with its values, is not that of a leaky integrator; {near}"


def _framed(neuron: Any, linear: Linear, values: Mapping[str, Tensor], like: Tensor, reader: tuple[str, bool]) -> Form:
    threshold = values["threshold"].expand_as(like)
    resets = neuron.reset_mechanism != "none"
    missing = tuple(_missing(neuron, values, reader))
    return Form(linear, True, threshold, like, resets, missing)


def _missing(neuron: Any, values: Mapping[str, Tensor], reader: tuple[str, bool]) -> Iterator[str]:
    """What a reader cannot represent of a neuron with the standard frame, each with the nearest that it can."""
    mechanism, delayed = reader
    who = (
        "NIR sets the membrane to v_reset at once" if not delayed else "the target subtracts the threshold a step later"
    )
    cure = f"the nearest is reset_mechanism={mechanism!r} and reset_delay={delayed}"
    if neuron.reset_mechanism not in (mechanism, "none"):
        yield f"reset_mechanism={neuron.reset_mechanism!r}: {who}; {cure}"
    elif neuron.reset_mechanism != "none" and neuron.reset_delay != delayed:
        description = "one step after the spike" if neuron.reset_delay else "in the step of the spike"
        yield f"a reset {description}: {who}; {cure}"
    if (values["graded_spikes_factor"] != 1).any():
        yield "graded spikes: NIR's are 1; the nearest is graded_spikes_factor=1, with GradedSpikes after it"
    if type(neuron)._drive is not SpikingNeuron._drive:
        yield f"the noise of {type(neuron).__name__}; the nearest is Leaky"
    yield from by_methods(neuron)


def by_methods(neuron: Any) -> Iterator[str]:
    """What a neuron does beside its equation, which metadata do not hold either, each with the nearest."""
    if not is_ours(neuron.forward):
        yield f"a forward of its own ({type(neuron).__name__}); the nearest is the neuron without it"
    for reason in neuron._why_by_methods():
        yield f"{reason}, which NIR cannot express; the nearest is the neuron without it"
    spike = neuron.spike_grad
    if not (neuron.surrogate_disable or isinstance(spike, surrogate.Spike)):
        above = torch.tensor([-2.0, -1e-3, 0.0, 1e-3, 2.0])
        with torch.no_grad():
            fires = spike(above)
        if not torch.equal(fires, (above > 0).float()):
            yield (
                f"the spike function {getattr(spike, '__name__', type(spike).__name__)}, which is not 1 above 0 and 0 "
                "elsewhere; the nearest are those of spikeloom.surrogate"
            )


def _nearest(neuron: Any, values: Mapping[str, Tensor], like: Tensor, resets: tuple[str, bool]) -> Form:
    model = neuron.model
    bounds = {name: values[name].clamp(0, 1) for name in model.decays if neuron.decay == "clamp"}
    given = {
        name: value.expand_as(like) for name, value in model.nearest.form({**_own(neuron, values), **bounds}).items()
    }
    one, zero = torch.ones_like(like), like
    alpha = given.get("alpha")
    linear = Linear(
        beta=given["beta"],
        gain=given.get("gain", one),
        offset=given.get("offset", zero),
        alpha=alpha,
        weight=None if alpha is None else one,
    )
    description = f"the equation of {type(neuron).__name__}; the nearest is {model.nearest.description}"
    more = tuple(_missing(neuron, values, resets)) if isinstance(model, Model) else tuple(by_methods(neuron))
    return Form(linear, True, given["threshold"], given.get("v_reset", zero), True, (description, *more))


def _own(neuron: Any, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values with their decays computed from the stored parameters."""
    return {
        name: getattr(neuron, name).detach().cpu().double() if name in neuron.model.decays else value
        for name, value in values.items()
    }


# -- to nodes ----------------------------------------------------------------------------------------------------------


def nodes_of(form: Form, dt: float, dtype: Any) -> list[tuple[str, Any]]:
    """The nodes of a form, one after the other, each with a suffix of its name."""
    nir = nir_package()
    linear, one = form.linear, 1.0
    leak = one - linear.beta
    integrates = bool((leak == 0).all()) and linear.alpha is None and not linear.offset.any()
    least = 2.0**-26 if dtype == np.float32 else 2.0**-55  # 1 - least is 1, so that nothing decays
    leak = leak if integrates else leak.clamp(min=least)

    def array(value: Tensor) -> np.ndarray[Any, Any]:
        return np.array(value.expand(linear.beta.shape).numpy(), dtype=dtype)

    if integrates:
        fields: dict[str, Any] = {"r": array(linear.gain / dt)}
        kind, silent = "IF", "I"
    else:
        fields = {"r": array(linear.gain / leak), "v_leak": array(linear.offset / leak)}
        fields["tau" if linear.alpha is None else "tau_mem"] = array(dt / leak)
        kind, silent = "LIF", "LI"
        if linear.alpha is not None:
            assert linear.weight is not None
            leak_syn = (one - linear.alpha).clamp(min=least)
            fields["tau_syn"], fields["w_in"] = array(dt / leak_syn), array(linear.weight / leak_syn)
            kind, silent = "CubaLIF", "CubaLI"
    if not form.fires:
        return [("", getattr(nir, silent)(**fields))]
    assert form.threshold is not None
    if not form.resets:
        return [("li", getattr(nir, silent)(**fields)), ("threshold", nir.Threshold(array(form.threshold)))]
    fields |= {"v_threshold": array(form.threshold), "v_reset": array(form.v_reset)}
    return [("", getattr(nir, kind)(**fields))]

"""Neurons as layers: the equation, its parameters as numbers, and the weights that feed back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ... import ops, surrogate
from ...cells.cell import Cell
from ...cells.firing import FRAME_PARAMS
from ...engine.graph import Program, program_for
from ...neurons import (
    SLSTM,
    AssociativeLeaky,
    DeltaLeaky,
    LeakyParallel,
    LinearLeaky,
    NoisyLeaky,
    SConv2dLSTM,
    SpikingNeuron,
    StateLeaky,
)
from ...neurons._parameters import checked_params, is_ours
from ...neurons._sequence import WholeSequence
from ...neurons.recurrent import Recurrent
from .elementwise import function_layer
from .equation import equation_of
from .errors import label, refuse
from .layers import Array, Conv, Layer, Linear, Neuron, Pool, Product, pair
from .moves import pick

Written = tuple[list[Layer], tuple[Any, ...]]
"""The layers of a module, and the arrays that it returns, or tuples of them."""

HAS_NO_FORM: Mapping[type[nn.Module], str] = {
    NoisyLeaky: "it draws random numbers at every step; replace it by a Leaky",
}


def neuron_layers(path: str, name: str, neuron: SpikingNeuron, x: Array, dtype: torch.dtype) -> Written:
    """The layers of a neuron for an input: weights of its own, then its equation."""
    what = label(path, neuron)
    for kind, why in HAS_NO_FORM.items():
        if isinstance(neuron, kind):
            refuse(what, why)
    _check_methods(what, neuron)
    if isinstance(neuron, SLSTM):
        return _lstm(path, name, neuron, x, dtype)
    if isinstance(neuron, SConv2dLSTM):
        return _conv_lstm(path, name, neuron, x, dtype)
    if isinstance(neuron, AssociativeLeaky):
        return _associative(path, name, neuron, x, dtype)
    if isinstance(neuron, WholeSequence):
        return _sequence(path, name, neuron, x, dtype)
    program = _program(what, neuron)
    layers: list[Layer] = []
    shape = x.shape
    spk, xs = Array(name, shape), [x]
    states = program.cell.states
    if isinstance(neuron, Recurrent) and neuron._through_layer:
        feedback = neuron.recurrent
        back = Array(f"{name}_back", shape)
        layers.append(_weights(f"{path}.recurrent", back.name, feedback, spk, back, dtype))
        xs.append(back)
    made = _neuron(path, name, neuron, program, tuple(xs), spk, neuron._values(copied=False), dtype)
    returned = [made.states[s] for s in states if not (isinstance(neuron, Recurrent) and s == "spk")]
    if isinstance(neuron, DeltaLeaky):
        return [*layers, made], (spk, tuple(returned))
    return [*layers, made], (spk, *returned)


def _check_methods(what: str, neuron: SpikingNeuron) -> None:
    why = "; ".join(neuron._why_by_methods())
    if not is_ours(type(neuron).forward) or "forward" in vars(neuron):
        why = f"{type(neuron).__name__} overrides forward"
    if why:
        refuse(what, f"{why}, which runs in Python; write the neuron as an equation with snn.cell")


def _program(what: str, neuron: SpikingNeuron) -> Program:
    """The program of the equation, whatever the derivative of its spikes is."""
    program = neuron._program
    if not program.untraceable:
        return program
    probe = torch.tensor([-2.0, -1e-3, -0.0, 0.0, 1e-3, 2.0, float("inf"), float("nan")])
    with torch.no_grad():
        fired = neuron.spike_grad(probe)
    if not isinstance(fired, Tensor) or not torch.equal(fired, (probe > 0).to(fired.dtype)):
        refuse(what, f"its spike function {neuron.spike_grad!r} is not the step function")
    program = program_for(program.cell, surrogate.no_gradient())
    if program.untraceable:
        refuse(what, program.untraceable)
    return program


def _neuron(
    path: str,
    name: str,
    neuron: SpikingNeuron,
    program: Program,
    xs: tuple[Array, ...],
    spk: Array,
    params: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> Neuron:
    like = torch.zeros(spk.shape, dtype=dtype)
    values = {k: p.detach().cpu().to(dtype) for k, p in params.items() if k in program.cell.params}
    for key, p in values.items():  # [1, C, 1, 1] for a sample [C, H, W]
        while p.dim() > like.dim() and p.shape[0] == 1:
            p = p[0]
        values[key] = p
    checked = checked_params(values, like, dtype, lambda: label(path, neuron))
    starts = {state: float(neuron._model.initial.get(state, 0.0)) for state in program.cell.states}
    equation = equation_of(label(path, neuron), program, checked, like, starts)
    states = {state: Array(f"{name}_{state}", spk.shape) for state in program.cell.states}
    lost = [f"the surrogate gradient, {neuron.spike_grad!r}"] if hasattr(neuron, "spike_grad") else []
    lost += [f"{own} was learned and is a constant" for own, p in neuron.named_parameters(recurse=False)]
    title = f"{label(path, neuron)}: {neuron.extra_repr()}"
    return Neuron(name, title, xs, spk, equation, states, tuple(f"{label(path, neuron)}: {line}" for line in lost))


def _weights(path: str, name: str, module: nn.Module, x: Array, y: Array, dtype: torch.dtype) -> Layer:
    """A recurrent layer."""
    if type(module) is nn.Linear:
        return linear(name, label(path, module), module.weight, module.bias, x, y, dtype)
    if type(module) is nn.Conv2d and module.padding_mode == "zeros":
        return conv(name, label(path, module), module, x, y, dtype)
    return refuse(label(path, module), "spikes can be fed back through an nn.Linear or an nn.Conv2d")


def linear(
    name: str, title: str, weight: Tensor, bias: Tensor | None, x: Array, y: Array, dtype: torch.dtype
) -> Linear:
    """A Linear layer of these weights."""
    own = weight.detach().cpu().to(dtype)
    shift = torch.zeros(len(own), dtype=dtype) if bias is None else bias.detach().cpu().to(dtype)
    return Linear(name, title, (x,), y, own, shift)


def _conv_lstm(path: str, name: str, neuron: SConv2dLSTM, x: Array, dtype: torch.dtype) -> Written:
    what, own, (_, height, width) = label(path, neuron), neuron.conv, x.shape
    sizes = [-(-n // step) for n, step in zip((height, width), neuron.stride, strict=True)]
    shape = (neuron.out_channels, *sizes)
    gates, back = (Array(f"{name}_{end}", (4 * shape[0], *sizes)) for end in ("gates", "back"))
    mem = Array(f"{name}_mem", shape)
    weight, none = own.weight.detach().cpu().to(dtype), torch.zeros(len(own.weight), dtype=dtype)
    bias = none if own.bias is None else own.bias.detach().cpu().to(dtype)
    of_x, of_mem = weight[:, : neuron.in_channels], weight[:, neuron.in_channels :]
    more = (neuron.padding, neuron.dilation, 1)
    made: list[Layer] = [
        Conv(gates.name, f"{what}: conv, of the input", (x,), gates, of_x, bias, neuron.stride, *more),
        Conv(back.name, f"{what}: conv, of mem", (mem,), back, of_mem, none, (1, 1), *more),
    ]
    pooled = neuron.max_pool or neuron.avg_pool
    spk = Array(f"{name}_whole" if pooled else name, shape)
    program, values = _program(what, neuron), neuron._values(copied=False)
    own_neuron = _neuron(path, name, neuron, program, (gates, back), spk, values, dtype)
    own_neuron.name, states = spk.name, own_neuron.kept
    made.append(own_neuron)
    if pooled:
        threshold, kernel = neuron.threshold.detach(), pair(pooled, images=True)
        if threshold.numel() != 1:
            refuse(what, "it pools its membrane and has several thresholds")
        number, kind = float(threshold), "max" if neuron.max_pool else "avg"
        u = Array(f"{name}_pooled", (shape[0], sizes[0] // kernel[0], sizes[1] // kernel[1]))
        divisors = torch.full(u.shape[1:], float(kernel[0] * kernel[1]))
        windows = (kernel, kernel, (0, 0), (1, 1))
        made.append(Pool(u.name, f"{what}: {kind}_pool of mem", states[-1:], u, kind, *windows, divisors))
        made.append(function_layer(name, f"{what}: its spikes", lambda u: ops.spike(u - number), (u,), u.shape, dtype))
    return made, (made[-1].y, *states)


def conv(name: str, title: str, module: nn.Conv1d | nn.Conv2d, x: Array, y: Array, dtype: torch.dtype) -> Conv:
    """A convolution of this module."""
    images = isinstance(module, nn.Conv2d)
    weight = module.weight.detach().cpu().to(dtype)
    weight = weight if images else weight.unsqueeze(2)
    bias = torch.zeros(len(weight), dtype=dtype) if module.bias is None else module.bias.detach().cpu().to(dtype)
    dilation = pair(module.dilation, images)
    if isinstance(module.padding, str):
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        padding = (spans[0] // 2, spans[1] // 2) if module.padding == "same" else (0, 0)
    else:
        padding = pair(module.padding, images, first=0)
    return Conv(name, title, (x,), y, weight, bias, pair(module.stride, images), padding, dilation, module.groups)


def _sequence(path: str, name: str, neuron: WholeSequence, x: Array, dtype: torch.dtype) -> Written:
    """A neuron over whole sequences, as the equation of one step; it has no feedback from spikes."""
    what, layers = label(path, neuron), list[Layer]()
    program, current = _program(what, neuron), x
    values: Mapping[str, Tensor]
    if isinstance(neuron, LeakyParallel):
        current = Array(f"{name}_current", (neuron.hidden_size,))
        rnn = neuron.rnn
        bias = rnn.bias_ih_l0 + rnn.bias_hh_l0 if rnn.bias else None
        layers.append(linear(current.name, f"{what}: rnn", rnn.weight_ih_l0, bias, x, current, dtype))
        values = {key: getattr(neuron, key) for key in FRAME_PARAMS}
        if not neuron.weight_hh_enable:
            values = {**values, "weight": rnn.weight_hh_l0.diagonal()}
    elif isinstance(neuron, StateLeaky):
        if neuron.kernel_truncation_steps is not None:
            refuse(what, "kernel_truncation_steps needs the inputs of the last steps")
        if isinstance(neuron, LinearLeaky):
            current = Array(f"{name}_current", (neuron.linear.out_features,))
            own = neuron.linear
            layers.append(linear(current.name, f"{what}: linear", own.weight, own.bias, x, current, dtype))
        if neuron.state_quant:
            refuse(what, "state_quant is a user function")
        values = neuron._values(copied=False)
    else:
        refuse(what, "it has no form of one step")
    if neuron._fires_by_method() and neuron._is_overridden("fire"):
        refuse(what, f"{type(neuron).__name__} overrides fire, which runs in Python")
    spk, xs = Array(name, current.shape), [current]
    if isinstance(neuron, LeakyParallel) and neuron.weight_hh_enable:
        back = Array(f"{name}_back", current.shape)
        mem = Array(f"{name}_mem", current.shape)
        layers.append(linear(back.name, f"{what}: rnn", neuron.rnn.weight_hh_l0, None, mem, back, dtype))
        xs.append(back)
    made = _neuron(path, name, neuron, program, tuple(xs), spk, values, dtype)
    outs: tuple[Array, ...] = (spk,) if isinstance(neuron, LeakyParallel) else (spk, made.states["mem"])
    return [*layers, made], outs if getattr(neuron, "output", True) or len(outs) == 1 else outs[1:]


def _associative(path: str, name: str, neuron: AssociativeLeaky, x: Array, dtype: torch.dtype) -> Written:
    """A matrix of leaky integrators: each entry is driven by the product of an element of v and one of k."""
    what, shape = label(path, neuron), (neuron.d_value, neuron.d_key)
    layers = list[Layer]()

    def projected(own: str) -> Array:
        module = getattr(neuron, f"to_{own}")
        y = Array(f"{name}_{own}", (module.out_features,))
        layers.append(linear(y.name, f"{what}: to_{own}", module.weight, module.bias, x, y, dtype))
        return y

    def spread(y: Array, places: Tensor, over: str) -> Array:
        layers.append(pick(f"{y.name}_{over}", f"{what}: {y.name} for each entry", y, places.expand(shape)))
        return layers[-1].y

    v, k, alpha = map(projected, ("v", "k", "alpha"))
    layers.append(function_layer(f"{name}_gate", f"{what}: its gate", ops.sigmoid, (alpha,), alpha.shape, dtype))
    rows, columns = torch.arange(shape[0])[:, None], torch.arange(shape[1])
    gates, values, keys = (
        spread(layers[-1].y, columns, "entries"),
        spread(v, rows, "entries"),
        spread(k, columns, "entries"),
    )

    def entry(x: tuple[Any, ...], mem: Any, *, threshold: Any, graded_spikes_factor: Any) -> tuple[Any, ...]:
        value, key, gate = x
        mem = gate * mem + value * key
        return ops.spike(mem - threshold) * graded_spikes_factor, mem

    if neuron._fires_by_method() and neuron._is_overridden("fire"):
        refuse(what, f"{type(neuron).__name__} overrides fire, which runs in Python")
    program = program_for(Cell(what, entry, ("mem",), FRAME_PARAMS, inputs=3), surrogate.no_gradient())
    spk = Array(f"{name}_spk" if neuron.use_q_projection else name, shape)
    values_of = {key: getattr(neuron, key) for key in FRAME_PARAMS}
    layers.append(_neuron(path, spk.name, neuron, program, (values, keys, gates), spk, values_of, dtype))
    if not neuron.use_q_projection:
        return layers, (Array(name, (spk.size,)),)
    query = Array(projected("q").name, (shape[1], shape[0]))
    layers.append(Product(name, f"{what}: spikes times q", (spk, query), Array(name, (shape[0], shape[0]))))
    return layers, (Array(name, (shape[0] ** 2,)),)


def _lstm(path: str, name: str, neuron: SLSTM, x: Array, dtype: torch.dtype) -> Written:
    what, cell = label(path, neuron), neuron.lstm_cell
    if neuron.memoryless:
        refuse(what, "memoryless=True has no states")
    shape = (4 * neuron.hidden_size,)
    gates, back = Array(f"{name}_gates", shape), Array(f"{name}_back", shape)
    spk = Array(name, (neuron.hidden_size,))
    mem = Array(f"{name}_mem", spk.shape)
    bias = cell.bias_ih + cell.bias_hh if neuron.bias else None
    layers: list[Layer] = [
        linear(gates.name, f"{what}: weight_ih", cell.weight_ih, bias, x, gates, dtype),
        linear(back.name, f"{what}: weight_hh", cell.weight_hh, None, mem, back, dtype),
    ]
    made = _neuron(path, name, neuron, _program(what, neuron), (gates, back), spk, neuron._values(copied=False), dtype)
    return [*layers, made], (spk, made.states["syn"], made.states["mem"])


def returns_one(neuron: SpikingNeuron) -> bool:
    """Whether a neuron returns its spikes alone."""
    if isinstance(neuron, WholeSequence):
        return isinstance(neuron, (LeakyParallel, AssociativeLeaky)) or not neuron.output
    return neuron.init_hidden and not neuron.output and not isinstance(neuron, DeltaLeaky)

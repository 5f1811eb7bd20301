"""Random networks, unrolled in every way, against the loop over steps on the same weights.

A network is described by plain data (`Spec`), so that one that differs can be made smaller: layers and options are
taken away as long as it still differs. `run` returns the smallest ones, in words.
"""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.functional.quant import state_quant

WAYS = ("unroll", "unroll, checkpoint", "stream", "stream, accelerated", "unroll, accelerated", "steps, accelerated")
ALL_AT_ONCE = ("unroll", "unroll, accelerated")
"""The ways of networks that have no steps, or other values step by step; they are compared with the plain loop."""

LIMITS = {
    "linear_least_work": 0,
    "linear_least_rows": 0,
    "linear_listing": 0,
    "narrow_from": 0,
    "conv_least_work": 0,
    "conv_least_channels": 0,
    "conv_least_inputs": 0,
    "pooling_least_values": 0,
}
NEURONS: dict[str, dict[str, Any]] = {
    "Leaky": {"beta": 0.8},
    "Synaptic": {"alpha": 0.7, "beta": 0.8},
    "RLeaky": {"beta": 0.8, "all_to_all": False, "V": -0.4},
    "RSynaptic": {"alpha": 0.7, "beta": 0.8, "all_to_all": False, "V": 0.4},
    "Lapicque": {"R": 5.0, "C": 1.0},
    "Alpha": {"alpha": 0.9, "beta": 0.6},
    "DeltaLeaky": {"beta": 0.8, "delta_threshold": 0.3},
    "IF": {},
    "LI": {"beta": 0.8},
    "ParametricLIF": {},
    "ALIF": {"beta": 0.8},
    "AdLIF": {"beta": 0.5},
    "QIF": {},
    "EIF": {},
    "ResonateFire": {},
    "CuBaLIF": {"period": 2.0},
    "Izhikevich": {},
    "NoisyLeaky": {"beta": 0.8, "sigma": 0.3},
    "SLSTM": {"input_size": 6, "hidden_size": 6, "threshold": 0.05},
    "SConv2dLSTM": {"in_channels": 2, "out_channels": 2, "kernel_size": 3, "threshold": 0.05},
    "AssociativeLeaky": {"in_dim": 6, "d_value": 2, "d_key": 3, "num_spiking_neurons": 6, "use_q_projection": False},
    "LeakyParallel": {"input_size": 6, "hidden_size": 6, "beta": 0.8},
    "StateLeaky": {"beta": 0.8, "channels": 6},
}
WHOLE = ("AssociativeLeaky", "LeakyParallel", "StateLeaky")
"""Those that take whole sequences alone."""

OF_ROWS, OF_IMAGES = ("SLSTM", *WHOLE), ("SConv2dLSTM",)
COMMON = ("Leaky", "Synaptic", "RLeaky", "RSynaptic", "Lapicque", "Alpha")
"""Those with snnTorch's options."""

LACKS = {
    "Synaptic": ("graded_spikes_factor",),
    "RLeaky": ("graded_spikes_factor",),
    "RSynaptic": ("graded_spikes_factor",),
    "Lapicque": ("graded_spikes_factor", "reset_delay", "learn_beta"),
    "Alpha": ("graded_spikes_factor", "reset_delay"),
}
MORE = {
    "SLSTM": {"reset_mechanism": ["subtract", "zero", "none"], "inhibition": [False, True]},
    "SConv2dLSTM": {"reset_mechanism": ["subtract", "zero", "none"], "learn_threshold": [False, True]},
    "LeakyParallel": {"weight_hh_enable": [False, True], "learn_beta": [False, True]},
    "StateLeaky": {"kernel_truncation_steps": [None, 2], "exact": [False, True], "learn_beta": [False, True]},
}
"""The options of others."""


@dataclass(frozen=True)
class Part:
    """A layer, or a branch of layers whose result is added to what goes past it."""

    kind: str
    options: tuple[tuple[str, Any], ...] = ()
    parts: tuple["Part", ...] = ()


@dataclass(frozen=True)
class Spec:
    """A network and how it is run."""

    parts: tuple[Part, ...]
    images: bool
    steps: int
    batch: int
    static: bool
    double: bool
    train: bool
    seed: int


def drawn(seed: int) -> Spec:
    """A random network."""
    draw = random.Random(seed)
    images = draw.random() < 0.3
    parts = tuple(_parts(draw, draw.randint(1, 5), images, 0))
    if images and draw.random() < 0.7:
        parts += (Part("Flatten"), _neuron(draw, False))
    if parts[-1].kind in NEURONS and parts[-1].kind not in ("DeltaLeaky", *WHOLE) and draw.random() < 0.3:
        parts = (*parts[:-1], replace(parts[-1], options=(*parts[-1].options, ("output", True))))
    steps, batch = draw.choice([0, 1, 2, 2, 3, 5, 9]), draw.choice([1, 1, 2, 3, 5])
    return Spec(parts, images, steps, batch, draw.random() < 0.3, draw.random() < 0.7, draw.random() < 0.4, seed)


def _parts(draw: random.Random, count: int, images: bool, depth: int) -> Iterator[Part]:
    for _ in range(count):
        kind = draw.random()
        if kind < 0.45:
            yield _neuron(draw, images)
        elif kind < 0.7:
            yield Part("Conv2d" if images else draw.choice(["Linear", "Linear", "DelayedLinear", "Conv1d"]))
        elif kind < 0.8 and depth < 2:
            yield Part(draw.choice(["Branch", "Nest"]), (), tuple(_parts(draw, draw.randint(1, 3), images, depth + 1)))
        else:
            others = [
                "BatchNorm",
                "BatchNorm",
                "BatchNorm in training",
                "Dropout",
                "SynapticDelay",
                "Tanh",
                "LayerNorm",
                "Identity",
            ]
            yield Part(draw.choice([*others, "MaxPool2d", "AvgPool2d"] if images else others))


def _neuron(draw: random.Random, images: bool) -> Part:
    kind = draw.choice(
        [
            *COMMON,
            *(OF_IMAGES if images else OF_ROWS),
            *(k for k in NEURONS if k not in (OF_ROWS if images else OF_IMAGES)),
        ]
    )
    options = dict(NEURONS[kind])
    options |= {name: draw.choice(values) for name, values in MORE.get(kind, {}).items()}
    if kind in COMMON:
        for name, values in {
            "reset_mechanism": ["subtract", "zero", "none"],
            "reset_delay": [True, False],
            "learn_beta": [False, True],
            "learn_threshold": [False, True],
            "inhibition": [False, False, False, True],
            "state_quant": [False, False, False, True],
            "graded_spikes_factor": [1.0, 1.0, 0.7],
            "threshold": [1.0, 0.5],
        }.items():
            value = draw.choice(values)
            if draw.random() < 0.4 and name not in LACKS.get(kind, ()):
                options[name] = value
        if kind in ("RLeaky", "RSynaptic") and draw.random() < 0.5:
            del options["all_to_all"], options["V"]
            options |= {"conv2d_channels": 2, "kernel_size": 3} if images else {"linear_features": 6}
    return Part(kind, tuple(options.items()))


class First(nn.Module):
    """The spikes, of a neuron that always returns its states with them."""

    def forward(self, outs: tuple[Tensor, ...]) -> Tensor:
        return outs[0]


class Stronger(nn.Module):
    """What an Izhikevich neuron needs in order to spike."""

    def forward(self, x: Tensor) -> Tensor:
        return 20 * x


class Branch(nn.Module):
    """x + the layers of x."""

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def built(spec: Spec) -> nn.Module:
    """The network; the same numbers at every call."""
    torch.manual_seed(spec.seed)
    net = nn.Sequential(*_layers(spec.parts, spec.images))
    net = net.double() if spec.double else net
    net.train(spec.train)
    for module in net.modules():
        if isinstance(module, (nn.Dropout, nn.modules.batchnorm._BatchNorm)) and not hasattr(module, "of_batches"):
            module.eval()  # in training they differ by design
    return net


def _layers(parts: tuple[Part, ...], images: bool) -> Iterator[nn.Module]:
    for part in parts:
        if part.kind in NEURONS:
            options = dict(part.options)
            if options.get("state_quant"):
                options["state_quant"] = state_quant(6)
            neuron = getattr(snn, part.kind)(**options, **({} if part.kind in WHOLE else {"init_hidden": True}))
            if part.kind in ("DeltaLeaky", "StateLeaky"):
                neuron = nn.Sequential(neuron, First())
            yield nn.Sequential(Stronger(), neuron) if part.kind == "Izhikevich" else neuron
        elif part.kind in ("Branch", "Nest"):
            inner = nn.Sequential(*_layers(part.parts, images))
            yield Branch(inner) if part.kind == "Branch" else inner
        else:
            yield _layer(part.kind, images)
        images = images and part.kind != "Flatten"


def _layer(kind: str, images: bool) -> nn.Module:
    if kind.startswith("BatchNorm"):
        norm: nn.Module = nn.BatchNorm2d(2) if images else nn.BatchNorm1d(6)
        norm.running_mean.uniform_(-0.2, 0.2)
        if kind == "BatchNorm in training":
            norm.of_batches = True
        return norm
    made = {
        "Linear": lambda: nn.Linear(6, 6),
        "DelayedLinear": lambda: snn.DelayedLinear(6, 6, 3, learn_delay=True),
        "Conv1d": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 2, 3, padding=1), nn.Flatten()),
        "Conv2d": lambda: nn.Conv2d(2, 2, 3, padding=1),
        "MaxPool2d": lambda: nn.MaxPool2d(3, 1, 1),
        "AvgPool2d": lambda: nn.AvgPool2d(3, 1, 1),
        "LayerNorm": lambda: nn.LayerNorm(4 if images else 6),
        "Flatten": lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 6)),
        "Dropout": nn.Dropout,
        "Tanh": nn.Tanh,
        "Identity": nn.Identity,
        "SynapticDelay": lambda: snn.SynapticDelay((2, 1, 1) if images else 6, 3, learn_delay=True),
    }
    return made[kind]()  # type: ignore[no-any-return]


def inputs(spec: Spec) -> Tensor:
    """[T, B, ...], or [B, ...] if it is the same at every step."""
    draw = torch.Generator().manual_seed(spec.seed + 1)
    shape = (spec.batch, 2, 4, 4) if spec.images else (spec.batch, 6)
    x = 3 * torch.rand(shape if spec.static else (spec.steps, *shape), generator=draw, dtype=torch.float64) - 0.5
    return (x if spec.double else x.float()).requires_grad_()


def outcome(spec: Spec, way: str) -> dict[str, Tensor]:
    """What a network returns, its states afterwards and every gradient."""
    net, x = built(spec), inputs(spec)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2.5)
    if way.endswith("accelerated"):
        snn.accelerate(net)
    plainly = snn.backend("loop") if way.endswith("loop") else nullcontext()
    with sparse_from_the_first_value(), plainly:
        return _found(net, x, spec, way)


@contextmanager
def sparse_from_the_first_value() -> Iterator[None]:
    """Accelerated layers run by kernels however small they are."""
    with snn.tuning(**LIMITS):
        yield


def _found(net: nn.Module, x: Tensor, spec: Spec, way: str) -> dict[str, Tensor]:
    out = _ran(net, x, spec, way)
    cotangent = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view(out.shape)
    learned = {"x": x, **{name: p for name, p in net.named_parameters() if p.requires_grad}}
    grads: tuple[Tensor | None, ...] = (None,) * len(learned)
    if out.requires_grad:
        grads = torch.autograd.grad((out * cotangent).sum(), list(learned.values()), allow_unused=True)
    found = {"out": out.detach()}
    for name, module in net.named_modules():
        if isinstance(module, snn.SpikingNeuron) and spec.steps:
            found |= {f"{name}.{state}": getattr(module, state).detach() for state in module._state_names()}
    return found | {f"gradient of {name}": g for name, g in zip(learned, grads, strict=True) if g is not None}


def _ran(net: nn.Module, x: Tensor, spec: Spec, way: str) -> Tensor:
    steps = spec.steps if spec.static else None
    if way.startswith("unroll, checkpoint"):
        return joined(snn.unroll(net, x, steps=steps, checkpoint=2), 2)
    if way.startswith("unroll"):
        return joined(snn.unroll(net, x, steps=steps), 2)
    if way.startswith("stream") and spec.steps > 1:
        first = spec.steps // 2
        if spec.static:  # a chunk has all steps of one input; here in two parts
            return torch.cat([joined(snn.unroll(net, x, steps=count), 2) for count in (first, spec.steps - first)])
        return torch.cat([joined(out, 2) for out in snn.stream(net, [x[:first], x[first:]], detach=False)])
    every = [x] * spec.steps if spec.static else list(x.unbind(0))
    if not every:
        return joined(snn.unroll(net, x, steps=steps), 2)
    return torch.stack([joined(net(x_t), 1) for x_t in every])


def joined(outs: Tensor | tuple[Tensor, ...], lead: int) -> Tensor:
    """Spikes, or spikes and states, in one tensor."""
    return outs if isinstance(outs, Tensor) else torch.cat([out.flatten(lead) for out in outs], lead)


def kinds(parts: tuple[Part, ...]) -> set[str]:
    """Those of all layers."""
    return {part.kind for part in parts}.union(*[kinds(part.parts) for part in parts])


def ways(spec: Spec) -> tuple[str, tuple[str, ...]]:
    """What a network is compared with, and in which ways."""
    at_once = not kinds(spec.parts).isdisjoint((*WHOLE, "BatchNorm in training"))
    return ("unroll, loop", ALL_AT_ONCE) if at_once else ("steps", WAYS)


def difference(spec: Spec, way: str) -> str:
    """What differs from the loop over steps; nothing if nothing does, or the network cannot run by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wanted = outcome(spec, ways(spec)[0])
        except Exception:
            return ""
        try:
            got = outcome(spec, way)
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:300]}"
    for name, expected in wanted.items():
        if name not in got:
            return f"{name} is missing"
        if got[name].shape != expected.shape:
            return f"{name} has shape {tuple(got[name].shape)} for {tuple(expected.shape)}"
        if "NoisyLeaky" in kinds(spec.parts):
            continue  # that it runs is all
        far = (got[name] - expected).abs() > (1e-7 if spec.double else 1e-3) * (1 + expected.abs())
        # in float32 a sum that rounds otherwise may make one spike more, and what follows from it
        if spec.double and bool(far.any()):
            return f"{name} differs by {(got[name] - expected).abs().max().item():.3g}"
        if not spec.double and name == "out" and far.float().mean() > 0.05:
            return f"{far.float().mean():.1%} of {name} differ"
    return ""


def smaller(spec: Spec) -> Iterator[Spec]:
    """The same with a layer or an option less, fewer steps or a smaller batch."""
    for parts in _fewer(spec.parts):
        yield replace(spec, parts=parts)
    for change in ({"steps": spec.steps - 1}, {"batch": 1}, {"static": False}, {"train": False}):
        if change.get("steps", 0) >= 0 and any(getattr(spec, key) != value for key, value in change.items()):
            yield replace(spec, **change)


def _fewer(parts: tuple[Part, ...]) -> Iterator[tuple[Part, ...]]:
    for i, part in enumerate(parts):
        before, after = parts[:i], parts[i + 1 :]
        yield before + after
        if part.parts:
            yield before + part.parts + after
            yield from ((*before, replace(part, parts=inner), *after) for inner in _fewer(part.parts))
        needed = NEURONS.get(part.kind, {})
        for option in part.options:
            if option[0] not in needed:
                yield (*before, replace(part, options=tuple(o for o in part.options if o != option)), *after)


def smallest(spec: Spec, way: str) -> Spec:
    """The smallest network found that still differs."""
    for _ in range(60):
        spec_or_none = next((s for s in smaller(spec) if s.parts and difference(s, way)), None)
        if spec_or_none is None:
            return spec
        spec = spec_or_none
    return spec


def run(count: int, seed: int) -> list[str]:
    """Compare so many random networks in every way; returns what differs, each by the smallest network that does."""
    failures = []
    for number in range(seed, seed + count):
        spec = drawn(number)
        for way in ways(spec)[1]:
            if difference(spec, way):
                found = smallest(spec, way)
                failures.append(f"{way}: {difference(found, way)}\n    {found}")
                break
    return failures

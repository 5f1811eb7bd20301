"""Random networks of the layers that people export, whose sums are exact where that can be."""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import spikeloom as snn
from spikeloom import ops

Shape = tuple[int, ...]


@snn.cell
def Adapting(x, mem, trace, *, beta=0.8, gain=0.3):
    """A neuron of a user's."""
    mem = beta * mem + x
    spk = ops.spike(mem - 1.0 - gain * trace)
    return spk, ops.where(spk > 0, 0.0, mem), ops.clamp(trace + spk - 0.1, 0.0, 4.0)


@snn.cell
def Curved(x, fast, mem, *, tau=3.0, a=0.2):
    """Another one, with functions, quotients and conditions."""
    fast = fast + (ops.tanh(x) - fast) / tau
    mem = ops.maximum(mem * 0.9 + fast + a * ops.abs(x), -1.0)
    spk = ops.spike(mem - 0.5)
    late = ops.where((mem > 0.8) & (fast > 0.1), 2.0 * fast, fast)
    return spk, late, mem * (1 - spk)


@snn.charge(decays=("slow",))
def Slow(x, trace, mem, *, slow=0.9):
    """Two time scales with a standard reset."""
    trace = slow * trace + x
    return trace, 0.5 * mem + trace / 3.0


class First(nn.Module):
    """The spikes of a neuron that returns its states with them."""

    def __init__(self, neuron: nn.Module):
        super().__init__()
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x)[0]


class Scaled(nn.Module):
    """A layer of a multiple of its input."""

    def __init__(self, layer: nn.Module, factor: float):
        super().__init__()
        self.layer, self.factor = layer, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.factor * x)


class Both(nn.Module):
    """Two branches, added or one after another."""

    def __init__(self, one: nn.Module, two: nn.Module, joined: bool):
        super().__init__()
        self.one, self.two, self.joined = one, two, joined

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x), self.two(x)
        return torch.cat((one, two), 1) if self.joined else one + two


class Call(nn.Module):
    """A function."""

    def __init__(self, function: Callable[[Tensor], Tensor], name: str):
        super().__init__()
        self.function, self.name = function, name

    def extra_repr(self) -> str:
        return self.name

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Rounded(nn.Module):
    """Weights of 8 bits with a scale per output."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("scale", weight.detach().abs().flatten(1).amax(1).clamp(min=1e-3) / 127)

    def forward(self, weight: Tensor) -> Tensor:
        zero = torch.zeros(len(weight), dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, self.scale.float(), zero, 0, -127, 127)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "2 * x": lambda x: 2 * x,
    "x - 0.25": lambda x: x - 0.25,
    "1 - x": lambda x: 1 - x,
    "clamp": lambda x: x.clamp(-0.5, 2.0),
    "where": lambda x: torch.where(x > 0.5, x, -x),
    "flip": lambda x: x.flip(1),
    "roll": lambda x: x.roll(1, -1),
    "abs": lambda x: x.abs(),
    "square": lambda x: x**2,
    "gt": lambda x: (x > 0.25).to(x.dtype),
    "sigmoid": lambda x: torch.sigmoid(4 * x),
    "relu": lambda x: torch.relu(x),
    "first half": lambda x: torch.cat((x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :] * 2), 1),
    "round": lambda x: x.round(),
    "softmax": lambda x: x.softmax(1),
}
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.Tanh, nn.Hardtanh,
               nn.Hardsigmoid, nn.Hardswish, nn.GELU, nn.Identity)  # fmt: skip


class Drawer:
    """Draws a network layer by layer; `shape` is that of the last output, without the batch."""

    def __init__(self, seed: int):
        self.draw, self.shape = random.Random(seed), (0,)
        torch.manual_seed(seed)

    def network(self) -> tuple[nn.Module, Shape, int | None]:
        """A network, the shape of its input, and the steps of a static one."""
        draw = self.draw
        given = self.shape = draw.choice([(draw.randint(1, 12),), (draw.randint(1, 4), draw.randint(3, 9)),
                                          (draw.randint(1, 3), draw.randint(3, 7), draw.randint(3, 7))])  # fmt: skip
        layers = [self.layer(2) for _ in range(draw.randint(1, 5))]
        layers.append(self.neuron(output=draw.random() < 0.3))
        return exact(nn.Sequential(*layers), draw).eval(), given, draw.choice([None, None, 7])

    def maybe(self, share: float = 0.5) -> bool:
        return self.draw.random() < share

    def layer(self, depth: int) -> nn.Module:
        """A layer for the shape."""
        kind, draw = self.draw.random(), self.draw
        if kind < 0.35:
            return self.neuron()
        if kind < 0.6:
            return self.weighted()
        if kind < 0.7:
            return draw.choice(ACTIVATIONS)() if self.maybe(0.4) else Call(*reversed(draw.choice([*FUNCTIONS.items()])))
        if kind < 0.78 and depth:
            return self.both(depth)
        return self.other()

    def both(self, depth: int) -> nn.Module:
        before, draw = self.shape, self.draw
        one = nn.Sequential(*[self.layer(depth - 1) for _ in range(draw.randint(1, 2))])
        after, self.shape = self.shape, before
        if after != before:
            self.shape = after
            return one
        two = self.neuron() if self.maybe() else nn.Identity()
        if self.shape != before:
            return nn.Sequential(two)
        joined = self.maybe(0.3)
        self.shape = (2 * before[0], *before[1:]) if joined else before
        return Both(one, two, joined)

    def weighted(self) -> nn.Module:
        """A layer with weights."""
        draw, shape, bias = self.draw, self.shape, self.maybe(0.7)
        if len(shape) == 1 or self.maybe(0.1):
            out = draw.randint(1, 9)
            self.shape = (*shape[:-1], out)
            if len(shape) == 1 and self.maybe(0.15):
                return snn.DelayedLinear(shape[0], out, draw.randint(0, 4), bias=bias, learn_delay=self.maybe())
            return self.quantized(nn.Linear(shape[-1], out, bias=bias))
        kernel = tuple(draw.randint(1, min(3, n)) for n in shape[1:])
        groups, stride, dilation = (shape[0] if self.maybe(0.2) else 1), draw.choice([1, 1, 2]), draw.choice([1, 1, 2])
        padding: Any = draw.choice([(0,) * len(kernel), (1,) * len(kernel), kernel])
        if any(dilation * (k - 1) + 1 > n + 2 * p for k, n, p in zip(kernel, shape[1:], padding, strict=True)):
            dilation = 1
        if self.maybe(0.15):
            padding, stride = "same", 1
        outputs = groups * draw.randint(1, 3)
        kind = nn.Conv1d if len(shape) == 2 else nn.Conv2d
        return self.fitted(self.quantized(kind(shape[0], outputs, kernel, stride, padding, dilation, groups, bias)))

    def quantized(self, module: nn.Module) -> nn.Module:
        if self.maybe(0.12):
            parametrize.register_parametrization(module, "weight", Rounded(module.weight), unsafe=True)
        return module

    def fitted(self, module: nn.Module) -> nn.Module:
        """The module, after which the shape is that of its output."""
        with torch.no_grad():
            self.shape = tuple(module.eval()(torch.zeros(1, *self.shape)).shape[1:])
        return module

    def other(self) -> nn.Module:
        """A norm, pooling, a delay, or another layer without neurons."""
        draw, shape = self.draw, self.shape
        images, first = len(shape) == 3, shape[0]
        found: list[Callable[[], nn.Module]] = [
            lambda: nn.Dropout(0.4),
            lambda: snn.SynapticDelay((first, *[1] * (len(shape) - 1)), draw.randint(0, 4), learn_delay=self.maybe()),
            lambda: snn.GradedSpikes(first, 1.5, dim=1),
            lambda: nn.LayerNorm(shape[-1] if self.maybe() else shape),
            lambda: nn.GroupNorm(1, first),
            lambda: (nn.BatchNorm2d if images else nn.BatchNorm1d)(first, affine=self.maybe()),
            lambda: (snn.BatchNormTT2d if images else snn.BatchNormTT1d)(first, draw.randint(24, 26)),
        ]
        if len(shape) > 1:
            least = min(shape[1:])
            window = draw.randint(1, min(3, least))
            options = {"stride": draw.randint(1, 2), "padding": draw.randint(0, window // 2)}
            pools = (nn.MaxPool1d, nn.AvgPool1d) if len(shape) == 2 else (nn.MaxPool2d, nn.AvgPool2d)
            found += [
                lambda: pools[0](window, ceil_mode=self.maybe(), dilation=1, **options),
                lambda: pools[1](window, ceil_mode=self.maybe(), count_include_pad=self.maybe(), **options),
                lambda: (nn.AdaptiveAvgPool2d if images else nn.AdaptiveAvgPool1d)(draw.choice([1, 1, least])),
                nn.Flatten,
                nn.Flatten,
                lambda: nn.Upsample(scale_factor=2),
                lambda: (nn.ZeroPad2d if images else nn.ZeroPad1d)((1, 0)),
                lambda: Call(lambda x: x.transpose(1, 2), "transpose"),
                lambda: Call(lambda x: x.flatten(2).mean(2), "mean over places"),
            ]
        elif first % 2 == 0:
            found += [lambda: nn.Unflatten(1, (2, first // 2))] * 2
        return self.fitted(draw.choice(found)())

    # -- neurons ------------------------------------------------------------------------------------------------------

    def value(self, low: float, high: float) -> float | Tensor:
        """A parameter: a number, a tensor of one value, per neuron, or per channel."""
        shapes = [(1,), self.shape, (self.shape[0], *[1] * (len(self.shape) - 1)), (1, *self.shape)]
        one = round(self.draw.uniform(low, high), 2)
        if self.maybe(0.6):
            return one
        return torch.tensor(one) if self.maybe(0.3) else torch.rand(self.draw.choice(shapes)) * (high - low) + low

    def neuron(self, output: bool = False) -> nn.Module:
        """A neuron for the shape, with options."""
        draw, shape, v = self.draw, self.shape, self.value
        resets = {"reset_mechanism": draw.choice(["subtract", "zero", "none"])}
        learn = {"learn_beta": self.maybe(0.3), "learn_threshold": self.maybe(0.3)}
        common = {"threshold": v(0.3, 1.2), "spike_grad": draw.choice([None, snn.surrogate.fast_sigmoid(), step]),
                  **resets, **learn}  # fmt: skip
        common |= {"inhibition": True} if self.maybe(0.04) else {}
        common |= {"state_quant": torch.round} if self.maybe(0.04) else {}
        late = {"reset_delay": self.maybe(0.7)}
        ways = {"decay": draw.choice(["clamp", "clamp", "sigmoid", "tau"])}
        graded = {"graded_spikes_factor": v(0.5, 2.0)} if self.maybe(0.2) else {}
        graded |= {"learn_graded_spikes_factor": True} if self.maybe(0.1) else {}
        feed: dict[str, Any] = {"all_to_all": False, "V": v(-0.5, 0.5)}
        if self.maybe() and len(shape) == 1:
            feed = {"linear_features": shape[0]}
        elif self.maybe() and len(shape) == 3:
            feed = {"conv2d_channels": shape[0], "kernel_size": draw.choice([1, 3])}
        on = {"init_hidden": True, "output": output}
        makers: dict[str, Callable[[], nn.Module]] = {
            "Leaky": lambda: snn.Leaky(v(0.2, 1.0), **common, **late, **graded, **ways, **on),
            "Synaptic": lambda: snn.Synaptic(v(0.2, 0.9), v(0.2, 0.9), **common, **late, **ways, **on),
            "Alpha": lambda: snn.Alpha(0.9, 0.6, **common, **on),
            "Lapicque": lambda: snn.Lapicque(R=5.0, C=1.0, **common, **on),
            "RLeaky": lambda: snn.RLeaky(v(0.2, 0.9), **feed, **common, **late, **ways, **on),
            "RSynaptic": lambda: snn.RSynaptic(v(0.2, 0.9), v(0.2, 0.9), **feed, **common, **late, **ways, **on),
            "DeltaLeaky": lambda: First(snn.DeltaLeaky(beta=v(0.3, 1.0), delta_threshold=0.3, init_hidden=True)),
            "IF": lambda: snn.IF(threshold=v(0.4, 1.2), **on),
            "LI": lambda: snn.LI(v(0.3, 0.9), **on),
            "ParametricLIF": lambda: snn.ParametricLIF(threshold=0.4, **on),
            "ALIF": lambda: snn.ALIF(v(0.3, 0.9), threshold=v(0.3, 1.0), **on),
            "RALIF": lambda: snn.RALIF(**feed, **on),
            "AdLIF": lambda: Scaled(First(snn.AdLIF(**{**on, "output": True})), 4.0),
            "CuBaLIF": lambda: snn.CuBaLIF(**on),
            "QIF": lambda: snn.QIF(**on),
            "EIF": lambda: snn.EIF(**on),
            "Izhikevich": lambda: Scaled(First(snn.Izhikevich(**{**on, "output": True})), 40.0),
            "ResonateFire": lambda: snn.ResonateFire(**on),
            "NoisyLeaky": lambda: snn.NoisyLeaky(0.8, **on),
            "cell": lambda: draw.choice([Adapting, Curved])(**on),
            "charge": lambda: Slow(reset_mechanism=resets["reset_mechanism"], **on),
        }
        names = [*makers, "Leaky", "Leaky", "Synaptic", "RLeaky", "RSynaptic", "cell"]
        names.remove("NoisyLeaky") if self.maybe(0.7) else None
        if len(shape) == 1:
            size, n = draw.randint(1, 6), shape[0]
            makers |= {
                "SLSTM": lambda: snn.SLSTM(n, size, threshold=0.1, **resets, **on),
                "StateLeaky": lambda: First(snn.StateLeaky(0.7, n, threshold=0.8)),
                "LinearLeaky": lambda: First(snn.LinearLeaky(0.8, n, size)),
                "LeakyParallel": lambda: snn.LeakyParallel(n, size, 0.8, weight_hh_enable=draw.random() < 0.5),
                "AssociativeLeaky": lambda: snn.AssociativeLeaky(n, 2, 3, 6, use_q_projection=draw.random() < 0.5),
            }
            name = draw.choice([*names, *list(makers)[-5:]])
            sizes = {"LinearLeaky": size, "LeakyParallel": size, "SLSTM": size}
            self.shape = (sizes.get(name, n),)
            made = makers[name]()
            if name == "AssociativeLeaky":
                self.shape = (4 if made.use_q_projection else 6,)
            return made
        if len(shape) == 3 and self.maybe(0.1):
            options = draw.choice([{}, {"max_pool": 2}, {"avg_pool": 2}]) if min(shape[1:]) > 1 else {}
            out = draw.randint(1, 3)
            pool = 2 if options else 1
            self.shape = (out, shape[1] // pool, shape[2] // pool)
            return snn.SConv2dLSTM(shape[0], out, 3, threshold=0.1, **options, **resets, **on)
        return makers[draw.choice(names)]()


def step(u: Tensor) -> Tensor:
    """A spike function of a user's."""
    return (u > 0).to(u.dtype)


def exact(net: nn.Module, draw: random.Random) -> nn.Module:
    """The network with weights that are multiples of 1/64, and statistics of norms."""
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, snn.DelayedLinear)):
            weight = module.parametrizations.weight.original if parametrize.is_parametrized(module) else module.weight
            fan = weight[0].numel()
            weight.data = ((torch.randn_like(weight) + 0.2) * 192 / fan**0.5).round() / 64
            if module.bias is not None:
                module.bias.data = (torch.rand_like(module.bias) * 16).round() / 64
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.3, 1.5)
    return net


def inputs(shape: Shape, steps: int | None, seed: int) -> Tensor:
    """Spikes, counts or real numbers: [T, 3, ...], or [3, ...] with steps."""
    torch.manual_seed(seed)
    x = torch.rand(*([] if steps else [12]), 3, *shape)
    return [(x < 0.3).float(), (x * 4).floor(), 3 * x - 0.7][seed % 3]

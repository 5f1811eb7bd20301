"""The codes as modules, for networks whose input are numbers."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..neurons._unrolled_run import UnrolledRun, current_run
from .codes import burst, delta, phase, population, rate, rate_conv
from .latencies import latency


class Encoder(nn.Module):
    """Abstract base class of the encoder modules.

    A module calls the function of the same name with the arguments of its constructor. They are attributes; tensors are
    buffers, which follow `.to()`. Input and output are those of the function: [B, *N] becomes [T, B, *N].

    It can be the first layer of a network that `spikeloom.unroll` runs on a static input. It then produces all steps:
    `snn.unroll(net, x, steps=T)` with num_steps=T. In a loop over steps it is not supported: encode first, and loop
    over the spikes.
    """

    function: ClassVar[Callable[..., Tensor]]
    _names: tuple[str, ...] = ()
    _without_steps: ClassVar[bool] = True

    def _keep(self, given: Mapping[str, Any]) -> None:
        """Store the arguments of a constructor."""
        super().__init__()
        self._names = tuple(name for name in given if name not in ("self", "__class__"))
        for name in self._names:
            if isinstance(given[name], Tensor):
                self.register_buffer(name, given[name], persistent=False)
            else:
                setattr(self, name, given[name])

    def forward(self, data: Tensor) -> Tensor:
        """Encode data [B, *N] as [T, B, *N]; in an unrolled network [T*B, *N], with time folded into dimension 0."""
        unrolled = current_run()
        return self._encode(data) if unrolled is None else self._unrolled(data, unrolled)

    def extra_repr(self) -> str:
        """The arguments that differ from the defaults."""
        defaults = {name: p.default for name, p in inspect.signature(type(self)).parameters.items()}
        given = {name: getattr(self, name) for name in self._names}
        differs = {name: value for name, value in given.items() if isinstance(value, Tensor) or value != defaults[name]}
        return ", ".join(f"{name}={value!r}" for name, value in differs.items())

    def _encode(self, data: Tensor) -> Tensor:
        return type(self).function(data, **{name: getattr(self, name) for name in self._names})

    def _unrolled(self, data: Tensor, unrolled: UnrolledRun) -> Tensor:
        label = unrolled.label(self, type(self).__name__)
        given = self._over_time(data, unrolled, label)
        with unrolled.aside():
            spk = self._encode(given)
        if len(spk) != unrolled.steps:
            raise ValueError(f"{label} generates {len(spk)} steps, but the network is unrolled over {unrolled.steps}")
        return unrolled.fold(spk)

    def _over_time(self, data: Tensor, unrolled: UnrolledRun, label: str) -> Tensor:
        """The input of the code in an unrolled network, which is the same at all steps."""
        if unrolled.is_static(data):
            return data
        steps = unrolled.unfold(data, lambda: label)
        if not torch.equal(steps, steps[:1].expand_as(steps)):
            raise ValueError(
                f"{label} generates all steps from a static input, but its input changes from step to step; "
                "encode before the network is unrolled: snn.unroll(net, encode(x))"
            )
        return steps[0]


class _OverTime(Encoder):
    """An encoder whose input is a sequence."""

    def _over_time(self, data: Tensor, unrolled: UnrolledRun, label: str) -> Tensor:
        static = unrolled.is_static(data)
        return data.expand(unrolled.steps, *data.shape) if static else unrolled.unfold(data, lambda: label)


class Rate(Encoder):
    """`rate` as a module, with the same arguments: [B, *N] to [T, B, *N].

    >>> import torch, spikeloom as snn
    >>> from spikeloom import spikegen
    >>> encode = spikegen.Rate(num_steps=25, gain=0.5)
    >>> encode
    Rate(num_steps=25, gain=0.5)
    >>> encode(torch.rand(8, 3)).shape
    torch.Size([25, 8, 3])
    >>> net = torch.nn.Sequential(encode, torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
    >>> snn.unroll(net, torch.rand(8, 3), steps=25).shape
    torch.Size([25, 8, 4])
    """

    function = staticmethod(rate)

    def __init__(
        self,
        num_steps: int,
        gain: float | Tensor = 1,
        offset: float | Tensor = 0,
        first_spike_time: int = 0,
        *,
        generator: torch.Generator | None = None,
    ):
        self._keep(locals())


class RateConv(Encoder):
    """`rate_conv` as a module: [*S] to [*S]. It draws new spikes at every step, in a loop or unrolled.

    >>> import torch, spikeloom as snn
    >>> from spikeloom import spikegen
    >>> net = torch.nn.Sequential(spikegen.RateConv(), snn.Leaky(beta=0.9, init_hidden=True))
    >>> net(torch.rand(8, 3)).shape, snn.unroll(net, torch.rand(8, 3), steps=25).shape
    (torch.Size([8, 3]), torch.Size([25, 8, 3]))
    """

    function = staticmethod(rate_conv)
    _without_steps = False

    def __init__(self, *, generator: torch.Generator | None = None):
        self._keep(locals())

    def forward(self, data: Tensor) -> Tensor:
        """Draw one spike or none per element."""
        return self._encode(data)


class Latency(Encoder):
    """`latency` as a module, with the same arguments: [B, *N] to [T, B, *N].

    >>> import torch
    >>> from spikeloom import spikegen
    >>> spikegen.Latency(num_steps=3, normalize=True, linear=True)(torch.tensor([0.0, 0.5, 1.0]))
    tensor([[0., 0., 1.],
            [0., 1., 0.],
            [1., 0., 0.]])
    """

    function = staticmethod(latency)

    def __init__(
        self,
        num_steps: int | bool = False,
        threshold: float = 0.01,
        tau: float = 1,
        first_spike_time: float = 0,
        on_target: float = 1,
        off_target: float = 0,
        clip: bool = False,
        normalize: bool = False,
        linear: bool = False,
        interpolate: bool = False,
        bypass: bool = False,
        epsilon: float = 1e-7,
        *,
        stretch: bool = False,
    ):
        self._keep(locals())


class Delta(_OverTime):
    """`delta` as a module, with the same arguments: [T, B, *N] to [T, B, *N]. Its input is a sequence.

    >>> import torch, spikeloom as snn
    >>> from spikeloom import spikegen
    >>> net = torch.nn.Sequential(spikegen.Delta(threshold=0.2, off_spike=True), torch.nn.Linear(3, 4))
    >>> snn.unroll(net, torch.rand(25, 8, 3)).shape
    torch.Size([25, 8, 4])
    """

    function = staticmethod(delta)

    def __init__(self, threshold: float | Tensor = 0.1, padding: bool = False, off_spike: bool = False):
        self._keep(locals())


class Population(Encoder):
    """`population` as a module, with the same arguments: [B, *N] to [T, B, *N, num_neurons].

    >>> import torch
    >>> from spikeloom import spikegen
    >>> spikegen.Population(num_steps=10, num_neurons=6)(torch.rand(8, 3)).shape
    torch.Size([10, 8, 3, 6])
    """

    function = staticmethod(population)

    def __init__(
        self,
        num_steps: int,
        num_neurons: int,
        low: float | Tensor = 0.0,
        high: float | Tensor = 1.0,
        beta: float = 1.5,
        code: str = "latency",
        *,
        generator: torch.Generator | None = None,
    ):
        self._keep(locals())


class Phase(Encoder):
    """`phase` as a module, with the same arguments: [B, *N] to [T, B, *N].

    >>> import torch
    >>> from spikeloom import spikegen
    >>> spikegen.Phase(num_steps=3, period=3)(torch.tensor([0.625]))
    tensor([[0.5000],
            [0.0000],
            [0.1250]])
    """

    function = staticmethod(phase)

    def __init__(self, num_steps: int, period: int = 8, weighted: bool = True):
        self._keep(locals())


class Burst(Encoder):
    """`burst` as a module, with the same arguments: [B, *N] to [T, B, *N].

    >>> import torch
    >>> from spikeloom import spikegen
    >>> spikegen.Burst(num_steps=5, max_spikes=3)(torch.tensor([1.0])).flatten()
    tensor([1., 0., 1., 0., 1.])
    """

    function = staticmethod(burst)

    def __init__(
        self,
        num_steps: int,
        max_spikes: int = 5,
        min_interval: int = 2,
        max_interval: int | None = None,
        first_spike_time: int = 0,
    ):
        self._keep(locals())

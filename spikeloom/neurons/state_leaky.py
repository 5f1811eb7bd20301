"""Leaky integrators without reset over whole sequences, with or without a linear layer before them."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .._torch import exporting
from ..caller import warn_caller
from ..cells.firing import Whole
from ..cells.state_leaky import DECAY_OF, STATE_LEAKY, STATE_LEAKY_EXACT
from ..engine.run import choose
from ._neuron import LIF, SpikeGrad
from ._parameters import checked_value, taken
from ._sequence import Ran, WholeSequence

SPIKES: Mapping[str, Any] = {
    "spike_grad": None,
    "surrogate_disable": False,
    "learn_threshold": False,
    "graded_spikes_factor": 1.0,
    "learn_graded_spikes_factor": False,
}
"""Arguments that only affect the spikes, with their defaults."""


class StateLeaky(WholeSequence, LIF):
    """Leaky integrator without reset; one call processes the whole sequence.

    | exact           | membrane                          | spikes                                           |
    | --------------- | --------------------------------- | ------------------------------------------------ |
    | False (default) | mem' = exp(-1 / tau) * mem + x    | spk = graded_spikes_factor^2 * H(mem' - threshold) |
    | True            | mem' = clamp(beta, 0, 1) * mem + x | spk = graded_spikes_factor * H(mem' - threshold)   |

    with tau = 1 / (1 - beta). By default, as in snnTorch, the decay is exp(-(1 - beta)) instead of beta (0.905 for
    beta=0.9, 0.607 for beta=0.5), and the graded factor is applied twice. With ``exact=True`` the decay is beta, and
    the factor is applied once. Every call starts with a membrane of zero; no state is stored.

    Args:
        beta: determines the decay; one number, or one per channel.
        channels: number of channels, the size of the last dimension of the input.
        threshold: membrane above which the neuron fires.
        spike_grad: spike function (see `spikeloom.surrogate`); None is ``surrogate.atan()``.
        surrogate_disable: if True, no gradient flows through the spikes.
        learn_beta: if True, `tau` is learned; with exact=True, `beta`. Both are nn.Parameters, the other one without
            gradient.
        learn_threshold: if True, the threshold is an nn.Parameter.
        state_quant: a function that quantizes the membranes of all steps, after the scan, or False.
        output: if False, return only the membranes.
        graded_spikes_factor: the amplitude of a spike.
        learn_graded_spikes_factor: if True, the amplitude is an nn.Parameter.
        kernel_truncation_steps: K, to sum only the last K inputs: mem[t] = sum_{k < K} d^k * x[t - k], d the decay.
            None sums all.
        exact: if True, the decay is beta, and the graded factor is applied once.

    Shapes:
        input_ [T, B, channels]; returns (spk, mem), each of the input's shape, or mem.
        In an unrolled network (see `spikeloom.unroll`), use it like any other layer.

    Raises:
        ValueError: if the input is not a sequence, a parameter is neither one number nor one per channel, or
            kernel_truncation_steps is below 1.

        >>> import torch, spikeloom as snn
        >>> lif = snn.StateLeaky(beta=0.5, channels=1, exact=True)
        >>> spk, mem = lif(torch.full((4, 1, 1), 0.75))
        >>> spk.flatten(), mem.flatten()
        (tensor([0., 1., 1., 1.]), tensor([0.7500, 1.1250, 1.3125, 1.4062]))
    """

    state_outputs = ("mem",)
    _calls = ("fire", "_base_state_function")
    tau: Tensor
    _exact: bool = False

    def __init__(
        self,
        beta: float | Tensor,
        channels: int,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = True,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
        kernel_truncation_steps: int | None = None,
        exact: bool = False,
    ):
        self._build(locals())

    def _build(self, given: Mapping[str, Any]) -> None:
        kind, channels, K = type(self).__name__, given["channels"], given["kernel_truncation_steps"]
        beta = checked_value(given["beta"], kind, "beta")
        if beta.dim() and beta.shape not in ((channels,), (1,)):
            raise ValueError(f"{kind} got beta of shape {tuple(beta.shape)}; pass one number, or {channels} of them")
        if K is not None and (isinstance(K, bool) or not isinstance(K, int) or K < 1):
            raise ValueError(f"{kind} got kernel_truncation_steps={K!r}; pass a number of steps, 1 or more, or None")
        unused = [name for name, usual in SPIKES.items() if isinstance(given[name], Tensor) or given[name] != usual]
        if unused and not given["output"]:
            warn_caller(f"{kind} with output=False returns no spikes; {', '.join(unused)} changes nothing")
        self._exact = given["exact"]
        learn = given["learn_beta"]
        super()._build({**given, "beta": beta, "tau": 1 / (1 - beta + 1e-12), "learn_tau": learn})
        self.channels, self.kernel_truncation_steps = channels, K
        if learn:
            # both stay in the state_dict, as in snnTorch; the one that is not used requires no gradient
            dict(self.named_parameters())["tau" if self.exact else "beta"].requires_grad_(False)

    @property
    def exact(self) -> bool:
        """Whether the decay is beta, and the graded factor is applied once."""
        return self._exact

    @property
    def model(self) -> Whole:  # type: ignore[override]
        """The equation."""
        return STATE_LEAKY_EXACT if self.exact else STATE_LEAKY

    @property
    def beta(self) -> Tensor:  # type: ignore[override]
        """(tau - 1) / tau; with exact=True, the stored decay."""
        if self.exact:
            beta: Tensor = self.__getattr__("beta")
            return beta
        return (self.tau - 1) / self.tau

    # -- running ----------------------------------------------------------------------------------------------------

    def forward(self, input_: Tensor) -> Any:
        """Process a sequence input_ [T, B, channels]; returns (spk, mem), each of the same shape, or mem."""
        return self._integrated(self._checked(input_))

    def _integrated(self, x: Tensor) -> Any:
        outs = self._over_time(self._whole, x)
        return outs if self.output else outs[0]

    def _whole(self, steps: int, x: Tensor) -> Ran:
        """All steps of x, [T, B, N], or [1, B, N] if it is the same at every step."""
        if self._is_overridden("_base_state_function"):
            mem, spk = self._base_state_function(x.expand(steps, *x.shape[1:])), None
            why = [f"{type(self).__name__} overrides _base_state_function"]
            backend, refusals = "loop", self._no_kernel(why, x)
        else:
            mem, spk, backend, refusals = self._scanned(steps, x)
        if self.state_quant:
            mem = self.state_quant(mem)
        if not self.output:
            return Ran((mem,), backend, refusals)
        if spk is None or self._fires_by_method():
            spk = self.fire(mem) if self.exact else self.fire(mem) * taken(self.graded_spikes_factor)
        return Ran((self._shown(spk.to(x.dtype)), mem), backend, refusals)

    def _scanned(self, steps: int, x: Tensor) -> tuple[Tensor, Tensor | None, str, list[str]]:
        """The membranes, the spikes if the scan computed them, the backend, and the refusals of faster ones."""
        call, K = self._call(steps, x, self._values()), self.kernel_truncation_steps
        if K is None or (not exporting() and steps <= K):
            chosen, refusals = choose(call)
            run = chosen.run(call)
            return run.traces[0], run.spk, chosen.name, refusals
        refusals = self._no_kernel(["a sum over the last steps alone has no kernel"], x)
        name = "beta" if self.exact else "tau"
        inputs = call.x.to(call.states[0].dtype).expand(steps, *call.x.shape[1:])
        return truncated_sums(inputs, DECAY_OF[name](call.params[name]), K), None, "loop", refusals

    def _base_state_function(self, input_: Tensor) -> Tensor:
        """The membranes of a whole sequence, [T, B, channels]."""
        return self._scanned(len(input_), input_)[0]

    # -- methods of neurons with a reset, not supported here --------------------------------------------------------

    def fire_inhibition(self, batch_size: int, mem: Tensor) -> NoReturn:
        """Not supported: neurons without reset do not compete step by step."""
        raise NotImplementedError(f"{type(self).__name__} has no inhibition; use Leaky(inhibition=True)")

    def mem_reset(self, mem: Tensor) -> NoReturn:
        """Not supported: the membrane is never reset."""
        raise NotImplementedError(f"{type(self).__name__} has no reset; use Leaky")


class LinearLeaky(StateLeaky):
    """nn.Linear followed by `StateLeaky`: one matrix product over all steps, then one scan.

    The equations are those of `StateLeaky`, with x the output of the linear layer. The results of the last call are
    stored as `mem` and `spk`, [T, B, out_features]; the next call does not continue from them.

    Args:
        beta: determines the decay; one number, or one per output.
        in_features: size of the input.
        out_features: size of the output, the number of neurons.
        bias: if False, the linear layer has no bias.
        device: device of the linear layer.
        dtype: dtype of the linear layer.
        The other arguments are those of `StateLeaky`.

    Shapes:
        input_ [T, B, in_features]; returns (spk, mem), each [T, B, out_features], or mem.

    Raises:
        The errors of `StateLeaky` and nn.Linear.

        >>> import torch, spikeloom as snn
        >>> spk, mem = snn.LinearLeaky(beta=0.9, in_features=3, out_features=4)(torch.rand(25, 2, 3))
        >>> spk.shape
        torch.Size([25, 2, 4])
    """

    mem: Tensor
    spk: Tensor

    def __init__(
        self,
        beta: float | Tensor,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = True,
        graded_spikes_factor: float | Tensor = 1.0,
        learn_graded_spikes_factor: bool = False,
        kernel_truncation_steps: int | None = None,
        exact: bool = False,
    ):
        self._build(locals() | {"channels": out_features})
        self.linear = nn.Linear(in_features, out_features, bias, device, dtype)

    def _state_names(self) -> tuple[str, ...]:
        return "mem", "spk"

    def _starts_at(self, name: str) -> float:
        return 0.0

    def forward(self, input_: Tensor) -> Any:
        """Process a sequence input_ [T, B, in_features]; returns (spk, mem), each [T, B, out_features], or mem."""
        return self._integrated(self.linear(self._checked(input_)))

    def _whole(self, steps: int, x: Tensor) -> Ran:
        ran = super()._whole(steps, x)
        *spk, mem = ran.outs
        if steps:
            self._keep((mem, *(spk or [self.spk])))
        return ran


def truncated_sums(x: Tensor, decay: Tensor, length: int) -> Tensor:
    """mem[t] = sum_{k < K} decay^k * x[t - k], with K = length, for x [T, *S], in a loop of K instead of T steps.

    The difference of two leaky sums, s[t] - decay^K * s[t - K], would lose precision for long sums, and a NaN would
    never leave it. To avoid the subtraction, time is split into blocks of K steps, which are processed in parallel.
    The window that ends at step r of block b is a sum over that block plus a sum over the previous block:

        mem[b, r] = sum_{j <= r} decay^(r - j) x[b, j]  +  decay^(r + 1) * sum_{j > r} decay^(K - 1 - j) x[b - 1, j]
    """
    steps = x.shape[0]
    if exporting():  # by shifted sequences, for any number of steps
        padded = torch.cat((x.new_zeros(length - 1, *x.shape[1:]), x))
        window = padded[:steps]
        for k in range(1, length):
            window = decay * window + padded[k : k + steps]
        return window
    whole = torch.cat((x, x.new_zeros((-steps % length, *x.shape[1:]))))
    rows = whole.unflatten(0, (-1, length)).unbind(1)  # one for each step of a block, [blocks, *S]
    zero, one = torch.zeros_like(rows[0]), torch.ones_like(x[0])
    before, power = [zero], one
    for row in rows[:0:-1]:
        before.append(before[-1] + power * row)
        power = power * decay
    own, power, sums = zero, one, []
    for row, earlier in zip(rows, reversed(before), strict=True):
        own, power = decay * own + row, power * decay
        sums.append(own + power * torch.cat((zero[:1], earlier[:-1])))
    return torch.stack(sums, 1).flatten(0, 1)[:steps]

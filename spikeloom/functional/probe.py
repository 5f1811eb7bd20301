"""Monitors: they record what passes through the modules of a network, call by call, forward and backward.

There is one record per call of a module. In a loop over steps that is one per step, [B, ...]. A network that
`spikeloom.unroll` runs calls each module once: the record is then the whole sequence, [T, B, ...].
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..inspect import Log, with_time
from ..neurons import SpikingNeuron
from ..neurons._unrolled_run import Listener, UnrolledRun, current_run

Kind = type[nn.Module] | tuple[type[nn.Module], ...] | None


def _as_it_is(x: Any) -> Any:
    return x


IDENTITY_LAMBDA: Callable[[Any], Any] = _as_it_is
"""The function that changes nothing, the default of every monitor."""


def unpack_len1_tuple(x: Any) -> Any:
    """The element of a tuple that holds one; anything else as it is.

    >>> unpack_len1_tuple((3,)), unpack_len1_tuple((3, 4))
    (3, (3, 4))
    """
    return x[0] if isinstance(x, tuple) and len(x) == 1 else x


class BaseMonitor:
    """What all monitors share: a list of records, in the order in which they were made, and their layers.

    Not used by itself. Each takes a network, `net`, the class or a tuple of classes of the modules that it records,
    `instance` (None is the class of `net`), and a function: what is recorded is this function of what is seen.
    ``monitor[i]`` is the i-th record, ``monitor["name"]`` the list of those of one layer,
    ``len(monitor)`` their number. As a context manager, or by `remove_hooks`, a monitor lets go of the network; what it
    recorded stays. Records are as the network made them, with their graph: pass a function that ends in ``.detach()``
    to a monitor that runs for long.

    Attributes:
        monitored_layers: the names of the modules that are listened to, as in `named_modules`.
    """

    def __init__(self) -> None:
        self.hooks: list[Any] = []
        self.monitored_layers: list[str] = []
        self._log: Log[tuple[str, Any]] = Log()
        self._enable = True

    @property
    def records(self) -> list[Any]:
        """All records, in order; runs of `spikeloom.unroll` that failed, or had no steps, have none."""
        return [record for _, record in self._kept()]

    @property
    def name_records_index(self) -> dict[str, list[int]]:
        """Which of the records belong to each layer."""
        places: dict[str, list[int]] = {name: [] for name in self.monitored_layers}
        for place, (name, _) in enumerate(self._kept()):
            places[name].append(place)
        return places

    def _kept(self) -> Iterator[tuple[str, Any]]:
        return (entry for entry, steps in self._log.kept() if steps != 0)

    def __getitem__(self, which: int | str) -> Any:
        if isinstance(which, int):
            return self.records[which]
        if which in self.monitored_layers:
            return [record for name, record in self._kept() if name == which]
        raise KeyError(f"{which!r} is no layer of this monitor; it has {self.monitored_layers}, and numbers")

    def __len__(self) -> int:
        return len(self.records)

    def clear_recorded_data(self) -> None:
        """Forget all records."""
        self._log.clear()

    def enable(self) -> None:
        """Record again."""
        self._enable = True

    def disable(self) -> None:
        """Record nothing until `enable`."""
        self._enable = False

    def is_enable(self) -> bool:
        """Whether it records."""
        return self._enable

    def remove_hooks(self) -> None:
        """Let go of the network for good."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove_hooks()

    def __del__(self) -> None:
        self.remove_hooks()

    def _listen(self, net: nn.Module, instance: Kind) -> Iterator[tuple[str, nn.Module]]:
        """The modules of the given class, each noted as monitored."""
        if not isinstance(net, nn.Module):
            raise TypeError(f"{type(self).__name__} got a network of type {type(net).__name__}; pass an nn.Module")
        kind = type(net) if instance is None else instance
        for name, module in net.named_modules():
            if isinstance(module, kind):
                self.monitored_layers.append(name)
                yield name, module

    def _record(self, name: str, value: Any, function: Callable[[Any], Any], unrolled: UnrolledRun | None) -> None:
        if not self._enable:
            return
        if unrolled is None:
            self._log.add((name, function(unpack_len1_tuple(value))), None)
            return
        with unrolled.aside():
            self._log.add((name, function(unpack_len1_tuple(with_time(value, unrolled)))), unrolled.counted)


class _Relay(Listener):
    """Tells a monitor what it sees. The monitor is held weakly: one that is dropped lets go of the network."""

    def __init__(self, hears: Callable[..., None], name: str):
        self.hears, self.name = weakref.WeakMethod(hears), name

    def __call__(self, *args: Any) -> None:
        hears = self.hears()
        if hears is not None:
            hears(self.name, *args)


class _StateRelay(_Relay):
    """The same on a neuron whose state at every step is wanted."""

    wants_states = True


class OutputMonitor(BaseMonitor):
    """Records the outputs of modules.

    Arguments are those that `BaseMonitor` says. A tuple of one output is recorded as that output; a longer one, such as
    (spk, mem), as a tuple.

        >>> import torch, spikeloom as snn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True))
        >>> with OutputMonitor(net, snn.Leaky, function_on_output=lambda spk: spk.sum().item()) as monitor:
        ...     _ = net(torch.zeros(2, 3))
        >>> monitor.monitored_layers, monitor.records, monitor["1"]
        (['1'], [0.0], [0.0])
    """

    def __init__(
        self, net: nn.Module, instance: Kind = None, function_on_output: Callable[[Any], Any] = IDENTITY_LAMBDA
    ):
        super().__init__()
        self.function_on_output = function_on_output
        for name, module in self._listen(net, instance):
            self.hooks.append(module.register_forward_hook(_Relay(self._hear, name)))

    def _hear(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._record(name, output, self.function_on_output, current_run())


class InputMonitor(BaseMonitor):
    """Records the positional inputs of modules.

    Arguments are those that `BaseMonitor` says. A single input is recorded as a tensor, several as a tuple.

        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4))
        >>> monitor = InputMonitor(net, torch.nn.Linear)
        >>> _ = net(torch.zeros(1, 3))
        >>> monitor["0"]
        [tensor([[0., 0., 0.]])]
    """

    def __init__(
        self, net: nn.Module, instance: Kind = None, function_on_input: Callable[[Any], Any] = IDENTITY_LAMBDA
    ):
        super().__init__()
        self.function_on_input = function_on_input
        for name, module in self._listen(net, instance):
            self.hooks.append(module.register_forward_hook(_Relay(self._hear, name)))

    def _hear(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._record(name, args, self.function_on_input, current_run())


class AttributeMonitor(BaseMonitor):
    """Records an attribute of modules, before or after each of their forwards.

    Args:
        attribute_name: the attribute, such as "mem".
        pre_forward: if True, it is read before the forward, else after it.
        net, instance, function_on_attribute: as `BaseMonitor` says.

    A state of a neuron that is unrolled is recorded as a sequence [T, B, ...]: before, or after, every step.

        >>> import torch, spikeloom as snn
        >>> lif = snn.Leaky(beta=0.5, init_hidden=True)
        >>> monitor = AttributeMonitor("mem", False, lif)
        >>> _ = snn.unroll(lif, torch.full((3, 1, 1), 0.5))
        >>> monitor[0].flatten()
        tensor([0.5000, 0.7500, 0.8750])
    """

    def __init__(
        self,
        attribute_name: str,
        pre_forward: bool,
        net: nn.Module,
        instance: Kind = None,
        function_on_attribute: Callable[[Any], Any] = IDENTITY_LAMBDA,
    ):
        super().__init__()
        self.attribute_name, self.pre_forward = attribute_name, pre_forward
        self.function_on_attribute = function_on_attribute
        self._before: dict[str, Tensor] = {}
        for name, module in self._listen(net, instance):
            state = self._is_state(module)
            relay = _StateRelay if state else _Relay
            if pre_forward:
                self.hooks.append(module.register_forward_pre_hook(relay(self._hear_before, name)))
            if state or not pre_forward:
                self.hooks.append(module.register_forward_hook(relay(self._hear_after, name)))

    def _hear_before(self, name: str, module: nn.Module, args: Any) -> None:
        if current_run() is not None and self._is_state(module):
            # the rest of the sequence is known after the forward
            self._before[name] = vars(module)[self.attribute_name]
        else:
            self._record(name, getattr(module, self.attribute_name), self.function_on_attribute, None)

    def _hear_after(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        unrolled = current_run()
        if unrolled is None or not self._is_state(module):
            if not self.pre_forward:
                self._record(name, getattr(module, self.attribute_name), self.function_on_attribute, None)
        elif self._enable:
            with unrolled.aside():
                value = self.function_on_attribute(self._sequence(name, module, unrolled))
                self._log.add((name, value), unrolled.counted)

    def _sequence(self, name: str, neuron: Any, unrolled: UnrolledRun) -> Tensor:
        """The state at every step, [T, B, ...]."""
        after: Tensor = unrolled.visits[neuron].states[neuron._heard_names().index(self.attribute_name)]
        if not self.pre_forward:
            return after
        first = self._before.pop(name)
        first = first if first.shape == after.shape[1:] else torch.zeros_like(after[0])
        return torch.cat((first[None], after[:-1]))

    def _is_state(self, module: nn.Module) -> bool:
        return isinstance(module, SpikingNeuron) and self.attribute_name in module._heard_names()


class _GradMonitor(BaseMonitor):
    """Listens to the backward of modules, and to their forwards, which tell whether time is folded into dimension 0."""

    def __init__(self, net: nn.Module, instance: Kind):
        super().__init__()
        self._times: dict[str, UnrolledRun | None] = {}
        for name, module in self._listen(net, instance):
            self.hooks.append(module.register_forward_hook(_Relay(self._hear_forward, name)))
            self.hooks.append(module.register_full_backward_hook(_Relay(self._hear_backward, name)))

    def _hear_forward(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        unrolled = current_run()
        # one of our own, which does not keep alive what the neurons have done
        self._times[name] = (
            None if unrolled is None else UnrolledRun(unrolled.steps, unrolled.batch, counted=unrolled.counted)
        )

    def _hear_backward(self, name: str, module: nn.Module, grad_input: Any, grad_output: Any) -> None:
        raise NotImplementedError


class GradInputMonitor(_GradMonitor):
    """Records the gradients of the inputs of modules, in the order in which the backward reaches them.

    Arguments are those that `BaseMonitor` says. The gradient of a single input is recorded as a tensor, None if that
    input needs none. A loop over steps is gone through backward in time, and its records stand in that order. An
    unrolled network has one record per module, [T, B, ...]; before its first neuron, where it saw a static input once,
    [B, ...], the sum over time.

        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False))
        >>> _ = torch.nn.init.ones_(net[0].weight)
        >>> monitor = GradInputMonitor(net, torch.nn.Linear)
        >>> net(torch.zeros(1, 2, requires_grad=True)).sum().backward()
        >>> monitor["0"]
        [tensor([[1., 1.]])]
    """

    def __init__(
        self, net: nn.Module, instance: Kind = None, function_on_grad_input: Callable[[Any], Any] = IDENTITY_LAMBDA
    ):
        self.function_on_grad_input = function_on_grad_input
        super().__init__(net, instance)

    def _hear_backward(self, name: str, module: nn.Module, grad_input: Any, grad_output: Any) -> None:
        self._record(name, grad_input, self.function_on_grad_input, self._times.get(name))


class GradOutputMonitor(_GradMonitor):
    """Records the gradients of the outputs of modules, in the order in which the backward reaches them.

    Arguments are those that `BaseMonitor` says. The gradient of a single output is recorded as a tensor; those of
    several, such as (spk, mem), as a tuple, None for one that the loss does not use. Order and shapes are those of
    `GradInputMonitor`.

        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1))
        >>> monitor = GradOutputMonitor(net, torch.nn.Linear)
        >>> net(torch.zeros(1, 2, requires_grad=True)).sum().backward()
        >>> monitor["0"]
        [tensor([[1.]])]
    """

    def __init__(
        self, net: nn.Module, instance: Kind = None, function_on_grad_output: Callable[[Any], Any] = IDENTITY_LAMBDA
    ):
        self.function_on_grad_output = function_on_grad_output
        super().__init__(net, instance)

    def _hear_backward(self, name: str, module: nn.Module, grad_input: Any, grad_output: Any) -> None:
        self._record(name, grad_output, self.function_on_grad_output, self._times.get(name))

"""Monitors, which record inputs, outputs, attributes and gradients of the modules of a network.

Each call of a module adds one record: in a loop over steps one per step, [B, ...]. `spikeloom.unroll` calls each module
once, so the record is the whole sequence, [T, B, ...].
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..inspect import Log, with_time
from ..neurons import SpikingNeuron
from ..neurons._unrolled_run import RunHook, UnrolledRun, current_run

__all__ = [
    "AttributeMonitor", "BaseMonitor", "GradInputMonitor", "GradOutputMonitor", "InputMonitor", "OutputMonitor",
    "unpack_len1_tuple",
]  # fmt: skip

Kind = type[nn.Module] | tuple[type[nn.Module], ...] | None


def _as_it_is(x: Any) -> Any:
    return x


IDENTITY_LAMBDA: Callable[[Any], Any] = _as_it_is
"""The identity function, the default of every monitor."""


def unpack_len1_tuple(x: Any) -> Any:
    """Return the element of a tuple of length one, and anything else unchanged.

    >>> unpack_len1_tuple((3,)), unpack_len1_tuple((3, 4))
    (3, (3, 4))
    """
    return x[0] if isinstance(x, tuple) and len(x) == 1 else x


class BaseMonitor:
    """Abstract base class of the monitors: a list of records in chronological order, and the names of their layers.

    Common arguments: the network `net`; `instance`, the class or tuple of classes of the modules to record (None is
    the class of `net`); and a function whose result is recorded instead of the value.

    ``monitor[i]`` is the i-th record, ``monitor["name"]`` the list of records of one layer, ``len(monitor)`` the number
    of records. `remove_hooks`, or the end of a ``with`` block, removes the hooks but not the records. Records keep
    their autograd graph: in long runs, pass a function that ends in ``.detach()``.

    Attributes:
        monitored_layers: names of the recorded modules, as in `named_modules`.
    """

    def __init__(self) -> None:
        self.hooks: list[Any] = []
        self.monitored_layers: list[str] = []
        self._log: Log[tuple[str, Any]] = Log()
        self._enable = True

    @property
    def records(self) -> list[Any]:
        """All records, in order. Runs of `spikeloom.unroll` that failed, or had no steps, add none."""
        return [record for _, record in self._kept()]

    @property
    def name_records_index(self) -> dict[str, list[int]]:
        """The indices of the records of each layer."""
        places: dict[str, list[int]] = {name: [] for name in self.monitored_layers}
        for place, (name, _) in enumerate(self._kept()):
            places[name].append(place)
        return places

    def _kept(self) -> Iterator[tuple[str, Any]]:
        return (entry for entry, steps in self._log.entries() if steps != 0)

    def __getitem__(self, which: int | str) -> Any:
        if isinstance(which, int):
            return self.records[which]
        if which in self.monitored_layers:
            return [record for name, record in self._kept() if name == which]
        raise KeyError(f"{which!r} is not a layer of this monitor; pass an index, or one of {self.monitored_layers}")

    def __len__(self) -> int:
        return len(self.records)

    def clear_recorded_data(self) -> None:
        """Clear all records."""
        self._log.clear()

    def enable(self) -> None:
        """Resume recording."""
        self._enable = True

    def disable(self) -> None:
        """Pause recording until `enable`."""
        self._enable = False

    def is_enable(self) -> bool:
        """Whether the monitor is recording."""
        return self._enable

    def remove_hooks(self) -> None:
        """Remove all hooks from the network."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove_hooks()

    def __del__(self) -> None:
        self.remove_hooks()

    def _matching(self, net: nn.Module, instance: Kind) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules of the given class, and add them to `monitored_layers`."""
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


class _Relay(RunHook):
    """A hook that calls a method of a monitor, by a weak reference, so that hooks do not keep the monitor alive."""

    def __init__(self, receive: Callable[..., None], name: str):
        self.receive, self.name = weakref.WeakMethod(receive), name

    def __call__(self, *args: Any) -> None:
        receive = self.receive()
        if receive is not None:
            receive(self.name, *args)


class _StateRelay(_Relay):
    """A hook on a neuron whose state at every step is required."""

    wants_states = True


class OutputMonitor(BaseMonitor):
    """Record the outputs of modules.

    For arguments see `BaseMonitor`. A tuple of length one is recorded as its element, a longer one, such as (spk, mem),
    as a tuple.

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
        for name, module in self._matching(net, instance):
            self.hooks.append(module.register_forward_hook(_Relay(self._receive, name)))

    def _receive(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._record(name, output, self.function_on_output, current_run())


class InputMonitor(BaseMonitor):
    """Record the positional inputs of modules.

    For arguments see `BaseMonitor`. A single input is recorded as a tensor, several as a tuple.

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
        for name, module in self._matching(net, instance):
            self.hooks.append(module.register_forward_hook(_Relay(self._receive, name)))

    def _receive(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._record(name, args, self.function_on_input, current_run())


class AttributeMonitor(BaseMonitor):
    """Record an attribute of modules, before or after each forward.

    Args:
        attribute_name: name of the attribute, such as "mem".
        pre_forward: if True, it is read before the forward, else after it.
        net, instance, function_on_attribute: see `BaseMonitor`.

    In an unrolled network, the state of a neuron is recorded as a sequence [T, B, ...], before or after every step.

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
        for name, module in self._matching(net, instance):
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
        after: Tensor = unrolled.visits[neuron].states[neuron._recorded_names().index(self.attribute_name)]
        if not self.pre_forward:
            return after
        first = self._before.pop(name)
        first = first if first.shape == after.shape[1:] else torch.zeros_like(after[0])
        return torch.cat((first[None], after[:-1]))

    def _is_state(self, module: nn.Module) -> bool:
        return isinstance(module, SpikingNeuron) and self.attribute_name in module._recorded_names()


class _GradMonitor(BaseMonitor):
    """Hooks on the backward of modules, and on their forward, to know whether time is folded into dimension 0."""

    def __init__(self, net: nn.Module, instance: Kind):
        super().__init__()
        self._times: dict[str, UnrolledRun | None] = {}
        for name, module in self._matching(net, instance):
            self.hooks.append(module.register_forward_hook(_Relay(self._hear_forward, name)))
            self.hooks.append(module.register_full_backward_hook(_Relay(self._hear_backward, name)))

    def _hear_forward(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        unrolled = current_run()
        # a new object, which does not keep the tensors of the neurons alive
        self._times[name] = (
            None if unrolled is None else UnrolledRun(unrolled.steps, unrolled.batch, counted=unrolled.counted)
        )

    def _hear_backward(self, name: str, module: nn.Module, grad_input: Any, grad_output: Any) -> None:
        raise NotImplementedError


class GradInputMonitor(_GradMonitor):
    """Record the gradients of the inputs of modules, in the order of the backward pass.

    For arguments see `BaseMonitor`. The gradient of a single input is recorded as a tensor, or None if the input does
    not require it. Records of a loop over steps begin with the last step. An unrolled network adds one record per
    module, [T, B, ...]. For modules before its first neuron that run once on a static input it is [B, ...], summed over
    time.

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
    """Record the gradients of the outputs of modules, in the order of the backward pass.

    For arguments see `BaseMonitor`. The gradient of a single output is recorded as a tensor, those of several, such as
    (spk, mem), as a tuple, with None for outputs that the loss does not use. For order and shapes see
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

"""Hooks of a module, of which a neuron knows whether they want its states at every step."""

from typing import Any, ClassVar

from torch import nn


class Listener:
    """A hook of a module, held by that module alone: copies and pickles of the module hold one that does nothing."""

    wants_states: ClassVar[bool] = False

    def __call__(self, *args: Any) -> None:
        """Nothing is heard."""

    def muted(self) -> "Listener":
        """A hook that hears nothing, and of which a neuron knows what it knows of this one."""
        return WantsStates() if self.wants_states else Listener()

    def __reduce__(self) -> tuple[Any, ...]:
        return Listener, ()


class WantsStates(Listener):
    """Hears nothing, but wants the states at every step, as one who listened before did."""

    wants_states = True


def wants_states(neuron: nn.Module) -> bool:
    """Whether someone listens to its states at every step, which it otherwise computes only where it returns them."""
    return any(isinstance(hook, Listener) and hook.wants_states for hook in neuron._forward_hooks.values())

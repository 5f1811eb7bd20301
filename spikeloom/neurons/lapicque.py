"""Lapicque's neuron: leaky integrate-and-fire as an RC circuit."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..cells.lapicque import LAPICQUE
from ._neuron import LIF, SpikeGrad
from ._parameters import checked_value
from ._state import by_reset_mem

Given = float | Tensor | bool
"""A number or tensor; False if not given."""


class Lapicque(LIF):
    """Leaky integrate-and-fire neuron as an RC circuit, integrated with the Euler method.

    With R_ = H(mem - threshold), computed from the membrane of the previous step:

    base = time_step / C * x + (1 - time_step / (R * C)) * mem

    | reset_mechanism | membrane                      |
    | --------------- | ----------------------------- |
    | "subtract"      | mem' = base - R_ * threshold  |
    | "zero"          | mem' = (1 - R_) * base        |
    | "none"          | mem' = base                   |

    and spk = H(mem' - threshold). Arguments that are not given follow from beta = exp(-time_step / (R * C)): R and C
    determine beta, beta and R determine C, beta and C determine R; with beta alone, R = 1. The equation does not use
    beta: the membrane decays by 1 - time_step / (R * C) = 1 + ln(beta), close to beta when beta is close to 1.

    Args:
        beta: decay per step, in (0, 1); a number or a tensor that broadcasts over the trailing dimensions.
        R: resistance, in ohm.
        C: capacitance, in farad.
        time_step: length of a step, in seconds.
        learn_beta: if True, beta is an nn.Parameter, and the derived R or C is recomputed from it at every step.
        The other arguments are those of `Leaky`.

    Shapes:
        input_ and mem [B, *N]; returns (spk, mem), each of the input's shape. Unrolled: [T, B, *N].

    Raises:
        ValueError: if neither beta nor both R and C are given, or if all three are given and contradict each other.
        Also the errors of `Leaky`.

    Source: Lapicque, "Recherches quantitatives sur l'excitation électrique des nerfs traitée comme une polarisation",
    1907; Brunel and van Rossum, "Lapicque's 1907 paper: from frogs to integrate-and-fire", 2007.

        >>> import torch, spikeloom as snn
        >>> lif = snn.Lapicque(R=4.0, C=1.0)
        >>> mem = lif.init_lapicque()
        >>> for _ in range(2):
        ...     spk, mem = lif(torch.tensor([0.5]), mem)
        >>> spk, mem
        (tensor([0.]), tensor([0.8750]))
    """

    model = LAPICQUE
    mem: Tensor
    R: Tensor
    C: Tensor
    time_step: Tensor

    def __init__(
        self,
        beta: Given = False,
        R: Given = False,
        C: Given = False,
        time_step: float = 1,
        threshold: float | Tensor = 1.0,
        spike_grad: SpikeGrad | None = None,
        surrogate_disable: bool = False,
        init_hidden: bool = False,
        inhibition: bool = False,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        reset_mechanism: str = "subtract",
        state_quant: Callable[[Tensor], Tensor] | bool = False,
        output: bool = False,
    ):
        options, given = dict(locals()), {"beta": beta, "R": R, "C": C}
        values = {name: checked_value(v, "Lapicque", name) for name, v in given.items() if v is not False}
        self._build(options | _completed(values, checked_value(time_step, "Lapicque", "time_step")))
        self._follows = "R" if "R" not in values and "C" in values else "C"
        if learn_beta:  # R or C may be one number as given, and one per neuron as derived
            self._buffers.update({name: value.detach() for name, value in self._followed(super()._values()).items()})

    def _values(self, copied: bool = True) -> dict[str, Tensor]:
        values = super()._values(copied)
        return values | self._followed(values) if self._learns_beta() else values

    def _numbers(self) -> tuple[float, ...] | None:
        return None if self._learns_beta() else super()._numbers()

    def _learns_beta(self) -> bool:
        return "beta" not in self._buffers  # requires_grad is False within torch.func.vmap

    def _followed(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """R or C, derived from a learned beta and the other value, with gradient."""
        other = values["R" if self._follows == "C" else "C"]
        return {self._follows: _of_beta(self.beta, other, values["time_step"])}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._learns_beta():
            followed = self._followed(super()._values())
            destination.update({prefix + name: value.detach() for name, value in followed.items()})

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        """One step: input_ [B, *N] and, unless init_hidden, mem [B, *N]; returns spk, or (spk, mem)."""
        return self._run(input_, (mem,))

    init_lapicque = by_reset_mem


def _of_beta(beta: Tensor, other: Tensor, time_step: Tensor) -> Tensor:
    """C from beta and R, or R from beta and C: both solve beta = exp(-time_step / (R * C))."""
    return time_step / (other * torch.log(1 / beta))


def _completed(given: Mapping[str, Tensor], time_step: Tensor) -> dict[str, Tensor]:
    """Complete beta, R and C from those that are given."""
    if "R" in given and "C" in given:
        beta = torch.exp(-time_step / (given["R"] * given["C"]))
        beta = beta if beta.dim() else beta.reshape(1)
        if "beta" in given and not torch.allclose(given["beta"].to(beta.dtype), beta, rtol=1e-3):
            raise ValueError(
                f"Lapicque got beta={given['beta'].tolist()}, but R={given['R'].tolist()} and C={given['C'].tolist()} "
                f"give beta={beta.tolist()}; leave one of the three out"
            )
        return {"beta": beta, **given}
    if "beta" not in given:
        raise ValueError(f"Lapicque got {', '.join(given) or 'nothing'}; pass beta, or both R and C")
    beta = given["beta"]
    if "C" in given:
        return {**given, "R": _of_beta(beta, given["C"], time_step)}
    R = given.get("R", torch.tensor(1))
    return {**given, "R": R, "C": _of_beta(beta, R, time_step)}

"""The neurons beside Leaky."""

from types import ModuleType
from typing import Any

import torch

from .fix import Fix, error_of


def immediate_rsynaptic(snn: ModuleType) -> str:
    lif = snn.RSynaptic(0.5, 0.5, all_to_all=False, reset_delay=False)
    return error_of(lambda: lif(torch.ones(1, 2)))


def rsynaptic_reset(snn: ModuleType) -> list[list[float]]:
    """The last spikes after reset_hidden."""
    lif = snn.RSynaptic(0.5, 0.5, all_to_all=False, init_hidden=True)
    lif(torch.full((1, 2), 3.0))
    snn.RSynaptic.reset_hidden()
    return lif.spk.tolist()


def calls_of_recurrent(snn: ModuleType) -> list[int]:
    """In one step with the reset that clears the feedback too."""
    counts = []
    options = {"linear_features": 2, "reset_mechanism": "zero"}
    for lif in (snn.RLeaky(0.5, **options), snn.RSynaptic(0.5, 0.5, **options)):
        calls = []
        lif.recurrent.register_forward_hook(lambda *args, calls=calls: calls.append(args))
        lif(torch.ones(1, 2))
        counts.append(len(calls))
    return counts


def learned_alpha(snn: ModuleType) -> str:
    return error_of(lambda: snn.Alpha(0.9, 0.8, learn_alpha=True)(torch.ones(1, 2)))


def integer_weight(snn: ModuleType) -> str:
    return error_of(lambda: snn.RLeaky(0.5, V=1, all_to_all=False))


def lapicque_learned_twice(snn: ModuleType) -> str:
    lif = snn.Lapicque(0.8, learn_beta=True)

    def train() -> None:
        for _ in range(2):
            lif(torch.ones(1, 2), torch.ones(1, 2))[1].sum().backward()

    return error_of(train)


def lapicque_of_all_three(snn: ModuleType) -> str:
    beta = float(torch.exp(torch.tensor(-0.25)))
    return error_of(lambda: snn.Lapicque(beta, 4.0, 1.0)(torch.ones(1, 2), torch.zeros(1, 2)))


def lapicque_of_three_that_contradict(snn: ModuleType) -> str:
    return error_of(lambda: snn.Lapicque(0.5, 4.0, 1.0)(torch.ones(1, 2), torch.zeros(1, 2)))


def lapicque_per_neuron(snn: ModuleType) -> str:
    return error_of(lambda: snn.Lapicque(torch.tensor([0.5, 0.6])))


def delta_beside_leaky(snn: ModuleType) -> str:
    delta = snn.DeltaLeaky(0.1, beta=0.5)
    error = error_of(snn.Leaky.reset_hidden)
    del delta
    return error


def delta_moved(snn: ModuleType) -> Any:
    """The dtypes of both states after .double()."""
    delta = snn.DeltaLeaky(0.1, beta=0.5, init_hidden=True)
    delta(torch.ones(1, 2))
    delta.double()
    return delta.mem.dtype, delta.mem_prev.dtype


FIXES: dict[str, Fix] = {
    "RSynaptic at once": Fix("`RSynaptic(reset_delay=False)`", immediate_rsynaptic, "TypeError", "nothing"),
    "spikes of RSynaptic": Fix(
        "`RSynaptic.reset_hidden()`, `detach_hidden()`", rsynaptic_reset, [[1.0, 1.0]], [[0.0, 0.0]]
    ),
    "calls of recurrent": Fix(
        '`recurrent` of `RLeaky` and `RSynaptic` with `reset_mechanism="zero"`', calls_of_recurrent, [2, 2], [1, 1]
    ),
    "alpha learned": Fix("`Alpha(learn_alpha=True)`", learned_alpha, "TypeError", "nothing"),
    "integer V": Fix("`RLeaky(V=1)`, `RSynaptic(V=1)`: an integer weight", integer_weight, "RuntimeError", "nothing"),
    "Lapicque learned twice": Fix("`Lapicque(learn_beta=True)`", lapicque_learned_twice, "RuntimeError", "nothing"),
    "Lapicque of beta, R and C": Fix(
        "`Lapicque(beta, R, C)`, all three", lapicque_of_all_three, "AttributeError", "nothing"
    ),
    "Lapicque that contradicts itself": Fix(
        "`Lapicque(beta, R, C)`, all three", lapicque_of_three_that_contradict, "AttributeError", "ValueError"
    ),
    "Lapicque per neuron": Fix(
        "`Lapicque` with a tensor of several values", lapicque_per_neuron, "RuntimeError", "nothing"
    ),
    "DeltaLeaky beside Leaky": Fix(
        "`Leaky.reset_hidden()`, `utils.reset(net)` while a `DeltaLeaky` exists",
        delta_beside_leaky,
        "AttributeError",
        "nothing",
    ),
    "DeltaLeaky moved": Fix(
        "`DeltaLeaky` after `.to(...)`",
        delta_moved,
        (torch.float64, torch.float32),
        (torch.float64, torch.float64),
    ),
}

"""The neurons over whole sequences."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from .fix import Fix, error_of


def dtypes(kind: str, dtype: torch.dtype, *sizes: Any) -> Callable[[ModuleType], Any]:
    """The dtypes of what a layer of that dtype returns, or the name of the error."""

    def dtypes_of(snn: ModuleType) -> Any:
        layer = getattr(snn, kind)(*sizes).to(dtype)
        try:
            outs = layer(torch.ones(3, 1, 2, dtype=dtype))
        except Exception as error:
            return type(error).__name__
        return tuple(out.dtype for out in (outs if isinstance(outs, tuple) else (outs,)))

    return dtypes_of


def state_leaky_without_to(dtype: torch.dtype) -> Callable[[ModuleType], Any]:
    """The same of a StateLeaky whose values stay float32."""

    def dtypes_of(snn: ModuleType) -> Any:
        try:
            return tuple(out.dtype for out in snn.StateLeaky(0.9, 2)(torch.ones(3, 1, 2, dtype=dtype)))
        except Exception as error:
            return type(error).__name__

    return dtypes_of


def waiting_for_a_gradient(snn: ModuleType) -> list[str]:
    """The parameters that ask for a gradient and get none."""
    lif = snn.StateLeaky(0.9, 2, learn_beta=True)
    sum(out.sum() for out in lif(torch.rand(3, 1, 2))).backward()
    return [name for name, p in lif.named_parameters() if p.requires_grad and p.grad is None]


def diagonal(snn: ModuleType) -> bool:
    """Whether a beta per neuron is the diagonal of the recurrent matrix."""
    beta = torch.tensor([0.1, 0.2, 0.3])
    return torch.equal(snn.LeakyParallel(2, 3, beta=beta).rnn.weight_hh_l0.diagonal(), beta)


def beta_of_another_length(snn: ModuleType) -> str:
    return error_of(lambda: snn.LeakyParallel(2, 3, beta=torch.tensor([0.1, 0.2])))


def full_matrix(snn: ModuleType, **options: bool) -> str:
    full = snn.LeakyParallel(2, 3, weight_hh_enable=True).state_dict()
    return error_of(lambda: snn.LeakyParallel(2, 3, **options).load_state_dict(full))


def is_a_neuron(snn: ModuleType) -> bool:
    return isinstance(snn.LeakyParallel(2, 3), snn.SpikingNeuron)


def remembers(snn: ModuleType) -> bool:
    """Whether the spikes of 200 steps with gates of one half are those of its equation."""
    torch.manual_seed(0)
    memory = snn.AssociativeLeaky(2, 2, 2, 4, use_q_projection=False)
    with torch.no_grad():
        memory.to_alpha.weight.zero_()
        memory.to_alpha.bias.zero_()
        x = 4 * torch.rand(200, 1, 2)
        written = memory.to_v(x).unsqueeze(-1) * memory.to_k(x).unsqueeze(-2)
        S, spikes = torch.zeros(1, 2, 2), []
        for w in written:
            S = 0.5 * S + w
            spikes.append((S > 1).float().flatten(1))
        return torch.equal(memory(x), torch.stack(spikes))


def driven_beyond_all_numbers(snn: ModuleType) -> list[float]:
    """Whether two neurons fire at the step after an infinite input."""
    net = snn.LeakyParallel(1, 2, beta=0.5, bias=False)
    with torch.no_grad():
        net.rnn.weight_ih_l0.fill_(1.0)
        spikes: list[float] = net(torch.tensor([[torch.inf], [0.0]]))[1].tolist()
    return spikes


LONG = "`AssociativeLeaky` over a sequence in which the product of the gates falls below about 1e-8"
OTHER = "`StateLeaky` on float64, float16 or bfloat16"
DOUBLE = "`AssociativeLeaky` with a query in float64"

FIXES: dict[str, Fix] = {
    **{
        f"StateLeaky in {dtype}": Fix(OTHER, state_leaky_without_to(dtype), "RuntimeError", new)
        for dtype, new in {
            torch.float64: (torch.float64, torch.float64),
            torch.float16: (torch.float16, torch.float32),
            torch.bfloat16: (torch.bfloat16, torch.float32),
        }.items()
    },
    "LeakyParallel in float64": Fix(
        "`LeakyParallel` in float64: dtype of the spikes",
        dtypes("LeakyParallel", torch.float64, 2, 3),
        (torch.float32,),
        (torch.float64,),
    ),
    "AssociativeLeaky in float64": Fix(
        DOUBLE, dtypes("AssociativeLeaky", torch.float64, 2, 2, 2, 4), "RuntimeError", (torch.float64,)
    ),
    "a beta without gradient": Fix("`StateLeaky(learn_beta=True)`", waiting_for_a_gradient, ["beta"], []),
    "a beta per neuron": Fix("`LeakyParallel` with a beta per neuron", diagonal, False, True),
    "a beta of another length": Fix(
        "`LeakyParallel` with a beta of another length", beta_of_another_length, "nothing", "ValueError"
    ),
    "a full matrix loaded": Fix(
        "a full recurrent matrix loaded into a `LeakyParallel` without `weight_hh_enable`",
        full_matrix,
        "nothing",
        "RuntimeError",
        lambda snn: full_matrix(snn, weight_hh_enable=True),
    ),
    "LeakyParallel is a neuron": Fix("class of `LeakyParallel`", is_a_neuron, False, True),
    "an infinite membrane": Fix(
        "an infinite or NaN membrane in a `LeakyParallel`", driven_beyond_all_numbers, [0.0, 0.0], [1.0, 1.0]
    ),
    "a long memory": Fix(LONG, remembers, False, True),
}

"""The LSTM neurons."""

from types import ModuleType
from typing import Any

import torch

from .fix import Fix


def remembers(snn: ModuleType, **options: Any) -> bool:
    """Whether the second step knows of the first where the layer has not as many inputs as neurons."""
    torch.manual_seed(0)
    lif, x = snn.SLSTM(3, 4, threshold=0.1, **options), torch.ones(1, 3)
    _, syn, mem = lif(x, torch.zeros(1, 4), torch.zeros(1, 4))
    return not torch.equal(lif(x, syn, mem)[2], mem)


def dtypes(snn: ModuleType) -> tuple[torch.dtype, ...]:
    lif = snn.SLSTM(3, 3, threshold=0.1).double()
    states = torch.zeros(1, 3, dtype=torch.float64)
    try:
        return tuple(out.dtype for out in lif(torch.ones(1, 3, dtype=torch.float64), states, states))
    except RuntimeError:
        return ()


FIXES: dict[str, Fix] = {
    "memory of an SLSTM": Fix(
        "`SLSTM` with `input_size` unlike `hidden_size`",
        remembers,
        False,
        True,
        lambda snn: remembers(snn, memoryless=True),
    ),
    "float64 of an SLSTM": Fix(
        "`SLSTM` and `SConv2dLSTM` in float64",
        dtypes,
        (torch.float32, torch.float64, torch.float64),
        (torch.float64,) * 3,
    ),
}

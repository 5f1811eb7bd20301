"""The LSTM neurons."""

import warnings
from types import ModuleType
from typing import Any

import torch

from .fix import Fix, error_of


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


def without_a_batch(snn: ModuleType) -> str:
    return error_of(lambda: snn.SLSTM(2, 3, threshold=0.1)(torch.ones(2)))


def even_kernel(snn: ModuleType) -> str:
    return error_of(lambda: snn.SConv2dLSTM(1, 1, kernel_size=2, threshold=0.1)(torch.ones(1, 1, 4, 4)))


def warned_of_silence(snn: ModuleType) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        snn.SLSTM(2, 2)
    return any("cannot fire" in str(warning.message) for warning in caught)


FIXES: dict[str, Fix] = {
    "memory of an SLSTM": Fix(
        "`SLSTM` with `input_size` other than `hidden_size`",
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
    "SLSTM without a batch": Fix(
        "`SLSTM` on `[input_size]`, without a batch", without_a_batch, "RuntimeError", "nothing"
    ),
    "even kernel of an SConv2dLSTM": Fix(
        "`SConv2dLSTM` with an even `kernel_size`", even_kernel, "RuntimeError", "ValueError"
    ),
    "SLSTM that never fires": Fix(
        "`SLSTM` and `SConv2dLSTM` with a threshold of 1 or more", warned_of_silence, False, True
    ),
}

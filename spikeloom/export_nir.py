"""snnTorch's module of the export to NIR, with its behavior: neurons that NIR cannot express are approximated."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from . import export

__all__ = ["export_to_nir"]


def export_to_nir(
    module: nn.Module,
    sample_data: Tensor | Sequence[Tensor],
    model_name: str = "snntorch",
    model_fwd: Callable[..., Any] | Sequence[Any] | None = None,
    ignore_dims: Sequence[int] = (),
    dt: float = 1e-4,
    target: str | None = None,
    allow_approximate: bool = True,
    **options: Any,
) -> Any:
    """Convert a network to a NIR graph as snnTorch does: `spikeloom.export_to_nir` with allow_approximate=True.

    snnTorch writes neurons that reset by subtraction or one step late as if they reset to zero at once, without a
    warning. Scripts that rely on it run here too, with a warning that states how many spikes differ.

    Args:
        The arguments are those of `spikeloom.export_to_nir`; `model_fwd_args` is accepted for `model_fwd`.

    Returns:
        a nir.NIRGraph.

    Raises:
        The errors of `spikeloom.export_to_nir`.

        >>> import torch, spikeloom as snn
        >>> from spikeloom.export_nir import export_to_nir
        >>> lif = snn.Leaky(beta=0.9, reset_mechanism="zero", reset_delay=False, init_hidden=True)
        >>> list(export_to_nir(torch.nn.Sequential(torch.nn.Linear(3, 4), lif), torch.rand(3)).nodes)
        ['input', '0', '1', 'output']
    """
    model_fwd = options.pop("model_fwd_args", model_fwd)
    return export.export_to_nir(
        module, sample_data, model_name, model_fwd, ignore_dims, dt, target, allow_approximate, **options
    )

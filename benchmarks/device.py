"""The device of a run: what is made within `on` lies there, and what was started there is waited for."""

from contextlib import AbstractContextManager, nullcontext

import torch

from .result import CannotRun

DEVICES = ("cpu", "cuda")


def on(device: str) -> AbstractContextManager[object]:
    """Within this context inputs and networks are made on a device.

    Raises:
        CannotRun: if torch sees no such device.
    """
    if device == "cpu":
        return nullcontext()
    if not torch.cuda.is_available():
        raise CannotRun(f"--device got {device}, and torch sees no such device here; install its CUDA or ROCm build")
    return torch.device(device)


def draw(seed: int) -> torch.Generator:
    """Random numbers, the same each time."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def fused() -> str:
    """The backend of the fused kernels."""
    return "numba" if torch.get_default_device().type == "cpu" else "triton"


def wait() -> None:
    """Return when the GPU, if one has been used, has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()

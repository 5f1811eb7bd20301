"""The device of a run: create tensors on it, and synchronize with it."""

from contextlib import AbstractContextManager, nullcontext

import torch

from .result import CannotRun

DEVICES = ("cpu", "cuda")


def on(device: str) -> AbstractContextManager[object]:
    """Create inputs and networks on a device within this context.

    Raises:
        CannotRun: if PyTorch finds no such device.
    """
    if device == "cpu":
        return nullcontext()
    if not torch.cuda.is_available():
        raise CannotRun(f"--device got {device}, but PyTorch finds no such device; install its CUDA or ROCm build")
    return torch.device(device)


def draw(seed: int) -> torch.Generator:
    """A seeded random generator."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def fused() -> str:
    """The backend of the fused kernels."""
    return "numba" if torch.get_default_device().type == "cpu" else "triton"


def wait() -> None:
    """Synchronize with the GPU, if one has been used."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()

"""Known layers of torch that process each row of dimension 0 separately and store nothing: they need no check."""

from torch import nn

from ..accelerated import PLAIN
from ..layers import SEES_TIME
from ..neurons import SpikingNeuron
from ..neurons._from_equation import EquationNeuron
from ..neurons._parameters import is_ours
from ..neurons._unrolled_run import RunHook

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)

ROW_BY_ROW = (
    *(nn.Linear, nn.Identity, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Upsample),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.LPPool1d, nn.LPPool2d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.LSTMCell),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.GELU, nn.SiLU, nn.ELU, nn.CELU, nn.SELU, nn.Mish, nn.Sigmoid),
    *(nn.Tanh, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Threshold, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink),
    *(nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LayerNorm, nn.GroupNorm, nn.PixelShuffle, nn.PixelUnshuffle),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *DROPOUT,
)
"""Layers that process each row of a batch separately, or, like BatchNorm, differ unrolled in a documented way."""

CALLED = ("_forward_hooks", "_forward_pre_hooks")


def is_row_by_row(net: nn.Module) -> bool:
    """Whether `net` is a layer that processes each row separately, or a (nested) Sequential of such layers.

    Only exact classes count: a subclass, a forward assigned to an instance, or a hook may do anything.
    """
    hooks = [hook for name in CALLED for hook in getattr(net, name).values()]
    if "forward" in vars(net) or not all(isinstance(hook, RunHook) for hook in hooks):
        return False
    kind: type[nn.Module] = PLAIN.get(type(net), type(net))
    if isinstance(net, SEES_TIME) or getattr(net, "_without_steps", False):
        parts = all(is_ours(type(child)) or is_row_by_row(child) for child in net.children())
        return parts and (is_ours(type(net)) or type(net).forward is EquationNeuron.forward)
    return all(map(is_row_by_row, net.children())) if kind is nn.Sequential else _is_known(net, kind)


def _is_known(layer: nn.Module, kind: type[nn.Module]) -> bool:
    if isinstance(layer, nn.Flatten) and kind is nn.Flatten:
        return layer.start_dim >= 1
    if isinstance(layer, nn.Unflatten) and kind is nn.Unflatten:
        return isinstance(layer.dim, int) and layer.dim >= 1
    return kind in ROW_BY_ROW


def runs_straight(net: nn.Module) -> bool:
    """Whether a static input stays static up to the first neuron and is not used after it."""
    return _meets_neuron(net) is not None


def _meets_neuron(module: nn.Module) -> bool | None:
    """Whether a chain of known layers reaches a neuron; None if it is not such a chain, or draws random numbers."""
    if isinstance(module, SpikingNeuron):
        return True
    if module._forward_hooks or module._forward_pre_hooks:
        return None
    kind = PLAIN.get(type(module), type(module))
    if kind is not nn.Sequential:
        return False if kind not in DROPOUT and _is_known(module, kind) else None
    for child in module.children():
        met = _meets_neuron(child)
        if met is None or met:
            return met
    return False

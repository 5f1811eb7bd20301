"""Networks that are known, without a comparison, to treat dimension 0 as a batch and to keep nothing but states."""

from torch import nn

from ..accelerated import PLAIN
from ..layers import SEES_TIME
from ..neurons._from_equation import EquationNeuron
from ..neurons._parameters import is_ours
from ..neurons._time import Listener

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
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
)
"""Layers that treat each row of a batch by itself, or, as BatchNorm, differ unrolled in the way that is documented."""

CALLED = ("_forward_hooks", "_forward_pre_hooks")


def is_row_by_row(net: nn.Module) -> bool:
    """Whether it is a Sequential, nested or not, of layers that treat each row by itself, or one such layer.

    Exact classes count: a subclass, a forward assigned to one module and a hook may do anything.
    """
    hooks = [hook for name in CALLED for hook in getattr(net, name).values()]
    if "forward" in vars(net) or not all(isinstance(hook, Listener) for hook in hooks):
        return False
    kind: type[nn.Module] = PLAIN.get(type(net), type(net))
    if isinstance(net, SEES_TIME) or getattr(net, "_without_steps", False):
        parts = all(is_ours(type(child)) or is_row_by_row(child) for child in net.children())
        return parts and (is_ours(type(net)) or type(net).forward is EquationNeuron.forward)
    if kind is nn.Sequential:
        return all(map(is_row_by_row, net.children()))
    if isinstance(net, nn.Flatten) and kind is nn.Flatten:
        return net.start_dim >= 1
    if isinstance(net, nn.Unflatten) and kind is nn.Unflatten:
        return isinstance(net.dim, int) and net.dim >= 1
    return kind in ROW_BY_ROW

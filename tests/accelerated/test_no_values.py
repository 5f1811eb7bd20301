"""Accelerated layers of nothing: no rows, features, images or pixels; forward and backward, as torch has them."""

import copy

import pytest
import torch
from torch import nn

import spikeloom as snn

LIMITS = {
    "linear_least_work": 0,
    "linear_least_rows": 0,
    "narrow_from": 0,
    "conv_least_work": 0,
    "conv_least_channels": 0,
    "conv_least_inputs": 0,
    "pooling_least_values": 0,
    "chunk_images_from": 0,
}
ROWS = [(0, 4), (0, 5, 4), (5, 0, 4), (4,), (0,), (2, 0), (0, 0), (3, 4)]
IMAGES = [(0, 2, 8, 8), (3, 2, 0, 8), (3, 2, 8, 0), (3, 0, 8, 8), (3, 2, 1, 1), (0, 8, 8), (0, 0, 8, 8), (3, 2, 8, 8)]
NETWORKS = {
    "Linear": (lambda: nn.Linear(4, 3), ROWS),
    "Linear of many outputs": (lambda: nn.Linear(4, 64), ROWS),
    "Linear without bias": (lambda: nn.Linear(4, 3, bias=False), ROWS),
    "Linear of no inputs": (lambda: nn.Linear(0, 64), ROWS),
    "Linear of no outputs": (lambda: nn.Linear(4, 0), ROWS),
    "Linear of neither": (lambda: nn.Linear(0, 0), ROWS),
    "Linear and norm": (lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval(), ROWS),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3), [(0, 2, 8), (3, 2, 0), (3, 0, 8), (3, 2, 8)]),
    "Conv2d": (lambda: nn.Conv2d(2, 3, 3), IMAGES),
    "Conv2d with padding": (lambda: nn.Conv2d(2, 64, 3, padding="same"), IMAGES),
    "Conv2d in groups": (lambda: nn.Conv2d(2, 4, 3, groups=2), IMAGES),
    "Conv2d and pooling": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2)), IMAGES),
    "Conv2d, norm and pooling": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.AvgPool2d(2)).eval(),
        IMAGES,
    ),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), IMAGES),
    "MaxPool2d, side by side": (lambda: nn.MaxPool2d(2, stride=1), IMAGES),
    "AvgPool2d": (lambda: nn.AvgPool2d(2, ceil_mode=True), IMAGES),
}


def outcome(net: nn.Module, shape: tuple[int, ...]) -> list[object]:
    """Result and gradients; or the error."""
    x = torch.ones(shape, requires_grad=True)
    try:
        out = net(x)
        grads = torch.autograd.grad(out.sum(), [x, *net.parameters()], allow_unused=True)
    except (RuntimeError, ValueError, IndexError) as error:
        return [type(error), str(error)]
    return [out, *grads]


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("low", [True, False], ids=["kernels where they can", "as it is"])
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_comes_of_nothing_as_in_torch(name, low, tuned):
    tuned(**LIMITS if low else {})
    make, shapes = NETWORKS[name]
    plain = make()
    fast = snn.accelerate(copy.deepcopy(plain))
    for shape in shapes:
        for got, wanted in zip(outcome(fast, shape), outcome(plain, shape), strict=True):
            if isinstance(wanted, torch.Tensor):
                torch.testing.assert_close(got, wanted)
            else:
                assert got == wanted, shape

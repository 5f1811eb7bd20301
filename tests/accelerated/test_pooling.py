"""Accelerated pooling gives torch's bits, forward and backward, and keeps a byte where torch keeps eight."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.accelerated import SpikeAvgPool2d, SpikeMaxPool2d

from .conftest import routes


@pytest.fixture(autouse=True)
def any_size(tuned) -> None:
    """Small images too go through the kernels."""
    tuned(pooling_least_values=0)


KINDS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
LAST = torch.channels_last


def images(*shape: int, dtype: torch.dtype = torch.float32, levels: int = 3) -> Tensor:
    """Of few levels, so that windows have several largest values."""
    draw = torch.Generator().manual_seed(3)
    return torch.randint(-levels, levels + 1, shape, generator=draw).to(dtype) / 7


def run(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """The result and the gradient of the input, from a gradient without pattern, whose sums would round."""
    x = x.detach().requires_grad_()
    out = layer(x)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(4)).to(out)
    return [out.detach(), *torch.autograd.grad(out, x, cotangent)]


def compare(layer: nn.Module, x: Tensor, path: str) -> None:
    wanted = run(snn.accelerate(layer, False), x)
    got = run(snn.accelerate(layer), x)
    assert routes(layer, x) == [path]
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


HOW: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {  # the input's shape, the layer's options
    "odd sizes leave a rest": ((2, 17, 9, 37), {"kernel_size": 2}),
    "overlapping": ((3, 4, 9, 7), {"kernel_size": (2, 3), "stride": (2, 1)}),
    "gaps": ((2, 3, 11, 10), {"kernel_size": 2, "stride": (3, 4)}),
    "the whole image": ((2, 5, 2, 3), {"kernel_size": (2, 3), "stride": (2, 1)}),
    "one pixel": ((2, 3, 1, 1), {"kernel_size": 1}),
    "whole windows, ceil_mode": ((2, 3, 6, 6), {"kernel_size": 2, "ceil_mode": True}),
    "no images": ((0, 3, 6, 6), {"kernel_size": 2}),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("kind", "layout"), [("max", torch.contiguous_format), ("max", LAST), ("avg", LAST)])
def test_results_and_gradients_are_torchs_bit_for_bit(kind: str, how: str, layout: torch.memory_format) -> None:
    shape, options = HOW[how]
    x = images(*shape).contiguous(memory_format=layout)
    compare(KINDS[kind](**options), x, "numba" if x.numel() else "torch")


@pytest.mark.parametrize("kind", KINDS)
def test_in_float64_and_for_images_that_lie_apart(kind: str) -> None:
    layer = KINDS[kind](2)
    compare(layer, images(3, 5, 8, 6, dtype=torch.float64), "numba")
    layer = snn.accelerate(layer)
    x = images(6, 5, 8, 12)[::2, :, :, ::2]
    assert torch.equal(layer(x), KINDS[kind](2)(x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_nan_and_infinity_are_taken_as_torch_takes_them(layout: torch.memory_format) -> None:
    x = images(4, 3, 8, 8)
    draw = torch.Generator().manual_seed(5)
    for bad in (float("nan"), float("inf"), -float("inf")):
        x[torch.rand(x.shape, generator=draw) < 0.2] = bad
    x[0] = -float("inf")
    compare(nn.MaxPool2d(2), x.contiguous(memory_format=layout), "numba")


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "padding": ("max", {"kernel_size": 3, "padding": 1}),
    "dilation": ("max", {"kernel_size": 2, "dilation": 2}),
    "windows that stick out": ("avg", {"kernel_size": 2, "stride": 3, "ceil_mode": True}),
    "divisor": ("avg", {"kernel_size": 2, "divisor_override": 3}),
    "large windows": ("avg", {"kernel_size": 9}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_the_rest_is_torchs(other: str) -> None:
    kind, options = OTHERS[other]
    compare(KINDS[kind](**options), images(2, 3, 12, 12), "torch")


def test_so_are_indices_images_without_a_batch_and_errors(tuned) -> None:
    x = images(2, 3, 6, 6)
    out, places = snn.accelerate(nn.MaxPool2d(2, return_indices=True))(x)
    assert (out.shape, places.dtype) == ((2, 3, 3, 3), torch.int64)
    layer = snn.accelerate(nn.MaxPool2d(2))
    assert layer(x[0]).shape == (3, 3, 3)
    with pytest.raises(RuntimeError):
        layer(x[:, :, :1])
    with snn.backend("loop"):
        assert routes(layer, x) == ["torch"]
    tuned(pooling_least_values=x.numel() + 1)
    assert routes(layer, x) == ["torch"]


def test_a_byte_is_kept_for_each_result() -> None:
    x, kept = images(2, 3, 6, 6).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        snn.accelerate(nn.MaxPool2d(2))(x)
        snn.accelerate(nn.AvgPool2d(2))(x)
    assert kept == [54, 0]


def test_it_is_in_place_and_reversible_and_explain_shows_it() -> None:
    net = nn.Sequential(nn.MaxPool2d(2), snn.Leaky(0.5, init_hidden=True), nn.AvgPool2d(2), nn.MaxPool2d(2, padding=1))
    rows = snn.explain(snn.accelerate(net), images(2, 3, 8, 8), steps=5).rows
    assert [(row.kind, row.backend, row.static) for row in rows[::2]] == [
        ("SpikeMaxPool2d", "numba", True), ("SpikeAvgPool2d", "numba", False),
    ]  # fmt: skip
    assert rows[3].backend == "torch"
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert (type(twin[0]), type(twin[2])) == (SpikeMaxPool2d, SpikeAvgPool2d)
    assert [type(layer) for layer in snn.accelerate(net, False)[::2]] == [nn.MaxPool2d, nn.AvgPool2d]
    x = images(2, 3, 6, 6).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(snn.accelerate(nn.MaxPool2d(2))(x).sum(), x, create_graph=True)

"""Pooling behind an accelerated convolution is done within it, to the same results."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.accelerated.conv import WITH_CONVOLUTION
from spikeloom.engine.jit import buffer_pool

from ..oracle import assert_close
from .conftest import routes
from .test_accelerate import spikes

LAST, USUAL = torch.channels_last, torch.contiguous_format
KINDS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


@pytest.fixture(autouse=True)
def small(every_size: None, tuned) -> None:
    """Small layers are joined; torch's convolutions go in parts of one to three images."""
    tuned(chunk_images_from=0, fold_least_values=0, fold_least_share=0)
    tuned(chunk_bytes=3 * 4 * 20 * 9 * 8 // torch.get_num_threads())


def network(
    convolve: dict[str, Any], pool: nn.Module, dtype: torch.dtype = torch.float32, inputs: int = 4
) -> nn.Sequential:
    """A convolution and pooling, of small dyadic numbers, whose sums are exact."""
    net = nn.Sequential(nn.Conv2d(inputs, **{"out_channels": 20, "kernel_size": 3, **convolve}), pool).to(dtype)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randint(-8, 9, p.shape, generator=draw) / 8)
    return net


def run(net: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, then the gradients of the input and all parameters."""
    x = x.detach().requires_grad_()
    out = net(x)
    pull = spikes(*out.shape, density=0.9, kind="signed").to(out)
    return [out, *torch.autograd.grad(out, [x, *net.parameters()], pull)]


def compare(net: nn.Sequential, x: Tensor, joined: bool = True) -> list[Tensor]:
    """The accelerated network against the plain one."""
    wanted = run(snn.accelerate(net, False), x)
    got = run(snn.accelerate(net), x)
    assert (routes(net, x)[-1] == WITH_CONVOLUTION) == joined
    assert torch.equal(got[0], wanted[0])
    for ours, theirs in zip(got, wanted, strict=True):
        # sums of small dyadic numbers, unless these have been divided
        assert_close(ours, theirs, "gradients", exact=isinstance(net[-1], nn.MaxPool2d))
    assert got[0].stride() == wanted[0].stride()
    return got


HOW: dict[str, tuple[tuple[int, ...], dict[str, Any], dict[str, Any]]] = {  # images, convolution, pooling
    "whole windows": ((8, 4, 10, 8), {}, {"kernel_size": 2}),
    "odd sizes leave a rest": ((7, 4, 9, 11), {"padding": 1, "bias": False}, {"kernel_size": 2}),
    "overlapping": ((7, 4, 11, 9), {"kernel_size": (3, 2)}, {"kernel_size": (2, 3), "stride": (2, 1)}),
    "gaps": ((5, 4, 12, 13), {"stride": (1, 2), "dilation": (2, 1)}, {"kernel_size": 2, "stride": 3}),
    "the whole image": ((5, 4, 6, 5), {"out_channels": 33}, {"kernel_size": (4, 3)}),
    "one channel, one image": ((1, 1, 8, 8), {"out_channels": 1}, {"kernel_size": 2, "ceil_mode": True}),
    "one pixel": ((5, 4, 3, 3), {}, {"kernel_size": 1}),
}


KERNELS = [  # which of them are compiled, seconds for each; torch's convolution does all
    ("whole windows", "max", USUAL, torch.float32), ("odd sizes leave a rest", "max", LAST, torch.float32),
    ("one channel, one image", "max", USUAL, torch.float32), ("overlapping", "avg", LAST, torch.float64),
    ("gaps", "max", USUAL, torch.float64), ("one pixel", "avg", USUAL, torch.float32),
]  # fmt: skip


@pytest.mark.parametrize(("how", "kind", "layout", "dtype"), KERNELS)
def test_results_and_gradients_are_those_of_both_layers(
    how: str, kind: str, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    shape, convolve, pool = HOW[how]
    x = spikes(*shape, density=0.1).to(dtype).contiguous(memory_format=layout)
    net = network(convolve, KINDS[kind](**pool), dtype, shape[1])
    compare(net, x)
    assert routes(net, x)[0] == "sparse"


@pytest.mark.parametrize("frozen", ["weight", "bias", "input"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    net, x = snn.accelerate(network({}, nn.MaxPool2d(2))), spikes(6, 4, 9, 8, density=0.1)
    parts = {"weight": net[0].weight, "bias": net[0].bias, "input": x.requires_grad_()}
    parts[frozen].requires_grad_(False)
    net(x).sum().backward()
    assert [name for name, part in parts.items() if part.grad is None] == [frozen]
    with torch.no_grad():
        assert torch.equal(net(x), snn.accelerate(net, False)(x))


class Own(nn.MaxPool2d):
    """Pooling of one's own."""


APART: dict[str, Callable[[nn.Sequential], Any]] = {
    "behind a hook": lambda net: net[0].register_forward_hook(lambda *_: None),
    "with a hook": lambda net: net[1].register_forward_pre_hook(lambda *_: None),
    "with a hook of the backward": lambda net: net[1].register_full_backward_hook(lambda *_: None),
    "with another forward": lambda net: vars(net[1]).update(forward=nn.MaxPool2d(2).forward),
    "strict": lambda net: snn.accelerate(net, strict=True),
    "of one's own": lambda net: net.__setitem__(1, Own(2)),
    "with padding": lambda net: net[1].__setattr__("padding", 1),
    "dilated": lambda net: net[1].__setattr__("dilation", 2),
    "sticking out": lambda net: (net[1].__setattr__("ceil_mode", True), net[1].__setattr__("kernel_size", 4)),
    "in torch's convolution": lambda net: net[0].__setattr__("padding_mode", "circular"),
}


@pytest.mark.parametrize("why", APART)
def test_it_runs_by_itself(why: str) -> None:
    net, x = snn.accelerate(network({"padding": 1}, nn.MaxPool2d(2))), spikes(6, 4, 9, 8, density=0.1)
    APART[why](net)
    got = net(x)
    assert routes(net, x)[1] != WITH_CONVOLUTION
    assert torch.equal(got, snn.accelerate(net, False)(x))


def test_so_it_does_behind_torchs_convolution_and_indices_are_refused() -> None:
    x = spikes(6, 4, 9, 8, density=0.9)
    for least in (0, 1 << 40):
        with snn.tuning(chunk_images_from=least):
            compare(network({}, nn.MaxPool2d(2)), x, joined=False)
    net = snn.accelerate(network({}, nn.MaxPool2d(2, return_indices=True)))
    assert net(x)[1].dtype == torch.int64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert snn.accelerate(network({}, nn.MaxPool2d(2)))(x).dtype == torch.bfloat16
    with pytest.raises(RuntimeError):
        net(x[:, :3])
    assert snn.accelerate(network({}, nn.AvgPool2d(2)))(x[0]).shape == (20, 3, 3)


def test_a_layer_may_be_used_twice_and_a_norm_stand_between(tuned) -> None:
    net = nn.Sequential(*network({}, nn.BatchNorm2d(20)), nn.AvgPool2d(2)).eval()
    x = spikes(6, 4, 9, 8, density=0.1)
    wanted, got = run(net, x), run(snn.accelerate(net), x)
    assert routes(net, x)[1:] == ["folded", WITH_CONVOLUTION]
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close(ours, theirs, "folded and pooled")
    assert routes(net.train(), x)[1:] == ["torch", "numba"]
    tuned(conv_dense_above=2)  # the second convolution has few zeros in its input
    convolve, pool = network({"padding": 1}, nn.MaxPool2d(2), inputs=20)
    compare(nn.Sequential(convolve, pool, convolve, pool), spikes(6, 20, 8, 8, density=0.1))


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("where", ["weight", "gradient", "input"])
def test_nan_and_infinity_flow_as_through_both_layers(where: str, bad: float) -> None:
    net, x, found = network({}, nn.MaxPool2d(2)), spikes(6, 4, 9, 8, density=0.1), []
    with torch.no_grad():
        if where != "gradient":
            {"weight": net[0].weight, "input": x}[where][2, 3, 1, 1] = bad
    for on in (False, True):
        given = x.clone().requires_grad_()
        out = snn.accelerate(net, on)(given)
        pull = torch.zeros_like(out)
        pull[1, 2, 2, 2] = bad if where == "gradient" else 1
        found.append([t.isfinite() for t in (out, *torch.autograd.grad(out, [given, *net.parameters()], pull))])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


def test_the_result_of_the_convolution_is_not_kept_nor_made_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    images = buffer_pool.images

    def noting(made: list[Any], shape: Any, *args: Any, **how: Any) -> Tensor:
        made.append(shape)
        return images(shape, *args, **how)

    x, net, made = spikes(8, 4, 10, 8, density=0.1), snn.accelerate(network({}, nn.MaxPool2d(2))), []
    monkeypatch.setattr(buffer_pool, "images", partial(noting, made))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        net(x)
    assert kept == [x.numel(), 20 * 4 * 9, 8 * 20 * 4 * 3]
    assert all(shape[2:] == (4, 3) for shape in made)


@pytest.mark.parametrize("wrapped", [False, True])  # whether unroll sees at once what is static
def test_explain_tells_and_a_static_input_passes_once(wrapped: bool, tuned) -> None:
    tuned(conv_dense_above=2)
    net = nn.Sequential(*network({"padding": 1}, nn.MaxPool2d(2)), snn.Leaky(0.5, init_hidden=True))
    net.extend([nn.Conv2d(20, 20, 3, padding=1), nn.AvgPool2d(2), snn.Leaky(0.5, init_hidden=True)])
    net = snn.accelerate(nn.Sequential(net, nn.Identity()) if wrapped else net)
    if wrapped:
        net[1].register_forward_hook(lambda *_: None)
    x = spikes(6, 4, 9, 8, density=0.1)
    rows = snn.explain(net, x, steps=7).rows
    told = [(row.backend, row.static) for row in rows if row.kind.endswith("Pool2d")]
    assert told == [(WITH_CONVOLUTION, True), (WITH_CONVOLUTION, False)]
    spk = snn.unroll(net, x, steps=7)
    snn.utils.reset(net)
    assert torch.equal(spk, snn.unroll(net, x.expand(7, *x.shape)))
    snn.utils.reset(net)
    assert torch.equal(spk, snn.unroll(snn.accelerate(net, False), x, steps=7))


@pytest.mark.compile
def test_what_kernels_cannot_differentiate_falls_back_or_is_refused() -> None:
    net, x = snn.accelerate(network({}, nn.MaxPool2d(2))), spikes(6, 4, 9, 8, density=0.1).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(net(x).sum(), x, create_graph=True)
    with snn.backend("loop"):
        assert net(x).grad_fn.name() == "MaxPool2DWithIndicesBackward0"
    assert torch.func.grad(lambda x: net(x).sum())(x.detach()).shape == x.shape
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="eager")(x), net(x))


def test_the_threads_do_not_change_a_bit() -> None:
    """Of a convolution by kernels; torch's own may differ by its number of threads."""
    net, x, found = (
        snn.accelerate(nn.Sequential(nn.Conv2d(4, 20, 3), nn.MaxPool2d(2))),
        spikes(9, 4, 9, 8, density=0.1),
        [],
    )
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(net(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])

"""Accelerated convolutions give what plain ones give, and stay nn.Conv2d layers."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.accelerated import SpikeConv2d, conv
from spikeloom.engine import tuning
from spikeloom.engine.sparse import conv as kernels

from ..oracle import assert_close
from .conftest import CONVOLUTION, routes
from .test_accelerate import spikes


@pytest.fixture(autouse=True)
def any_size(tuned) -> None:
    """Small layers too go through the kernels."""
    tuned(**CONVOLUTION)


def layer_of(inputs: int, outputs: int, kernel: Any, dtype: torch.dtype = torch.float32, **how: Any) -> nn.Conv2d:
    draw = torch.Generator().manual_seed(inputs)
    layer = nn.Conv2d(inputs, outputs, kernel, dtype=dtype, **how)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randint(-8, 9, p.shape, generator=draw) / 8)
    return layer


def run(layer: nn.Module, x: Tensor, density: float = 1.0) -> list[Tensor]:
    """The output, then the gradients of the input and the parameters, from a gradient that is that dense."""
    x = x.detach().requires_grad_()
    out = layer(x)
    cotangent = spikes(*out.shape, density=density, kind="signed").to(out)
    return [out, *torch.autograd.grad(out, [x, *layer.parameters()], cotangent)]


def compare(layer: nn.Conv2d, x: Tensor, density: float) -> list[Tensor]:
    wanted = run(layer, x, density)
    got = run(snn.accelerate(layer), x, density)
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close(ours, theirs, "sums of small dyadic numbers", exact=True)
    return got


HOW: dict[str, tuple[tuple[int, ...], Any, dict[str, Any]]] = {  # the input's shape, the kernel, the layer's options
    "plain": ((3, 12, 12, 12), 5, {}),
    "one image, one channel, one pixel": ((1, 1, 3, 3), 3, {}),
    "padded, many outputs": ((5, 3, 9, 11), 3, {"padding": 1, "outputs": 70}),
    "kernel as the image": ((3, 2, 4, 7), (4, 7), {}),
    "strides": ((4, 5, 11, 9), (3, 2), {"stride": (2, 3), "padding": (1, 0)}),
    "stride beyond the kernel": ((4, 5, 11, 12), 2, {"stride": 3}),
    "dilated rows": ((4, 5, 11, 9), 3, {"dilation": (3, 1), "bias": False}),
    "dilated": ((4, 5, 11, 13), (2, 3), {"dilation": (2, 3), "stride": (3, 2), "padding": (2, 4)}),
    "more padding than image": ((3, 2, 2, 2), 3, {"padding": 5, "stride": 2}),
    "same": ((3, 4, 7, 8), (3, 5), {"padding": "same", "outputs": 65}),
}


@pytest.mark.parametrize("name", HOW)
@pytest.mark.parametrize(
    ("dtype", "kind"), [(torch.float32, "0/1"), (torch.float32, "signed"), (torch.float64, "graded")]
)
def test_output_and_gradients_are_those_of_the_dense_convolution(
    name: str, dtype: torch.dtype, kind: str, monkeypatch: pytest.MonkeyPatch, tuned
) -> None:
    tuned(conv_dense_above=2, conv_dense_weight_above=2, conv_dense_input_above=2)
    monkeypatch.setattr(conv, "_dense", lambda *_: (None, None))  # no gradient is torch's
    shape, kernel, how = HOW[name]
    layer = layer_of(shape[1], how.get("outputs", 7), kernel, dtype, **{k: v for k, v in how.items() if k != "outputs"})
    compare(layer, x := spikes(*shape, density=0.1, kind=kind).to(dtype), 0.2)
    assert routes(layer, x) == ["sparse"]


def test_an_image_with_few_zeros_is_convolved_as_well(tuned) -> None:
    tuned(conv_dense_above=2)
    x = spikes(3, 4, 9, 9, density=0.1)
    x[1] = spikes(4, 9, 9, density=0.9, kind="signed")
    layer = layer_of(4, 70, 3)
    compare(layer, x, 1.0)
    assert routes(layer, x) == ["sparse"]


@pytest.mark.parametrize("density", [0.1, 0.9])  # of the gradient; the kernels and torch in turn
def test_any_memory_order_will_do(density: float) -> None:
    x, layer = spikes(6, 4, 9, 8, density=0.1), layer_of(4, 20, 3, padding=1)
    orders = {
        "channels last": x.contiguous(memory_format=torch.channels_last),
        "columns first": x.transpose(2, 3).contiguous().transpose(2, 3),
        "the same image": x[:1].expand(6, -1, -1, -1),
        "a part": torch.cat([x, x], 3)[..., 8:],
    }
    usual, last = layer.weight.data, layer.weight.data.contiguous(memory_format=torch.channels_last)
    for given in orders.values():
        for weight in (usual, last):
            layer.weight.data = weight
            out, *_ = compare(snn.accelerate(layer, False), given, density)
            assert routes(layer, given) == ["sparse"]
            assert out.stride() == snn.accelerate(layer, False)(given).stride()


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch, tuned) -> list[int]:
    """How many images each of torch's convolutions gets, where large ones go in chunks of three."""
    made: list[int] = []
    convolve = torch.conv2d
    monkeypatch.setattr(torch, "conv2d", lambda x, *args: made.append(len(x)) or convolve(x, *args))
    tuned(chunk_images_from=0)
    tuned(chunk_bytes=3 * 4 * 20 * 9 * 8 // torch.get_num_threads())
    return made


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("how", [{}, {"bias": False}, {"groups": 2}, {"stride": 2, "dilation": 2, "padding": 6}])
def test_large_dense_images_go_in_chunks(how: dict[str, Any], layout: torch.memory_format, parts: list[int]) -> None:
    x = spikes(8, 4, 9, 8, density=0.9).contiguous(memory_format=layout)
    layer = layer_of(4, 20, 3, **{"padding": 1, **how})
    out, *_ = compare(layer, x, 1.0)
    assert parts == [3, 3, 2]
    assert routes(layer, x) == ["dense"]
    assert out.stride() == snn.accelerate(layer, False)(x).stride()


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1, 2)])
def test_chunks_give_the_gradients_that_are_wanted_and_theirs(wanted: tuple[int, ...], parts: list[int]) -> None:
    given = [torch.rand(shape, dtype=torch.float64) for shape in ((8, 2, 9, 8), (20, 2, 3, 3), (20,))]
    learned, patch = [given[i].requires_grad_() for i in wanted], kernels.Patch((3, 3), *[(1, 1)] * 3)

    def run(*_: Tensor) -> Tensor:
        return conv._Chunked.apply(*given, patch, 1).pow(2)

    assert torch.autograd.gradcheck(run, learned, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, learned, fast_mode=True)
    assert set(parts) == {1}  # of 8 bytes a value, twice as large


def test_what_is_not_large_or_strict_goes_as_a_whole(parts: list[int], tuned) -> None:
    x = spikes(8, 4, 9, 8, density=0.9)
    few, many = layer_of(4, 2, 3), layer_of(4, 20, 3)
    snn.accelerate(many, strict=True)(x)
    snn.accelerate(layer_of(4, 20, 3, padding=1, padding_mode="circular"))(x)
    assert not parts
    for layout, layer, chunks in [
        (torch.contiguous_format, few, True), (torch.contiguous_format, many, True),
        (torch.channels_last, few, False), (torch.channels_last, many, True),
    ]:  # fmt: skip
        tuned(chunk_images_from=x.nbytes - 1)
        snn.accelerate(layer)(x.contiguous(memory_format=layout))
        assert bool(parts) == chunks
        parts.clear()
        tuned(chunk_images_from=1 << 40)
        layer(x)
        assert not parts


def test_spikes_behind_a_convolution_can_still_be_viewed() -> None:
    """As forwards written for torch's layers do."""
    net = snn.accelerate(nn.Sequential(layer_of(4, 20, 3), nn.MaxPool2d(2), snn.Leaky(0.5, init_hidden=True)))
    out = snn.unroll(net, x := spikes(5, 6, 4, 9, 8, density=0.1))
    assert routes(net[0], x[0]) == ["sparse"]
    assert out.view(5, 6, -1).shape == (5, 6, 20 * 3 * 3)


def test_the_threads_do_not_change_a_bit() -> None:
    layer = snn.accelerate(nn.Conv2d(12, 64, 5))
    x, results = spikes(70, 12, 12, 12, density=0.1), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(layer, x, 0.2))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(ours, first) for ours, first in zip(result, results[0], strict=True))


@pytest.mark.parametrize("where", ["weight", "gradient", "input"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_nan_and_infinity_flow_as_in_the_dense_convolution(where: str, bad: float) -> None:
    layer, x = layer_of(4, 20, 3), spikes(6, 4, 9, 8, density=0.1)
    if where != "gradient":
        with torch.no_grad():
            {"weight": layer.weight, "input": x}[where][2, 3, 1, 1] = bad

    def all_of(layer: nn.Module) -> list[Tensor]:
        given = x.clone().requires_grad_()
        out = layer(given)
        cotangent = torch.zeros_like(out)
        cotangent[:, :, 2, 2] = 1
        cotangent[1, 2, 3, 3] = bad if where == "gradient" else 1
        return [out, *torch.autograd.grad(out, [given, *layer.parameters()], cotangent)]

    for theirs, ours in zip(all_of(layer), all_of(snn.accelerate(layer)), strict=True):
        assert torch.equal(ours.isfinite(), theirs.isfinite())


@pytest.mark.parametrize(("density", "path"), [(0.5, "sparse"), (2, "dense")])
def test_the_density_decides_and_explain_shows_it(density: float, path: str) -> None:
    net = snn.accelerate(nn.Sequential(layer_of(4, 20, 3), nn.MaxPool2d(2), snn.Leaky(beta=0.5, init_hidden=True)))
    x = spikes(10, 4, 4, 9, 8, density=density * tuning.limits.conv_dense_above)
    row = snn.explain(net, x).rows[0]
    reason = "too few inputs are zero; kernels pay off from 80% (conv_dense_above)"
    assert (row.backend, row.refusals) == (path, () if path == "sparse" else (reason,))


def test_explain_shows_the_limit_and_the_size_of_a_small_convolution(tuned) -> None:
    x = spikes(1, 4, 4, 9, 8, density=0.05)
    for limit, value, reason in (
        ("conv_least_channels", 64, "it has 20 output channels; kernels pay off from 64 (conv_least_channels)"),
        ("conv_least_inputs", 256, "it has 36 inputs per output value; kernels pay off from 256 (conv_least_inputs)"),
        (
            "conv_least_work",
            1 << 20,
            "it has 120,960 multiplications; kernels pay off from 1,048,576 (conv_least_work)",
        ),
    ):
        with snn.tuning(**{limit: value}):
            (row,) = snn.explain(nn.Sequential(snn.accelerate(layer_of(4, 20, 3))), x).rows
        assert row.refusals == (reason,)


@pytest.mark.parametrize(
    ("limit", "wanted"), [("conv_dense_weight_above", "weight"), ("conv_dense_input_above", "input")]
)
def test_each_gradient_is_dense_above_its_limit(limit, wanted, monkeypatch: pytest.MonkeyPatch, tuned) -> None:
    asked: list[tuple[bool, bool]] = []
    dense = conv._dense
    monkeypatch.setattr(conv, "_dense", lambda *args: asked.append(args[-2:]) or dense(*args))
    x = spikes(6, 4, 9, 8, density=0.1)
    run(snn.accelerate(layer_of(4, 20, 3)), x, 0.2)
    tuned(**{f"conv_dense_{wanted}_above": 0.01})
    compare(layer_of(4, 20, 3), x, 0.2)
    assert asked == [(False, False), (wanted == "input", wanted == "weight")]


@pytest.mark.parametrize("frozen", ["weight", "bias", "input"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    layer, x = snn.accelerate(layer_of(4, 20, 3)), spikes(6, 4, 9, 8, density=0.1)
    parts = {"weight": layer.weight, "bias": layer.bias, "input": x.requires_grad_()}
    parts[frozen].requires_grad_(False)
    layer(x).sum().backward()
    assert [name for name, part in parts.items() if part.grad is None] == [frozen]


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_what_kernels_cannot_do_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    x = spikes(6, 4, 9, 8, density=0.1)
    for how in ({"groups": 2}, {"padding": 1, "padding_mode": "circular"}, {"kernel": 2, "padding": "same"}):
        layer = layer_of(4, 20, how.pop("kernel", 3), **how)  # type: ignore[arg-type]
        compare(layer, x, 1.0)
        assert routes(layer, x) == ["dense"]
    layer = snn.accelerate(layer_of(4, 20, 3))
    assert layer(x[0]).shape == (20, 7, 6)
    assert layer(x[:0]).shape == (0, 20, 7, 6)
    for wrong in (x[:, :3], x[..., :2]):
        with pytest.raises(RuntimeError):
            layer(wrong)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    for limit in CONVOLUTION:
        assert routes(layer, x) == ["sparse"]
        with snn.tuning(**{limit: 1 << 40}):
            assert routes(layer, x) == ["dense"]
            (row,) = snn.explain(snn.accelerate(nn.Sequential(layer)), x[None]).rows
            assert limit in row.refusals[0]


def test_a_static_input_is_not_repeated() -> None:
    net = snn.accelerate(nn.Sequential(layer_of(4, 20, 3), snn.Leaky(beta=0.5, init_hidden=True), nn.Conv2d(20, 20, 3)))
    seen: list[int] = []
    for layer in (net[0], net[2]):
        layer.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    x = spikes(6, 4, 9, 8, density=0.1)
    got = snn.unroll(net, x, steps=5)
    assert seen == [6, 30]
    assert routes(net[0], x) == ["sparse"]
    plain = snn.accelerate(copy.deepcopy(net), False)
    snn.utils.reset(plain)
    assert_close(got, snn.unroll(plain, x, steps=5), "the network")


def test_it_is_in_place_and_reversible() -> None:
    net = nn.Sequential(layer_of(4, 20, 3))
    names, weight = list(net.state_dict()), net[0].weight
    snn.accelerate(net)
    assert (list(net.state_dict()), net[0].weight) == (names, weight)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(twin[0]) is SpikeConv2d
    x = spikes(6, 4, 9, 8, density=0.1).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(net(x).sum(), x, create_graph=True)
    assert type(snn.accelerate(net, False)[0]) is nn.Conv2d


def test_what_is_assigned_to_a_layer_counts() -> None:
    """torch reads the padding, and the sizes of the weight, at every call."""
    layer, x = layer_of(3, 5, 3), spikes(4, 3, 9, 9, density=0.05)
    layer.padding = (2, 1)
    compare(layer, x, 0.05)
    assert routes(layer, x) == ["sparse"]
    layer.weight = nn.Parameter(torch.rand(5, 3, 2, 2))
    compare(snn.accelerate(layer, False), x, 0.05)
    assert routes(layer, x) == ["dense"]

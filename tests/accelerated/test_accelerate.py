"""Accelerated Linears give what plain ones give, and stay nn.Linear layers."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

import spikeloom as snn
from spikeloom.accelerated import SpikeLinear
from spikeloom.engine import tuning
from spikeloom.engine.sparse import csr

from ..oracle import assert_close
from .conftest import routes


@pytest.fixture(autouse=True)
def any_size(tuned) -> None:
    """Small layers too go through the kernels."""
    tuned(linear_least_work=0)
    tuned(linear_least_rows=0)
    tuned(linear_listing=0)


def layer_of(width: int, bias: bool, dtype: torch.dtype = torch.float32) -> nn.Linear:
    draw = torch.Generator().manual_seed(width)
    layer = nn.Linear(width, 33, bias, dtype=dtype)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randint(-8, 9, p.shape, generator=draw) / 8)
    return layer


def spikes(*shape: int, density: float, kind: str = "0/1") -> Tensor:
    draw = torch.Generator().manual_seed(1)
    sizes = {"0/1": torch.ones(shape), "graded": torch.randint(1, 9, shape, generator=draw) / 4}
    sizes["signed"] = sizes["graded"] * (2 * torch.randint(0, 2, shape, generator=draw) - 1)
    return sizes[kind] * (torch.rand(shape, generator=draw) < density)


def run(layer: nn.Linear, x: Tensor, cotangent: Tensor) -> list[Tensor | None]:
    """The output, then the gradients of the input and the parameters."""
    x = x.clone().requires_grad_()
    out = layer(x)
    return [out, *torch.autograd.grad(out, [x, *layer.parameters()], cotangent)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["0/1", "graded", "signed"])
@pytest.mark.parametrize("shape", [(70,), (3, 70), (300, 65), (4, 5, 70)])
def test_output_and_gradients_are_those_of_the_dense_product(
    bias: bool, dtype: torch.dtype, kind: str, shape: tuple[int, ...]
) -> None:
    layer = layer_of(shape[-1], bias, dtype)
    x = spikes(*shape, density=0.05, kind=kind).to(dtype)
    cotangent = (torch.randint(-8, 9, (*shape[:-1], 33), generator=torch.Generator().manual_seed(2)) / 8).to(dtype)
    wanted = run(layer, x, cotangent)
    snn.accelerate(layer)
    got = run(layer, x, cotangent)
    assert routes(layer, x) == ["sparse"]
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close(ours, theirs, "sums of small dyadic numbers", exact=True)


@pytest.mark.parametrize("where", ["weight", "gradient", "input"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_nan_and_infinity_flow_as_in_the_dense_product(where: str, bad: float) -> None:
    layer, x, cotangent = layer_of(70, True), spikes(9, 70, density=0.05), torch.ones(9, 33)
    with torch.no_grad():
        {"weight": layer.weight, "gradient": cotangent, "input": x}[where][2, 3] = bad
    wanted, got = run(layer, x, cotangent), run(snn.accelerate(layer), x, cotangent)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours.isfinite(), theirs.isfinite())


@pytest.mark.parametrize(("share", "path"), [(0.5, "sparse"), (2, "dense")])
def test_the_density_decides_and_explain_shows_it(share: float, path: str) -> None:
    density = share * tuning.limits.linear_dense_above
    net = snn.accelerate(nn.Sequential(layer_of(70, True), snn.Leaky(beta=0.5, init_hidden=True)))
    row = snn.explain(net, spikes(20, 8, 70, density=density)).rows[0]
    reason = "too few inputs are zero; kernels pay off from 73% (linear_dense_above, linear_listing)"
    assert (row.backend, row.refusals) == (path, () if path == "sparse" else (reason,))


def test_what_kernels_cannot_do_stays_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = snn.accelerate(layer_of(70, True)), spikes(9, 70, density=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        assert routes(layer, x) == ["dense"]
    with pytest.raises(RuntimeError):
        layer(x[:, :3])
    for limit in ("linear_least_work", "linear_least_rows"):
        assert routes(layer, x) == ["sparse"]
        with snn.tuning(**{limit: 1 << 40}):
            assert routes(layer, x) == ["dense"]
            (row,) = snn.explain(snn.accelerate(nn.Sequential(layer)), x[None]).rows
            what = {"linear_least_work": "20,790 multiplications", "linear_least_rows": "9 rows"}[limit]
            assert row.refusals == (f"it has {what}; kernels pay off from {1 << 40:,} ({limit})",)


def test_few_outputs_are_dense_for_listing_the_inputs_would_cost_more(tuned) -> None:
    layer, x = snn.accelerate(layer_of(70, True)), spikes(9, 70, density=0.05)  # of 33 outputs
    for listing, path in [(5, "sparse"), (9, "dense")]:
        tuned(linear_listing=listing)
        assert routes(layer, x) == [path]


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, on the first tangent
def test_tangents_pass_as_through_a_plain_layer() -> None:
    layer, found = layer_of(70, True), []
    for on in (False, True):
        snn.accelerate(layer, on)
        with forward_ad.dual_level():
            x = forward_ad.make_dual(spikes(9, 70, density=0.05), spikes(9, 70, density=0.5))
            found.append(forward_ad.unpack_dual(layer(x)).tangent)
    assert torch.equal(*found)


def test_a_gradient_that_is_mostly_zero_is_multiplied_by_its_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of(70, True), spikes(300, 70, density=0.05)
    cotangent = spikes(300, 33, density=0.05, kind="signed")
    wanted, products = run(layer, x, cotangent), []
    product = csr.product
    monkeypatch.setattr(csr, "product", lambda *args: products.append(args[0].shape) or product(*args))
    for ours, theirs in zip(run(snn.accelerate(layer), x, cotangent), wanted, strict=True):
        assert torch.equal(ours, theirs)
    assert products == [(300, 70), (300, 33)]


def test_the_threads_do_not_change_a_bit() -> None:
    layer, x, cotangent = snn.accelerate(layer_of(70, True)), spikes(3000, 70, density=0.05), torch.rand(3000, 33)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(33, 70))
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run(layer, x, cotangent))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_static_input_is_not_repeated() -> None:
    lif = snn.Leaky(beta=0.5, threshold=2.5, init_hidden=True)
    net = snn.accelerate(nn.Sequential(layer_of(70, True), lif, nn.Linear(33, 5)))
    rows = snn.explain(net, spikes(8, 70, density=0.05), steps=6).rows
    assert [(row.backend, row.static) for row in rows[::2]] == [("sparse", True), ("sparse", False)]


@pytest.mark.compile
def test_it_compiles_as_one_graph() -> None:
    net = snn.accelerate(nn.Sequential(layer_of(70, True), snn.Leaky(beta=0.5, init_hidden=True)))
    x = spikes(4, 3, 70, density=0.05)
    with torch.no_grad():
        wanted = snn.unroll(net, x)
        snn.utils.reset(net)
        compiled = torch.compile(lambda x: snn.unroll(net, x), fullgraph=True, backend="eager")
        assert_close(compiled(x), wanted, "spikes", exact=True)


def test_it_is_in_place_and_reversible_and_leaves_neurons_alone() -> None:
    net = nn.Sequential(layer_of(70, True), snn.RLeaky(beta=0.5, linear_features=33, init_hidden=True))
    names, weight = list(net.state_dict()), net[0].weight
    assert snn.accelerate(net) is net
    assert [type(net[0]), type(net[1].recurrent)] == [SpikeLinear, nn.Linear]
    assert (list(net.state_dict()), net[0].weight) == (names, weight)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(twin[0]) is SpikeLinear
    assert type(snn.accelerate(net, False)[0]) is nn.Linear


def test_hooks_are_called() -> None:
    layer, seen = snn.accelerate(layer_of(70, True)), []
    layer.register_forward_hook(lambda module, args, out: seen.append(module))
    assert routes(layer, spikes(9, 70, density=0.05)) == ["sparse"]
    assert seen == [layer]


def test_bad_arguments_are_reported() -> None:
    with pytest.raises(TypeError, match="accelerate got a list; pass a network"):
        snn.accelerate([])  # type: ignore[arg-type]
    layer = snn.accelerate(layer_of(70, True))
    x = spikes(9, 70, density=0.05).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)


def test_a_weight_of_another_size_is_refused_as_by_torch() -> None:
    layer = snn.accelerate(layer_of(70, True))
    layer.weight = nn.Parameter(torch.rand(33, 65))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(spikes(9, 70, density=0.05))


def test_a_tool_that_compares_types_sees_the_layers_again_when_it_is_taken_back():
    net = snn.accelerate(nn.Sequential(nn.Linear(3, 4), snn.Leaky(beta=0.9, init_hidden=True)))
    assert snn.explain(net, torch.rand(2, 1, 3)).rows[0].kind == "SpikeLinear"
    assert isinstance(net[0], nn.Linear)
    assert type(net[0]) is not nn.Linear
    assert type(snn.accelerate(net, False)[0]) is nn.Linear

"""An accelerated Linear of few outputs has a product of its own, which skips nothing and gives what torch's gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import spikeloom as snn
from spikeloom.engine.sparse import csr

from .conftest import routes


@pytest.fixture(autouse=True)
def small(tuned) -> None:
    """No input too small, and threads for the least of work."""
    tuned(narrow_from=0)
    tuned(serial_below=0)


def dyadic(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Eighths, whose products and sums are exact in any order."""
    return (torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)) / 8).to(dtype)


def run(layer: nn.Linear, x: Tensor, cotangent: Tensor, learn: str = "all") -> list[Tensor | None]:
    """The output, then the gradients of the input, the weight and the bias, where they are learned."""
    x = x.clone().requires_grad_(learn != "parameters")
    layer.requires_grad_(learn != "input").zero_grad()
    out = layer(x)
    out.backward(cotangent)
    return [out.detach(), x.grad, layer.weight.grad, None if layer.bias is None else layer.bias.grad]


@pytest.mark.parametrize("learn", ["all", "input", "parameters"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "outputs", "bias"),
    [((70,), 2, True), ((3, 130), 7, True), ((19, 64), 8, False), ((2, 300, 65), 5, True), ((531, 70), 4, False)],
    ids=str,
)
def test_output_and_gradients_are_torchs(shape, outputs, bias, dtype, learn):
    """Rows and columns that fill a tile and that do not, and more rows than make one sum."""
    layer = nn.Linear(shape[-1], outputs, bias, dtype=dtype)
    with torch.no_grad():
        for seed, p in enumerate(layer.parameters()):
            p.copy_(dyadic(*p.shape, seed=seed))
    x, cotangent = dyadic(*shape, seed=2, dtype=dtype), dyadic(*shape[:-1], outputs, seed=3, dtype=dtype)
    wanted = run(layer, x, cotangent, learn)
    got = run(snn.accelerate(layer), x, cotangent, learn)
    assert routes(layer, x) == ["narrow"]
    for ours, theirs in zip(got, wanted, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


def test_it_reads_inputs_and_gradients_in_any_memory_order():
    layer = nn.Linear(70, 8)
    x, cotangent = dyadic(70, 40, seed=1).t(), dyadic(8, 40, seed=2).t()
    wanted = run(layer, x.contiguous(), cotangent.contiguous())
    for ours, theirs in zip(run(snn.accelerate(layer), x, cotangent), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("where", ["weight", "gradient", "input"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_nan_and_infinity_flow_as_in_torchs_product(where: str, bad: float) -> None:
    layer, x, cotangent = nn.Linear(70, 8), dyadic(9, 70, seed=1), torch.ones(9, 8)
    with torch.no_grad():
        {"weight": layer.weight, "gradient": cotangent, "input": x}[where][2, 3] = bad
    wanted, got = run(layer, x, cotangent), run(snn.accelerate(layer), x, cotangent)
    for ours, theirs in zip(got, wanted, strict=True):
        assert torch.equal(ours.isfinite(), theirs.isfinite())


@pytest.mark.parametrize(
    "other",
    {
        "one output": lambda tuned: nn.Linear(70, 1),
        "more than a line of the cache": lambda tuned: nn.Linear(70, 17),
        "a small input": lambda tuned: tuned(narrow_from=1 << 20) and nn.Linear(70, 8),
    }.items(),
    ids=lambda other: other[0],
)
def test_where_it_does_not_pay_the_product_is_torchs(other: tuple[str, Callable[..., nn.Linear]], tuned) -> None:
    layer = snn.accelerate(other[1](tuned))
    assert routes(layer, torch.ones(20, 70)) == ["dense"]


def test_a_weight_that_was_replaced_counts_as_it_is():
    layer = snn.accelerate(nn.Linear(70, 8, bias=False))
    layer.weight = nn.Parameter(dyadic(40, 70, seed=1))
    assert torch.equal(layer(x := dyadic(20, 70, seed=2)), x @ layer.weight.t())
    assert routes(layer, x) == ["dense"]


def test_any_number_of_threads_gives_the_same_bits():
    draw = torch.Generator().manual_seed(1)
    x, grad, weight = (torch.rand(shape, generator=draw) for shape in ((999, 150), (999, 9), (9, 150)))
    found, before = [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        try:
            found.append([csr.narrow_product(x, weight, None), csr.narrow_input_gradient(grad, weight)])
        finally:
            torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))

"""Inputs of every shape, layout and dtype: what comes out, in step and in sequence mode, on both backends."""

import pytest
import torch

import spikeloom as snn

from ..oracle import assert_close
from .running import at_once, by_steps, in_both_ways, on_both_backends

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
HALVES = (torch.float16, torch.bfloat16)
SHAPES = {
    "no dimension": (),
    "a vector": (5,),
    "no neuron": (0,),
    "an empty batch": (0, 4),
    "no features": (3, 0),
    "a batch": (3, 4),
    "sequences": (2, 3, 4),
    "images": (2, 3, 4, 5),
    "volumes": (2, 1, 3, 2, 2),
}


def expected(xs: torch.Tensor, beta: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes and membranes by the equation of the default options, in plain torch."""
    mem, spikes, membranes = torch.zeros_like(xs[0]), [], []
    for x in xs:
        mem = beta * mem + x - (mem > 1).to(xs.dtype)
        spikes.append((mem > 1).to(xs.dtype))
        membranes.append(mem)
    return torch.stack(spikes), torch.stack(membranes)


@on_both_backends
@pytest.mark.parametrize("shape", SHAPES)
def test_any_number_of_dimensions_steps_by_the_equation(shape, backend):
    xs = 1.5 * torch.rand(5, *SHAPES[shape])
    with snn.backend(backend):
        spk, mem = by_steps(snn.Leaky(0.5), xs)
    wanted = expected(xs)
    assert_close(spk, wanted[0], "spk", exact=True)
    assert_close(mem, wanted[1], "mem", exact=True)


@on_both_backends
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if SHAPES[shape]])
def test_any_number_of_dimensions_runs_at_once_by_the_equation(shape, backend):
    xs = 1.5 * torch.rand(5, *SHAPES[shape])
    with snn.backend(backend):
        spk, mem = at_once(snn.Leaky(0.5), xs)
    wanted = expected(xs)
    assert_close(spk, wanted[0], "spk", exact=True)
    assert_close(mem, wanted[1], "mem", exact=True)


LAYOUTS = {
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "channels last": lambda x: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
    "every second": lambda x: torch.stack([x, -x], dim=-1).flatten(-2)[..., ::2],
    "time last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "expanded": lambda x: x[:, :1].expand(x.shape),
    "flipped": lambda x: x.flip(-1),
}


@on_both_backends
@in_both_ways
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_in_memory_does_not_matter(layout, run, backend):
    xs = LAYOUTS[layout](1.5 * torch.rand(4, 2, 3, 4, 5)).requires_grad_()
    same = xs.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    with snn.backend(backend):
        outs, wanted = (run(snn.Leaky(0.5), inputs) for inputs in (xs, same))
    for out, want in zip(outs, wanted, strict=True):
        assert torch.equal(out, want)
    cotangent = torch.rand(4, 2, 3, 4, 5).transpose(-1, -2).contiguous().transpose(-1, -2)
    got, want = (torch.autograd.grad((o[0] * cotangent).sum(), leaf)[0] for o, leaf in ((outs, xs), (wanted, same)))
    assert torch.equal(got, want)


def mirrored(x: torch.Tensor) -> torch.Tensor:
    """The same values with their sign turned kept aside by torch, in memory that is taken for contiguous."""
    return torch.complex(torch.zeros_like(x), -x).conj().imag


def total_by_a_mirrored_gradient(x: torch.Tensor) -> torch.Tensor:
    return (torch.complex(torch.zeros_like(x), x).conj() * (1 + 1j)).real.sum()


@on_both_backends
@in_both_ways
def test_a_view_that_is_mirrored_is_read_with_its_sign(run, backend):
    """As an input, a state, a value and a gradient, all [*, 1], which torch calls contiguous whatever the stride."""
    found = []
    for view, total in ((mirrored, total_by_a_mirrored_gradient), (torch.clone, torch.sum)):
        xs, start = torch.linspace(0.2, 1.4, 5).reshape(5, 1).requires_grad_(), torch.tensor([0.5], requires_grad=True)
        with snn.backend(backend):
            lif = snn.Leaky(0.5, threshold=view(torch.tensor([0.75])))
            lif(torch.zeros(1), view(start))
            spk, mem = run(lif, view(xs))
            found.append([spk, mem])
            for out in (mem, lif.mem):
                found[-1] += torch.autograd.grad(total(out), (xs, start), retain_graph=True)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", FLOATS)
@in_both_ways
def test_spikes_have_the_dtype_of_the_input_and_states_one_that_can_add_up(run, dtype):
    spk, mem = run(snn.Leaky(beta=torch.rand(4), threshold=torch.rand(4)), torch.rand(3, 2, 4).to(dtype))
    assert spk.dtype == dtype
    assert mem.dtype == (torch.float32 if dtype in HALVES else dtype)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
@in_both_ways
def test_integers_and_booleans_count_as_the_default_float(run, dtype):
    xs = torch.randint(0, 2, (4, 2, 3)).to(dtype)
    spk, mem = run(snn.Leaky(0.5), xs)
    wanted = expected(xs.float())
    assert_close(spk, wanted[0], "spk", exact=True)
    assert_close(mem, wanted[1], "mem", exact=True)


def test_the_default_float_is_that_of_torch():
    torch.set_default_dtype(torch.float64)
    try:
        assert snn.Leaky(0.5)(torch.ones(2, 3, dtype=torch.int64))[0].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", HALVES)
@in_both_ways
def test_half_inputs_add_up_in_float32(run, dtype):
    """A sum of small currents that half precision would lose."""
    xs = torch.full((300, 1, 1), 2.0**-12, dtype=dtype)
    _, mem = run(snn.Leaky(beta=1.0), xs)
    assert mem[-1].item() == 300 * 2.0**-12


@pytest.mark.parametrize("dtype", HALVES)
def test_a_half_network_trains(dtype):
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), snn.Leaky(0.5, init_hidden=True), torch.nn.Linear(5, 2)).to(dtype)
    net(torch.rand(3, 4, dtype=dtype)).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in net.parameters())


def test_autocast_keeps_states_in_float32():
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), snn.Leaky(0.5))
    with torch.autocast("cpu", torch.bfloat16):
        spk, mem = net(torch.rand(3, 4))
    assert (spk.dtype, mem.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(("beta", "as_if"), [(-0.5, 0.0), (1.7, 1.0), (0, 0.0), (1, 1.0)])
@in_both_ways
def test_a_decay_beyond_zero_to_one_is_clamped(run, beta, as_if):
    xs = torch.rand(5, 2, 3)
    for got, wanted in zip(run(snn.Leaky(beta), xs), run(snn.Leaky(as_if), xs), strict=True):
        assert torch.equal(got, wanted)


@on_both_backends
@in_both_ways
def test_nan_and_inf_pass_through_and_touch_no_other_neuron(run, backend):
    xs = torch.rand(5, 2, 4)
    clean = xs.clone()
    xs[1, 0, 0], xs[1, 0, 1], xs[1, 1, 2] = torch.nan, torch.inf, -torch.inf
    with snn.backend(backend):
        (spk, mem), (_, wanted) = run(snn.Leaky(0.5), xs), run(snn.Leaky(0.5), clean)
    assert bool(mem[1:, 0, 0].isnan().all())
    assert bool((spk[:, 0, 0] == expected(clean)[0][:, 0, 0])[0])
    assert not bool(spk[1:, 0, 0].any()), "a membrane of NaN does not fire"
    assert bool(mem[1:, 1, 2].isneginf().all())
    assert bool(spk[1, 0, 1] == 1)
    hit = torch.zeros(2, 4, dtype=torch.bool)
    hit[0, 0] = hit[0, 1] = hit[1, 2] = True
    assert torch.equal(mem[:, ~hit], wanted[:, ~hit])


def test_no_steps_give_nothing_and_change_nothing():
    lif = snn.Leaky(0.5)
    lif(torch.rand(3, 4))
    before = lif.mem.clone()
    spk, mem = at_once(lif, torch.rand(0, 3, 4))
    assert spk.shape == mem.shape == (0, 3, 4)
    assert torch.equal(lif.mem, before)


def test_inputs_are_left_as_they_were():
    xs = torch.rand(3, 2, 4)
    before = xs.clone()
    for x in xs:
        snn.Leaky(0.5, threshold=0.1)(x)
    assert torch.equal(xs, before)


@pytest.mark.parametrize("name", ["beta", "threshold", "graded_spikes_factor"])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 4), (3, 1), (2, 3, 4), (2, 1, 1)], ids=str)
@in_both_ways
def test_a_parameter_broadcasts_over_the_dimensions_of_a_step(run, shape, name):
    xs, value = torch.rand(3, 2, 3, 4), 0.2 + 0.6 * torch.rand(shape)
    options = {"beta": 0.5, "threshold": 0.4}
    got = run(snn.Leaky(**{**options, name: value}), xs)
    wanted = run(snn.Leaky(**{**options, name: value.expand(2, 3, 4).clone()}), xs)
    for out, want in zip(got, wanted, strict=True):
        assert torch.equal(out, want)
